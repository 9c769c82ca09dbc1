"""Optimizers whose rule is a function without a formula: Muon, clipping by global norm, LAMB.

theta[n+1] = theta[n] - h Psi(a_1, .., a_r, y, theta[n]) with channels a_i = sum_k w_ik phi_i[n-k],
remembered with a transfer function W_i, as for an elementwise method; but Psi and the phi_i are
functions of whole pytrees, opaque here, and may couple every coordinate with every other. What they
read stands in the names of their parameters.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy

from igr.backward_error.algebra.naming import named
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import Z, exact, taylor_coefficients
from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.protocols import Memory
from igr.backward_error.stability import require_numbers
from igr.backward_error.terms.algebra import G
from igr.checks import Count

if TYPE_CHECKING:
    from igr.backward_error.rules.equation import RuleEquation

GIVEN = ("g", "theta", "t", "h", "value_fn")  # what every function may read


@dataclass(frozen=True)
class Reading:
    """A function together with the names of the quantities it reads.

    Attributes:
      function: called by keyword.
      names: the keywords.
    """

    function: Callable[..., Any]
    names: tuple[str, ...]

    def __call__(self, values: Mapping[str, Any]) -> Any:
        """The function's value, called with the quantities it reads out of `values`."""
        return self.function(**{n: values[n] for n in self.names})


@dataclass(frozen=True)
class RuleChannel:
    """A linear memory of a function phi of the gradient, read by the rule.

    Attributes:
      of: phi; None for the gradient itself.
      transfer: W(z), as in `igr.methods.linear_memory`.
    """

    of: Reading | None
    transfer: sympy.Expr


@dataclass(frozen=True)
class RuleState:
    """An optimizer state that is a variable of the flow.

    Attributes:
      of: phi, which may read the state's own old value by its name.
      rate: r of y <- y + r (phi - y); None for y <- y + h phi.
      init: from params to the state before the first step; None for zeros like params.
    """

    of: Reading
    rate: sympy.Expr | None
    init: Callable[[Any], Any] | None


@dataclass(frozen=True)
class RuleMethod:
    """An optimizer given as a function of the gradient and of what it remembers.

    Attributes:
      name: how the method calls itself in print and in errors.
      psi: the rule.
      channels: the channels by name.
      states: the kept states by name.
      rates: pairs (name, r): the name stands for r/h.
      outputs: functions of params and kept states that the optimizer returns besides, by name.
      sequence: the names of channels and kept states, each after those it reads.
    """

    name: str
    psi: Reading
    channels: tuple[tuple[str, RuleChannel], ...]
    states: tuple[tuple[str, RuleState], ...] = ()
    rates: tuple[tuple[str, sympy.Expr], ...] = ()
    outputs: tuple[tuple[str, Reading], ...] = ()
    sequence: tuple[str, ...] = ()

    @property
    def kept(self) -> tuple[str, ...]:
        """The names of the optimizer states that are variables of the flow."""
        return tuple(y for y, _ in self.states)

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free symbols of the memories and rates, sorted by name."""
        free: set[Any] = set()
        for _, channel in self.channels:
            free |= channel.transfer.free_symbols
        for _, state in self.states:
            free |= set() if state.rate is None else state.rate.free_symbols
        for _, rate in self.rates:
            free |= rate.free_symbols
        return tuple(sorted(free - {Z}, key=str))

    @property
    def memories(self) -> tuple[LinearMethod, ...]:
        """Each channel's memory as a `LinearMethod`, in the order of the channels."""
        return tuple(
            LinearMethod(f"{self.name}, channel {a}", channel.transfer)
            for a, channel in self.channels
        )

    def reads(self, name: str) -> bool:
        """Whether the rule, a channel or a kept state reads the quantity of this name."""
        parts = (self.psi, *(s.of for _, s in self.states))
        named = any(name in part.names for part in parts)
        return named or any(name in _reads(c) for _, c in self.channels)

    def subs(self, values: Mapping[sympy.Symbol, Any]) -> RuleMethod:
        """The method with these values in place of symbols."""
        return RuleMethod(
            named(self.name).subs(values),
            self.psi,
            tuple((a, RuleChannel(c.of, c.transfer.subs(values))) for a, c in self.channels),
            tuple(
                (y, RuleState(s.of, None if s.rate is None else s.rate.subs(values), s.init))
                for y, s in self.states
            ),
            tuple((n, rate.subs(values)) for n, rate in self.rates),
            self.outputs,
            self.sequence,
        )

    def equation(self, order: Count) -> RuleEquation:
        """The modified equation with terms up to h^order."""
        from igr.backward_error.rules.equation import RuleEquation

        return RuleEquation(named(self.name), check_order(order), self)

    def memory(self) -> Memory:
        """The slowest decay and the longest reach of all channels, as a `Memory`.

        Raises:
          ValueError: if symbols are open, or a channel has no finite memory.
        """
        require_numbers(self)
        fading, steps = zip(Memory(), *(m.memory() for m in self.memories), strict=True)
        return Memory(max(fading), max(steps))

    def response(self) -> None:
        """None: on a quadratic the rule may couple every mode with all others."""
        return None


