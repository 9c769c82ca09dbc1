"""Adam, NAdam, RMSProp, sign descent and Lion as elementwise rules on moving averages, as in optax.

Every average can be eliminated or kept as a variable of the flow. Eliminated, its memory must be
short beside the time on which the parameters move; kept, it may be of any length, and the flow
starts from the real state of the optax optimizer, under the same name. Only a kept average is
corrected for its bias: of an eliminated one the start-up is taken to be over.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sympy

from igr.backward_error.algebra.naming import Name
from igr.backward_error.algebra.taylor import Z as z
from igr.backward_error.algebra.taylor import exact
from igr.backward_error.terms.algebra import THETA, G, T
from igr.backward_error.terms.elementwise import ElementwiseMethod, elementwise

_MU, _NU = sympy.symbols("mu nu")


def adam(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0,
    *,
    weight_decay: Any = 0,
    keep: Iterable[str] = ("nu",),
) -> ElementwiseMethod:
    """Adam: theta <- theta - h mu/(sqrt(nu + eps_root) + eps), as `optax.adam` runs it.

    mu and nu are corrected for their bias.

    Args:
      b1: in [0, 1), the memory of the first moment `mu`.
      b2: in [0, 1), the memory of the second, `nu`.
      eps: added outside the root.
      eps_root: added inside the root.
      weight_decay: decoupled, at least 0: theta <- theta - h weight_decay theta besides.
      keep: which of "mu" and "nu" stay variables of the flow, beside theta and corrected for their
        bias by the time. The others are eliminated, which needs a memory that is short
        beside the time on which the parameters move; that of b2 = 0.999 is not. With both kept
        nothing is assumed of the start, and the flow may start from the real state after the
        first step.

    Kingma and Ba (2015); Loshchilov and Hutter (2019) for the decoupled decay. The equation of
    order 1 with both moments eliminated is that of Cattaneo, Klusowski and Shigida (2024).

    >>> adam().kept
    ('nu',)
    >>> from igr.backward_error import modified_equation
    >>> print(modified_equation(adam(0, 0, eps=0.1, keep=()), 0))
    θ' = -g/(|g| + 1/10) + O(h)
    """
    averages = _Averages("Adam", keep, mu=(G, "b1", b1), nu=(G**2, "b2", b2))
    direction = averages.corrected(_MU) / _root(averages, eps, eps_root)
    return averages.method(direction, weight_decay)


def adamw(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0,
    *,
    weight_decay: Any = 1e-4,
    keep: Iterable[str] = ("nu",),
) -> ElementwiseMethod:
    """AdamW: `adam` with decoupled weight decay of 1e-4 unless given, as `optax.adamw` runs it."""
    return adam(b1, b2, eps, eps_root, weight_decay=weight_decay, keep=keep)


def nadam(
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    eps_root: Any = 0,
    *,
    weight_decay: Any = 0,
    keep: Iterable[str] = ("nu",),
) -> ElementwiseMethod:
    """Adam with a Nesterov step of the first moment: `optax.nadam`, Dozat (2016)."""
    averages = _Averages("NAdam", keep, mu=(G, "b1", b1), nu=(G**2, "b2", b2))
    beta = averages.memory[_MU]
    ahead = beta * averages.corrected(_MU, ahead=1)
    ahead += (1 - beta) * G / averages.filled(_MU)
    return averages.method(ahead / _root(averages, eps, eps_root), weight_decay)


def rmsprop(
    decay: Any = 0.9,
    eps: Any = 1e-8,
    *,
    eps_in_sqrt: bool = True,
    keep: Iterable[str] = (),
) -> ElementwiseMethod:
    """RMSProp: theta <- theta - h g/sqrt(nu + eps), as `optax.rmsprop`, with no bias correction.

    Args:
      decay: in [0, 1), the memory of the second moment.
      eps: inside the root, or outside it if `eps_in_sqrt` is false.
      eps_in_sqrt: as in optax.
      keep: ("nu",) to keep the second moment, as in `adam`.
    """
    averages = _Averages("RMSProp", keep, bias=False, nu=(G**2, "decay", decay))
    inside, outside = (eps, 0) if eps_in_sqrt else (0, eps)
    return averages.method(G / _root(averages, outside, inside), 0)


def signsgd(smoothing: Any) -> ElementwiseMethod:
    """Smoothed sign descent: theta <- theta - h g/sqrt(g^2 + smoothing).

    `smoothing` is a positive number or a sympy symbol; as it goes to 0 the rule becomes g/|g|, the
    sign.
    """
    smoothing = _positive("smoothing", smoothing)
    return elementwise(
        G / sympy.sqrt(G**2 + smoothing),
        {},
        parameters=smoothing.free_symbols,
        name=Name("smoothed sign descent", {"smoothing": smoothing}),
    )


def lion(
    b1: Any = 0.9, b2: Any = 0.99, *, smoothing: Any, keep: Iterable[str] = ()
) -> ElementwiseMethod:
    """Lion with a smoothed sign: theta <- theta - h c/sqrt(c^2 + smoothing).

    c = b1 m + (1 - b1) g, and then m <- b2 m + (1 - b2) g; `optax.lion` steps by sign(c) (Chen et
    al. 2023).

    Args:
      b1: in [0, 1), how much of the momentum enters the step.
      b2: in [0, 1), the memory of the momentum.
      smoothing: positive; sqrt(smoothing) is the size of c below which the step is no longer 1.
      keep: ("mu",) to keep the momentum as a variable of the flow.
    """
    b1, smoothing = _memory("b1", b1), _positive("smoothing", smoothing)
    averages = _Averages("smoothed Lion", keep, bias=False, mu=(G, "b2", b2))
    averages.settings = {"b1": b1, **averages.settings, "smoothing": smoothing}
    beta = averages.memory[_MU]
    if averages.kept:
        # The step reads the momentum before its update mu <- b2 mu + (1 - b2) g.
        if beta == 0:
            raise ValueError("lion with b2 = 0 has no momentum to keep: use keep=()")
        mixed = b1 * (_MU - (1 - beta) * G) / beta + (1 - b1) * G
    else:
        q = sympy.exp(-z)
        averages.channels["mu"] = (G, (1 - b1) + b1 * (1 - beta) * q / (1 - beta * q))
        mixed = _MU
    return averages.method(mixed / sympy.sqrt(mixed**2 + smoothing), 0)


class _Averages:
    """The moving averages a method reads, each one eliminated (a channel) or kept as a state.

    Args:
      label: the method's name.
      keep: the names of the averages that are kept.
      bias: whether a kept average is corrected for its start from zero.
      averages: name -> (expression averaged, name of its decay rate beta, beta).
    """

    def __init__(
        self,
        label: str,
        keep: Iterable[str],
        bias: bool = True,
        **averages: tuple[sympy.Expr, str, Any],
    ):
        self.label = label
        self.settings = {}
        self.channels: dict[str, tuple[Any, Any]] = {}
        self.kept: dict[str, tuple[Any, Any]] = {}
        self.rates: dict[str, sympy.Expr] = {}
        self.memory: dict[sympy.Symbol, sympy.Expr] = {}
        self._bias = bias
        kept = states_kept(label, tuple(averages), keep)
        for name, (of, argument, value) in averages.items():
            beta = _memory(argument, value)
            self.settings[argument] = beta
            self.memory[sympy.Symbol(name)] = beta
            if name in kept:
                self.kept[name] = (of, 1 - beta)
            else:
                self.channels[name] = (of, (1 - beta) / (1 - beta * sympy.exp(-z)))

    def filled(self, average: sympy.Symbol, ahead: int = 0) -> sympy.Expr:
        """The sum 1 - beta^(n + 1 + ahead) of an average's weights after step n + ahead.

        1 where the average is eliminated or the method corrects no bias.
        """
        beta = self.memory[average]
        if average.name not in self.kept or not self._bias or beta == 0:
            return sympy.Integer(1)
        forgetting = f"lambda_{average}"
        self.rates[forgetting] = -sympy.log(beta)
        return 1 - beta**ahead * sympy.exp(-sympy.Symbol(forgetting, positive=True) * T)

    def corrected(self, average: sympy.Symbol, ahead: int = 0) -> sympy.Expr:
        """A moving average with its bias corrected: divided by the sum of its weights."""
        return average / self.filled(average, ahead)

    def method(self, rule: sympy.Expr, weight_decay: Any) -> ElementwiseMethod:
        decay = exact(weight_decay, "weight_decay")
        if decay.is_number and not (decay.is_real and decay >= 0):
            raise ValueError(
                "weight_decay must be a number of at least 0 or a sympy symbol; got "
                f"{weight_decay}."
            )
        if decay != 0:
            self.settings["weight decay"] = decay
        standing = {*self.channels, *self.kept, *self.rates}
        rule += decay * THETA
        free = rule.free_symbols.union(*(beta.free_symbols for beta in self.memory.values()))
        return elementwise(
            rule,
            self.channels,
            self.kept,
            self.rates,
            parameters=[s for s in free - {G, THETA, T} if s.name not in standing],
            name=Name(self.label, self.settings),
        )


def states_kept(label: str, names: tuple[str, ...], keep: Iterable[str]) -> tuple[str, ...]:
    """The names in `keep` as a tuple, in the order in which the method has its states.

    Raises:
      ValueError: for a name that the method does not have.
    """
    wanted = {keep} if isinstance(keep, str) else set(keep)
    strange = sorted(map(str, wanted - set(names)))
    if strange:
        raise ValueError(
            f"keep must name states of {label}, which are {', '.join(names)}; got "
            f"{', '.join(strange)}."
        )
    return tuple(n for n in names if n in wanted)


def _root(averages: _Averages, eps: Any, eps_root: Any) -> sympy.Expr:
    """The denominator sqrt(nu + eps_root) + eps of Adam's step."""
    inside, outside = _at_least_zero("eps_root", eps_root), _at_least_zero("eps", eps)
    return sympy.sqrt(averages.corrected(_NU) + inside) + outside


def _memory(name: str, value: Any) -> sympy.Expr:
    expression = exact(value, name)
    if expression.is_number and not (expression.is_real and 0 <= expression < 1):
        raise ValueError(f"{name} must be a number in [0, 1) or a sympy symbol; got {value}.")
    return expression


def _positive(name: str, value: Any) -> sympy.Expr:
    expression = exact(value, name)
    if expression.is_number and not (expression.is_real and expression > 0):
        raise ValueError(f"{name} must be a positive number or a sympy symbol; got {value}.")
    return expression


def _at_least_zero(name: str, value: Any) -> sympy.Expr:
    expression = exact(value, name)
    if expression.is_number and not (expression.is_real and expression >= 0):
        raise ValueError(f"{name} must be a number of at least 0 or a sympy symbol; got {value}.")
    return expression
