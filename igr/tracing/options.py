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
        step, such as Adam's `nu` at b2 = 0.999, because an eliminated memory must fade fast beside
        the motion of params. States that are no linear memory, such as Adagrad's sum of squares,
        are always kept.
      smooth: reads x/sqrt(x^2 + smooth) for the sign of x, and accordingly |x|, maxima and
        conditions: the method describes the optimizer with this change.
    """

    keep: Iterable[str] | None
    smooth: Number | None
