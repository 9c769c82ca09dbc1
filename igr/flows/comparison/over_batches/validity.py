"""Measures along the mean of runs on batches that say whether an equation is to be trusted."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from igr.backward_error import modified_equation
from igr.checks import Number
from igr.compiled import Traced, compiled
from igr.curvature import vectors
from igr.flows.fields.vector_field import vector_field
from igr.flows.validity import share_of, unexplained_by
from igr.forward_mode import jvp
from igr.progress.late_bar import Ticking, mapped, search_bar
from igr.pytrees import num_examples

OF_A_RECORD = 20  # losses of all batches that a record takes, about: for a bar


def validity_over_batches(
    method: Any,
    losses: Any,
    along: PyTree,
    times: np.ndarray,
    h: Number,
    progress: bool | None = False,
) -> Any:
    """The loss, |g|, h |F1|/|F0|, the remainder and the batch sharpness at each record.

    Args:
      method: a method over batches.
      losses: the loss of one batch, and the batches.
      along: the states of the flow with a leading axis r of records.
      times: n h at each record, (r,).
      h: the step.
      progress: whether to show a bar; if None, only after some seconds.
    """
    equation = modified_equation(method, 1)
    equation = getattr(equation, "drift", equation)
    drawing = losses.drawing
    step = "none" if not drawing.own else "batch" if drawing.size is None else "whole"
    inputs = losses.traced, along, times, losses.batches, jnp.asarray(h)
    reach, of_one = jnp.asarray(h * drawing.reach), losses.traced.program.jaxpr
    count = OF_A_RECORD * num_examples(losses.batches)
    with search_bar("validity", progress, len(times), of_one, inputs, times=count) as bar:
        return jax.tree.map(
            np.asarray, _measured(equation, *inputs, step, bool(method.kept), reach, bar)
        )


@compiled
def _measured(
    equation: Any, loss: Traced, along: PyTree, times: Array, batches: PyTree, h: Array,
    step: str, kept: bool, reach: Array, bar: Ticking | None,
) -> Any:  # fmt: skip
    """The values of `validity_over_batches` at each record.

    The remainder is taken over a step of `reach` times the gradient of a batch, or of the whole
    loss; for an equation of the mean loss over a step h along its field.
    """

    def mean(p: PyTree) -> Array:
        return jnp.mean(jax.vmap(lambda b: loss(p, b))(batches))

    def field(order: int) -> Any:
        eq = equation.truncate(order)
        if step == "batch":
            return vector_field(eq, lambda p, b: loss(p, b), h, batches)
        return vector_field(eq, mean, h)

    def of_step(gradient: Any, p: PyTree) -> tuple[Array, Array]:
        own, along_own = jvp(gradient, (p,), (gradient(p),))
        after = jax.tree.map(lambda x, d: x - (reach * d).astype(x.dtype), p, own)
        # Of unit vectors: the squares of gradients far from one may be out of range.
        length = vectors.norm(own)
        per = jnp.where(length > 0, 1 / jnp.where(length > 0, length, 1), 0)
        curved = vectors.inner(vectors.scaled(per, own), vectors.scaled(per, along_own))
        return unexplained_by(gradient, p, after), curved

    def at(point: Any) -> Any:
        state, t = point
        f0, f1 = field(0)(t, state, None), field(1)(t, state, None)
        p = state
        if kept:
            p, f0, f1 = state[0], f0[0], f1[0]
        value, g = jax.value_and_grad(mean)(p)
        norm = vectors.norm(f0)
        apart = vectors.norm(optax.tree.sub(f1, f0))
        ratio = share_of(apart, norm)
        rest = sharp = jnp.full((), jnp.nan, value.dtype)
        if step == "batch":
            one = lambda b: of_step(jax.grad(lambda q: loss(q, b)), p)  # noqa: E731
            rest, sharp = jax.tree.map(jnp.mean, jax.lax.map(one, batches))
        elif step == "whole":
            rest, _ = of_step(jax.grad(mean), p)
        else:
            after = jax.tree.map(lambda x, f: x + (h * f).astype(x.dtype), p, f0)
            rest = unexplained_by(jax.grad(mean), p, after)
        return value, vectors.norm(g), ratio, rest, sharp

    return mapped(bar, at, (along, times))
