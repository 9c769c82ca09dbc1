"""The flow of a field at evenly spaced times, in a fixed number of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree


def along_flow(f: Callable[..., PyTree], params: PyTree, t: Array, h: Array, count: int) -> PyTree:
    """The flow at t + h, t + 2 h, .., t + count h, in fixed steps so that h may be traced."""
    if count == 0:
        return None
    substeps = 4 if count == 1 else 1
    dt = h / substeps
    solver, term = diffrax.Dopri8(), diffrax.ODETerm(f)  # pyright: ignore[reportArgumentType]

    def advance(carry: Any, i: Array) -> tuple[Any, PyTree]:
        y, state = carry
        y, _, _, state, _ = solver.step(term, t + i * dt, t + (i + 1) * dt, y, None, state, False)
        return (y, state), y

    start = params, solver.init(term, t, t + dt, params, None)
    _, visited = jax.lax.scan(advance, start, jnp.arange(substeps * count))
    return jax.tree.map(lambda x: x[substeps - 1 :: substeps], visited)
