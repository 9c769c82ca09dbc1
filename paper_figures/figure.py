"""What a figure is: an entry of the catalogue, the drawing it makes, the claims it checks."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analysis.scale import Conditions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as Picture


@dataclass(frozen=True)
class Figure:
    """A figure or table of a paper that can be, or one day will be, regenerated.

    Attributes:
        name: How it is chosen on the command line and what its files are called, `paper/number`.
        paper: The paper's title, shortened.
        title: What it shows, in one line.
        source: Where its drawing function is, as `module:function`; the function takes the
            conditions under which studies are computed and returns a :class:`Drawing`. Kept as text
            so that listing figures imports no JAX. None for a figure that is planned and not yet
            ready.
        arguments: What the function takes beside, for figures that share one.
        cost: Seconds it takes on 2 CPU cores in a process of its own, compilation included; None
            for a figure that is not yet ready.
        default: Whether it is drawn when no names are given.

    >>> Figure("igr/1a", "Implicit gradient regularization", "two flows").ready
    False
    """

    name: str
    paper: str
    title: str
    source: str | None = None
    cost: float | None = None
    default: bool = True
    arguments: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether the figure can be drawn."""
        return self.source is not None

    def drawing_function(self) -> Callable[[Conditions], Drawing]:
        """The function that draws the figure.

        Raises:
            ValueError: If the figure is not ready.
        """
        if self.source is None:
            raise ValueError(f"figure {self.name!r} is planned and cannot be drawn yet")
        module, function = self.source.split(":")
        draw = getattr(importlib.import_module(module), function)
        return lambda conditions: draw(conditions, *self.arguments)


@dataclass(frozen=True)
class Drawing:
    """What drawing a figure gives.

    Attributes:
        picture: The matplotlib figure.
        table: The numbers drawn, one row a point.
        claims: What the paper says the figure shows, checked on these numbers.
    """

    picture: Picture
    table: pd.DataFrame
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A statement about a figure, held against the numbers measured.

    Attributes:
        claim: The statement.
        measured: The numbers that decide it, as text.
        holds: Whether they bear it out; always computed, never written down.
        paper: The paper's own value, where it prints one.
        otherwise: A sentence shown when the claim does not hold: why that may be.

    >>> drop = 4.56 - 4.18
    >>> Claim("R/E falls as h grows", f"by {drop:.2f}", drop > 0).verdict
    'yes'
    """

    claim: str
    measured: str
    holds: bool
    paper: str = ""
    otherwise: str = ""

    def __post_init__(self):
        if not isinstance(self.holds, bool | np.bool_):
            raise TypeError(f"holds must be True or False, not {self.holds!r} (of {self.claim!r})")
        object.__setattr__(self, "holds", bool(self.holds))

    @property
    def verdict(self) -> str:
        """`yes`, or `NO` and the sentence that says why it may be."""
        return "yes" if self.holds else f"NO. {self.otherwise}".rstrip()