def rule(
    psi: Callable[..., Any],
    channels: Mapping[str, Any] | None = None,
    kept: Mapping[str, tuple[Any, ...]] | None = None,
    rates: Mapping[str, Any] | None = None,
    *,
    outputs: Mapping[str, Callable[..., Any]] | None = None,
    name: str = "rule",
) -> RuleMethod:
    """Describes an optimizer by any function of the gradient and of what it remembers.

    theta[n+1] = theta[n] - h Psi. Every function given here reads by the *names of its parameters*:
    the channels and kept states, and

    - `g`, the gradient, and `theta`, the params, pytrees of floating leaves;
    - `t` = (n + 1) h, the time at the end of the step, and `h`, the step;
    - `value_fn`, the loss itself, of `theta`.

    The function is made of JAX operations, differentiable where it is evaluated, and depends on
    nothing else; one with `**read` gets everything. It is called while a field or step is traced.

    Args:
      psi: the rule. It returns the direction d of the step theta - h d, a pytree like `theta`.
      channels: name -> W for the gradient remembered with transfer function W(z), as in
        `igr.methods.linear_memory`; or name -> (phi, W) for a function phi remembered so, of any
        structure.
      kept: name -> (phi, r) for a state y <- y + r (phi - y) that stays a variable of the flow;
        with r = 1, phi is the new value and reads the old one by the state's own name. With
        r = None, y <- y + h phi. Whatever else reads a state reads its new value, and the old one
        as `name_before`. A third entry is a function from params to the state's initial value;
        without it the state starts from zeros like params.
      rates: name -> r: a parameter of this name is given r/h, as a bias correction needs it:
        exp(-name t) = e^(-r (n + 1)) at the time `t` = (n + 1) h.
      outputs: name -> a function of `theta` and the kept states that the optimizer returns besides
        its params, as the average of schedule-free methods.
      name: for print.

    Returns:
      A method for `igr.modified_equation`. Its field, to any order, is made by Taylor mode in
      `igr.vector_field`. Where psi has a kink, as where clipping sets in, the equation holds on
      each side of it alone.

    Raises:
      TypeError: if a function is not callable, or has positional parameters.
      ValueError: if a function reads a name that is not there, names clash, a channel or kept state
        is read by nothing, or two read each other.

    Momentum on directions of length one:

    >>> from igr.backward_error.methods import ema
    >>> method = rule(lambda m: m / (m @ m) ** 0.5, {"m": ema(0.9)}, name="normalized momentum")
    >>> print(method.equation(1))
    θ' = F₀ + h F₁ + O(h²), with F₀ = -Ψ(m), m = g, and F₁ = 19/2 J_Ψ H F₀
    """
    channels, kept, rates, outputs = channels or {}, kept or {}, rates or {}, outputs or {}
    _check_names(channels, kept, rates)
    known = (*channels, *kept, *(f"{y}_before" for y in kept), *rates, *GIVEN)
    memories = []
    for a, described in channels.items():
        phi, transfer = described if isinstance(described, tuple) else (None, described)
        weights = exact(transfer, f"the transfer function of {a}")
        taylor_coefficients(weights, 1)  # says so where the weights have no finite sum
        plain = phi is None or (isinstance(phi, sympy.Expr) and phi == G)
        of = None if plain else reading(phi, f"the function of channel {a}", known, but=(a,))
        memories.append((a, RuleChannel(of, weights)))
    states = []
    for y, described in kept.items():
        if not isinstance(described, tuple) or len(described) not in (2, 3):
            raise TypeError(
                f"the kept state {y} must be (phi, rate) or (phi, rate, init); got {described!r}."
            )
        phi, rate, init = (*described, None)[:3]
        share = None if rate is None else _share(y, rate)
        if init is not None and not callable(init):
            raise TypeError(f"the start of {y} must be a function of params; got {init!r}.")
        states.append((y, RuleState(reading(phi, f"the function of {y}", known), share, init)))
    psi_reading = reading(psi, "psi", known)
    result = RuleMethod(
        named(name),
        psi_reading,
        tuple(memories),
        tuple(states),
        tuple((n, exact(rate, n)) for n, rate in rates.items()),
        tuple(
            (n, reading(f, f"the output {n}", ("theta", "t", "h", *kept)))
            for n, f in outputs.items()
        ),
        _sequence(memories, states),
    )
    read = set(psi_reading.names).union(*(_reads(part) for _, part in (*memories, *states)))
    unread = [n for n in (*channels, *kept) if n not in read and f"{n}_before" not in read]
    unread = [y for y in unread if not any(y in f.names for _, f in result.outputs)]
    if unread:
        raise ValueError(
            f"nothing reads {', '.join(unread)}: psi reads {', '.join(psi_reading.names)}"
        )
    return result


