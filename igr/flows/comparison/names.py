"""Checks the flows that are asked for, and which of them need a memory."""

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
    """The flows asked for by `flows` or `orders`, each an order or one of `NAMED`.

    Raises:
      ValueError: for an unknown name, an order below 0, an empty or repeating list, or if both
        arguments are given.
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
    """Checks a key of jax.random, typed or raw; None is allowed if no key is needed.

    Raises:
      ValueError: if one is needed and there is none.
      TypeError: if it is no key, such as a number.
    """
    if key is None and needed:
        raise ValueError("key is needed: the order of the batches is drawn at random")
    if key is None or isinstance(key, jax.Array):
        return
    raise TypeError(f"key must be a key, such as jax.random.key(0); got {key!r}.")


def check_directions(directions: Any, names: Sequence[FlowName]) -> None:
    """Raises if `directions` is given but no flow past the edge of stability is asked for.

    Raises:
      ValueError: unless `names` has "two-phase" or "central", or `directions` is None.
    """
    if directions is not None and not set(names) & set(PAST_THE_EDGE):
        raise ValueError(
            f"directions must be left out unless flows has 'two-phase' or 'central'; got "
            f"{directions!r}."
        )


def carries_memory(method: Method, params: PyTree, h: Number) -> bool:
    """Whether the flow "differences" of a method carries its memory along with params.

    It does not for methods whose steps remember nothing, not even their number, and for linear
    memories with positive weights: past gradients are then taken at points on the flow. See
    `fields.by_differences.carried`.
    """
    if not steps_to_fill(method) and not method.kept:
        return remembers(method, params, h)
    try:
        check_displaced(method)
    except ValueError:
        return True
    return False


def remembers(method: Method, params: PyTree, h: Number) -> bool:
    """Whether a step of the method leaves the next one any state, if only the number of steps."""
    return bool(jax.tree.leaves(kinds.step_of(method, h).init(params)))


def _name(p: Any, asked: str) -> FlowName:
    if not isinstance(p, str):
        return check_count(asked, p, 0)
    if p not in NAMED:
        raise ValueError(f"{asked} must be counts or {', '.join(map(repr, NAMED))}; got {p!r}.")
    return p
