"""The style of the pictures: colours for colour-blind readers, and little ink."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

try:
    import matplotlib
    from cycler import cycler
except ImportError as error:
    raise ImportError(
        "igr.plots draws with matplotlib, which is not installed: pip install 'igr[figures]'"
    ) from error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's palette, https://jfly.uni-koeln.de/color/
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#000000", "#F0E442")
GREY = "#8C8C8C"
DASHES = ("-", "--", "-.", ":")  # told apart in print too

_SETTINGS: dict[Any, Any] = {
    "font.size": 9,
    "axes.labelsize": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "lines.linewidth": 1.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "legend.frameon": False,
}


@contextmanager
def style() -> Iterator[None]:
    """A context manager that sets igr's matplotlib style, for figures of your own.

    >>> import matplotlib.pyplot as plt
    >>> with style():
    ...     figure, ax = plt.subplots()
    >>> plt.close(figure)
    """
    with matplotlib.rc_context(_SETTINGS):
        yield


def axes(ax: Axes | None) -> Axes:
    """The Axes given, or new ones in igr's style.

    Raises:
      TypeError: if `ax` is neither Axes nor None.
    """
    if ax is None:
        import matplotlib.pyplot as plt  # chooses a backend: only where a figure is wanted

        with style():
            return plt.subplots(figsize=(4.6, 3.2), layout="constrained")[1]
    if not hasattr(ax, "plot") or not hasattr(ax, "get_xlim"):
        raise TypeError(f"ax must be matplotlib Axes, or None for new ones; got {ax!r}.")
    return ax


def look(number: int) -> dict[str, Any]:
    """The colour and dashes of the line of this number; the first 32 are all different."""
    rounds, index = divmod(number, len(COLOURS))
    return {"color": COLOURS[index], "linestyle": DASHES[rounds % len(DASHES)]}
