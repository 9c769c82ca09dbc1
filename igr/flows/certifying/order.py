"""Measures the order of a field: the slope of its one-step error against h."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, Unpack, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from igr.backward_error import modified_equation
from igr.backward_error.protocols import Method
from igr.checks import Count, Number, check_count, check_step
from igr.compiled import Traced, compiled, traced
from igr.compiled.content import Opaque, content
from igr.flows import kinds
from igr.flows.certifying.default_steps import SEARCH, default_steps, largest_step
from igr.flows.certifying.optimizers import Optimizer, check_optimizer, is_optimizer
from igr.flows.certifying.refined import refined
from igr.flows.fields.from_steps.interpolation import interpolating_field
from igr.flows.fields.vector_field import vector_field
from igr.flows.on_the_host import on_the_host
from igr.flows.parts import with_parts
from igr.flows.runnable import check_start, time_like
from igr.flows.solving.along_flow import along_flow
from igr.meshes import on_any_mesh
from igr.options import check_known
from igr.progress.late_bar import counting_bar
from igr.pytrees import partition
from igr.tracing import ReadingOptions, read_optimizer

ValueFn = Callable[[PyTree], Array]

_MIDWAY = 40  # the steps after which a kept state is looked at, where its rate is the method's

_CLEAR = 300  # times rounding: an error that shows


class ObservedOrder(float):
    """A fitted slope as a float, with the steps and errors it was fitted to.

    Attributes:
      hs: the steps, decreasing.
      errors: the Euclidean norm of the one-step error for each.
      rounding: the error that rounding alone can make.
      at_rounding: for each step, whether its error is too near to rounding; the fit leaves such
        steps out.
    """

    hs: np.ndarray
    errors: np.ndarray
    rounding: float
    at_rounding: np.ndarray

    def __new__(cls, hs: np.ndarray, errors: np.ndarray, rounding: Number) -> ObservedOrder:
        """Fits the slope to the errors that are above rounding; nan if there are fewer than two."""
        at_rounding = errors < 30 * rounding
        usable = ~at_rounding & np.isfinite(errors)
        slope = (
            np.polyfit(np.log(hs[usable]), np.log(errors[usable]), 1)[0]
            if usable.sum() >= 2
            else np.nan
        )
        self = super().__new__(cls, slope)
        self.hs, self.errors = hs, errors
        self.rounding, self.at_rounding = rounding, at_rounding
        return self


@on_the_host
def observed_order(
    method: Method | Callable[..., optax.GradientTransformation],
    value_fn: ValueFn,
    params: PyTree,
    order: Count,
    hs: Sequence[Number] | None = None,
    *,
    optimizer: Optimizer | None = None,
    field: Literal["derived", "interpolating"] = "derived",
    progress: bool | None = None,
    **options: Unpack[ReadingOptions],
) -> ObservedOrder:
    """Measures the slope of the one-step error against h in a log-log plot; order + 2 is expected.

    One step of the method is compared with the flow of its field over the time h. Where the method
    has a memory, it is filled with the gradients on the flow followed backwards, as far as the
    method remembers, so that the error is that of the field and not of a start-up.
    A state that the method keeps is compared too; its rate is fixed per unit of time, so that the
    share of the new value that enters in a step falls with h. Some 24 copies of params, and of each
    kept state, are held.

    Args:
      method: from `igr.methods`, without open symbols; or an optax optimizer as a function of the
        learning rate, which is read. The steps then are its own, its code replayed with its clocks
        slowed as h falls.
      value_fn: the loss E, `params -> scalar`.
      params: where to measure. In float32 the error reaches rounding before the order shows.
      order: the highest power of h kept in the field, at least 0.
      hs: the steps to fit over. If not given: five, within the convergence of the expansion at
        params and far enough above rounding.
      optimizer: `learning_rate -> optax.GradientTransformation`, whose steps are taken instead of
        the method's own, as in `lambda h: optax.sgd(h, momentum=0.9)`. For a method that keeps
        states it is called as `optimizer(h, rates)`, with `rates` the shares by the states'
        names: `lambda h, rates: optax.adam(h, b2=1 - rates["nu"])`.
      field: "derived" from the method, or "interpolating" its iterates (`igr.interpolating_field`;
        methods without memory).
      progress: whether to show a bar with the time left; if not given, only after some seconds.
      **options: `igr.tracing.ReadingOptions`, `keep` and `smooth`, for an optimizer that is read.

    Returns:
      The slope as an `ObservedOrder`, a float with the steps and errors it was fitted to; nan if
      fewer than two errors are above rounding.

    Raises:
      ValueError: if the loss is not a finite scalar at params, a step is not positive, or fewer
        than two steps are given.
      TypeError: if `optimizer` is a transformation itself, whose step cannot be changed; if there
        is no option of a name that is given.
      UnreadableOptimizerError: a `ValueError`, if `method` is an optimizer that cannot be read.

    >>> from igr.backward_error import methods
    >>> with jax.enable_x64(True):
    ...     slope = observed_order(methods.gradient_descent(), lambda x: jnp.sum(jnp.cosh(x)),
    ...                            jnp.array([0.4, 1.0]), order=1)
    >>> round(slope, 1)
    3.0
    """
    check_known(observed_order, options)
    order = check_count("order", order, 0)
    slowed, midway, described = None, _MIDWAY, cast("Any", method)
    if is_optimizer(described):
        if optimizer is not None:
            raise TypeError(
                "method is an optimizer itself, whose steps are taken: leave optimizer= out"
            )
        reading = read_optimizer(described, params=params, **options)
        described, slowed = reading.method, refined(reading)
        midway = max(midway, reading.since)  # before it, what is eliminated has not filled
    elif any(value is not None for value in options.values()):
        raise ValueError(
            "keep and smooth say how an optimizer is read; method is described already"
        )
    kinds.check_runnable(described)
    loss = check_start(value_fn, params)
    check_optimizer(optimizer)
    if field not in ("derived", "interpolating"):
        raise ValueError(f"field must be 'derived' or 'interpolating'; got {field!r}.")
    memory = _memory(described)
    keeps = bool(described.kept)
    if field == "interpolating" and (memory or keeps):
        raise ValueError(
            f"{described.name} has a memory: an interpolating field needs a step of params alone"
        )
    dynamic, _ = partition(params)
    if hs is not None:
        hs = [check_step("hs", h) for h in hs]
        if len(hs) < 2:
            raise ValueError(f"hs must have at least two steps; got {len(hs)}.")
    equation = modified_equation(described, order)
    largest = float(max(hs)) if hs is not None else largest_step(described, loss, dynamic)
    # So slow that a kept state moves little over the past that a memory beside it is filled from.
    rates_at = largest * (1 + memory)

    at = time_like(rates_at, params)

    # What the optimizer reads is read now: a program is compiled for what it does.
    def stepping(h: Array, at: Array) -> optax.GradientTransformationExtraArgs:
        if slowed is not None:
            return slowed(h, at)
        return optax.with_extra_args_support(_stepping(described, optimizer, h, at))

    def step(h: Array, at: Array, loss: ValueFn, state: Any, p: PyTree) -> tuple[Any, PyTree]:
        gradient = jax.grad(lambda q: loss(q))(p)
        updates, state = stepping(h, at).update(gradient, state, p, value_fn=loss)
        return state, jax.tree.map(jnp.add, p, updates)

    start = traced(lambda h, at, p: stepping(h, at).init(p), at, at, dynamic)
    example = eqx.filter_eval_shape(start, at, at, dynamic)
    one_step = traced(step, at, at, loss, example, dynamic)
    recipe = _Recipe(described, equation, field, order, memory, keeps, midway, slowed is not None)
    written = None
    try:
        content(recipe)
    except Opaque:  # code is known by what it does: it is traced, as the optimizer is
        written = _traced(recipe, start, one_step, loss, dynamic, at)
        recipe = replace(recipe, method=described.kept, equation=None)
    dtype = jnp.result_type(jnp.float32, *(x.dtype for x in jax.tree.leaves(dynamic)))

    eps = max(float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves(dynamic))
    rounding = eps * float(optax.tree.norm(dynamic))
    with counting_bar(f"order {order}", SEARCH * (hs is None) + 5, progress) as count:

        def error_at(h: Number) -> float:
            h_ = np.asarray(h, dtype)
            error = float(_error(recipe, written, start, one_step, loss, dynamic, h_, at))
            count()
            return error

        if hs is None:
            # An optimizer's own code rounds more than once for each number it remembers.
            clear = _CLEAR if slowed is None else 10 * _CLEAR * (1 + memory / 10)
            steps = default_steps(error_at, order, largest, clear * rounding)
            # One whose steps have a length of their own may move little in what curvature allows.
            for _ in range(5 if slowed is not None else 0):
                if steps[-1] < largest / 4:
                    break
                largest *= 16
                at = time_like(largest * (1 + memory), params)
                steps = default_steps(error_at, order, largest, clear * rounding)
        else:
            steps = np.sort(np.asarray(hs, float))[::-1]
        errors = np.array([error_at(h) for h in steps])
    return ObservedOrder(steps, errors, rounding)


@dataclass(frozen=True)
class _Recipe:
    """The static arguments of the program of a one-step error."""

    method: Any
    equation: Any
    field: str
    order: int
    memory: int
    keeps: bool
    midway: int
    slowed: bool


class _Written(NamedTuple):
    """The traced parts of a method that is code: its field, and its kept states at rest."""

    field: Traced
    at_rest: Traced | None


def _traced(
    recipe: _Recipe, start: Traced, one_step: Traced, loss: Traced, params: PyTree, at: Any
) -> _Written:
    """The field, and the kept states at rest, of a recipe's method, traced in this call."""
    at_rest, state = None, params
    if recipe.keeps and recipe.slowed:
        about = partial(_about, one_step, start, loss, at=at, kept=recipe.method.kept)
        state = params, eqx.filter_eval_shape(about, params)
    elif recipe.keeps:
        at_rest = traced(partial(_at_rest, recipe.method), loss, params, at, at, at)
        state = params, at_rest.shapes

    def field(h: Array, rates_at: Array, loss: ValueFn, t: Array, y: PyTree) -> PyTree:
        return _field(recipe, loss, h, rates_at)(t, y, None)

    return _Written(traced(field, at, at, loss, at, state), at_rest)


