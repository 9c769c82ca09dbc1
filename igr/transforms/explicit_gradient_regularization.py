"""Explicit gradient regularization: descent on E + mu |grad E|^2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from igr.checks import Number
from igr.forward_mode import linearize
from igr.missing_parts import of_whole
from igr.per_example.units import in_their_unit
from igr.powers_of_two import times_power
from igr.shown import short, table
from igr.transforms.hyperparameters import ScalarOrSchedule, at_count, require_number, sgd
from igr.transforms.losses import require_scalar_loss, require_value_fn
from igr.transforms.masks import reject_masked_nodes
from igr.transforms.partitioned import Partitioned, partitioned


def egr(
    learning_rate: ScalarOrSchedule,
    mu: ScalarOrSchedule,
    momentum: Number | jax.Array | None = None,
    nesterov: bool = False,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Gradient descent on the explicitly regularized loss E + mu |grad E|^2.

    `add_gradient_norm_penalty` followed by `optax.sgd`. Without momentum one step is

        theta <- theta - h (g + 2 mu H g),        g = grad E, H its Hessian.

    Gradient descent with step h does implicitly, to leading order, what mu = h / 4 does explicitly.

    Args:
        learning_rate: The step h, a scalar or a schedule.
        mu: The strength of the penalty, a scalar or a schedule; it may be negative.
        momentum: As in `optax.sgd`.
        nesterov: As in `optax.sgd`.
        mask: As in `add_gradient_norm_penalty`. Under `optax.inject_hyperparams` a callable mask
            has to be declared: `static_args=("mask",)`.

    Returns:
        A transformation whose `update` needs `params` and the extra argument `value_fn`.

    Raises:
        ValueError: If `learning_rate` is not positive and finite or `mu` not finite.

    >>> import jax, jax.numpy as jnp, optax
    >>> loss = lambda w: (1.0 - w[0] * w[1]) ** 2 / 2
    >>> optimizer, w = egr(0.1, mu=0.5), jnp.array([2.0, 1.0])
    >>> state = optimizer.init(w)
    >>> updates, state = optimizer.update(jax.grad(loss)(w), state, w, value_fn=loss)
    >>> print(optax.apply_updates(w, updates))
    [ 1.2 -0.3]

    References:
        Barrett and Dherin, "Implicit Gradient Regularization" (2021), eq. 8.
    """
    return optax.chain(add_gradient_norm_penalty(mu, mask), sgd(learning_rate, momentum, nesterov))


class AddGradientNormPenaltyState(NamedTuple):
    """State of `add_gradient_norm_penalty`: the number of steps taken, for a scheduled mu."""

    count: Array  # int32 scalar

    __repr__ = short
    _repr_html_ = table


