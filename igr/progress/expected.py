"""Estimates how long a program takes from its trace, to decide how often it should report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr

from igr.checks import Number

_OPERATION = 2e-7  # seconds that an operation takes however small it is
_FLOP = 5e-10  # seconds, of one core
_ROUNDS = 10  # of a loop whose number of rounds is not known

_TICKS = 100  # of a bar, from its beginning to its end
WORTH = 1.0  # seconds expected, from which on a search of unknown length has a bar
REPORT_EVERY = 0.02  # seconds expected between reports to the host, each of about 1e-4


def expected_seconds(jaxpr: Jaxpr) -> float:
    """The expected seconds of a program on one core, to an order of magnitude."""
    return sum((_of_equation(eqn) for eqn in jaxpr.eqns), start=0.0)


def units_a_tick(units: int, seconds: Number) -> int:
    """The number of units of work between two moves of a bar.

    Args:
      units: the number of units in all.
      seconds: the time that one of them is expected to take.
    """
    return max(-(-units // _TICKS), apart(seconds))


def apart(seconds: Number) -> int:
    """The number of units of work, of so many seconds each, between two reports; at least 1."""
    return max(math.ceil(REPORT_EVERY / max(seconds, 1e-9)), 1)


def largest_array(jaxpr: Jaxpr) -> int:
    """The number of entries of the largest array that a program is given or makes."""
    sizes = [_size(v) for v in jaxpr.invars]
    for eqn in jaxpr.eqns:
        sizes += [_size(v) for v in eqn.outvars]
        sizes += [largest_array(inner) for inner in _inside(eqn.params)]
    return max(sizes, default=0)


def _of_equation(eqn: Any) -> float:
    inner = [expected_seconds(j) for j in _inside(eqn.params)]
    name = eqn.primitive.name
    if inner:
        if name == "cond":
            return max(inner)
        rounds = {"scan": eqn.params.get("length", 1), "while": _ROUNDS}.get(name, 1)
        return rounds * sum(inner)
    sizes = [_size(v) for v in (*eqn.invars, *eqn.outvars)]
    work = float(max(sizes, default=0))
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        work = 2.0 * _size(eqn.outvars[0]) * np.prod([shape[i] for i in contracted], initial=1.0)
    elif name == "conv_general_dilated":
        filters = eqn.invars[1].aval
        channels = filters.shape[eqn.params["dimension_numbers"].rhs_spec[0]]
        work = 2.0 * _size(eqn.outvars[0]) * _size(eqn.invars[1]) / max(channels, 1)
    return _OPERATION + _FLOP * work


def _size(v: Any) -> int:
    return int(getattr(v.aval, "size", 1))


def _inside(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, ClosedJaxpr):
                yield part.jaxpr
            elif isinstance(part, Jaxpr):
                yield part
