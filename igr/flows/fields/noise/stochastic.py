"""The stochastic equation of SGD with replacement, for diffrax, without forming a covariance.

With n examples, the noise sqrt(h Sigma/B) dW has the same law as

    sqrt(h / (n B)) sum_i (g_i - g) dW_i

for n independent Brownian motions, one for each example; and a weighted sum of gradients is the
gradient of the weighted loss. One application of the noise costs one gradient, whatever the number
of parameters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from igr.backward_error.stochastic import StochasticEquation
from igr.checks import Number, check_number, check_step
from igr.compiled import Traced, compiled, traced
from igr.flows.fields.noise.small_noise import SmallNoiseHeun
from igr.flows.fields.vector_field import Field, vector_field
from igr.flows.solving.flow_bar import FlowBar
from igr.flows.solving.options import DiffeqsolveOptions
from igr.forward_mode import jvp
from igr.options import with_defaults
from igr.per_example import per_example_gradients
from igr.per_example.example_axis import differentiable
from igr.progress import expected
from igr.progress.late_bar import close, new_bar, under_transformation
from igr.pytrees import combine, num_examples, partition
from igr.shown import short, table

_EVALUATIONS = 3  # of drift and noise that a step takes, about: for a bar

ExampleLossFn = Callable[[PyTree, PyTree], Array]


class StochasticField(NamedTuple):
    """A stochastic differential equation for diffrax: d theta = drift dt + diffusion dW (Ito).

    Attributes:
      drift: `f(t, params, args)`, for `diffrax.ODETerm`.
      diffusion: `f(t, params, args)`, a linear operator from the n increments of the Brownian
        motion to params, for `diffrax.ControlTerm`.
      num_examples: n, the dimension of the Brownian motion.
      h: the step of the method.
    """

    drift: Field
    diffusion: Callable[[Any, PyTree, Any], lineax.AbstractLinearOperator]
    num_examples: int
    h: float | Array

    __repr__ = short
    _repr_html_ = table

    def terms(
        self,
        t0: Number | Array,
        t1: Number | Array,
        key: PRNGKeyArray,
        tol: Number | Array,
        dtype: Any = None,
    ) -> diffrax.MultiTerm:
        """Drift and noise as a term for `diffrax.diffeqsolve`, with a Brownian motion from `key`.

        Args:
          t0: the start.
          t1: the end.
          key: for the Brownian motion; the same key draws the same path.
          tol: the time to which the path is resolved, less than the solver's steps.
          dtype: the dtype of the increments; the default floating dtype if not given.

        Returns:
          A term for an Ito solver, such as `SmallNoiseHeun` or `diffrax.Euler`; the params it is
          solved for must have floating leaves alone.
        """
        shape = jax.ShapeDtypeStruct((self.num_examples,), dtype or jnp.result_type(float))
        motion = diffrax.VirtualBrownianTree(t0, t1, tol, shape, key)
        return diffrax.MultiTerm(
            diffrax.ODETerm(self.drift),  # pyright: ignore[reportArgumentType]
            diffrax.ControlTerm(self.diffusion, motion),
        )


def stochastic_field(
    eq: StochasticEquation, example_loss_fn: ExampleLossFn, h: Number | Array, batch: PyTree
) -> StochasticField:
    """Compiles the stochastic modified equation of SGD with replacement for diffrax.

    No gradient of a single example is held: the noise is the gradient of a loss with random
    weights, and the drift a field as of `igr.vector_field`.

    Args:
      eq: from `igr.modified_equation(igr.methods.sgd_with_replacement(batch_size), order)`.
      example_loss_fn: `(params, example) -> scalar`.
      h: the step.
      batch: all examples: a pytree of arrays with a leading axis of n.

    Returns:
      A `StochasticField`: its drift and its diffusion.

    Raises:
      TypeError: if `eq` is not such an equation.
      ValueError: if its batch size is a symbol, `h` is not positive, or the leaves of batch
        disagree.

    >>> from igr.backward_error import methods, modified_equation
    >>> eq = modified_equation(methods.sgd_with_replacement(1), order=0)
    >>> field = stochastic_field(eq, lambda x, a: (x - a) ** 2 / 2, 0.5, jnp.array([0.0, 2.0]))
    >>> print(field.drift(0.0, jnp.array(3.0), None))
    -2.0
    >>> print(field.diffusion(0.0, jnp.array(3.0), None).mv(jnp.array([1.0, 0.0])))
    0.5
    """
    h, n = check_step("h", h), _check(eq, batch)

    def mean_loss(params: PyTree) -> Array:
        return _weighted_loss(example_loss_fn, params, batch, jnp.full(n, 1 / n))

    drift = vector_field(eq.drift, mean_loss, h)
    amplitude = jnp.sqrt(h / (n * int(eq.batch_size)))

    def diffusion(t: Any, params: PyTree, args: Any = None) -> lineax.AbstractLinearOperator:
        del t, args
        dynamic, static = partition(params)
        loss = lambda p, w: _weighted_loss(example_loss_fn, combine(p, static), batch, w)  # noqa: E731

        def noise(increments: Float[Array, " n"]) -> PyTree:
            weights = amplitude * (increments - jnp.mean(increments))
            found = jax.grad(loss)(dynamic, weights)
            return jax.tree.map(lambda g, p: g.astype(p.dtype), found, dynamic)

        dtype = jnp.result_type(jnp.float32, *(x.dtype for x in jax.tree.leaves(dynamic)))
        return lineax.FunctionLinearOperator(noise, jax.ShapeDtypeStruct((n,), dtype))

    return StochasticField(drift, diffusion, n, h)


def stochastic_flow(
    field: StochasticField,
    params: PyTree,
    t1: Number,
    *,
    key: PRNGKeyArray,
    t0: Number = 0.0,
    ts: Float[Array | np.ndarray, " k"] | None = None,
    progress: bool | None = None,
    **options: Unpack[DiffeqsolveOptions],
) -> diffrax.Solution:
    """Solves SGD's stochastic equation for one path, by `diffrax.diffeqsolve`.

    Time is that of the equation: n steps of the method take t = n h. `jax.vmap` over the keys gives
    many paths. Four copies of params are held besides those of the field and the saved states.

    Args:
      field: from `stochastic_field`.
      params: the start; integer and static leaves pass through.
      t1: the end.
      key: draws the path.
      t0: the start's time.
      ts: times at which to save, within [t0, t1]; only t1 if not given.
      progress: whether to show a bar with the time left; if not given, only after some seconds.
        There is none under a transformation such as jit or vmap.
      **options: `DiffeqsolveOptions`. The solver's step `dt0`, of which t1 - t0 should be a
        multiple, is h if not given. Another Ito `solver` may stand for `SmallNoiseHeun()`, whose
        weak error is of order dt0^2 + h dt0, which with dt0 = h is that of an equation of order 1
        itself; Euler's is of order dt0.

    Returns:
      A `diffrax.Solution` whose `ys` have a leading axis of the saved times.

    Raises:
      ValueError: if dt0 is not positive, or t1 is not after t0.
      TypeError: if there is no option of a name that is given.

    >>> from igr.backward_error import methods, modified_equation
    >>> eq = modified_equation(methods.sgd_with_replacement(1), order=1)
    >>> field = stochastic_field(eq, lambda x, a: (x - a) ** 2 / 2, 0.1, jnp.array([-1.0, 1.0]))
    >>> solution = stochastic_flow(field, jnp.array(3.0), t1=1.0, key=jax.random.key(0))
    >>> solution.ys.shape
    (1,)
    """
    asked = with_defaults(stochastic_flow, options, solver=SmallNoiseHeun(), max_steps=1_000_000)
    saves_params = "saveat" not in asked
    step = check_step("dt0", asked.pop("dt0", field.h))
    t0, t1 = check_number("t0", t0), check_number("t1", t1)
    if not float(t1) > float(t0):
        raise ValueError(f"t1 must be after t0; got t0 = {t0}, t1 = {t1}.")
    dynamic, static = partition(params)
    # diffrax gives time and state one dtype: a float64 clock would make float32 params double.
    dtype = jnp.result_type(jnp.float32, *(x.dtype for x in jax.tree.leaves(dynamic)))
    steps = (t1 - t0) / step
    start, end, step = (jnp.asarray(t, dtype) for t in (t0, t1, step))

    def whole(y: PyTree) -> PyTree:
        return combine(_cast_like(y, dynamic), static)

    def drift(t: Any, y: PyTree, args: Any) -> PyTree:
        return _cast_like(partition(field.drift(t, whole(y), args))[0], y)

    def noise(t: Any, y: PyTree, args: Any, increments: Array) -> PyTree:
        return _cast_like(field.diffusion(t, whole(y), args).mv(increments), y)

    if saves_params:
        times = None if ts is None else jnp.asarray(ts, dtype)
        asked["saveat"] = diffrax.SaveAt(t1=ts is None, ts=times)
    state = jax.tree.map(lambda x: x.astype(dtype), dynamic)
    at = start, state, asked.get("args")
    increments = jax.ShapeDtypeStruct((field.num_examples,), dtype)
    now = traced(drift, *at), _Diffusion(traced(noise, *at, increments), increments)
    terms = StochasticField(*now, field.num_examples, field.h).terms(
        start, end, key, tol=step / 2, dtype=dtype
    )
    bar = None
    inputs = terms, start, end, step, state, asked
    if progress is not False and "progress_meter" not in asked:
        seconds = _EVALUATIONS * sum(
            expected.expected_seconds(part.program.jaxpr) for part in (now[0], now[1].noise)
        )
        if not under_transformation(inputs) and (progress or steps * seconds >= expected.WORTH):
            bar = new_bar("path", progress)
            asked["progress_meter"] = FlowBar(bar, expected.apart(seconds))
    try:
        solution = _solved(terms, start, end, step, state, asked)
        if bar is not None:
            jax.block_until_ready(solution.stats)
    finally:
        if bar is not None:
            close(bar)
    if solution.ys is not None and saves_params:
        ys = combine(_cast_like(solution.ys, dynamic), static)
        solution = eqx.tree_at(lambda s: s.ys, solution, ys, is_leaf=lambda x: x is None)
    return solution


class _Diffusion(eqx.Module):
    """A traced noise function, as the diffusion of diffrax: state -> linear operator."""

    noise: Traced
    increments: jax.ShapeDtypeStruct = eqx.field(static=True)

    def __call__(self, t: Any, y: PyTree, args: Any) -> lineax.AbstractLinearOperator:
        return lineax.FunctionLinearOperator(lambda w: self.noise(t, y, args, w), self.increments)


@compiled
def _solved(
    terms: diffrax.MultiTerm,
    t0: Array,
    t1: Array,
    dt0: Array,
    state: PyTree,
    options: dict[str, Any],
) -> diffrax.Solution:
    return diffrax.diffeqsolve(terms, t0=t0, t1=t1, dt0=dt0, y0=state, **options)


def moments_field(
    eq: StochasticEquation, example_loss_fn: ExampleLossFn, h: Number | Array, batch: PyTree
) -> Field:
    """The ordinary equation of the mean and covariance of SGD with replacement.

        mean' = F(mean) - (1/2) T[C],    C' = -(H C + C H) + h Sigma/B,

    F the drift, T the third derivative of the loss and H its Hessian, both at the mean. C is of
    order h: with this closure mean and covariance have errors of order h^2 at a fixed time. At
    order 0 the term T[C] is left out, and the mean has an error of order h. It is for small
    problems: some five matrices of p x p are held, p the number of all floating entries.

    Args:
      eq: from `igr.modified_equation(igr.methods.sgd_with_replacement(batch_size), order)`.
      example_loss_fn: `(params, example) -> scalar`.
      h: the step.
      batch: all examples: a pytree of arrays with a leading axis of n.

    Returns:
      `f(t, (mean, covariance), args)`, for `igr.flow`: mean is like params, covariance p x p over
      the floating leaves as `jax.flatten_util.ravel_pytree` orders them.

    Raises:
      TypeError: if `eq` is not such an equation.
      ValueError: as `stochastic_field`, or if the covariance does not fit the parameters.

    On a quadratic the variance of SGD settles at h Sigma/(2 lambda) to first order:

    >>> from igr.backward_error import methods, modified_equation
    >>> from igr.flows import flow
    >>> eq = modified_equation(methods.sgd_with_replacement(1), order=1)
    >>> field = moments_field(eq, lambda x, a: (x[0] - a) ** 2 / 2, 0.1, jnp.array([-1.0, 1.0]))
    >>> mean, covariance = flow(field, (jnp.ones(1), jnp.zeros((1, 1))), t1=10.0).ys
    >>> print(covariance.round(4))
    [[[0.05]]]
    """
    h, n = check_step("h", h), _check(eq, batch)
    noise = h / int(eq.batch_size)

    def mean_loss(params: PyTree) -> Array:
        return _weighted_loss(example_loss_fn, params, batch, jnp.full(n, 1 / n))

    drift = vector_field(eq.drift, mean_loss, h)

    def field(t: Any, state: tuple[PyTree, Array], args: Any = None) -> tuple[PyTree, Array]:
        params, covariance = state
        dynamic, static = partition(params)
        flat, unravel = ravel_pytree(dynamic)
        if covariance.shape != (flat.size, flat.size):
            raise ValueError(
                f"the covariance of {flat.size} parameters must be {flat.size} x {flat.size}; got "
                f"shape {covariance.shape}."
            )

        def loss(p: Float[Array, " p"]) -> Array:
            return mean_loss(combine(unravel(p), static))

        def example_loss(p: Float[Array, " p"], example: PyTree) -> Array:
            return example_loss_fn(combine(unravel(p), static), example)

        def along(direction: Float[Array, " p"]) -> Callable[[Array], Array]:
            return lambda p: jvp(jax.grad(loss), (p,), (direction,))[1]

        def row(of: tuple[Array, Array]) -> tuple[Array, Array]:
            """The vectors H c and T[c, e] for a row c of the covariance, e its unit vector."""
            c, e = of
            return jvp(along(c), (flat,), (e,))

        product, bent = jax.lax.map(row, (covariance, jnp.eye(flat.size, dtype=flat.dtype)))
        gradients = per_example_gradients(example_loss, flat, batch)
        apart = gradients - jnp.mean(gradients, axis=0)
        moved = drift(t, params, args)
        if eq.order > 0:
            bend = unravel(-jnp.sum(bent, axis=0) / 2)
            moving, rest = partition(moved)
            moved = combine(jax.tree.map(jnp.add, moving, bend), rest)
        change = noise * apart.T @ apart / n - product - product.T
        return moved, change.astype(covariance.dtype)

    return field


def _cast_like(values: PyTree, like: PyTree) -> PyTree:
    return jax.tree.map(lambda x, y: x.astype(y.dtype), values, like)


def _check(eq: Any, batch: PyTree) -> int:
    if not isinstance(eq, StochasticEquation):
        raise TypeError(
            "eq must be the stochastic equation of igr.methods.sgd_with_replacement(batch_size), "
            f"from igr.modified_equation; got {eq!r}."
        )
    if eq.parameters:
        raise ValueError(
            f"the equation of {eq.name} has the open symbol {eq.batch_size}: derive it for a number"
        )
    return num_examples(batch)


def _weighted_loss(
    example_loss_fn: ExampleLossFn, params: PyTree, batch: PyTree, weights: Float[Array, " n"]
) -> Array:
    """The sum of w_i loss_i over the examples, a scalar."""
    dynamic, loss_fn = differentiable(example_loss_fn, params)
    losses = jax.vmap(lambda example: loss_fn(dynamic, example))(batch)
    return jnp.sum(weights.astype(losses.dtype) * losses)