def add_gradient_norm_penalty(
    mu: ScalarOrSchedule, mask: PyTree | Callable[[PyTree], PyTree] | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Adds 2 mu H g, the gradient of the penalty mu |grad E|^2, to the updates.

    Both g and H g are taken from `value_fn` at `params`, never from the updates: behind momentum
    or clipping the updates are no longer the gradient. Under one `jax.jit` the compiler merges
    this gradient with the one that the caller has computed.

    **Mask.** Each leaf l of the parameters has its own term in the penalty, and `mask` chooses the
    terms: the rule adds the *full* gradient of mu sum_{l in mask} |grad_l E|^2, that is
    2 mu H g_M with g_M the gradient set to zero outside the mask. Leaves outside the mask can
    therefore move, because the masked gradients depend on them; what is descended remains one
    loss. (This is also what theory asks for: with step sizes h_l of their own, gradient descent
    implicitly adds sum_l (h_l / 4) |grad_l E|^2.) Leaves that must not move at all belong to
    `optax.partition` or `optax.freeze` further down the chain.

    **Gradient accumulation.** Put the penalty before the accumulation, not inside:
    `optax.chain(add_gradient_norm_penalty(mu), optax.MultiSteps(optax.sgd(h), k)
    .gradient_transformation())` averages the penalties of the k micro-batches, each with its own
    `value_fn`. `optax.MultiSteps(egr(h, mu), k)` would use that of the last micro-batch alone.

    Args:
        mu: The strength, a scalar or an optax schedule; a negative one works against the implicit
            regularization.
        mask: Which leaves the penalty sees: a pytree of bools, of the structure of params or a
            prefix of it, or a function of params that returns one. By default all. Under
            `optax.inject_hyperparams` a callable mask has to be declared: `static_args=("mask",)`.

    Returns:
        A transformation whose `update(updates, state, params, *, value_fn)` needs `params` and
        `value_fn`, a function `params -> scalar`, and tolerates further extra arguments. The
        updates keep their dtypes; leaves that are not floating, and `None`s, pass through.

    Raises:
        ValueError: If `mu` is not finite; on `update`, if params or `value_fn` are missing, the
            loss is not a scalar, the mask does not fit, or `MaskedNode`s stand in the trees.

    >>> import jax, jax.numpy as jnp, optax
    >>> optimizer = optax.chain(add_gradient_norm_penalty(0.1), optax.adam(1e-2))
    >>> loss = lambda params: jnp.sum(params["w"] ** 4)
    >>> params = {"w": jnp.array([1.0, 2.0])}
    >>> state = optimizer.init(params)
    >>> updates, state = optimizer.update(jax.grad(loss)(params), state, params, value_fn=loss)

    References:
        Barrett and Dherin, "Implicit Gradient Regularization" (2021), eq. 8;
        the modified loss of gradient descent, eq. 2 and Theorem 3.1.
    """
    mu = require_number("mu", mu)
    rule = "add_gradient_norm_penalty"

    def init_fn(params: PyTree) -> AddGradientNormPenaltyState:
        reject_masked_nodes(rule, params)
        return AddGradientNormPenaltyState(count=jnp.zeros([], jnp.int32))

    def update_fn(
        updates: PyTree,
        state: AddGradientNormPenaltyState,
        params: PyTree | None = None,
        *,
        value_fn: Callable[[PyTree], Any] | None = None,
        **extra_args: Any,
    ) -> tuple[PyTree, AddGradientNormPenaltyState]:
        del extra_args
        value_fn = require_value_fn(rule, value_fn, "igr.transforms.egr_value_and_grad")
        leaves = partitioned(rule, params, updates)
        _, _, product, unit, _ = _value_gradient_and_product(leaves, value_fn, mask)
        strength = _in_unit(at_count("mu", mu, state.count), unit, leaves)
        penalized = [u + 2 * strength * hg for u, hg in zip(leaves.updates, product, strict=True)]
        new_state = AddGradientNormPenaltyState(count=optax.safe_increment(state.count))
        return leaves.updates_tree(penalized), new_state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def egr_value_and_grad(
    value_fn: Callable[..., Any],
    mu: ScalarOrSchedule,
    mask: PyTree | Callable[[PyTree], PyTree] | None = None,
    *,
    value: Literal["penalized", "plain"] = "penalized",
    has_aux: bool = False,
) -> Callable[..., tuple[Any, PyTree]]:
    r"""The loss E + mu |grad E|^2 and its gradient, as a function like `jax.value_and_grad`'s.

    It is for training loops that cannot pass `value_fn` to the optimizer, such as flax's
    `TrainState.apply_gradients`: hand it this gradient, with a plain optimizer. `optax.sgd` on it
    takes the steps of `egr`.

    Args:
        value_fn: The loss E: `(params, *args, **kwargs) -> scalar`, or with `has_aux` a pair of
            that scalar and anything else.
        mu: The strength, a scalar (traced ones too) or a schedule.
        mask: As in `add_gradient_norm_penalty`.
        value: Which value comes with the gradient. "penalized" is E + mu |grad E|^2, the function
            whose gradient is returned, as a line search needs it; "plain" is E alone, which costs
            nothing more and is what one logs.
        has_aux: As in `jax.value_and_grad`.

    Returns:
        A function `(params, *args, count=None, **kwargs) -> (value, grad)`, or with `has_aux`
        `((value, aux), grad)`. A scheduled mu is taken at step `count`. `grad` has the structure
        and dtypes of params, with zeros for integer arrays and None for leaves that are no arrays.

    Raises:
        ValueError: If `mu` is not finite, or `value` not one of the two; on the call, if `params`
            have no floating leaf, the loss is not a scalar, or `mu` is a schedule without `count`.

    >>> import jax, jax.numpy as jnp
    >>> loss = lambda w: (1.0 - w[0] * w[1]) ** 2 / 2
    >>> value, grad = egr_value_and_grad(loss, mu=0.5)(jnp.array([2.0, 1.0]))
    >>> print(value, grad)
    3.0 [ 8. 13.]

    References:
        Barrett and Dherin, "Implicit Gradient Regularization" (2021), eq. 8.
    """
    mu = require_number("mu", mu)
    if value not in ("penalized", "plain"):
        raise ValueError(f'value must be "penalized" or "plain"; got {value!r}.')

    def value_and_grad(
        params: PyTree, *args: Any, count: Any = None, **kwargs: Any
    ) -> tuple[Any, PyTree]:
        strength = at_count("mu", mu, count)
        leaves = partitioned("egr_value_and_grad", params)
        loss, gradient, product, unit, aux = _value_gradient_and_product(
            leaves, lambda p: value_fn(p, *args, **kwargs), mask, has_aux=has_aux
        )
        strength = _in_unit(strength, unit, leaves)
        if value == "penalized":
            seen = [times_power(g, -unit) for g in _seen(leaves, gradient, mask)]
            squares = sum(jnp.sum(g**2) for g in seen)
            loss = (loss + times_power(strength * squares, unit)).astype(loss.dtype)
        grad = leaves.gradient_tree(
            [
                (g + 2 * strength * hg).astype(g.dtype)
                for g, hg in zip(gradient, product, strict=True)
            ]
        )
        return ((loss, aux) if has_aux else loss), grad

    return value_and_grad


def _value_gradient_and_product(
    leaves: Partitioned,
    value_fn: Callable[[PyTree], Any],
    mask: PyTree | Callable[[PyTree], PyTree] | None,
    *,
    has_aux: bool = False,
) -> tuple[Array, list[Array], list[Array], Array, Any]:
    """The value E, g, H g_M / 2^e, e and the auxiliary output, from one linearization.

    g_M is divided by the power of two near its size, 2^e: the product of two numbers of the size of
    a loss far from one may be out of the range of the dtype, where mu times it is not.
    """

    def loss_and_aux(params: list[Array]) -> tuple[Array, Any]:
        output = of_whole(value_fn, leaves.params_tree(params))
        value, aux = output if has_aux else (output, None)
        return require_scalar_loss(value), aux

    def gradient_and_rest(params: list[Array]) -> tuple[list[Array], Any]:
        value_and_aux, gradient = jax.value_and_grad(loss_and_aux, has_aux=True)(params)
        return gradient, value_and_aux

    gradient, hessian, _, (value, aux) = linearize(gradient_and_rest, leaves.params, has_aux=True)
    seen, unit = in_their_unit([(g,) for g in _seen(leaves, gradient, mask)])
    return value, gradient, hessian([g for (g,) in seen]), unit, aux


def _seen(
    leaves: Partitioned, gradient: list[Array], mask: PyTree | Callable[[PyTree], PyTree] | None
) -> list[Array]:
    """The gradient, set to zero outside the mask."""
    chosen = leaves.masked(mask)
    return [g if c else jnp.zeros_like(g) for g, c in zip(gradient, chosen, strict=True)]


def _in_unit(strength: Any, unit: Array, leaves: Partitioned) -> Array:
    """The number 2^e mu, in float32 or wider."""
    dtype = jnp.result_type(jnp.float32, *(p.dtype for p in leaves.params))
    return times_power(jnp.asarray(strength, dtype), unit)