def reading(function: Any, argument: str, known: Iterable[str], but: Iterable[str] = ()) -> Reading:
    """Wraps a user's function with the names it reads, after checking that each name is known.

    Args:
      function: what a user gave.
      argument: what errors call it.
      known: the names there are.
      but: those among them that this function must not read.

    Raises:
      TypeError: if `function` is not callable or has positional parameters.
      ValueError: if it reads a name that is not known.
    """
    if not callable(function):
        raise TypeError(f"{argument} must be a function; got {function!r}.")
    allowed = [n for n in known if n not in set(but)]
    how = (
        "It reads by the names of its parameters, as in lambda m, theta: .., and there "
        f"{'are' if len(allowed) > 1 else 'is'} {', '.join(allowed)}"
    )
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise TypeError(f"the parameters of {argument} cannot be seen. {how}") from error
    kinds = inspect.Parameter
    if any(p.kind in (kinds.POSITIONAL_ONLY, kinds.VAR_POSITIONAL) for p in parameters):
        raise TypeError(f"{argument} takes parameters by position. {how}")
    if any(p.kind is kinds.VAR_KEYWORD for p in parameters):
        return Reading(function, tuple(allowed))
    names = tuple(p.name for p in parameters if p.default is kinds.empty or p.name in allowed)
    strange = [n for n in names if n not in allowed]
    if strange:
        raise ValueError(f"{argument} reads {', '.join(strange)}, which there is not. {how}")
    return Reading(function, names)


def _reads(part: RuleChannel | RuleState) -> tuple[str, ...]:
    return ("g",) if part.of is None else part.of.names


def _sequence(
    channels: list[tuple[str, RuleChannel]], states: list[tuple[str, RuleState]]
) -> tuple[str, ...]:
    """The names of channels and kept states, each after those whose new value it reads."""
    waiting = {n: set(_reads(part)) - {n} for n, part in (*channels, *states)}
    done: list[str] = []
    while waiting:
        ready = [n for n, reads in waiting.items() if not reads & waiting.keys()]
        if not ready:
            raise ValueError(
                f"{', '.join(waiting)} read each other: a channel or kept state reads the new "
                "values of others, and its own old one"
            )
        done += ready
        waiting = {n: reads for n, reads in waiting.items() if n not in ready}
    return tuple(done)


def _share(y: str, rate: Any) -> sympy.Expr:
    share = exact(rate, f"the rate of {y}")
    if share.is_number and not (share.is_real and 0 < share <= 1):
        raise ValueError(
            f"the rate of {y} must be a number in (0, 1], or None for y + h phi; got {rate}."
        )
    return share


def _check_names(*groups: Mapping[str, Any]) -> None:
    names = [n for group in groups for n in group]
    clash = sorted({n for n in names if n in GIVEN or names.count(n) > 1})
    strange = [n for n in names if not (isinstance(n, str) and n.isidentifier())]
    if clash or strange:
        raise ValueError(
            "channels, kept states and rates must have names of their own, such as m, and none of "
            f"{', '.join(GIVEN)}; got {', '.join(map(str, clash or strange))}."
        )
