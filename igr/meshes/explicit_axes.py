"""The mesh with explicit axes that arrays lie on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
from jax.sharding import AxisType
from jaxtyping import PyTree


def explicit_mesh(tree: PyTree) -> Any:
    """The mesh with explicit axes that arrays of a tree lie on, None if there is none.

    >>> print(explicit_mesh({"w": jax.numpy.ones(2)}))
    None
    """
    arrays = (x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array))
    return explicit_mesh_of(jax.typeof(x) for x in arrays)


def explicit_mesh_of(avals: Iterable[Any]) -> Any:
    """The same of the types of arrays."""
    for aval in avals:
        mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
        if mesh is not None and AxisType.Explicit in mesh.axis_types:
            return mesh
    return None
