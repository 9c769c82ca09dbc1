"""The mean of many runs in parallel at recorded steps, and the mean's standard error.

Memory is that of all runs and of one mean for each record.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from igr.compiled import Traced, compiled
from igr.progress.expected import expected_seconds
from igr.progress.late_bar import (
    Ticking,
    between_or_within,
    scan,
    ticking,
    under_transformation,
)


class Ensemble(NamedTuple):
    """The mean of many runs at r records.

    Attributes:
      mean: the mean of what was recorded, with a leading axis r.
      spread: the Euclidean norm of the standard errors of the mean's params, (r,); 0 for a single
        run.
    """

    mean: PyTree
    spread: Float[Array, " r"]


def run_together(
    unit: Traced, start: PyTree, draws: PyTree, data: PyTree, record_every: int, paired: bool,
    progress: bool | None = None,
) -> tuple[Ensemble, PyTree]:  # fmt: skip
    """Runs many copies of a stochastic process in parallel and records their mean.

    Args:
      unit: `(carry, draw, data) -> carry`, an epoch, a step or a round; `carry[0]` is params.
      start: the carries of all runs, with a leading axis of their number.
      draws: the random draws, with leading axes (units, runs).
      data: the batches, the same for all.
      record_every: units from one record to the next.
      paired: whether runs i and i + runs/2 are antithetic, so that only their means are
        independent.
      progress: whether to show a bar; if None, only after some seconds.

    Returns:
      The `Ensemble`, with records at 0, every `record_every` and the last unit, and the carries of
      all runs at the end.
    """
    units, runs = jax.tree.leaves(draws)[0].shape[:2]
    bar = None
    if not under_transformation(unit, start, draws, data):
        bar = ticking("runs", progress, units, runs * expected_seconds(unit.program.jaxpr))
    whole, rest = divmod(units, record_every)
    chunks = jax.tree.map(
        lambda x: x[: whole * record_every].reshape(whole, record_every, *x.shape[1:]), draws
    )
    last = jax.tree.map(lambda x: x[whole * record_every :], draws) if rest else None
    mean, spread, end = _run(unit, start, chunks, last, data, paired, bar)
    return Ensemble(mean, spread), end


def records(units: int, record_every: int) -> np.ndarray:
    """The number of units done at each record, an integer array."""
    return np.append(np.arange(0, units, record_every), units)


@compiled
def _run(
    unit: Traced, start: PyTree, chunks: PyTree, last: PyTree | None, data: PyTree, paired: bool,
    bar: Ticking | None,
) -> tuple[PyTree, Array, PyTree]:  # fmt: skip
    def step(carry: PyTree, draw: PyTree) -> tuple[PyTree, None]:
        return jax.vmap(lambda c, d: unit(c, d, data))(carry, draw), None

    whole, apart = jax.tree.leaves(chunks)[0].shape[:2]
    # The bar moves between records, or where these are far apart between units.
    many, few = between_or_within(bar, apart)

    def chunk(carry: PyTree, at: tuple[PyTree, Any]) -> tuple[PyTree, tuple[PyTree, Array]]:
        draws, first = at
        record, length = _mean_of(carry, paired), len(jax.tree.leaves(draws)[0])
        return scan(few, step, carry, draws, length, first=first)[0], record

    begun = None if few is None else apart * jnp.arange(whole, dtype=jnp.int32)
    carry, found = scan(many, chunk, start, (chunks, begun), whole, size=apart)
    more = [found]
    if last is not None:
        carry, record = chunk(carry, (last, whole * apart))
        more.append(jax.tree.map(lambda x: x[None], record))
    more.append(jax.tree.map(lambda x: x[None], _mean_of(carry, paired)))
    mean, spread = jax.tree.map(lambda *xs: jnp.concatenate(xs), *more)
    if bar is not None:
        bar.finish(spread[-1])
    return mean, spread, carry


def _mean_of(carry: PyTree, paired: bool) -> tuple[PyTree, Array]:
    mean = jax.tree.map(
        lambda x: jnp.mean(x, axis=0) if jnp.issubdtype(x.dtype, jnp.inexact) else x[0], carry
    )
    squares = []
    for x in jax.tree.leaves(carry[0]):
        if paired:
            x = (x[: len(x) // 2] + x[len(x) // 2 :]) / 2
        if len(x) > 1:
            squares.append(jnp.sum(jnp.var(x, axis=0, ddof=1)) / len(x))
        else:
            squares.append(jnp.zeros((), x.dtype))
    return mean, jnp.sqrt(sum(squares))
