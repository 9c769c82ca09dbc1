"""Metric regularization: weight decay in a metric that depends on the loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
from jaxtyping import Array, PyTree

from igr.checks import Count, Number, check_count
from igr.transforms.decay import decay_transformation, decay_value_and_grad
from igr.transforms.hyperparameters import (
    ScalarOrSchedule,
    at_count,
    require_number,
    require_static,
    sgd,
)
from igr.transforms.metric_product import Metric, metric_product, require_metric
from igr.transforms.partitioned import Partitioned


def metric_sgd(
    learning_rate: ScalarOrSchedule,
    strength: ScalarOrSchedule,
    metric: Metric = "hessian",
    momentum: Number | jax.Array | None = None,
    nesterov: bool = False,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""The Metric learning rule of the dissertation's Table 4.1: `optax.sgd`, then `metric_decay`.

        theta <- theta - alpha g - lambda H theta

    As in that table the rate lambda is not multiplied by the learning rate alpha.

    Args:
        learning_rate: The step alpha, a scalar or a schedule.
        strength: The rate lambda, a scalar or a schedule.
        metric: As in `metric_decay`.
        momentum: As in `optax.sgd`; the decay does not enter the momentum.
        nesterov: As in `optax.sgd`.
        mask: As in `metric_decay`. Under `optax.inject_hyperparams` a callable mask has to be
            declared: `static_args=("mask",)`.

    Returns:
        A transformation whose `update` needs `params` and the extra arguments of `metric_decay`.

    Raises:
        ValueError: If `learning_rate` is not positive and finite, or as `metric_decay`.

    >>> import jax, jax.numpy as jnp, optax
    >>> loss = lambda w: w[0] ** 2 - w[1] ** 2  # H = diag(2, -2)
    >>> optimizer, w = metric_sgd(0.25, strength=0.125), jnp.array([2.0, 1.0])
    >>> state = optimizer.init(w)
    >>> updates, state = optimizer.update(jax.grad(loss)(w), state, w, value_fn=loss)
    >>> print(updates)
    [-1.5   0.75]

    References:
        Jarvis, "Generalizing Regularization of Neural Networks to Correlated Parameter Spaces"
        (2021), Table 4.1, row "Metric".
    """
    return optax.chain(sgd(learning_rate, momentum, nesterov), metric_decay(strength, metric, mask))


def metric_decay(
    strength: ScalarOrSchedule,
    metric: Metric = "hessian",
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    *,
    lanczos_steps: Count = 16,
) -> optax.GradientTransformationExtraArgs:
    r"""Weight decay in a metric: subtracts lambda M theta, with a metric M made from the loss.

    The updates are those that `optax.apply_updates` adds: **place it after the learning rate**, as
    `optax.chain(optax.adam(1e-3), metric_decay(1e-4))`. M theta is the gradient of
    (1/2) theta' M theta with M frozen: the squared distance from the origin in the metric.

    The dissertation prints the rule with the Hessian and says that its absolute value is used,
    because the Fisher information, which the derivation calls for, is positive. M theta can then be
    read in several ways:

    * "hessian": M theta = H theta, the rule as printed. It pushes away from the origin along
      negative curvature.
    * "gauss_newton": M = J' L'' J, J the Jacobian of the network's outputs and L'' the Hessian of
      the loss in them: positive semi-definite for a convex loss, and for the usual losses the
      Fisher information itself. It needs the loss in its two parts.
    * "absolute_hessian": M = |H| = (H^2)^(1/2), the eigenvalues made positive, as in Dauphin et al.
      whom the dissertation cites. By Lanczos: `lanczos_steps` products and copies of the
      parameters a step.
    * "absolute_distance": sign(theta' H theta) H theta, the gradient of (1/2)
      |theta' H theta| with H frozen.
    * "absolute_shrinkage": sign(theta) |H theta|, entry by entry: every parameter is drawn to zero
      by the size of its entry in H theta.
    * "absolute_product": |H theta|, entry by entry, as the bars stand in Table 4.1; it always
      subtracts, from negative parameters too.

    To accumulate gradients, feed `optax.MultiSteps(optax.sgd(alpha), k)` from
    `metric_value_and_grad` with rate = lambda / alpha, which averages both terms over the
    micro-batches; `optax.MultiSteps(metric_sgd(alpha, lambda), k)` takes the H theta of the last
    micro-batch alone.

    Args:
        strength: The rate lambda, at least 0, a scalar or a schedule; not multiplied by the
            learning rate.
        metric: One of the above.
        mask: Which leaves decay: a pytree of bools, of the structure of params or a prefix of it,
            or a function of params that returns one. The other leaves count as constants of the
            loss, in the metric too. Under `optax.inject_hyperparams` a callable mask has to be
            declared: `static_args=("mask",)`.
        lanczos_steps: For "absolute_hessian" alone. Under `optax.inject_hyperparams` it has to be
            declared in any case: `static_args=("lanczos_steps",)`, with "mask" where that is
            callable.

    Returns:
        A transformation whose `update` needs `params` and the extra argument `value_fn`
        (`params -> scalar`), or for "gauss_newton" instead `apply_fn` (`params -> outputs`, on the
        whole batch) and `output_loss_fn` (`outputs -> scalar`), as
        `igr.curvature.gauss_newton_product` takes them without a batch; further ones are
        tolerated. The updates keep their dtypes.

    Raises:
        ValueError: If `strength` is negative or not finite, `metric` unknown; on `update`, if
            params or the functions are missing, the mask does not fit, or `MaskedNode`s stand in
            the trees.

    >>> import jax.numpy as jnp
    >>> rule, w = metric_decay(0.5), jnp.array([2.0, 1.0])
    >>> print(rule.update(0 * w, rule.init(w), w, value_fn=lambda w: w[0] ** 2 - w[1] ** 2)[0])
    [-2.  1.]

    References:
        Jarvis, "Generalizing Regularization of Neural Networks to Correlated Parameter Spaces"
        (2021), Table 4.1, row "Metric", and the text below it;
        Dauphin et al., "Identifying and attacking the saddle point problem" (2014).
    """
    decay = _decay_of(strength, metric, mask, lanczos_steps)
    return decay_transformation("metric_decay", decay)


