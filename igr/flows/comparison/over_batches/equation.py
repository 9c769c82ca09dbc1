"""The equation over reshuffled batches of a method without its own, for a comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from igr.backward_error.protocols import Method, UnansweredError
from igr.backward_error.rules.rule import RuleMethod
from igr.checks import Count, check_count
from igr.compiled import Traced, compiled, traced
from igr.curvature import vectors
from igr.curvature.vectors import size
from igr.flows.comparison.over_batches.validity import OF_A_RECORD
from igr.flows.fields.batches.as_rule import as_rule
from igr.flows.fields.batches.over_sequences import draw
from igr.flows.fields.batches.remembered import reshuffled
from igr.flows.fields.batches.reshuffled import reshuffled_field
from igr.flows.validity import share_of, unexplained_by
from igr.progress.late_bar import Ticking, mapped, search_bar
from igr.pytrees import num_examples, partition

_COPIES = 17  # of params for every batch, that a field of order 1 may hold at once
_MOST = 2**28  # numbers held so, beyond which the equation of the mean loss is followed


class BatchEquation(NamedTuple):
    """The fields of an equation over batches, order by order.

    Attributes:
      fields: a function from an order to its field, or to two independent estimates of it.
      note: a remark on them for the user; empty where they are exact.
    """

    fields: Callable[[int], list[Any]]
    note: str


def batch_equation(
    method: Method,
    losses: Any,
    h: float,
    t: float,
    state: PyTree,
    sequences: Count | None,
    key: PRNGKeyArray,
) -> BatchEquation | str:
    """The equation over batches, exact where there is a formula, else averaged over sequences.

    Args:
      method: a method without an equation over batches of its own.
      losses: the loss of one batch, `losses.of`, and the batches.
      h: the step.
      t: the time at the start.
      state: the flow's state at the start.
      sequences: the number of sequences to average over, at least four, or None.
      key: for drawing the sequences.

    Returns:
      A `BatchEquation`, or the reason why there is none as text.
    """
    if sequences is not None:
        sequences = check_count("sequences", sequences, 4)
    try:
        described = as_rule(method, affine=False)
    except (TypeError, UnansweredError) as error:
        return str(error)
    m = num_examples(losses.batches, "batches")
    field = lambda order, **how: reshuffled_field(  # noqa: E731
        method, losses.of, h, losses.batches, order=order, **how
    )
    held = _COPIES * m * size(partition(state)[0])
    if held > _MOST:
        return f"that of its batches holds {held:.1e} numbers at once, more than {_MOST:.1e}"
    try:
        jax.eval_shape(lambda: field(1)(t, state))
        return BatchEquation(lambda order: [field(order)], "")
    except UnansweredError as error:
        if sequences is None:
            return str(error)
    halves = jax.random.split(jax.random.fold_in(key, 1))
    counts = sequences // 2, sequences - sequences // 2

    def estimates(order: int) -> list[Any]:
        pairs = zip(counts, halves, strict=True)
        return [field(order, sequences=n, key=k) for n, k in pairs]

    return BatchEquation(estimates, _said(described, m, counts, halves[0]))


def _said(method: RuleMethod, m: int, counts: tuple[int, int], key: PRNGKeyArray) -> str:
    """The note on an equation that is averaged over sequences: what an estimate costs."""
    one = draw(method, reshuffled(m), m, counts[0], key)
    steps = (one.moving + one.last) * m * sum(counts)
    return (
        f"the equation of {method.name} over its batches is an estimate over {sum(counts)} "
        f"sequences, in two halves, of which the flow is the mean; the standard error has half "
        f"their distance in it. At order 1 an evaluation takes {steps} gradients with a Hessian "
        "product each"
    )


def middle(flows: list[PyTree]) -> tuple[PyTree, np.ndarray | float]:
    """The mean of two independent flows, and its standard error at each record."""
    if len(flows) == 1:
        return flows[0], 0.0
    first, second = (partition(ys)[0] for ys in flows)
    mean = jax.tree.map(lambda x, y: ((x + y) / 2).astype(x.dtype), first, second)
    squares = [
        np.sum(np.asarray(x - y, float) ** 2, axis=tuple(range(1, x.ndim)))
        for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    ]
    return mean, np.sqrt(sum(squares)) / 2


def notes_of(method: Method, equation: BatchEquation | str) -> tuple[str, ...]:
    """The notes of a comparison whose method has no equation over batches of its own."""
    if not isinstance(equation, str):
        return (equation.note,) if equation.note else ()
    squares = "; states that average squares see the batches' noise besides" if method.kept else ""
    return (
        f"the equation of {method.name} knows no batches: it is that of their mean loss, and holds "
        f"to h^0{squares}. {equation}",
    )


def validity_of(
    equation: BatchEquation,
    losses: Any,
    along: PyTree,
    times: np.ndarray,
    h: float,
    kept: bool,
    progress: bool | None = False,
) -> Any:
    """The loss, |g|, h |F1|/|F0|, the remainder, and nan for a sharpness, at each record.

    The remainder is that of each batch's gradient over the move of one epoch, the mean over
    batches.

    Args:
      equation: the equation over batches.
      losses: the loss of one batch, and the batches.
      along: the states of the flow with a leading axis r of records.
      times: n h at each record, (r,).
      h: the step.
      kept: whether states are kept beside params.
      progress: whether to show a bar; if None, only after some seconds.
    """
    point = jax.tree.map(lambda x: x[0], along)
    made = [equation.fields(p)[0] for p in (0, 1)]  # which draws sequences: not while tracing
    fields = [traced(lambda t, y, f=f: f(t, y), times[0], point) for f in made]
    m = num_examples(losses.batches, "batches")
    inputs = losses.traced, along, times, losses.batches, jnp.asarray(m * h)
    of_one = losses.traced.program.jaxpr
    with search_bar("validity", progress, len(times), of_one, inputs, times=OF_A_RECORD * m) as bar:
        return jax.tree.map(np.asarray, _measured(*fields, *inputs, kept, bar))


@compiled
def _measured(
    zero: Traced, one: Traced, loss: Traced, along: PyTree, times: Array, batches: PyTree,
    epoch: Array, kept: bool, bar: Ticking | None,
) -> Any:  # fmt: skip
    def at(point: Any) -> Any:
        state, t = point
        f0, f1, p = zero(t, state), one(t, state), state
        if kept:
            f0, f1, p = f0[0], f1[0], state[0]
        mean = lambda q: jnp.mean(jax.vmap(lambda b: loss(q, b))(batches))  # noqa: E731
        value, g = jax.value_and_grad(mean)(p)
        norm, apart = vectors.norm(f0), vectors.norm(optax.tree.sub(f1, f0))
        ratio = share_of(apart, norm)
        after = jax.tree.map(lambda x, f: x + (epoch * f).astype(x.dtype), p, f0)
        rest = lambda b: unexplained_by(jax.grad(lambda q: loss(q, b)), p, after)  # noqa: E731
        remainder = jnp.mean(jax.lax.map(rest, batches))
        return value, vectors.norm(g), ratio, remainder, jnp.full((), jnp.nan, value.dtype)

    return mapped(bar, at, (along, times))
