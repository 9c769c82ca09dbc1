"""Mean and covariance of a stochastic equation with small noise, as one ordinary equation."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from igr.flows.fields.noise.stochastic import StochasticField
from igr.flows.fields.vector_field import Field
from igr.pytrees import combine, like_params, partition


def spread_field(field: StochasticField) -> Field:
    """The ordinary equation of an optimizer's mean and covariance on random batches.

        mean' = F(mean) + (1/2) F''[C],    C' = F' C + C F'^T + h Sigma,

    F the drift. C is of order h: with this closure mean and covariance have errors of order h^2 at
    a fixed time if the drift is that of order 1. It is for small problems: some six matrices
    of p x p are held, p the number of all floating entries, and the noise of every batch.

    Args:
      field: from `igr.flows.sampled_field`, `stochastic_rule_field` or `stochastic_field`.

    Returns:
      `f(t, (mean, covariance), args)`, for `igr.flow`: mean is like the state, the covariance p x p
      over its floating leaves as `jax.flatten_util.ravel_pytree` orders them.

    Raises:
      ValueError: when called, if the covariance does not fit the state.

    On a quadratic the variance of SGD settles at h Sigma/(2 lambda) to first order:

    >>> from igr.backward_error import methods
    >>> from igr.flows import flow, sampled_field
    >>> loss = lambda x, a: (x[0] - a) ** 2 / 2
    >>> examples = jnp.array([-1.0, 1.0])
    >>> noisy = sampled_field(methods.gradient_descent(), loss, 0.1, examples, order=0)
    >>> mean, covariance = flow(spread_field(noisy), (jnp.ones(1), jnp.zeros((1, 1))), 10.0).ys
    >>> print(covariance.round(4))
    [[[0.05]]]
    """

    def closed(t: Any, state: tuple[PyTree, Array], args: Any = None) -> tuple[PyTree, Array]:
        mean, covariance = state
        dynamic, static = partition(mean)
        flat, unravel = ravel_pytree(dynamic)
        if covariance.shape != (flat.size, flat.size):
            raise ValueError(
                f"the covariance of {flat.size} numbers must be {flat.size} x {flat.size}; got "
                f"shape {covariance.shape}."
            )

        def drift(x: Float[Array, " p"]) -> Float[Array, " p"]:
            moved, _ = partition(field.drift(t, combine(unravel(x), static), args))
            return ravel_pytree(moved)[0]

        def along(direction: Float[Array, " p"], x: Float[Array, " p"]) -> Float[Array, " p"]:
            return jax.jvp(drift, (x,), (direction,))[1]

        def row(of: tuple[Array, Array]) -> tuple[Array, Array]:
            """The vectors F' c and F''[c, e] for a row c of the covariance, e its unit vector."""
            c, e = of
            return jax.jvp(lambda x: along(c, x), (flat,), (e,))

        pushed, bent = jax.lax.map(row, (covariance, jnp.eye(flat.size, dtype=flat.dtype)))
        operator = field.diffusion(t, mean, args)
        each = jax.vmap(operator.mv)(jnp.eye(field.num_examples, dtype=flat.dtype))
        noise = jax.vmap(lambda x: ravel_pytree(x)[0])(each)
        change = pushed + pushed.T + noise.T @ noise
        moved = unravel((drift(flat) + jnp.sum(bent, 0) / 2).astype(flat.dtype))
        return like_params(moved, mean), change.astype(covariance.dtype)

    return closed
