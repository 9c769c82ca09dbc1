"""Compares the mean of many runs on mini-batches with the flows of their equation."""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from igr.backward_error import modified_equation
from igr.backward_error.methods import EpochMethod, SampledMethod, reshuffled_sgd
from igr.backward_error.protocols import Method
from igr.checks import Count, Number, check_count, check_value_fn
from igr.compiled import compiled, traced
from igr.curvature.vectors import size
from igr.flows.certifying.described import check_described
from igr.flows.comparison.asked import Asked, method_and_optimizer
from igr.flows.comparison.carrying import never_negative, not_below_zero
from igr.flows.comparison.ensemble import records, run_together
from igr.flows.comparison.filling import (
    check_moved,
    kept_states,
    said,
    start_up_of,
    steps_to_fill,
)
from igr.flows.comparison.follow import (
    Followed,
    distances,
    each,
    over_kinks,
    rounding_floor,
    saved,
    solver_options,
    unreached,
)
from igr.flows.comparison.names import check_key
from igr.flows.comparison.over_batches.drawing import (
    Drawing,
    drawing_of,
    over_batches,
    with_gradients,
)
from igr.flows.comparison.over_batches.equation import (
    BatchEquation,
    batch_equation,
    middle,
    notes_of,
    validity_of,
)
from igr.flows.comparison.over_batches.losses import Losses
from igr.flows.comparison.over_batches.validity import validity_over_batches
from igr.flows.comparison.result import LARGEST_REMAINDER, Comparison, FlowName
from igr.flows.fields.noise.stochastic import moments_field
from igr.flows.fields.vector_field import vector_field
from igr.flows.run import Trajectory, optimizer_of
from igr.pytrees import combine, num_examples, partition

RUNS = 16
MOMENTS = 64  # parameters up to which the covariance is followed too


