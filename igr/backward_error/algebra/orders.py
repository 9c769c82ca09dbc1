"""The order of an equation, the highest power of h it keeps: one check for all kinds."""

from __future__ import annotations

import operator

from igr.checks import Count


def check_order(order: Count, most: int | None = None) -> int:
    """Raises unless an order is an integer of at least 0, and no more than that of an equation.

    Args:
      order: the highest power of h to keep.
      most: the order of the equation that is asked, if there is one.

    >>> check_order(2, most=3)
    2
    """
    try:
        if isinstance(order, bool):
            raise TypeError
        order = operator.index(order)
    except TypeError:
        raise TypeError(
            f"order must be an integer, the highest power of h kept; got {order!r}."
        ) from None
    if order < 0:
        raise ValueError(f"order must be at least 0, the highest power of h kept; got {order}.")
    if most is not None and order > most:
        raise ValueError(f"order must be at most {most}, that of the equation; got {order}.")
    return order
