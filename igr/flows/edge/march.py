"""Fixed steps along a field, recorded now and then, at a price known beforehand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree
from tqdm import tqdm

from igr.checks import Count, Number, check_count, check_number
from igr.compiled import Traced, traced
from igr.curvature.vectors import cast_like, widened
from igr.progress.late_bar import bar_options


def runge_kutta_4(
    field: Callable[[PyTree], PyTree], y: PyTree, dt: Number | Array, substeps: int
) -> PyTree:
    """The classical method of order four, `substeps` steps of dt each.

    Stable for real exponents down to -2.785/dt: one step of h follows a gradient flow at the edge
    of stability, where h lambda is 2.
    """

    def add(y: PyTree, factor: Any, k: PyTree) -> PyTree:
        return jax.tree.map(lambda a, b: (a + factor * b).astype(a.dtype), y, k)

    def step(y: PyTree, _: None) -> tuple[PyTree, None]:
        # A loop over the stages, since what is written out four times is compiled four times.
        def stage(carry: tuple[PyTree, PyTree], weights: Array) -> tuple[Any, None]:
            ahead, total = carry
            k = field(ahead)
            return (add(y, dt * weights[0], k), add(total, dt * weights[1], k)), None

        weights = jnp.array([[0.5, 1 / 6], [0.5, 1 / 3], [1.0, 1 / 3], [0.0, 1 / 6]])
        (_, total), _ = jax.lax.scan(stage, (y, y), weights)
        return total, None

    return jax.lax.scan(step, y, None, length=substeps)[0]


def march(
    advance: Callable[[PyTree, Array], tuple[PyTree, PyTree]],
    start: PyTree,
    steps: int,
    record_every: Count | None,
    progress: bool | None,
    what: str,
) -> tuple[np.ndarray, PyTree]:
    """Records `advance` makes at 0, every `record_every` steps and the last.

    Args:
      advance: compiled, `(carry, count) -> (carry, record)`: so many steps, and a record of where
        they end; count 0 records only.
      start: the first carry.
      steps: how many in all.
      record_every: a hundred records if None.
      progress: whether to show a bar with the time left; None: once it has taken some seconds.
      what: the name of the bar.

    Returns:
      The steps done at each record, and the records with a leading axis. After numbers that are
      not finite nothing is computed any more: records are nan from there on.
    """
    every = -(-steps // 100) if record_every is None else record_every
    every = check_count("record_every", every, 1)
    done = np.unique(np.append(np.arange(0, steps, every), steps))
    carry, records, ok = start, [], True

    def lengths() -> Iterator[int]:
        yield from tqdm(np.diff(done, prepend=0).tolist(), desc=what, **bar_options(progress))

    for length in lengths():
        if ok:
            carry, record = advance(carry, jnp.asarray(length, jnp.int32))
            record = jax.device_get(record)
            ok = all(np.isfinite(x).all() for x in jax.tree.leaves(record))
            records.append(record)
        else:
            records.append(jax.tree.map(lambda x: np.full_like(x, _nan(x)), records[-1]))
    return done, jax.tree.map(lambda *xs: jnp.asarray(np.stack(xs)), *records)


def in_single(loss: Traced, params: PyTree) -> tuple[Traced, PyTree]:
    """The loss, and params to start from, in at least single precision.

    In half precision most of what a flow adds in one of its steps would be rounded away. The loss
    is that of the params rounded to what they were.
    """
    wide = widened(params)
    if all(x.dtype == y.dtype for x, y in zip(*map(jax.tree.leaves, (params, wide)), strict=True)):
        return loss, params
    return traced(lambda p: loss(cast_like(p, params)), wide), wide


def count_steps(h: Number, t1: Number) -> int:
    """t1/h as a whole number.

    Raises:
      ValueError: if it is not one, or less than one.
    """
    ratio = float(check_number("t1", t1)) / float(h)
    steps = round(ratio) if np.isfinite(ratio) else 0
    if steps < 1 or abs(ratio - steps) > 1e-6 * ratio:
        raise ValueError(
            f"t1 must be a whole number of steps of h = {h}, at least one; got {t1}, {ratio:g} of "
            "them"
        )
    return steps


def _nan(x: np.ndarray) -> Any:
    return np.nan if np.issubdtype(x.dtype, np.inexact) or x.dtype.kind == "V" else 0


def only_arrays(tree: PyTree) -> PyTree:
    """The floating leaves: what a record holds of params."""
    return eqx.filter(tree, eqx.is_inexact_array)
