"""The discrete run beside the flows it may follow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import optax
from jaxtyping import Array, PyTree

from igr.backward_error.protocols import Method
from igr.checks import Number, check_count, check_step
from igr.flows import kinds
from igr.flows.comparison.asked import Asked, default_method, method_and_optimizer
from igr.flows.comparison.names import check_directions, flow_names
from igr.flows.comparison.one_run import compare_run
from igr.flows.comparison.options import CompareOptions, own_and_solve
from igr.flows.comparison.over_batches.compared import (
    compare_batches,
    method_over_batches,
    step_over,
)
from igr.flows.comparison.players import compare_players
from igr.flows.comparison.result import Comparison, FlowName
from igr.flows.on_the_host import on_the_host
from igr.options import with_defaults
from igr.pytrees import combine, partition

ValueFn = Callable[[PyTree], Array]
_Optax = optax.GradientTransformation


@on_the_host
def compare(
    value_fn: Callable[..., Array] | Sequence[ValueFn],
    params: PyTree,
    learning_rate: Number,
    steps: int | None = None,
    orders: Sequence[FlowName] | None = None,
    method: Method | None = None,
    *,
    flows: Sequence[FlowName] | None = None,
    optimizer: optax.GradientTransformation | Callable[..., Any] | None = None,
    batches: PyTree | None = None,
    progress: bool | None = None,
    **options: Unpack[CompareOptions],
) -> Comparison:
    """Lays the real run of an optimizer beside the flows of its modified equation.

    Run and flow are held against each other at equal time: n steps against t = n h. The memory is
    that of `igr.flow`, some 21 copies of params and of each kept state, and that of the records:
    params and kept states of the run, and of each flow, at each of them. Runs on batches are made
    at once, in three copies of params and of the optimizer's state for each.

    Args:
      value_fn: the loss E, `params -> scalar`; with batches that of one, `(params, batch) ->
        scalar`, or of one example for `igr.methods.sgd_with_replacement`; for two players the pair
        of their losses, of the pair of their params.
      params: the start, any pytree with floating leaves.
      learning_rate: the step h.
      steps: how many steps to compare over.
      orders: the older name of `flows`.
      method: from `igr.methods`; read from the optimizer where that is a function of the step,
        else gradient descent.
      flows: what to lay beside the run, each on its own; (0, 1, 2) if not given.
        A count: the equation, kept to that power of h.
        "differences": order 1 with differences of the gradient over the steps in place of its
        derivatives, so that kinks are seen (`igr.interpolating_field`). Of a method that keeps
        states, or whose memory is no average of gradients, it carries all of the memory along and
        takes differences of whole steps (`igr.flows.fields.by_differences.carried`).
        "two-phase": the flow of the even and the odd steps (`igr.flows.two_phase_flow`).
        "central": that of the centre of the oscillation (`igr.flows.central_flow`); gradient
        descent and RMSProp. With one of the last two, which hold at and past the edge of
        stability, distances are from the midpoints of the run, of steps n - 1, n and n + 1, and
        the other flows are averaged likewise.
      optimizer: the optax transformation to run, learning rate included; or a function of the
        learning rate to one, as `lambda h: optax.adam(h)`; the method's own if not given. States
        the method keeps are read from its state by their names, as Adam's `nu`. Its steps must be
        those of the method, which is checked.
      batches: for runs on mini-batches: a pytree of arrays with a leading axis of m batches, each
        taken once an epoch; of all examples for `igr.methods.sgd_with_replacement`. The mean of
        many runs is then what distances are from, beside the standard error that their spread
        makes. The method is `igr.methods.reshuffled_sgd(m)` if none is given; a fixed order is
        that of `igr.methods.cyclic_sgd`; momentum and any other linear memory without decay is
        followed to h^1, and so is every other method whose memories enter linearly, as Adam's: its
        equation is that of `igr.flows.reshuffled_field`. What bends its memories, as momentum
        clipped, has no formula: give `sequences`; without, and where the field would not fit into
        memory, the equation is that of the mean loss, holds to h^0, and `notes` say so.
      progress: whether to show bars with the time left; those of flows that take more than a few
        seconds, if not given.
      **options: `CompareOptions`: with batches `epochs`, `runs`, a `key` and `sequences`; how the
        memory is filled before, `start_up` and `burn_in`; what is recorded, `record_every`,
        `sharpness` and `directions`; and the `SolveOptions` of each flow, as `rtol`, `max_steps`
        and a `solver`.

    Returns:
      A `Comparison`; `print` it for a summary.

    Raises:
      ValueError: if the learning rate is not positive and finite, an order is negative or a flow
        unknown, the loss is not a finite scalar at params, there are more directions than
        parameters, or the optimizer's steps are not the method's.
      TypeError: if there is no option of a name that is given.

    A flow that fails does not cost the others: `failures` says why, and its distance is infinite.

    >>> import jax.numpy as jnp
    >>> comparison = compare(lambda x: jnp.sum(jnp.cosh(x)), jnp.array([1.0, 2.0]), 0.05, steps=20)
    >>> bool(comparison.distance[2][-1] < comparison.distance[1][-1] < comparison.distance[0][-1])
    True
    """
    given = with_defaults(compare, options, max_steps=100_000, sharpness=True)
    own, solve = own_and_solve(given)
    learning_rate = check_step("learning_rate", learning_rate)
    h = float(learning_rate)
    names = flow_names(flows, orders)
    check_directions(own["directions"], names)
    params = combine(*partition(params))  # plain numbers as arrays
    if own["record_every"] is not None:
        own["record_every"] = check_count("record_every", own["record_every"], 1)
    two = isinstance(value_fn, Sequence)
    read = method is None and callable(optimizer) and not isinstance(optimizer, _Optax)
    over_batches = batches is not None
    if two and over_batches:
        raise ValueError(
            "batches must be left out for two players, whose equation knows none: give the pair of "
            "their mean losses, of the pair of their params"
        )
    if over_batches:
        if (own["epochs"] is None) == (steps is None):
            raise ValueError("with batches give epochs, or steps, and not both")
        method, stepping = method_over_batches(method, optimizer, batches, params, h)
    else:
        for name in ("epochs", "runs", "key", "sequences"):
            if own[name] is not None:
                raise ValueError(f"{name} is for runs on batches: give batches too")
        method, stepping = method_and_optimizer(method, optimizer, params, h)
    method = default_method() if method is None else method
    if not two and not over_batches:
        kinds.check_runnable(method)
    own_optimizer = stepping is not None
    if not own_optimizer and not two:
        stepping = step_over(method, h, over_batches)
    asked = Asked(
        value_fn=value_fn,
        params=params,
        learning_rate=h,
        steps=steps,
        flows=names,
        method=method,
        optimizer=stepping,
        own_optimizer=own_optimizer,
        read=read,
        progress=progress,
        solve=solve,
        **own,
    )
    if over_batches:
        return compare_batches(asked, batches)
    return compare_players(asked) if two else compare_run(asked)
