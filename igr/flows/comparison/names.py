"""The flows that can be asked for, by their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from igr.backward_error.protocols import Method
from igr.checks import Number, check_count
from igr.flows import kinds
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


def check_key(key: Any, needed: bool) -> None:
    """Raises unless it is a key of jax.random, of the new kind or the old; or None, if not needed.

    Raises:
      ValueError: if one is needed and there is none.
      TypeError: as for a number, of which `jax.random.key` makes one.
    """
    if key is None and needed:
        raise ValueError("key is needed: the order of the batches is drawn at random")
    if key is None or isinstance(key, jax.Array):
        return
    raise TypeError(f"key must be a key, such as jax.random.key(0); got {key!r}.")


def check_directions(directions: Any, names: Sequence[FlowName]) -> None:
    """Raises where directions are given and no flow has any.

    Raises:
      ValueError: as a flow past the edge is then missing among `flows`.
    """
    if directions is not None and not set(names) & set(PAST_THE_EDGE):
        raise ValueError(
            f"directions must be left out unless flows has 'two-phase' or 'central'; got "
            f"{directions!r}."
        )


def carries_memory(method: Method, params: PyTree, h: Number) -> bool:
    """Whether its flow by differences carries the memory along (`fields.by_differences.carried`).

    Methods whose steps remember nothing, not even their number, as a schedule does, do without; and
    of linear memories with positive weights the gradients of the steps past are known.
    """
    if not steps_to_fill(method) and not method.kept:
        return remembers(method, params, h)
    try:
        check_displaced(method)
    except ValueError:
        return True
    return False


def remembers(method: Method, params: PyTree, h: Number) -> bool:
    """Whether a step of the method leaves the next anything but params: its number, at least."""
    return bool(jax.tree.leaves(kinds.step_of(method, h).init(params)))


def _name(p: Any, asked: str) -> FlowName:
    if not isinstance(p, str):
        return check_count(asked, p, 0)
    if p not in NAMED:
        raise ValueError(f"{asked} must be counts or {', '.join(map(repr, NAMED))}; got {p!r}.")
    return p
