"""Reads an optimizer: which method it is, and what was found on the way."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax
import sympy
from jaxtyping import PyTree

from igr.backward_error.terms.algebra import T
from igr.checks import Number
from igr.tracing.coupled import coupled_reading
from igr.tracing.describe import CoupledError, Description, describe
from igr.tracing.every_shape import check_every_shape
from igr.tracing.method import method_of
from igr.tracing.states import Readings, readings
from igr.tracing.symbols.in_time import CLOCK
from igr.tracing.symbols.on_steps import EARLY
from igr.tracing.trace import Make, Traced, trace
from igr.tracing.unreadable import UnreadableOptimizerError


@dataclass(frozen=True)
class Reading:
    """What `read_optimizer` found out about an optimizer.

    Attributes:
      method: the optimizer as a method of one of the kinds.
      traced: its `init` and `update` as programs.
      since: the step from which on the reading holds: until then conditions on the first steps
        apply, and eliminated memories start up.
      found: what was read of `init` and `update`, leaf by leaf.
      smooth: the smoothing that was asked for, or None.
      why: name -> the reason why a state is kept.
      description: its description for one element; None if the rule couples elements.
    """

    method: Any
    traced: Traced
    since: int
    found: Readings
    smooth: Number | None
    why: dict[str, str]
    description: Description | None


def read_optimizer(
    make: Make,
    *,
    keep: Iterable[str] | None = None,
    params: PyTree | None = None,
    smooth: Number | None = None,
) -> Reading:
    """Traces an optimizer and describes it as a method; arguments as in `igr.from_optax`."""
    check_smooth(smooth)
    keep = _names(keep)
    traced = trace(make, params)
    _check_step(make, params, traced, smooth)
    found = readings(traced, smooth)
    _check_keep(traced, found, keep)
    name = name_of(make)
    first, early = _of_every_leaf(found, keep, traced), EARLY
    if first is not None and found.settled and not _holds_early(first, found.settled):
        # What the conditions on the first steps keep off is no number there: they are pieces.
        early = 0
        found = readings(traced, smooth, early)
        first = _of_every_leaf(found, keep, traced)
    if first is None:
        whole = coupled_reading(traced, found, keep, name)
        since = _since(found, whole.fading.values())
        return Reading(whole.method, traced, since, found, None, whole.why, None)
    _check_small(first, found.turns)
    again = lambda other: _of_every_leaf(readings(other, smooth, early), keep, other)  # noqa: E731
    check_every_shape(traced, first, params, again)
    method = method_of(first, name)
    why = {n: m.why for n, m in first.memories.items() if m.kept}
    since = _since(found, [m.fading for m in first.memories.values() if not m.kept])
    return Reading(method, traced, since, found, smooth, why, first)


def _of_every_leaf(
    found: Readings, keep: tuple[str, ...] | None, traced: Traced
) -> Description | None:
    """The description that all leaves share; None if elements are coupled or leaves differ."""
    try:
        described = [describe(leaf, keep, traced.step) for leaf in found.leaves]
    except CoupledError:
        return None
    first = described[0] if described else None
    return None if any(one != first for one in described[1:]) else first


def _holds_early(description: Description, settled: int) -> bool:
    """Whether the rule is real and of its later size in the first `settled` steps."""
    rule = description.rule
    symbols = sorted(rule.free_symbols, key=str)
    at = sympy.lambdify(symbols, rule, "numpy")
    step = 0.01
    point = dict(
        zip(symbols, np.random.default_rng(0).uniform(0.5, 1.5, len(symbols)), strict=True)
    )
    point |= {
        s: float(description.rates[s.name]) / step for s in symbols if s.name in description.rates
    }
    start = {s: float(init) for s in symbols if (init := _start_of(s, description)) is not None}
    found = []
    with np.errstate(all="ignore"):
        for n in range(settled + 1):
            values = {**point, **(start if n == 0 else {}), T: (n + 1) * step}
            found.append(complex(at(*(values[s] for s in symbols))))
        sizes = np.abs(found) / np.abs(found[-1])
    return bool(np.all(np.isreal(found)) and np.all((sizes > _SMALL) & (sizes < 1 / _SMALL)))


def _start_of(symbol: sympy.Symbol, description: Description) -> Any:
    """The initial value, if a number, of the kept state whose old value the symbol stands for."""
    name = symbol.name.removesuffix("_before")
    if name == symbol.name or name not in description.kept:
        return None
    init = description.memories[name].init
    return init if getattr(init, "is_number", isinstance(init, int | float)) else None


_LATE = 500  # a step that is not among the first
_SMALL = 1e-6  # a first step that differs by so much from later ones stands for none


def check_smooth(smooth: Any) -> None:
    """Checks the argument `smooth`, which must be None or a positive number.

    Raises:
      TypeError: if it is no number.
      ValueError: if it is not positive and finite.
    """
    if smooth is None:
        return
    if isinstance(smooth, bool) or not isinstance(smooth, int | float | sympy.Expr):
        raise TypeError(f"smooth must be a positive number or None; got {smooth!r}.")
    if not (smooth > 0 and np.isfinite(float(smooth))):
        raise ValueError(f"smooth must be a positive number or None; got {smooth}.")


def name_of(make: Any) -> str:
    """An optimizer's name in print, from the optax functions that its factory calls."""
    code = getattr(make, "__code__", None)
    name = getattr(make, "__name__", "")
    if code is None or name != "<lambda>":
        return name or "optimizer"
    spoken = [n for n in code.co_names if hasattr(optax, n) or hasattr(optax.contrib, n)]
    said = [n for n in spoken if n not in ("contrib", "chain", "schedules")]
    return " + ".join(said) or "optimizer"


