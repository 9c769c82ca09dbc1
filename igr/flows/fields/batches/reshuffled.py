"""The mean iterate of any optimizer whose batches come once an epoch in random order.

For heavy ball this is `igr.methods.reshuffled_sgd(m, momentum=..)`; without memory it is the term
of Smith, Dherin, Barrett and De (2021). See `first_order` for the formula.
"""

from __future__ import annotations

from typing import Any

from jaxtyping import Array, PRNGKeyArray, PyTree

from igr.checks import Count, Number, check_count, check_step, check_value_fn
from igr.flows.fields.batches.as_rule import as_rule
from igr.flows.fields.batches.first_order import drift
from igr.flows.fields.batches.over_sequences import averaged
from igr.flows.fields.batches.printing import BatchField
from igr.flows.fields.batches.remembered import reshuffled
from igr.flows.fields.batches.steps import BatchLossFn, BatchSteps
from igr.pytrees import num_examples


def reshuffled_field(
    method: Any,
    batch_loss_fn: BatchLossFn,
    h: Number | Array,
    batches: PyTree,
    *,
    order: Count = 1,
    rates_at: float | None = None,
    sequences: int | None = None,
    key: PRNGKeyArray | None = None,
) -> BatchField:
    """The field that the mean of an optimizer follows when each batch comes once an epoch.

    All m batches are taken at once: memory is that of some m copies of params and of each kept
    state at order 0; at order 1 of 6 m for a linear memory, and of 17 m for Adam. For gradient
    descent and heavy ball `igr.vector_field` of the equation of `igr.methods.reshuffled_sgd(m,
    momentum=..)` takes one batch after the other, in 11 copies.

    Args:
      method: a linear memory, an elementwise rule or any other rule, linear in its eliminated
        memories, as Adam is in its first moment; or an optax optimizer as a function of the
        learning rate. A rule that is not linear in them needs `sequences`, or keeps them as
        variables, `igr.from_optax(.., keep=..)`.
      batch_loss_fn: `(params, batch) -> scalar`.
      h: the step.
      batches: the m batches of an epoch, a pytree of arrays with a leading axis of m.
      order: 0 or 1.
      rates_at: the step that the rates of kept states are meant for, h if not given.
      sequences: the number of random sequences of batches, each with the m cyclic renamings of its
        batches, over which a rule nonlinear in its memories is averaged, such as clipped momentum
        or its sign. The field is then an estimate, the same at every call, with an error that
        falls with the root of this number.
      key: for drawing the sequences.

    Returns:
      `f(t, state, args)` for `igr.flow`, the state and t as of `igr.vector_field`. At order 1 it
      costs, for every batch, three or four gradients and as many Hessian products. With `sequences`
      it costs a gradient for every batch at order 0, and at order 1 one with its Hessian product
      for every step of every sequence, which is for small networks. `str` and `latex` give its
      equation.

    Raises:
      TypeError: if `method` is no such method.
      ValueError: if the order is above 1, from where on the spread of the iterates matters.
      UnansweredError: if the rule is not linear in its eliminated memories and `sequences` is not
        given: its mean over the orders is then no function of the memories' means.

    >>> import jax.numpy as jnp
    >>> from igr.backward_error import methods
    >>> batches = jnp.array([1.0, 3.0])
    >>> loss = lambda x, a: a * x**2 / 2
    >>> field = reshuffled_field(methods.heavy_ball(0.5), loss, 0.1, batches)
    >>> print(field(0.0, jnp.array(1.0), None).round(1))  # -2 g - h (5 H g + <H_k g_k>)
    -6.5
    >>> from igr.backward_error.methods import signsgd
    >>> print(reshuffled_field(signsgd(0.1), loss, 0.1, batches))
    x' = ⟨V_b⟩ - h/2 ⟨V_b' V_b⟩ + O(h²), with x = θ, b one of 2 batches, each once an epoch
    """
    described = as_rule(method, affine=sequences is None)
    order = check_count("order", order, 0)
    if order > 1:
        raise ValueError(
            f"the mean of {described.name} over orders of its batches is known up to h^1; got "
            f"order {order}: beyond, the spread of the iterates moves it."
        )
    h = check_step("h", h)
    check_value_fn(batch_loss_fn)
    m = num_examples(batches, "batches")
    if sequences is not None:
        drawn, args = reshuffled(m), (described, batch_loss_fn, h, batches, rates_at)
        return averaged(*args, drawn, sequences, key).drift(order)
    steps = BatchSteps(described, batch_loss_fn, h, rates_at)
    return drift(steps, reshuffled(m), h, batches, order)