def compare_batches(asked: Asked, batches: PyTree) -> Comparison:
    """Runs the optimizer many times over the batches and compares their mean with the flows.

    Args:
      asked: what `igr.compare` was asked for; its `value_fn` is `(params, batch) -> scalar`, or
        `(params, example) -> scalar` for a method that draws examples. Its `steps` are ignored
        where epochs are given; a method that draws examples at every step has `steps` instead.
      batches: a pytree of arrays with a leading axis of batches, or of all examples.
    """
    method, h, names, key = asked.method, asked.learning_rate, asked.flows, asked.key
    check_value_fn(asked.value_fn)
    _check_names(names)
    batches = jax.tree.map(jnp.asarray, batches)
    drawing = drawing_of(method, num_examples(batches, "batches"))
    unit, units, every = _units(asked, drawing)
    runs = _runs(asked.runs, drawing)
    check_key(key, needed=drawing.random)
    start_up, burn_in = start_up_of(method, asked.start_up, asked.burn_in)
    if start_up in ("weights", "shift"):
        raise ValueError(f"with batches start_up must be 'burn-in' or 'cold'; got {start_up!r}.")
    filling_units = -(-burn_in // unit)
    dynamic, static = partition(asked.params)
    losses = Losses(asked.value_fn, asked.params, batches, drawing)
    if asked.own_optimizer:
        _check_own(asked, losses, dynamic)
    draws, paired = _draws(key, drawing, runs, filling_units + units, num_examples(batches))
    state = asked.optimizer.init(dynamic)
    advance = traced(
        _unit(asked.optimizer, losses, drawing),
        (dynamic, state), jax.tree.map(lambda x: x[0, 0], draws), batches,
    )  # fmt: skip
    spread_out = jax.tree.map(
        lambda x: jnp.broadcast_to(jnp.asarray(x), (runs, *jnp.shape(x))), (dynamic, state)
    )
    if filling_units:
        early = jax.tree.map(lambda x: x[:filling_units], draws)
        _, spread_out = run_together(
            advance, spread_out, early, batches, filling_units, paired, asked.progress
        )
        draws = jax.tree.map(lambda x: x[filling_units:], draws)
    ensemble, ends = run_together(
        advance, spread_out, draws, batches, every, paired, asked.progress
    )
    recorded, states = ensemble.mean
    done = records(units, every)
    step = done * unit
    times, origin = step * h, filling_units * unit * h
    kept = kept_states(method.kept, states)
    first = combine(jax.tree.map(lambda x: x[0], recorded), static)
    begin = (first, jax.tree.map(lambda x: x[0], kept)) if method.kept else first
    # Steps fall back to h and not to an epoch, in which a sharp direction would blow up.
    options = solver_options(h, asked.solve, asked.progress)

    equation = _equation(asked, losses, drawing, origin, begin, key)
    known = drawing.own or not isinstance(equation, str)
    along, at = (recorded, kept) if method.kept else recorded, np.asarray(times + origin)
    if not isinstance(equation, str):
        validity = validity_of(equation, losses, along, at, h, bool(method.kept), asked.progress)
    else:
        validity = validity_over_batches(method, losses, along, at, h, asked.progress)
    value, slope, correction, remainder, sharp = validity
    if filling_units and slope[0] > 0:
        check_moved(recorded, filling_units * unit, asked.burn_in is None)
    if np.any(remainder > LARGEST_REMAINDER):
        # A step of the solver for one of the run: it takes the gradients of a whole epoch.
        options = over_kinks(options, asked.solve, h, int(step[-1]), fraction=1)
    unsigned = never_negative(method, kept)

    def follow(p: FlowName) -> tuple[Followed, dict[str, PyTree], Any]:
        if not isinstance(equation, str):
            fields, unpack = equation.fields(int(p)), _as_it_is(method)
        else:
            field, unpack = _field(method, p, losses, h, first)
            fields = [field]
        lifted = [_lifted(f, unsigned) if unsigned else f for f in fields]
        found = [saved(f, unpack.start(begin), origin, times, options) for f in lifted]
        ends = [unpack.end(one.ys) for one in found]
        ys, error = middle([ys for ys, _ in ends])
        reached = np.all([one.reached for one in found], axis=0)
        own = max(one.own_error for one in found)
        return Followed(combine(ys, static), reached, own), ends[0][1], error

    results, failures = each(names, follow)
    followed = {p: found for p, (found, _, _) in results.items()}
    distance, travelled, norm = distances(followed, partition(first)[0], recorded)
    for p in failures:
        distance[p] = np.full(len(step), np.inf)
    spread = np.asarray(ensemble.spread)
    errors = {p: np.hypot(spread, results[p][2] if p in results else 0.0) for p in names}
    estimated = not isinstance(equation, str) and bool(equation.note)
    response = with_gradients(method).response() if drawing.size is None else None
    nothing = np.full(len(step), np.nan)
    # Of the batch sharpness, as if a memory held the one batch that a step lasts for.
    limit = 2.0 / drawing.reach if drawing.size is None and drawing.own else float("nan")
    return Comparison(
        method=method.name,
        learning_rate=h,
        step=step,
        time=times,
        discrete=Trajectory(
            jnp.asarray(step),
            combine(recorded, static),
            value,
            slope,
            ends[1],
            kept if method.kept else None,
        ),
        flows={p: followed[p].ys if p in followed else unreached(recorded) for p in names},
        distance={p: distance[p] for p in names},
        travelled=travelled,
        correction=correction,
        remainder=remainder if known else nothing,
        sharpness=sharp if asked.sharpness and drawing.size is None else nothing,
        stability_limit=limit if response is None or drawing.own else response.stability_limit(),
        convergence_radius=1.0 if response is None else response.convergence_radius(),
        floor=rounding_floor(norm, step, dynamic, asked.solve.get("rtol")),
        start_up=said(start_up, filling_units * unit, steps_to_fill(method)),
        kept={p: results[p][1] if p in results else {} for p in names},
        solver_error={p: followed[p].own_error if p in followed else np.nan for p in names},
        runs=runs,
        standard_error=errors if runs > 1 or estimated else {},
        failures=failures,
        notes=() if drawing.own else notes_of(method, equation),
    )


def _equation(
    asked: Asked, losses: Losses, drawing: Drawing, t: Number, begin: PyTree, key: Any
) -> BatchEquation | str:
    """The equation over batches of a method without its own, or the reason why there is none."""
    if drawing.own:
        if asked.sequences is not None:
            raise ValueError(
                f"sequences is for methods without a formula over batches: that of "
                f"{asked.method.name} is exact"
            )
        return ""
    h = asked.learning_rate
    return batch_equation(asked.method, losses, h, float(t), begin, asked.sequences, key)


def method_over_batches(
    method: Method | None, optimizer: Any, batches: PyTree, params: PyTree, h: Number
) -> tuple[Method, Any]:
    """The given method and optimizer, checked; reshuffled SGD if neither is given."""
    count = num_examples(batches, "batches")
    if method is None and optimizer is None:
        return reshuffled_sgd(count), None
    found, given = method_and_optimizer(method, optimizer, params, h)
    return (reshuffled_sgd(count) if found is None else over_batches(found, count)), given


def step_over(method: Method, h: Number, over_batches: bool) -> Any:
    """The optax transformation of a method; over batches, of what it does with their gradients."""
    return optimizer_of(with_gradients(method) if over_batches else method, h)


def _check_own(asked: Asked, losses: Losses, params: PyTree) -> None:
    """Raises unless the optimizer takes the steps of its description."""
    method = with_gradients(asked.method)
    if method.kept:
        kept_states(method.kept, asked.optimizer.init(params))
    loss = traced(losses.mean, params)
    check_described(
        method, asked.optimizer, loss, params, asked.learning_rate, steps_to_fill(method)
    )


def _check_names(names: list[FlowName]) -> None:
    for p in names:
        if isinstance(p, str):
            raise ValueError(f"flows must be orders, counts, where there are batches; got {p!r}.")


def _runs(runs: Count | None, drawing: Drawing) -> int:
    if not drawing.random:
        if runs not in (None, 1):
            raise ValueError(f"runs = {runs}: in a fixed order all runs are the same one")
        return 1
    return RUNS if runs is None else check_count("runs", runs, 1)


def _units(asked: Asked, drawing: Drawing) -> tuple[int, int, int]:
    """The number of steps in a unit, of units, and of units from one record to the next."""
    unit = drawing.unit
    if asked.epochs is not None:
        if drawing.size is not None:
            raise ValueError("epochs is for methods that take each batch once in one: give steps")
        units = check_count("epochs", asked.epochs, 1)
    else:
        steps = check_count("steps", asked.steps, 1)
        if steps % unit:
            raise ValueError(f"steps must be whole epochs of {unit} steps; got {steps}.")
        units = steps // unit
    every = asked.record_every or -(-units // 100) * unit
    if every % unit:
        raise ValueError(f"record_every must be whole epochs, of {unit} steps; got {every}.")
    return unit, units, every // unit


def _draws(key: Any, drawing: Drawing, runs: int, units: int, count: int) -> tuple[Array, bool]:
    """The random draws, (units, runs, ...), and whether the runs are in antithetic pairs."""
    if not drawing.random:
        order = drawing.order or tuple(range(count))
        return jnp.broadcast_to(jnp.asarray(order, jnp.int32), (units, 1, count)), False
    if drawing.size is not None:
        return _drawn_examples(key, units, runs, drawing.size, count), False
    # To every run there is one that takes each epoch backwards: most of the spread cancels.
    paired = runs >= 4 and runs % 2 == 0
    orders = _drawn_orders(key, units, runs // 2 if paired else runs, count)
    return (jnp.concatenate([orders, orders[..., ::-1]], axis=1) if paired else orders), paired


@compiled
def _drawn_examples(key: Any, units: int, runs: int, batch_size: int, count: int) -> Array:
    return jax.random.randint(key, (units, runs, batch_size), 0, count)


@compiled
def _drawn_orders(key: Any, units: int, runs: int, count: int) -> Array:
    keys = jax.random.split(key, (units, runs))
    permute = lambda k: jax.random.permutation(k, count)  # noqa: E731
    return jax.vmap(jax.vmap(permute))(keys)


def _unit(optimizer: Any, losses: Losses, drawing: Drawing) -> Callable[..., Any]:
    """One epoch, or one step on drawn examples, as a function `(carry, draw, batches) -> carry`."""
    update = optax.with_extra_args_support(optimizer).update

    def step(carry: Any, batch: PyTree, batches: PyTree) -> Any:
        params, state = carry

        def loss(p: PyTree) -> Array:
            if drawing.size is None:
                return losses.traced(p, batch)
            return jnp.mean(jax.vmap(lambda example: losses.traced(p, example))(batch))

        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = update(gradient, state, params, value=value, grad=gradient, value_fn=loss)
        return optax.apply_updates(params, updates), state

    def unit(carry: Any, draw: Array, batches: PyTree) -> Any:
        if drawing.size is not None:
            return step(carry, jax.tree.map(lambda x: x[draw], batches), batches)
        one = lambda c, k: (step(c, jax.tree.map(lambda x: x[k], batches), batches), None)  # noqa: E731
        return jax.lax.scan(one, carry, draw)[0]

    return unit


class _Unpack(NamedTuple):
    """Functions from a comparison's start to a flow's state, and from its states to params."""

    start: Callable[[Any], Any]
    end: Callable[[Any], tuple[PyTree, dict[str, PyTree]]]


def _lifted(field: Any, unsigned: frozenset[str]) -> Any:
    """The field with those kept states clipped at zero that are never negative."""
    return lambda t, y, args: field(t, (y[0], not_below_zero(y[1], unsigned)), args)


def _as_it_is(method: Method) -> _Unpack:
    """The `_Unpack` of a flow whose state is params, or params and kept states."""
    return _Unpack(lambda y: y, lambda ys: ys if method.kept else (ys, {}))


@singledispatch
def _field(
    method: Any, p: FlowName, losses: Losses, h: Number, params: PyTree
) -> tuple[Any, _Unpack]:
    """The field of the mean loss at one order, and how its states are unpacked."""
    field = vector_field(modified_equation(method, int(p)), losses.mean, h)
    return field, _as_it_is(method)


@_field.register
def _(method: EpochMethod, p: FlowName, losses: Losses, h: Number, params: PyTree) -> Any:
    field = vector_field(modified_equation(method, int(p)), losses.of, h, losses.batches)
    return field, _Unpack(lambda y: y, lambda ys: (ys, {}))


@_field.register
def _(method: SampledMethod, p: FlowName, losses: Losses, h: Number, params: PyTree) -> Any:
    """The field of the mean: gradient flow at h^0; at h^1 the covariance moves it too."""
    equation = modified_equation(method, int(p))
    if p == 0:
        field = vector_field(equation.drift, losses.mean, h)
        return field, _Unpack(lambda y: y, lambda ys: (ys, {}))
    count = size(partition(params)[0])
    if count > MOMENTS:
        raise ValueError(
            f"at h^1 the mean of {method.name} moves with its covariance, which is followed for "
            f"at most {MOMENTS} parameters; there are {count}"
        )
    field = moments_field(equation, losses.of, h, losses.batches)
    dtype = jnp.result_type(jnp.float32, *jax.tree.leaves(partition(params)[0]))
    none = np.zeros((count, count), dtype)
    return field, _Unpack(lambda y: (y, jnp.asarray(none)), lambda ys: (ys[0], {}))