def _field(recipe: _Recipe, loss: ValueFn, h: Array, rates_at: Array) -> Callable[..., PyTree]:
    if recipe.keeps or recipe.slowed:
        return kinds.field_of(recipe.equation, loss, h, rates_at=rates_at)
    return vector_field(recipe.equation, loss, h)


def _at_rest(
    method: Any, loss: ValueFn, params: PyTree, h: Array, rates_at: Array, count: Array
) -> dict[str, PyTree]:
    """The kept states after `count` steps with a constant gradient, by name."""
    gradient = jax.grad(lambda p: loss(p))(params)
    return kinds.state_at_rest(
        method, gradient, params, h, rates_at=rates_at, count=count, value_fn=loss
    )


@compiled
@on_any_mesh
def _error(
    recipe: _Recipe,
    written: _Written | None,
    start: Traced,
    one_step: Traced,
    loss: Traced,
    params: PyTree,
    h: Array,
    rates_at: Array,
) -> Array:
    """The distance between one step of the method and the flow over the time h."""
    state = start(h, rates_at, params)

    def step(state: Any, p: PyTree) -> tuple[Any, PyTree]:
        return one_step(h, rates_at, loss, state, p)

    at, t = params, jnp.zeros_like(h)
    count = jnp.zeros_like(h)
    memory = recipe.memory
    if recipe.field != "derived":
        f = interpolating_field(lambda p: step(state, p)[1], recipe.order, h)
    elif written is None:
        f = _field(recipe, loss, h, rates_at)
    else:
        f = lambda t, y, args: written.field(h, rates_at, loss, t, y)  # noqa: E731
    if recipe.keeps or recipe.slowed:
        # In the middle of the run.
        count = memory + jnp.round(recipe.midway * rates_at / h)
        t = count * h
    if recipe.keeps:
        kept = recipe.method.kept if written is None else recipe.method
        if recipe.slowed:
            rest = _about(one_step, start, loss, params, rates_at, kept)
        elif written is None or written.at_rest is None:
            rest = _at_rest(recipe.method, loss, params, h, rates_at, count)
        else:
            rest = written.at_rest(loss, params, h, rates_at, count)
        at = params, rest
    past = along_flow(f, at, t, -h, memory)
    if memory:
        oldest_first = jax.tree.map(lambda x: x[::-1], past)
        if recipe.keeps or recipe.slowed:
            state = with_parts(state, count=count - memory)

        def fill(state: Any, seen: Any) -> tuple[Any, None]:
            if recipe.keeps:  # what was remembered then may have been made of what was kept then
                return step(with_parts(state, **seen[1]), seen[0])[0], None
            return step(state, seen)[0], None

        state, _ = jax.lax.scan(fill, state, oldest_first)
    if recipe.keeps:
        state = with_parts(state, **at[1], count=count)
    elif recipe.slowed:
        state = with_parts(state, count=count)
    after, stepped = step(state, params)
    ahead = jax.tree.map(lambda x: x[0], along_flow(f, at, t, h, 1))
    if not recipe.keeps:
        return optax.tree.norm(optax.tree.sub(ahead, stepped))
    reached = stepped, {y: optax.tree.get(after, y) for y in at[1]}
    apart = optax.tree.sub(ahead, reached)
    if recipe.slowed:  # a sum kept over a run may be of any size
        sizes = {y: jnp.maximum(optax.tree.norm(value), 1) for y, value in at[1].items()}
        relative = {y: jax.tree.map(lambda x, y=y: x / sizes[y], apart[1][y]) for y in sizes}
        apart = apart[0], relative
    return optax.tree.norm(apart)


