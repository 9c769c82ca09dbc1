"""The flows that can be asked for, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from igr.backward_error.protocols import Method
from igr.checks import check_count
from igr.flows.comparison.filling import steps_to_fill
from igr.flows.comparison.result import FlowName
from igr.flows.fields.by_differences.displaced import check_displaced

NAMED = ("differences", "two-phase", "central")
PAST_THE_EDGE = ("two-phase", "central")


def flow_names(flows: Any, orders: Any) -> list[FlowName]:
    """The flows asked for, by either argument, each an order or one of `NAMED`.

    Raises:
      ValueError: for a name that is unknown, an order below 0, none at all, one twice, or both
        arguments.
    """
    if flows is not None and orders is not None:
        raise ValueError("flows is the newer name of orders: give one of them")
    asked = "orders" if flows is None else "flows"
    wanted = (0, 1, 2) if flows is None and orders is None else flows if orders is None else orders
    if isinstance(wanted, str) or not isinstance(wanted, Sequence):
        raise ValueError(
            f"{asked} must be a sequence, such as (0, 1, 'differences'); got {wanted!r}."
        )
    names: list[FlowName] = [_name(p, asked) for p in wanted]
    if not names:
        raise ValueError(f"{asked} names at least one order, such as (0, 1)")
    if len(set(names)) < len(names):
        raise ValueError(f"{asked} must name each flow once; got {tuple(wanted)!r}.")
    return names


def carries_memory(method: Method) -> bool:
    """Whether its flow by differences carries the memory along (`fields.by_differences.carried`).

    Methods without memory do without, and of linear memories with positive weights the gradients
    of the steps past are known.
    """
    if not steps_to_fill(method) and not method.kept:
        return False
    try:
        check_displaced(method)
    except ValueError:
        return True
    return False


def _name(p: Any, asked: str) -> FlowName:
    if not isinstance(p, str):
        return check_count(asked, p, 0)
    if p not in NAMED:
        raise ValueError(f"{asked} must be counts or {', '.join(map(repr, NAMED))}; got {p!r}.")
    return p