def _names(keep: Any) -> tuple[str, ...] | None:
    """The names of the states to keep as a tuple, or None.

    Raises:
      TypeError: unless they are text.
    """
    if keep is None or isinstance(keep, str):
        return None if keep is None else (keep,)
    names = tuple(keep) if isinstance(keep, Iterable) else (keep,)
    if not all(isinstance(n, str) for n in names):
        raise TypeError(f"keep must be the names of states, such as ('nu',), or None; got {keep!r}")
    return names


def _check_keep(traced: Traced, found: Readings, keep: tuple[str, ...] | None) -> None:
    places = enumerate(zip(traced.names, traced.leaves, strict=True))
    known = list(
        dict.fromkeys(n for p, (n, leaf) in places if leaf is not None or p not in found.numbers)
    )
    strange = [str(n) for n in keep or () if n not in known]
    if strange:
        raise ValueError(
            f"keep must name states of the optimizer, which are {', '.join(known) or 'none'}; got "
            f"{', '.join(strange)}."
        )


def _check_step(make: Make, params: PyTree | None, traced: Traced, smooth: Any) -> None:
    """Raises unless the update is proportional to the learning rate, where that was a number."""
    if traced.step is None:
        return
    other = trace(make, params, step=traced.step / 8)
    rules = []
    for one in (traced, other):
        leaf = readings(one, smooth).leaves[0]
        try:
            rules.append(describe(leaf, (), one.step).rule)
        except CoupledError:
            return
    if not _alike(*rules):
        raise UnreadableOptimizerError(
            "its update is not proportional to the learning rate, which it looks at as a number "
            "while it is made. Make it of functions that take the rate as an array"
        )


def _check_small(description: Description, turns: Iterable[int]) -> None:
    """Raises unless the update goes to zero with the learning rate, before and after every turn.

    A turn is a step at which a condition on the step changes.

    A rule with kept states may do so only at states that a run reaches, as one that sets params to
    an average of them; there it is asked only that the first steps are like the later ones.
    """
    rule = description.rule
    symbols = sorted(rule.free_symbols, key=str)
    at = sympy.lambdify(symbols, rule, "numpy")
    values = np.random.default_rng(0).uniform(0.5, 1.5, len(symbols))

    def longer(step: int) -> float | None:
        """By which factor update/h grows from h = 1e-3 to 1e-6; None if by less than 100."""
        sizes = []
        for h in (1e-3, 1e-6):
            fixed = {n: float(rate) / h for n, rate in description.rates.items()}
            fixed |= {CLOCK.name: 1 / h, T.name: step * h}
            point = [fixed.get(s.name, v) for s, v in zip(symbols, values, strict=True)]
            with np.errstate(all="ignore"):
                sizes.append(abs(complex(at(*point))))
        return sizes[1] / sizes[0] if sizes[1] > 100 * sizes[0] > 0 else None

    ends = [0, *sorted(set(turns))]
    last = longer(max(_LATE, ends[-1] + _LATE))
    if last is not None and not description.kept:
        raise UnreadableOptimizerError(
            "its update does not go to zero with the learning rate: at 1e-3 of the rate it is "
            f"{last:.3g} times as long, by the rate, and there is no flow that it "
            "tends to. Every part of the update is multiplied by the rate that make is given"
        )
    for start, end in itertools.pairwise(ends):
        if last is None and end > EARLY and longer((start + end) // 2 + 1) is not None:
            raise UnreadableOptimizerError(
                f"in steps {start} to {end - 1} its update does not go to zero with the learning "
                "rate, as where optax.conditionally_transform passes gradients on as they are, and "
                "there is no flow that it tends to then. Read what it does afterwards, or leave "
                "out those steps with optax.conditionally_mask"
            )


def _alike(first: sympy.Expr, second: sympy.Expr) -> bool:
    """Whether two rules are the same function, tested at points where both are finite."""
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    points = np.random.default_rng(0).uniform(0.5, 1.5, (8, len(symbols)))
    points[:, [s.name == "t" for s in symbols]] *= np.geomspace(1, 1e4, 8)[:, None]
    values = []
    for rule in (first, second):
        at = sympy.lambdify(symbols, rule, "numpy")
        with np.errstate(all="ignore"):
            values.append([complex(at(*point)) for point in points])
    return bool(np.allclose(*values, rtol=1e-9, atol=0, equal_nan=True))


def _since(found: Readings, forgotten: Iterable[sympy.Expr | None]) -> int:
    """The step from which on the reading holds to double precision."""
    fading = [float(abs(b)) for b in forgotten if b]
    filled = int(np.ceil(np.log(1e-17) / np.log(max(fading)))) if fading else 0
    return max(found.settled, filled)