def _about(
    one_step: Traced,
    start: Traced,
    loss: Traced,
    params: PyTree,
    at: Array,
    kept: tuple[str, ...],
) -> dict[str, PyTree]:
    """An optimizer's kept states after some steps with gradients from points near params.

    The gradients have to vary: a variance of 0 has a root without derivative, and so has the
    distance of params from their start.
    """

    def about(shift: Any) -> PyTree:
        return jax.tree.map(lambda p: p + (shift * jnp.cos(p)).astype(p.dtype), params)

    def step(state: Any, n: Array) -> tuple[Any, None]:
        return one_step(at, at, loss, state, about(0.1 * jnp.sin(n.astype(at.dtype))))[0], None

    state, _ = jax.lax.scan(step, start(at, at, about(0.3)), jnp.arange(_MIDWAY))
    return {y: optax.tree.get(state, y) for y in kept}


def _stepping(
    method: Any, optimizer: Optimizer | None, h: Array, at: Number | Array
) -> optax.GradientTransformation:
    """The transformation whose steps are taken, with kept states at the rates of the step `at`."""
    if optimizer is None:
        return kinds.step_of(method, h, rates_at=at)
    return optimizer(h, kinds.shares_of(method, h, at)) if method.kept else optimizer(h)


def _memory(method: Method) -> int:
    """The number of steps back at which a weight of the memory still exceeds rounding."""
    fading, steps = method.memory()
    recursion = 0 if fading == 0 else int(np.ceil(np.log(1e-17) / np.log(fading)))
    return recursion + steps
