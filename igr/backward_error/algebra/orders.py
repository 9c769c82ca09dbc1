"""One check of an equation's order, the highest power of h it keeps."""

from __future__ import annotations

import operator

from igr.checks import Count


def check_order(order: Count, most: int | None = None) -> int:
    """Returns the order as an int, after checking that it lies between 0 and `most`.

    Args:
      order: the highest power of h to keep.
      most: the order of the equation that is to be truncated, if there is one.

    Raises:
      TypeError: if `order` is not an integer.
      ValueError: if it is negative or larger than `most`.

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
