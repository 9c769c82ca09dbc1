"""Finds the mesh with explicit axes on which arrays lie."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
from jax.sharding import AxisType
from jaxtyping import PyTree


def explicit_mesh(tree: PyTree) -> Any:
    """The mesh with explicit axes on which arrays of a pytree lie, or None.

    >>> print(explicit_mesh({"w": jax.numpy.ones(2)}))
    None
    """
    arrays = (x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array))
    return explicit_mesh_of(jax.typeof(x) for x in arrays)


def explicit_mesh_of(avals: Iterable[Any]) -> Any:
    """The mesh with explicit axes on which arrays of these types lie, or None."""
    for aval in avals:
        mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
        if mesh is not None and AxisType.Explicit in mesh.axis_types:
            return mesh
    return None
