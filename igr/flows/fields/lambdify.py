"""Elementwise sympy expressions as JAX functions on the leaves of pytrees."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import sympy
from jaxtyping import Array, PyTree

from igr.tracing.program import root


class LeafFunctions:
    """Evaluates sympy expressions leaf by leaf, each compiled to JAX once."""

    def __init__(self) -> None:
        self._compiled: dict[sympy.Expr, tuple[list[sympy.Symbol], Any]] = {}

    def __call__(
        self,
        expression: sympy.Expr,
        vectors: dict[sympy.Symbol, PyTree],
        scalars: dict[sympy.Symbol, Any],
        like: PyTree,
    ) -> PyTree:
        """The value of the expression, a pytree with the structure and dtypes of `like`."""
        if expression not in self._compiled:
            atoms = sorted(expression.free_symbols, key=str)
            self._compiled[expression] = (
                atoms,
                # Its root has a slope where a weight is never used, at 0.
                sympy.lambdify(
                    atoms, _storable(expression), modules=[{"sqrt": root}, "jax"], cse=True
                ),
            )
        atoms, function = self._compiled[expression]
        moving = [a for a in atoms if a in vectors]

        def on_leaf(x: Array, *leaves: Array) -> Array:
            values = dict(zip(moving, leaves, strict=True))
            arguments = [values[a] if a in values else scalars[a] for a in atoms]
            value = jnp.asarray(function(*arguments), x.dtype)
            return value if value.shape == x.shape else jnp.full_like(x, value)  # sharded as x is

        return jax.tree.map(on_leaf, like, *(vectors[a] for a in moving))


def _storable(expression: sympy.Expr) -> sympy.Expr:
    """The expression with floats for rationals beyond 32-bit integers, which JAX refuses."""
    large = (r for r in expression.atoms(sympy.Rational) if max(abs(r.p), r.q) >= 2**31)
    return expression.xreplace({r: sympy.Float(r) for r in large})
