"""A comparison of a run with its flows, and the certificate of an equation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from igr.plots.style import GREY, axes, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NEAR = 30.0  # times the floor: what lies above need not be seen beside it


def comparison(cmp: Any, ax: Axes | None = None) -> Axes:
    """Draws the distance of the run from each flow against the step, and returns the Axes.

    A dashed grey line is the distance the run has travelled; a dotted one, where distances come
    near it, the distance that rounding and the solver's tolerance alone can make. Records at which
    the expansion is not to be trusted are shaded. Where a distance has a standard error
    (`standard_error`, by flow), there is a band of one standard error to both sides.

    Args:
      cmp: an `igr.Comparison`.
      ax: the Axes to draw on; new ones if None.

    Raises:
      TypeError: if `cmp` is no comparison.
    """
    for name in ("distance", "step", "travelled"):
        if not hasattr(cmp, name):
            raise TypeError(
                f"cmp must be an igr.Comparison, with .{name}; got {type(cmp).__name__}."
            )
    ax = axes(ax)
    step = np.asarray(cmp.step)
    errors = getattr(cmp, "standard_error", None) or {}
    for number, flow in enumerate(sorted(cmp.distance, key=lambda p: (isinstance(p, str), p))):
        label = flow if isinstance(flow, str) else f"order {flow}"
        distance = _drawable(cmp.distance[flow])
        (line,) = ax.plot(step, distance, label=label, **look(number))
        if flow in errors:
            error = np.asarray(errors[flow])
            ax.fill_between(
                step,
                # Where the band reaches zero it goes off the logarithmic axis below.
                np.where(distance > error, distance - error, distance * 1e-3),
                distance + error,
                color=line.get_color(),
                alpha=0.25,
                linewidth=0,
            )
    ax.plot(step, _drawable(cmp.travelled), color=GREY, linestyle="--", label="travelled")
    floor = getattr(cmp, "floor", None)
    if floor is not None and _comes_near(cmp.distance, np.asarray(floor)):
        ax.plot(step, _drawable(floor), color=GREY, linestyle=":", label="rounding, solver")
    trusted = getattr(cmp, "trusted", None)
    if trusted is not None:
        _shade(ax, step, ~np.asarray(trusted))
    lines = [*cmp.distance.values(), cmp.travelled]
    seen = np.concatenate([_drawable(values) for values in lines])
    if np.any(np.isfinite(seen)):  # or a run that did not move has nothing for the axis to show
        ax.set_yscale("log")
        if errors:  # a band that reaches zero shall not stretch the axis
            ax.set_ylim(bottom=max(ax.get_ylim()[0], np.nanmin(seen) / 5))
    ax.set_xlabel("step")
    ax.set_ylabel("distance from the run")
    ax.set_title(f"{cmp.method}, h = {cmp.learning_rate:g}")
    ax.legend()
    return ax


def certificate(cert: Any, ax: Axes | None = None) -> Axes:
    """Draws the one-step error of each order against the step, with lines of the expected slopes.

    Args:
      cert: an `igr.Certificate`.
      ax: the Axes to draw on; new ones if None.

    Returns:
      The Axes.

    Raises:
      TypeError: if `cert` is no certificate.
    """
    if not hasattr(cert, "observed"):
        raise TypeError(
            f"cert must be an igr.Certificate, with .observed; got {type(cert).__name__}."
        )
    ax = axes(ax)
    for number, (order, slope) in enumerate(cert.observed.items()):
        hs, errors = np.asarray(slope.hs), np.asarray(slope.errors)
        label = f"order {order}: slope {float(slope):.2f}, expected {order + 2}"
        (line,) = ax.plot(
            hs, _drawable(errors), marker="o", markersize=3, label=label, **look(number)
        )
        last = np.argmax(hs)
        expected = errors[last] * (hs / hs[last]) ** (order + 2)
        ax.plot(hs, expected, color=line.get_color(), linewidth=0.7, alpha=0.6, linestyle=":")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("h")
    ax.set_ylabel("error of one step")
    verdict = "certified" if cert.holds else "NOT certified"
    ax.set_title(f"{cert.method}: {verdict}")
    ax.legend()
    return ax


def _drawable(values: Any) -> np.ndarray:
    """The values with nan where a logarithmic axis cannot show them."""
    values = np.array(values, float)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def _comes_near(distance: Any, floor: np.ndarray) -> bool:
    return any(bool(np.any(_drawable(d) < NEAR * floor)) for d in distance.values())


def _shade(ax: Axes, step: np.ndarray, untrusted: np.ndarray) -> None:
    """Draws a grey span over each stretch of untrusted records, halfway to its neighbours."""
    if not untrusted.any():
        return
    middles = (step[:-1] + step[1:]) / 2
    edges = np.concatenate([step[:1], middles, step[-1:]]).astype(float)
    changes = np.flatnonzero(np.diff(np.concatenate([[0], untrusted.astype(int), [0]])))
    label = "not to be trusted"
    for start, stop in changes.reshape(-1, 2):
        ax.axvspan(
            float(edges[start]), float(edges[stop]), color=GREY, alpha=0.2, linewidth=0, label=label
        )
        label = "_nolegend_"
