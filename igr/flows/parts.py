"""Replaces parts of an optimizer's state by their names."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def with_parts(state: Any, **values: Any) -> Any:
    """A state with the parts of these names replaced, everywhere, each cast to its old dtype."""
    flatten = jax.tree_util.tree_flatten_with_path
    new: dict[Any, Any] = {
        (name, path): x for name, v in values.items() for path, x in flatten(v)[0]
    }
    leaves, structure = flatten(state)

    def replaced(path: tuple[Any, ...], old: Any) -> Any:
        for i, key in enumerate(path):
            name = getattr(key, "name", getattr(key, "key", None))
            if (name, path[i + 1 :]) in new:
                return jnp.asarray(new[name, path[i + 1 :]]).astype(old.dtype)
        return old

    return jax.tree.unflatten(structure, [replaced(path, x) for path, x in leaves])
