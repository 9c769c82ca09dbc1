"""Refuses a flax nnx module whose running statistics are among the parameters."""

from __future__ import annotations

import sys
from typing import Any

import jax

from igr.pytrees import is_trained


def reject_statistics(params: Any) -> None:
    """Raises if params hold floating nnx variables that are not `nnx.Param`, such as `BatchStat`.

    A whole module is a pytree whose floating leaves are not all parameters: a rule would treat
    running means and variances as parameters, and change them.

    Args:
        params: Any pytree.

    Raises:
        ValueError: If a floating leaf belongs to an `nnx.Variable` that is no `nnx.Param`.
    """
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:  # then no leaf is one of its variables
        return

    def is_variable(leaf: Any) -> bool:
        return isinstance(leaf, nnx.Variable)

    for path, leaf in jax.tree_util.tree_leaves_with_path(params, is_leaf=is_variable):
        if not is_variable(leaf) or isinstance(leaf, nnx.Param):
            continue
        if any(map(is_trained, jax.tree.leaves(leaf))):
            raise ValueError(
                f"params{jax.tree_util.keystr(path)} is an nnx.{type(leaf).__name__}, which is no "
                "parameter. Split the module, graph, params, rest = nnx.split(model, nnx.Param, "
                "...), give params, and let the loss call nnx.merge(graph, params, rest, "
                "copy=True)."
            )
