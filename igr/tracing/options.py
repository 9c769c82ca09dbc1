"""How an optimizer is read: the options of `igr.from_optax` and of all that read one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from igr.checks import Number


class ReadingOptions(TypedDict, total=False):
    """How an optax optimizer is read; None is as if not given.

    Attributes:
      keep: the names of the states that stay variables of the flow, as they stand in the
        optimizer's state; () for none. If not given: those that forget less than a twentieth in a
        step, such as Adam's `nu` at b2 = 0.999, for what is eliminated must fade fast beside the
        motion. States that are no linear memory, such as Adagrad's sum of squares, are kept
        always.
      smooth: reads x/sqrt(x^2 + smooth) for the sign of x, and what is made of it for |x|, maxima
        and conditions: the method then is the optimizer so changed.
    """

    keep: Iterable[str] | None
    smooth: Number | None
