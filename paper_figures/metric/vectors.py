"""Figure 1.1 of the dissertation on Metric regularization: its steps and those of L2, as vectors.

The network of Figure 1.2 has one path and two parameters, f(x) = phi(theta_2 phi(theta_1 x))
(section 3.2), and learns from an identical "teacher". The text gives neither phi, the teacher's
parameters nor the inputs: tanh, (1, 1) and evenly spaced inputs are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.figure import Claim, Drawing

FISHER, HESSIAN, L2 = "Metric, Fisher information", "Metric, Hessian", "L2"
LARGE = 3.0  # from which ratio on one parameter is large relative to the other
Points = Float[np.ndarray, "points 2"]


def figure_1_1(conditions: Conditions) -> Drawing:
    """The steps of three regularizers over the plane of parameters, from two angles."""
    ((cell, result),) = computed("metric-vectors", conditions).results.items()
    found = result.values
    picture = style.picture(style.PAGE, 4.7)
    tops = []
    for i, name in enumerate(found["rules"]):
        _front(picture, i, name, found)
        tops.append(_top(picture, i, name, found, cell.reach))
    picture.colorbar(tops[-1][1], ax=[axes for axes, _ in tops], label="loss", shrink=0.8)
    picture.supxlabel("arrows are as long as the square root of the step", fontsize=7)
    at = found["at"]
    tables = [
        pd.DataFrame(
            {
                "rule": name,
                "theta_1": at[:, 0],
                "theta_2": at[:, 1],
                "step_1": vectors[:, 0],
                "step_2": vectors[:, 1],
                "loss": found["loss"],
            }
        )
        for name, vectors in _by_rule(found, "steps").items()
    ]
    return Drawing(picture, pd.concat(tables), claims(cell, found))


def claims(cell: Any, found: Mapping[str, Any]) -> tuple[Claim, ...]:
    """What section 1 and the caption say.

    Args:
        cell: The study's cell.
        found: What the study found.
    """
    at, slopes = found["at"], found["slopes"]
    steps, ends = _by_rule(found, "steps"), _by_rule(found, "ends")
    to_origin = {name: _cosines(vectors, -at) for name, vectors in steps.items()}
    along = {name: np.abs(_cosines(vectors, slopes)) for name, vectors in steps.items()}
    corners = np.isclose(np.abs(at), cell.reach).all(axis=1)
    effects = found["effects"][corners]
    checked = [
        Claim(
            "L2 regularization always points towards the origin",
            f"cosine with the way to the origin at least {to_origin[L2].min():.6f}",
            bool(to_origin[L2].min() > 1 - 1e-9),
            paper="Figure 1.1b",
            otherwise="It is -theta by definition.",
        )
    ]
    for name in (FISHER, HESSIAN):
        size = np.abs(steps[name])
        # Column 0 for the larger of the two parameters, column 1 for the other.
        order = np.argsort(-np.abs(at), axis=1)
        ratio = np.divide(*np.take_along_axis(np.abs(at), order, axis=1).T)
        large, small = np.take_along_axis(size, order, axis=1)[ratio >= LARGE].T
        angles = np.degrees(np.arctan2(size[corners].min(axis=1), size[corners].max(axis=1)))
        along_lesser = size[corners].argmax(axis=1) == effects.argmin(axis=1)
        checked += [
            Claim(
                f"{name}: the steps do not always point towards the origin",
                f"cosine with the way to the origin from {to_origin[name].min():.2f}; above 0.9 at "
                f"{np.mean(to_origin[name] > 0.9):.0%} of the points",
                bool(to_origin[name].min() < 0.9),
                paper="Figure 1.1a",
                otherwise="The metric is near the identity on this part of the plane.",
            ),
            Claim(
                f"{name}: the steps follow the slope of the loss",
                f"median |cosine| with the gradient {np.median(along[name]):.3f}, against "
                f"{np.median(along[L2]):.3f} for L2",
                bool(np.median(along[name]) > max(0.9, np.median(along[L2]))),
                paper="Figure 1.1a",
                otherwise="The metric has a second direction here that the gradient lacks.",
            ),
            Claim(
                f"{name}: at the corners the steps run parallel to one parameter, which has little "
                "effect on the network's function",
                f"{angles.min():.0f} to {angles.max():.0f} degrees from the nearer axis; along the "
                f"parameter of the lesser effect at {np.sum(along_lesser)} of {corners.sum()} "
                f"corners (mean |d f / d theta_i| {effects.min():.2g} and {effects.max():.2g})",
                bool((angles < 15).all() and along_lesser.all()),
                paper="Figure 1.1, caption",
                otherwise="With tanh both parameters have little effect there, and the metric "
                "leans to the one that has more; the paper does not give its activation, teacher "
                "or inputs.",
            ),
            Claim(
                f"{name}: a parameter that is large relative to the other ({LARGE:g} times) is "
                "regularized very little",
                f"its part of the step is the smaller one at {np.mean(large < small):.0%} of "
                f"{len(large)} such points; median {np.median(large / small):.2f} of the other's "
                f"(for L2: {np.median(ratio[ratio >= LARGE]):.1f})",
                bool((large < small).all()),
                paper="section 1, in words",
                otherwise="Near the curve where the parts of the Hessian cancel, the step turns "
                "quickly."
                if name == HESSIAN
                else "Where tanh saturates the larger parameter no longer decides.",
            ),
        ]
    sparse = {name: _sparsity(points) for name, points in ends.items()}
    start = _sparsity(at)
    shrunk = {name: np.median(np.linalg.norm(p, axis=1)) for name, p in ends.items()}
    checked += [
        Claim(
            f"{name}: followed on its own it promotes sparsity, and L2 a low norm",
            f"smaller over larger parameter, median: {start:.2f} at the start, after {cell.steps} "
            f"steps of {cell.decay:g} {sparse[name]:.3f}, {sparse[L2]:.2f} for L2; median norm "
            f"{shrunk[name]:.2f}, {shrunk[L2]:.1g} for L2",
            bool(sparse[name] < start / 2 and shrunk[L2] < shrunk[name]),
            paper="section 1, in words",
            otherwise="Along negative curvature it pushes away from the origin, out of the part of "
            "the plane that is drawn.",
        )
        for name in (FISHER, HESSIAN)
    ]
    return tuple(checked)


def _by_rule(found: Mapping[str, Any], what: str) -> dict[str, Points]:
    return dict(zip(found["rules"], found[what], strict=True))


def _cosines(a: Points, b: Points) -> Float[np.ndarray, " points"]:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def _sparsity(points: Points) -> float:
    """The median of the smaller parameter over the larger."""
    size = np.abs(points)
    return float(np.median(size.min(axis=1) / size.max(axis=1)))


def _front(picture: Picture, i: int, name: str, found: Mapping[str, Any]) -> None:
    axes: Any = picture.add_subplot(2, 3, i + 1, projection="3d", computed_zorder=False)
    axes.plot_surface(*np.moveaxis(found["coarse"], -1, 0), color="#DDDDDD", edgecolor="#BBBBBB",
                      linewidth=0.2, alpha=0.7, zorder=1)  # fmt: skip
    foot = found["loss"]
    axes.quiver(*found["at"].T, foot + 0.02, *found["arrows"][i].T, found["tips"][i] - foot,
                color=_COLOURS[name], linewidth=0.7, arrow_length_ratio=0.45,
                zorder=2)  # fmt: skip
    axes.view_init(elev=38, azim=-68)
    axes.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$", zticks=[0, 0.5, 1], title=name)
    axes.text2D(0.9, 0.8, "loss", transform=axes.transAxes)
    axes.set_box_aspect((1, 1, 0.6))
    axes.grid(visible=False)
    axes.tick_params(pad=-3, labelsize=6)
    axes.xaxis.labelpad = axes.yaxis.labelpad = -8


def _top(
    picture: Picture, i: int, name: str, found: Mapping[str, Any], reach: float
) -> tuple[Axes, Any]:
    axes = picture.add_subplot(2, 3, i + 4)
    surface = np.moveaxis(found["fine"], -1, 0)
    shades = axes.contourf(*surface, levels=np.linspace(0, 1.2, 13), cmap="Greys", vmax=2.4)
    axes.quiver(*found["at"].T, *found["arrows"][i].T, color=_COLOURS[name], angles="xy",
                scale_units="xy", scale=1, width=0.007, minlength=0, headwidth=4)  # fmt: skip
    axes.set(xlabel=r"$\theta_1$", aspect="equal", xticks=[-3, 0, 3], yticks=[-3, 0, 3])
    axes.set(xlim=(-reach - 0.4, reach + 0.4), ylim=(-reach - 0.4, reach + 0.4))
    if i == 0:
        axes.set_ylabel(r"$\theta_2$")
    return axes, shades


_COLOURS = {FISHER: style.BLUE, HESSIAN: style.GREEN, L2: style.RED}
