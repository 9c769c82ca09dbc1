"""The stochastic equation of a rule without memory on batches drawn with replacement.

theta <- theta - h Psi(g_b, theta), b one of m equally likely batches, has

    d theta = -E Psi(g_b, theta) dt + sqrt(h Cov Psi(g_b, theta)) dW,

of weak order 1: the mean and the covariance of a step of length h, to leading order (Li, Tai and E
2019; for sign descent with Gaussian noise of deviation sigma the drift is -erf(f'/(sqrt(2) sigma))
and the covariance h (1 - erf^2), Compagnoni et al. 2025, arXiv:2411.15958). Psi may be
nonlinear, so that the mean of Psi is not Psi of the mean, and may couple coordinates. No covariance
is formed: the noise has the law of sqrt(h/m) sum_b (Psi(g_b) - E Psi) dW_b. Weak order 1 is the
drift to h^0; the next, and rules that remember, are in `igr.flows.sampled_field`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lineax
from jaxtyping import Array, Float, PyTree

from igr.backward_error.rules.rule import RuleMethod
from igr.checks import Number, check_step, check_value_fn
from igr.flows.fields.noise.stochastic import StochasticField
from igr.flows.steps.rules import check_direction
from igr.pytrees import combine, like_params, num_examples, partition

BatchLossFn = Callable[[PyTree, PyTree], Array]


def stochastic_rule_field(
    method: RuleMethod, batch_loss_fn: BatchLossFn, h: Number | Array, batches: PyTree
) -> StochasticField:
    """Compiles the stochastic equation, of weak order 1, of a rule without memory.

    All m batches are taken at once: memory is that of some 2 m copies of params.

    Args:
      method: from `igr.methods.rule`, without channels and kept states: psi reads `g`, the gradient
        of one batch, and `theta` and `h` if it likes.
      batch_loss_fn: `(params, batch) -> scalar`; with `batches` the examples, that of one example.
      h: the step.
      batches: the m equally likely batches, a pytree of arrays with a leading axis of m.

    Returns:
      Drift and diffusion, for `igr.flows.stochastic_flow`. Each costs a gradient and a rule for
      every batch.

    Raises:
      TypeError: if `method` is not a rule.
      ValueError: if it has a memory, or reads the time or the loss.

    Sign descent at a point where three of four batches point upward:

    >>> from igr.backward_error import methods
    >>> method = methods.rule(lambda g: jnp.sign(g), name="sign descent")
    >>> batches = jnp.array([1.0, 1.0, 1.0, -1.0])
    >>> field = stochastic_rule_field(method, lambda x, a: a * x, 0.1, batches)
    >>> print(field.drift(0.0, jnp.array(0.0), None))
    -0.5
    """
    if not isinstance(method, RuleMethod):
        raise TypeError(
            f"method must be a rule without memory, from igr.methods.rule; got {method!r}."
        )
    if method.channels or method.states:
        held = ", ".join((*(a for a, _ in method.channels), *method.kept))
        raise ValueError(
            f"{method.name} remembers {held}: a memory mixes the noise of several steps, and the "
            "stochastic equation here is that of a rule of the batch's gradient alone; "
            "igr.flows.sampled_field has one for memories"
        )
    beyond = [n for n in method.psi.names if n not in ("g", "theta", "h")]
    if beyond:
        raise ValueError(
            f"{method.name} reads {', '.join(beyond)}; a rule of a batch reads g, theta and h"
        )
    h = check_step("h", h)
    check_value_fn(batch_loss_fn)
    m = num_examples(batches, "batches")

    def directions(params: PyTree) -> PyTree:
        """The direction Psi for every batch, with a leading axis of m."""
        dynamic, static = partition(params)

        def one(batch: PyTree) -> PyTree:
            g = jax.grad(lambda p: batch_loss_fn(combine(p, static), batch))(dynamic)
            psi = method.psi({"g": g, "theta": dynamic, "h": h})
            check_direction(psi, dynamic, method.name)
            return jax.tree.map(lambda x, p: x.astype(p.dtype), psi, dynamic)

        return jax.vmap(one)(batches)

    def drift(t: Any, params: PyTree, args: Any = None) -> PyTree:
        del t, args
        mean = jax.tree.map(lambda x: -jnp.mean(x, axis=0), directions(params))
        return like_params(mean, params)

    def diffusion(t: Any, params: PyTree, args: Any = None) -> lineax.AbstractLinearOperator:
        del t, args
        found = directions(params)
        dynamic, _ = partition(params)

        def noise(increments: Float[Array, " m"]) -> PyTree:
            weights = jnp.sqrt(h / m) * (increments - jnp.mean(increments))
            return jax.tree.map(lambda x: jnp.tensordot(weights, x, axes=1).astype(x.dtype), found)

        dtype = jnp.result_type(jnp.float32, *(x.dtype for x in jax.tree.leaves(dynamic)))
        return lineax.FunctionLinearOperator(noise, jax.ShapeDtypeStruct((m,), dtype))

    return StochasticField(drift, diffusion, m, h)
