"""The stochastic equation of any optimizer whose batches are drawn with replacement.

d x = (M + h F_1) dt + sqrt(h Sigma) dW for the slow state x, params and kept states: its
expectations are those of the run up to h^2 at a fixed time (weak order 2), without F_1 up to h. See
`first_order` for the formula; for SGD it is the equation of Li, Tai and E (2019).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array, PRNGKeyArray, PyTree

from igr.checks import Count, Number, check_count, check_step, check_value_fn
from igr.flows.fields.batches.as_rule import as_rule
from igr.flows.fields.batches.first_order import drift, noise
from igr.flows.fields.batches.over_sequences import averaged
from igr.flows.fields.batches.remembered import WITH_REPLACEMENT
from igr.flows.fields.batches.steps import BatchLossFn, BatchSteps
from igr.flows.fields.noise.stochastic import StochasticField
from igr.pytrees import num_examples, partition


def sampled_field(
    method: Any,
    batch_loss_fn: BatchLossFn,
    h: Number | Array,
    batches: PyTree,
    *,
    order: Count = 1,
    rates_at: Number | None = None,
    sequences: int | None = None,
    key: PRNGKeyArray | None = None,
) -> StochasticField:
    """The stochastic equation of an optimizer whose batches are drawn with replacement.

    All m batches are taken at once: memory is that of some m copies of params and of each kept
    state at order 0, of 6 m at order 1 for a linear memory, and of 2 m for the noise. Of SGD
    without memory `igr.flows.stochastic_field` holds none for each example.

    Args:
      method: a linear memory, an elementwise rule or any other rule, linear in its eliminated
        memories, as Adam is in its first moment; or an optax optimizer as a function of the
        learning rate. A rule that is not linear in them needs `sequences`, or keeps them as
        variables, `igr.from_optax(.., keep=..)`.
      batch_loss_fn: `(params, batch) -> scalar`; with `batches` the examples, that of one example.
      h: the step.
      batches: the m equally likely batches, a pytree of arrays with a leading axis of m.
      order: 0, of weak order 1, or 1, of weak order 2.
      rates_at: the step that the rates of kept states are meant for, h if not given.
      sequences: the number of random sequences of batches over which drift and noise of a rule
        nonlinear in its memories are averaged, as in `reshuffled_field`.
      key: for drawing the sequences.

    Returns:
      Drift and diffusion of the state, params or `(params, kept)` as of `igr.vector_field`, for
      `igr.flows.stochastic_flow`, and `igr.flows.spread_field` for its mean and covariance. The
      drift alone is not the mean: the spread of the iterates, of order h too, moves it.

    Raises:
      TypeError: if `method` is no such method.
      ValueError: if the order is above 1: beyond, third moments show, which no diffusion has.
      UnansweredError: if the rule is not linear in its eliminated memories and `sequences` is not
        given.

    Momentum makes the noise of a batch 1/(1 - beta) times as large, summed over all later steps:

    >>> from igr.backward_error import methods
    >>> batches = jnp.array([-1.0, 1.0])
    >>> loss = lambda x, a: (x - a) ** 2 / 2
    >>> field = sampled_field(methods.heavy_ball(0.5), loss, 0.1, batches)
    >>> print(field.drift(0.0, jnp.array(1.0), None).round(4))  # -2 g - h 6 H g
    -2.6
    >>> noise = field.diffusion(0.0, jnp.array(1.0), None)
    >>> print(f"{noise.mv(jnp.array([1.0, 0.0])):.4f}")
    0.4472
    """
    described = as_rule(method, affine=sequences is None)
    order = check_count("order", order, 0)
    if order > 1:
        raise ValueError(
            f"{described.name} on batches drawn anew follows a stochastic equation of order 0 or "
            f"1; got order {order}: beyond, third moments of its steps show, and no diffusion has "
            "those."
        )
    h = check_step("h", h)
    check_value_fn(batch_loss_fn)
    m = num_examples(batches, "batches")
    if sequences is None:
        steps = BatchSteps(described, batch_loss_fn, h, rates_at)
        moving = drift(steps, WITH_REPLACEMENT, h, batches, order)
        of_state, motions = noise(steps, h, batches, m), m
    else:
        along = averaged(
            described, batch_loss_fn, h, batches, rates_at, WITH_REPLACEMENT, sequences, key
        )
        moving, of_state, motions = along.drift(order), along.noise, along.motions

    def diffusion(t: Any, state: PyTree, args: Any = None) -> lineax.AbstractLinearOperator:
        del args
        dynamic, _ = partition(state)
        dtype = jnp.result_type(jnp.float32, *(x.dtype for x in jax.tree.leaves(dynamic)))
        increments = jax.ShapeDtypeStruct((motions,), dtype)
        return lineax.FunctionLinearOperator(of_state(t, state), increments)

    return StochasticField(moving, diffusion, motions, h)
