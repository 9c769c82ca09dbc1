"""The minima at which SGD can stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from igr.plots.style import COLOURS, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def sgd_region(
    region: Any, sharpness: Any = None, non_uniformity: Any = None, ax: Axes | None = None
) -> Axes:
    """Draws the plane of sharpness and non-uniformity, shaded where SGD can stay; returns the Axes.

    Args:
      region: an `igr.diagnostics.SGDRegion`.
      sharpness: the sharpnesses of minima to mark, (m,).
      non_uniformity: the non-uniformities of the same minima, (m,).
      ax: the Axes to draw on; new ones if None.

    Raises:
      TypeError: if `region` is no region.
      ValueError: if only one of the two coordinates is given, or their shapes differ.
    """
    if not hasattr(region, "sharpness_limit"):
        raise TypeError(f"region must be an SGDRegion; got {type(region).__name__}.")
    if (sharpness is None) != (non_uniformity is None) or np.shape(sharpness) != np.shape(
        non_uniformity
    ):
        raise ValueError(
            "sharpness and non_uniformity must give the same minima, both or none, of one shape; "
            f"got shapes {np.shape(sharpness)} and {np.shape(non_uniformity)}."
        )
    ax = axes(ax)
    a = np.linspace(0, float(region.sharpness_limit), 201)
    s = np.array(region.boundary(a), float)
    s = np.where(np.isfinite(s), s, np.nan)
    if np.isnan(s).all():  # the full batch: no limit on the non-uniformity
        ax.axvspan(0, a[-1], color=COLOURS[0], alpha=0.15, linewidth=0, label="can be kept")
    else:
        ax.fill_between(a, 0, s, color=COLOURS[0], alpha=0.15, linewidth=0, label="can be kept")
        ax.plot(a, s, color=COLOURS[0], label="growth 1")
    ax.axvline(a[-1], color="black", linewidth=0.8, linestyle="--", label=f"2/h = {a[-1]:.4g}")
    if sharpness is not None:
        ax.plot(sharpness, non_uniformity, "o", color=COLOURS[1], markersize=4, label="minima")
    ax.set_xlabel("sharpness")
    ax.set_ylabel("non-uniformity")
    ax.legend()
    return ax