def metric_value_and_grad(
    value_fn: Callable[..., Any],
    rate: ScalarOrSchedule,
    metric: Metric = "hessian",
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    *,
    apply_fn: Callable[..., Any] | None = None,
    output_loss_fn: Callable[..., Any] | None = None,
    lanczos_steps: Count = 16,
    has_aux: bool = False,
) -> Callable[..., tuple[Any, PyTree]]:
    """The loss and the gradient g + rate M theta, as a function.

    It is for training loops that cannot pass `value_fn` to the optimizer. `optax.sgd(alpha)` on
    this gradient with rate = lambda / alpha takes the steps of `metric_sgd(alpha, lambda)`. With
    momentum or Adam the two differ: `metric_decay` is a decoupled decay, and this gradient enters
    the memory.

    Args:
        value_fn: The loss: `(params, *args, **kwargs) -> scalar`, or with `has_aux` a pair of that
            scalar and anything else.
        rate: The factor of M theta, a scalar or a schedule.
        metric: As in `metric_decay`.
        mask: As in `metric_decay`.
        apply_fn: For "gauss_newton": `(params, *args, **kwargs) -> outputs`.
        output_loss_fn: For "gauss_newton": `(outputs, *args, **kwargs) -> scalar`.
        lanczos_steps: As in `metric_decay`.
        has_aux: As in `jax.value_and_grad`.

    Returns:
        A function `(params, *args, count=None, **kwargs) -> (value, grad)`, or with `has_aux`
        `((value, aux), grad)`. The value is the plain loss: no function has this gradient, since
        the metric is frozen. A scheduled rate is taken at step `count`. `grad` has the structure
        and dtypes of params, with zeros for integer arrays and None for leaves that are no arrays.

    Raises:
        ValueError: As `metric_decay`.

    >>> import jax.numpy as jnp
    >>> oracle = metric_value_and_grad(lambda w: w[0] ** 2 - w[1] ** 2, rate=0.5)
    >>> value, grad = oracle(jnp.array([2.0, 1.0]))
    >>> print(value, grad)
    3.0 [ 6. -3.]
    """
    decay = _decay_of(rate, metric, mask, lanczos_steps, name="rate")
    functions = {"apply_fn": apply_fn, "output_loss_fn": output_loss_fn}
    return decay_value_and_grad("metric_value_and_grad", value_fn, decay, has_aux, functions)


def _decay_of(
    strength: Any, metric: Metric, mask: Any, lanczos_steps: Count, name: str = "strength"
):
    strength = require_number(name, strength, at_least=0.0)
    require_metric(metric)
    require_static("lanczos_steps", lanczos_steps)
    lanczos_steps = check_count("lanczos_steps", lanczos_steps, 1)

    def decay(leaves: Partitioned, count: Any, extra: Mapping[str, Any]) -> list[Array]:
        factor = at_count(name, strength, count)
        product = metric_product(
            metric,
            leaves,
            leaves.masked(mask),
            extra.get("value_fn"),
            extra.get("apply_fn"),
            extra.get("output_loss_fn"),
            lanczos_steps,
        )
        return [factor * p for p in product]

    return decay
