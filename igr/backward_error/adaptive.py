"""Adam, RMSProp and sign descent: elementwise rules on averaged gradients, as optax has them."""

from __future__ import annotations

from typing import Any, Literal

import sympy

from igr.backward_error.elementwise import ElementwiseMethod, elementwise
from igr.backward_error.taylor import Z as z
from igr.backward_error.taylor import exact
from igr.backward_error.terms import THETA, G, T

Second = Literal["kept", "eliminated"]

_MU, _NU, _FORGETTING = sympy.symbols("mu nu lambda")


def adam(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0,
    *,
    weight_decay: Any = 0,
    second_moment: Second = "kept",
) -> ElementwiseMethod:
    """mu/(sqrt(nu_hat + eps_root) + eps): `optax.adam` once its first moment has filled.

    Args:
      b1: in [0, 1), the memory of the first moment, which is eliminated.
      b2: in [0, 1), the memory of the second.
      eps: added outside the root.
      eps_root: added inside the root.
      weight_decay: decoupled: theta <- theta - h weight_decay theta besides.
      second_moment: "kept" beside theta as the state `nu`, corrected for its bias by the time, or
        "eliminated": averaged over a memory that must be short beside the motion, which that of
        b2 = 0.999 is not.

    Kingma and Ba (2015); Loshchilov and Hutter (2019) for the decoupled decay. The equation of
    order 1 with both moments eliminated is that of Cattaneo, Klusowski and Shigida (2024).

    >>> adam().kept[0][0]
    nu
    """
    b1, b2 = _memory("b1", b1), _memory("b2", b2)
    first = {"mu": (G, (1 - b1) / (1 - b1 * sympy.exp(-z)))}
    return _second_moment(
        f"Adam (b1 = {b1}, b2 = {b2})", _MU, first, b2, eps, eps_root, weight_decay, second_moment
    )


def adamw(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0,
    *,
    weight_decay: Any = 1e-4,
    second_moment: Second = "kept",
) -> ElementwiseMethod:
    """`adam` with decoupled weight decay: `optax.adamw`."""
    return adam(b1, b2, eps, eps_root, weight_decay=weight_decay, second_moment=second_moment)


def nadam(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0,
    *,
    weight_decay: Any = 0,
    second_moment: Second = "kept",
) -> ElementwiseMethod:
    """`adam` that looks one step ahead with its first moment: `optax.nadam`, Dozat (2016)."""
    b1, b2 = _memory("b1", b1), _memory("b2", b2)
    average = (1 - b1) / (1 - b1 * sympy.exp(-z))
    first = {"mu": (G, b1 * average + (1 - b1))}
    return _second_moment(
        f"NAdam (b1 = {b1}, b2 = {b2})", _MU, first, b2, eps, eps_root, weight_decay, second_moment
    )


def rmsprop(
    decay: Any = 0.9,
    eps: Any = 1e-8,
    *,
    eps_in_sqrt: bool = True,
    second_moment: Second = "eliminated",
) -> ElementwiseMethod:
    """g/sqrt(nu + eps): `optax.rmsprop`, without bias correction as there.

    Args:
      decay: in [0, 1), the memory of the second moment.
      eps: inside the root, or outside it if `eps_in_sqrt` is false.
      eps_in_sqrt: as in optax.
      second_moment: "eliminated" or "kept", as in `adam`.
    """
    decay = _memory("decay", decay)
    inside, outside = (eps, 0) if eps_in_sqrt else (0, eps)
    return _second_moment(
        f"RMSProp (decay = {decay})", G, {}, decay, outside, inside, 0, second_moment, bias=False
    )


def signsgd(smoothing: Any) -> ElementwiseMethod:
    """g/sqrt(g^2 + smoothing): sign descent with its jump smoothed out."""
    smoothing = _positive("smoothing", smoothing)
    return elementwise(G / sympy.sqrt(G**2 + smoothing), {}, name="smoothed sign descent")


def lion(b1: Any = 0.9, b2: Any = 0.99, *, smoothing: Any) -> ElementwiseMethod:
    """c/sqrt(c^2 + smoothing) for `optax.lion`'s sign(c), c = b1 m + (1 - b1) g, Chen et al. 2023.

    Args:
      b1: in [0, 1), how much of the momentum enters the step.
      b2: in [0, 1), the memory of the momentum.
      smoothing: the scale, squared, over which the sign turns.
    """
    b1, b2, smoothing = _memory("b1", b1), _memory("b2", b2), _positive("smoothing", smoothing)
    q = sympy.exp(-z)
    mixed = (1 - b1) + b1 * (1 - b2) * q / (1 - b2 * q)
    return elementwise(
        _MU / sympy.sqrt(_MU**2 + smoothing),
        {"mu": (G, mixed)},
        name=f"smoothed Lion (b1 = {b1}, b2 = {b2})",
    )


def _second_moment(
    name: str,
    direction: sympy.Expr,
    channels: dict[str, Any],
    b2: sympy.Expr,
    eps: Any,
    eps_root: Any,
    weight_decay: Any,
    second_moment: str,
    bias: bool = True,
) -> ElementwiseMethod:
    """direction / (sqrt(nu + eps_root) + eps), plus decoupled decay."""
    if second_moment not in ("kept", "eliminated"):
        raise ValueError(f"second_moment is 'kept' or 'eliminated', got {second_moment!r}")
    eps, eps_root = exact(eps, "eps"), exact(eps_root, "eps_root")
    decay = exact(weight_decay, "weight_decay") * THETA
    if second_moment == "eliminated":
        channels = {**channels, "nu": (G**2, (1 - b2) / (1 - b2 * sympy.exp(-z)))}
        return elementwise(
            direction / (sympy.sqrt(_NU + eps_root) + eps) + decay, channels, name=name
        )
    corrected = _NU / (1 - sympy.exp(-_FORGETTING * T)) if bias else _NU
    return elementwise(
        direction / (sympy.sqrt(corrected + eps_root) + eps) + decay,
        channels,
        {"nu": (G**2, 1 - b2)},
        {"lambda": -sympy.log(b2)} if bias else {},
        name=name,
    )


def _memory(name: str, value: Any) -> sympy.Expr:
    expression = exact(value, name)
    if expression.is_number and not (expression.is_real and 0 <= expression < 1):
        raise ValueError(f"{name} is a number in [0, 1) or a sympy symbol, got {value}")
    return expression


def _positive(name: str, value: Any) -> sympy.Expr:
    expression = exact(value, name)
    if expression.is_number and not (expression.is_real and expression > 0):
        raise ValueError(f"{name} is a positive number or a sympy symbol, got {value}")
    return expression
