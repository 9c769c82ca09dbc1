"""The optimizers this package knows, each described in a line by its memory and its rule.

A linear method is its transfer function (`linear`), a Runge-Kutta method its tableau
(`runge_kutta`), Adam and its like are channels and an elementwise rule (`elementwise`, `adaptive`),
and what has no formula is channels and a function (`rule`).
SGD is how it draws its batches: each once an epoch (`epoch`), or anew for every step (`sampled`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, overload

import sympy

from igr.backward_error.algebra.naming import Name
from igr.backward_error.algebra.taylor import Z as z
from igr.backward_error.algebra.taylor import exact, taylor_coefficients
from igr.backward_error.methods.adaptive import (
    adam,
    adamw,
    lion,
    nadam,
    rmsprop,
    signsgd,
    states_kept,
)
from igr.backward_error.methods.batches import (
    EpochMethod,
    SampledMethod,
    cyclic_sgd,
    reshuffled_sgd,
    sgd_with_replacement,
)
from igr.backward_error.methods.games import GameMethod, alternating, simultaneous
from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.methods.sharpness_aware import SharpnessAware, sam, usam
from igr.backward_error.methods.tableau import RungeKutta, runge_kutta
from igr.backward_error.rules.rule import RuleMethod, rule
from igr.backward_error.terms.algebra import THETA as theta
from igr.backward_error.terms.algebra import G as g
from igr.backward_error.terms.algebra import T as t
from igr.backward_error.terms.elementwise import ElementwiseMethod, elementwise

__all__ = [
    "ElementwiseMethod",
    "EpochMethod",
    "GameMethod",
    "LinearMethod",
    "Method",
    "RuleMethod",
    "RungeKutta",
    "SampledMethod",
    "SharpnessAware",
    "adam",
    "adamw",
    "alternating",
    "cyclic_sgd",
    "elementwise",
    "ema",
    "ema_momentum",
    "g",
    "gradient_descent",
    "heavy_ball",
    "linear_memory",
    "lion",
    "nadam",
    "nesterov",
    "reshuffled_sgd",
    "rmsprop",
    "rule",
    "runge_kutta",
    "sam",
    "sgd_with_replacement",
    "signsgd",
    "simultaneous",
    "t",
    "theta",
    "trace",
    "usam",
    "z",
]

Method = LinearMethod | RungeKutta

_STEP_BACK = sympy.exp(-z)
_TRACE, _EMA = sympy.symbols("trace ema")


def linear_memory(transfer: Any, name: str | None = None) -> LinearMethod:
    """A method whose step is a fixed linear combination of the current and past gradients.

    Args:
      transfer: W(z) = sum_k w_k e^(-kz) in `igr.methods.z`, where w_k weighs the gradient of k
        steps ago. Other symbols stay symbols in the result; floats are read as the decimal
        they are written as.
      name: a name for print; the transfer function itself if none is given.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      TypeError: if `transfer` is not a number or a sympy expression.
      ValueError: if the weights have no finite sum.

    A method that averages the last two gradients:

    >>> from sympy import exp
    >>> from igr.backward_error import methods, modified_equation
    >>> two = methods.linear_memory((1 + exp(-methods.z)) / 2)
    >>> print(modified_equation(two, order=1))
    θ' = -g - h H g + O(h²)
    """
    expression = exact(transfer, "transfer")
    taylor_coefficients(expression, 1)
    return LinearMethod(name or f"linear memory {expression}", expression)


def ema(beta: Any) -> sympy.Expr:
    """The transfer function of the moving average m <- beta m + (1 - beta) phi of `optax.ema`.

    >>> ema(0.9)
    1/(10*(1 - 9*exp(-z)/10))
    """
    beta = _momentum(beta)
    return (1 - beta) / (1 - beta * _STEP_BACK)


def trace(beta: Any) -> sympy.Expr:
    """The transfer function of the decaying sum m <- beta m + phi of `optax.trace`.

    >>> trace(0.9)
    1/(1 - 9*exp(-z)/10)
    """
    return 1 / (1 - _momentum(beta) * _STEP_BACK)


def gradient_descent(*, weight_decay: Any = 0) -> LinearMethod:
    """Gradient descent: theta[n+1] = theta[n] - h (g(theta[n]) + c theta[n]).

    It is explicit Euler on the gradient flow, W(z) = 1. With weight decay c it is gradient descent
    on E + c |theta|^2/2: `optax.chain(optax.add_decayed_weights(c), optax.sgd(h))`. `weight_decay`
    is a number of at least 0 or a sympy symbol.

    >>> from igr.backward_error import modified_equation
    >>> print(modified_equation(gradient_descent(weight_decay=0.2), 1).modified_loss())
    E + h/4 |g|² + O(h²), with E + 1/10 |θ|² for E
    """
    return _linear("gradient descent", {}, sympy.Integer(1), weight_decay, (), None)


@overload
def heavy_ball(beta: Any, *, weight_decay: Any = 0, keep: tuple[()] = ()) -> LinearMethod: ...
@overload
def heavy_ball(
    beta: Any, *, weight_decay: Any = 0, keep: Iterable[str]
) -> LinearMethod | ElementwiseMethod: ...
def heavy_ball(
    beta: Any, *, weight_decay: Any = 0, keep: Iterable[str] = ()
) -> LinearMethod | ElementwiseMethod:
    """Heavy-ball momentum: m <- beta m + g, theta <- theta - h m.

    `optax.sgd(h, momentum=beta)`; W(z) = 1/(1 - beta e^(-z)) (Polyak 1964).

    Args:
      beta: a number in [0, 1) or a sympy symbol.
      weight_decay: decoupled, of at least 0: theta <- theta - h (m + weight_decay theta), as of
        `optax.chain(optax.trace(beta), optax.add_decayed_weights(c),
        optax.scale_by_learning_rate(h))`.
      keep: ("trace",) to keep the momentum, optax's `TraceState.trace`, as a variable of the flow.
        The equation then is a system, exact for any start, but an expansion in 1 - beta as well.

    >>> from igr.backward_error import modified_equation
    >>> print(modified_equation(heavy_ball(0.9, keep=("trace",)), 0))
    θ' = -trace + O(h)
    trace' = 10 κ_trace g - κ_trace trace + O(h), with h κ_trace = 1/10
    """
    beta = _momentum(beta)
    state = "trace", (g / (1 - beta), 1 - beta), _TRACE
    return _linear("heavy ball", {"beta": beta}, trace(beta), weight_decay, keep, state)


@overload
def ema_momentum(beta: Any, *, weight_decay: Any = 0, keep: tuple[()] = ()) -> LinearMethod: ...
@overload
def ema_momentum(
    beta: Any, *, weight_decay: Any = 0, keep: Iterable[str]
) -> LinearMethod | ElementwiseMethod: ...
def ema_momentum(
    beta: Any, *, weight_decay: Any = 0, keep: Iterable[str] = ()
) -> LinearMethod | ElementwiseMethod:
    """Averaged momentum: m <- beta m + (1 - beta) g, theta <- theta - h m.

    W(z) = (1 - beta)/(1 - beta e^(-z)), for `optax.ema(beta, debias=False)`.

    Args:
      beta: a number in [0, 1) or a sympy symbol.
      weight_decay: decoupled, as in `heavy_ball`.
      keep: ("ema",) to keep the momentum, optax's `EmaState.ema`, as a variable of the flow.
    """
    beta = _momentum(beta)
    state = "ema", (g, 1 - beta), _EMA
    return _linear("averaged momentum", {"beta": beta}, ema(beta), weight_decay, keep, state)


@overload
def nesterov(beta: Any, *, weight_decay: Any = 0, keep: tuple[()] = ()) -> LinearMethod: ...
@overload
def nesterov(
    beta: Any, *, weight_decay: Any = 0, keep: Iterable[str]
) -> LinearMethod | ElementwiseMethod: ...
def nesterov(
    beta: Any, *, weight_decay: Any = 0, keep: Iterable[str] = ()
) -> LinearMethod | ElementwiseMethod:
    """Nesterov's momentum: m <- beta m + g, theta <- theta - h (g + beta m).

    `optax.sgd(h, beta, nesterov=True)`; W(z) = 1 + beta/(1 - beta e^(-z)) (Nesterov 1983, in the
    form of Sutskever et al. 2013).

    Args:
      beta: a number in [0, 1) or a sympy symbol.
      weight_decay: decoupled, as in `heavy_ball`.
      keep: ("trace",) to keep the momentum as a variable of the flow, as in `heavy_ball`.
    """
    beta = _momentum(beta)
    state = "trace", (g / (1 - beta), 1 - beta), g + beta * _TRACE
    transfer = 1 + beta * trace(beta)
    return _linear("Nesterov", {"beta": beta}, transfer, weight_decay, keep, state)


def _linear(
    label: str,
    settings: dict[str, sympy.Expr],
    transfer: sympy.Expr,
    weight_decay: Any,
    keep: Iterable[str],
    state: tuple[str, tuple[sympy.Expr, sympy.Expr], sympy.Expr] | None,
) -> Any:
    """The method as a `LinearMethod`, or as an elementwise one if its momentum is kept.

    `state` is the name of the momentum, the pair (phi, rate) of its average, and the rule that
    reads it.
    """
    decay = exact(weight_decay, "weight_decay")
    if decay.is_number and not (decay.is_real and decay >= 0):
        raise ValueError(
            f"weight_decay must be a number of at least 0 or a sympy symbol; got {weight_decay}."
        )
    if decay != 0:
        settings = {**settings, "weight decay": decay}
    name = Name(label, settings)
    if state is None or not states_kept(label, (state[0],), keep):
        return LinearMethod(name, transfer, decay)
    kept, average, rule = state
    free = {s for value in settings.values() for s in value.free_symbols}
    return elementwise(rule + decay * theta, {}, {kept: average}, parameters=free, name=name)


def _momentum(beta: Any) -> sympy.Expr:
    value = exact(beta, "beta")
    if value.is_number and not (value.is_real and 0 <= value < 1):
        raise ValueError(f"beta must be a number in [0, 1) or a sympy symbol; got {beta}.")
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
