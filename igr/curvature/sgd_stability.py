"""Whether SGD stays at a minimum: linear stability in the mean square."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from igr.checks import Count, Number, check_count, check_step
from igr.convolutions import differentiable_by_example
from igr.curvature.eigenpairs import Eigenpairs, top_eigenpairs
from igr.curvature.hessian import hessian_product
from igr.curvature.operator import first_example, operator, traced_scalar
from igr.curvature.options import SearchOptions
from igr.curvature.vectors import working_dtype
from igr.forward_mode import linearize
from igr.options import check_known
from igr.pytrees import combine, is_trained, num_examples, partition, trained_part
from igr.shown import short, table


class SGDStability(NamedTuple):
    """What decides whether SGD stays at a minimum.

    Attributes:
        growth: The largest eigenvalue of (I - eta H)^2 + eta^2 (n - B) / (B (n - 1)) Sigma: the
            mean square distance to the minimum grows by at most this factor a step.
        stable: Whether growth <= 1, to rounding: then the minimum is linearly stable.
        sharpness: a, the largest eigenvalue of H.
        sharpness_limit: 2 / eta, which a must not exceed.
        non_uniformity: s, the largest eigenvalue of Sigma^(1/2).
        non_uniformity_limit: sqrt(B (n - 1) / (n - B)) / eta, which s must not exceed; infinite
            for the full batch.
        necessary: Whether 0 <= a and both limits hold, which stability needs.
        converged: Whether all three eigenvalues were found to the tolerance.
    """

    growth: Float[Array, ""]
    stable: Bool[Array, ""]
    sharpness: Float[Array, ""]
    sharpness_limit: Float[Array, ""]
    non_uniformity: Float[Array, ""]
    non_uniformity_limit: Float[Array, ""]
    necessary: Bool[Array, ""]
    converged: Bool[Array, ""]

    __repr__ = short
    _repr_html_ = table


def sgd_stability(
    example_loss_fn: Callable[..., Any],
    params: PyTree,
    batch: PyTree,
    learning_rate: Number | Float[Array, ""],
    batch_size: Count,
    *,
    chunk: Count = 16,
    progress: bool | None = None,
    **options: Unpack[SearchOptions],
) -> SGDStability:
    """Whether SGD at this learning rate and batch size stays at the minimum `params`.

    With H_i the Hessian of the loss of example i, H their mean and Sigma = mean H_i^2 - H^2, a
    minimum where every example's loss is minimal is linearly stable if

        lambda_max( (I - eta H)^2 + eta^2 (n - B) / (B (n - 1)) Sigma ) <= 1.

    No matrix is formed. The mean of H_i^2 v takes the vector H_i v of every example, `chunk` of
    them at a time, so that a product costs about as much as all per-example gradients: meant for
    networks and data sets of modest size.

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves: the minimum. (Elsewhere the numbers are what they
            are, but the theorem does not apply.)
        batch: The n examples that SGD draws from, a pytree with a leading example axis.
        learning_rate: eta.
        batch_size: B, drawn without replacement.
        chunk: The number of examples taken at a time; the memory is about that of 2 chunk
            vectors, and of the bases of three searches, some 52 more.
        progress: Whether to show bars with the time left, one for each of the three searches;
            those of what takes more than some seconds if not given. There is none under a
            transformation such as jit or vmap.
        **options: `SearchOptions`, for each of the three: the relative error to reach, `tol`, that
            of growth in growth - 1, the most products to spend, `max_products`, and a `key`.

    Returns:
        An `SGDStability`: growth, stable, sharpness and non_uniformity with their limits,
        necessary, converged.

    Raises:
        ValueError: If the learning rate is not positive and finite, B is not between 1 and n, n is
            below 2, or as `hessian_product`.
        TypeError: If there is no option of a name that is given.

    >>> import jax.numpy as jnp
    >>> found = sgd_stability(lambda w, x: x * w**2 / 2, jnp.zeros(()), jnp.array([1.0, 3]), 1.0, 1)
    >>> print(found.growth, found.sharpness, found.non_uniformity, bool(found.stable))
    2.0 2.0 1.0 False

    References:
        "Appealing to gradients", definition 2.3, theorem 2.4, remark 2.5, after Wu, Ma and E,
        "How SGD selects the global minima in over-parameterized learning" (2018).
    """
    check_known(sgd_stability, options)
    params = combine(*partition(params))
    n = num_examples(batch)
    if n < 2:
        raise ValueError(f"batch must hold at least 2 examples; got {n}.")
    batch_size = check_count("batch_size", batch_size, 1, n, ", the number of examples")
    learning_rate = check_step("learning_rate", learning_rate)
    noise = (n - batch_size) / (batch_size * (n - 1))
    eta = jnp.asarray(learning_rate, working_dtype(trained_part(params)))

    def step_loss(params: PyTree, example: PyTree) -> Any:
        # Steps, and not losses, have a size that means something: squares of a Hessian far from
        # one in size may leave the range of the dtype, those of the step size times it do not.
        value = jnp.asarray(example_loss_fn(params, example))
        return eta.astype(value.dtype) * value if is_trained(value) else value

    loss = traced_scalar("example_loss_fn", step_loss, params, first_example(batch))
    hessian = hessian_product(step_loss, params, batch, chunk=chunk)
    squares = operator(_SquaresTerm(loss), params, batch, chunk)

    def largest(*weights: Any) -> Eigenpairs:
        product = _Combination(hessian, squares, jnp.asarray(weights, eta.dtype))
        return top_eigenpairs(product, params, 1, which="largest", progress=progress, **options)

    # Of the growth less one: where most of the matrix is the identity, as with more parameters
    # than examples, a random start looks converged at one before what exceeds it shows.
    above = largest(-2, 1 - noise, noise)
    sharpness = largest(1, 0, 0)
    variance = largest(0, -1, 1)
    a, s = sharpness.values[0], jnp.sqrt(jnp.maximum(variance.values[0], 0))
    rounding = 100 * jnp.finfo(a.dtype).eps
    uniform = variance.values[0] + variance.errors[0] <= rounding * a**2
    a, s = a / eta, s / eta
    a_limit = 2 / eta
    s_limit = jnp.inf if noise == 0 else 1 / (eta * noise**0.5)
    s_limit = jnp.asarray(s_limit, a.dtype)
    return SGDStability(
        growth=1 + above.values[0],
        stable=above.values[0] <= rounding,
        sharpness=a,
        sharpness_limit=a_limit,
        non_uniformity=s,
        non_uniformity_limit=s_limit,
        necessary=(a >= -rounding * a_limit) & (a <= a_limit) & (s <= s_limit),
        converged=above.converged & sharpness.converged & (variance.converged | uniform),
    )


class _Combination(eqx.Module):
    """The sum of H, H^2 and mean H_i^2, weighted: of one type, so that one program serves all."""

    hessian: Callable[[PyTree], PyTree]
    squares: Callable[[PyTree], PyTree]
    weights: Float[Array, "3"]

    def __call__(self, v: PyTree) -> PyTree:
        once = self.hessian(v)
        zero = jax.tree.map(jnp.zeros_like, once)
        _, needs_twice, needs_squares = self.weights != 0
        twice = jax.lax.cond(needs_twice, lambda: self.hessian(once), lambda: zero)
        squares = jax.lax.cond(needs_squares, lambda: self.squares(v), lambda: zero)

        def combined(once: Array, twice: Array, squares: Array) -> Array:
            weights = self.weights.astype(once.dtype)
            return weights[0] * once + weights[1] * twice + weights[2] * squares

        return jax.tree.map(combined, once, twice, squares)


class _SquaresTerm(eqx.Module):
    """sum of H_i^2 v over the examples."""

    example_loss_fn: Callable[..., Any]

    def __call__(self, params: PyTree, batch: PyTree, v: PyTree) -> PyTree:
        vector, rest = partition(params)

        def squared(example: PyTree) -> PyTree:
            def loss(vector: PyTree) -> Any:
                return self.example_loss_fn(combine(vector, rest), example)

            loss = differentiable_by_example(loss, batch)
            _, product, _, _ = linearize(jax.grad(loss), vector)
            return product(product(v))

        return jax.tree.map(lambda x: jnp.sum(x, 0), jax.vmap(squared)(batch))
