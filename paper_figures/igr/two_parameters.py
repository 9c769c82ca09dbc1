"""Section 5 and appendix A.4 of Barrett and Dherin (2021): figures 1a, 1b, A.1 and A.2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from scipy.stats import spearmanr

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.figure import Claim, Drawing

if TYPE_CHECKING:
    from analysis.studies.igr.two_parameters import Start


def figure_1a(conditions: Conditions) -> Drawing:
    """Phase plane: gradient descent at two learning rates, the modified flow, and EGR."""
    picture = style.picture(style.COLUMN, 3.5)
    axes = picture.subplots()
    (one, surface), (two, _) = results = _results(conditions, "1a")
    _draw_loss_surface(axes, surface, (0.0, 4.0), arrows=15)
    tables, claims = [], []
    for start, result in results:
        for line, label in _LABELS.items():
            path = result[line]
            axes.plot(*path.T, **_LOOKS[line], label=label if start is one else None)
            tables.append(
                pd.DataFrame({"start": start.name, "line": line, "a": path[:, 0], "b": path[:, 1]})
            )
        claims += [claim_of_following(start.name, *result["distance"])]
        claims += claims_of_regularizing(start, result)
    axes.plot(*one.at, "o", color=style.BLACK, markersize=3)
    axes.annotate(one.name, one.at, (4, 2), textcoords="offset points")
    axes.annotate(f"from {two.name}", (3.97, 3.97), ha="right", va="top")
    handles, labels = axes.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=2)
    return Drawing(picture, pd.concat(tables), tuple(claims))


def figure_1b(conditions: Conditions) -> Drawing:
    """R/E where gradient descent ends, against lambda = h/2, and where the flows end."""
    ((_, result),) = _results(conditions, "1b")
    table = pd.DataFrame(
        {
            "h": result["learning_rate"],
            "lambda": result["learning_rate"] / 2,
            "gradient descent": result["descent"],
            "modified flow": result["modified"],
            "gradient flow": result["original"],
        }
    )
    picture = style.picture(style.COLUMN, 2.4)
    axes = picture.subplots()
    axes.plot(table["lambda"], table["gradient flow"], "--", color=style.GREEN,
              label="gradient flow")  # fmt: skip
    axes.plot(table["lambda"], table["modified flow"], "-", color=style.ORANGE,
              label="modified flow")  # fmt: skip
    axes.plot(table["lambda"], table["gradient descent"], "o", color=style.RED, markersize=3,
              label="gradient descent")  # fmt: skip
    axes.set(xlabel=r"$\lambda$ = learning rate $\times$ network size / 4",
             ylabel=r"$R_{IG}/E$ at the end", xlim=(0, None))  # fmt: skip
    axes.legend(loc="lower left")
    return Drawing(picture, table, claims_of_ends(table))


def figure_a1(conditions: Conditions) -> Drawing:
    """A learning rate too large for backward error analysis: steps over the attractor."""
    ((start, result),) = _results(conditions, "A.1")
    small, large = result["small"], result["large"]
    reach = 1.15 * np.abs(large).max()
    picture = style.picture(style.COLUMN, 3.5)
    axes = picture.subplots()
    _draw_loss_surface(axes, result, (-reach, reach), arrows=17)
    axes.plot(*small.T, **_LOOKS["gradient descent, small rate"],
              label="gradient descent, $h_S = 10^{-3}$")  # fmt: skip
    axes.plot(*large.T, **_LOOKS["large rate"],
              label=f"gradient descent, $h_L = {result['learning_rate']:g}$")  # fmt: skip
    axes.plot(*start.at, "o", color=style.BLACK, markersize=4)
    handles, labels = axes.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=2)
    table = pd.concat(
        pd.DataFrame({"line": line, "a": path[:, 0], "b": path[:, 1]})
        for line, path in (("h_S", small), ("h_L", large))
    )
    return Drawing(picture, table, claims_of_large_rate(result))


def figure_a2(conditions: Conditions) -> Drawing:
    """Test error against the rate of explicit regularization, at several training times."""
    ((_, result),) = _results(conditions, "A.2")
    mu, times, norm = result["mu"], result["time"], result["square_norm"]
    errors = dict(zip(times, result["test_error"].T, strict=True))
    table = pd.DataFrame(
        {"mu": mu}
        | {f"test error, t = {t:g}": error for t, error in errors.items()}
        | {f"a^2 + b^2, t = {times[-1]:g}": norm}
    )

    picture = style.picture(style.COLUMN, 3.5)
    upper, lower = picture.subplots(2, sharex=True, height_ratios=(3, 2))
    looks = zip((":", "-.", "--", "-"), (style.SKY, style.ORANGE, style.PURPLE, style.BLUE),
                strict=True)  # fmt: skip
    for (t, error), (dash, colour) in zip(errors.items(), looks, strict=True):
        label = "converged" if t == times[-1] else f"t = {t:g}"
        upper.plot(mu, error, dash, color=colour, label=label)
    upper.set(yscale="log", ylabel="test error")
    handles, labels = upper.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=4, columnspacing=1.2)
    smallest = 2 * _flattest(result) ** 2
    lower.plot(mu, norm, color=style.BLUE)
    lower.axhline(smallest, color=style.BLACK, linestyle="--", linewidth=0.8)
    lower.annotate("smallest of all minima", (0, smallest), (2, 3),
                   textcoords="offset points", fontsize=7)  # fmt: skip
    lower.set(xlabel=r"explicit regularization rate $\mu$", ylabel="$a^2 + b^2$\nconverged",
              ylim=(0, None))  # fmt: skip
    return Drawing(picture, table, claims_of_regularization_rates(result))


def claim_of_following(
    start: str, original: Float[np.ndarray, " n"], modified: Float[np.ndarray, " n"]
) -> Claim:
    """Theorem 3.1 seen at h_M: gradient descent against the two flows, at equal time n h.

    Args:
        start: The initial point.
        original: The distances from the gradient flow.
        modified: Those from the modified flow.
    """
    at_end = original[-1] / modified[-1]
    at_worst = original.max() / modified.max()
    return Claim(
        f"from {start} at h_M gradient descent is closer to the modified flow than to the "
        "gradient flow",
        f"{at_end:.1f} times closer at the end ({modified[-1]:.4f} against "
        f"{original[-1]:.4f}); at the largest distance {at_worst:.1f} times "
        f"({modified.max():.4f} against {original.max():.4f})",
        at_end > 1 and at_worst > 1,
        paper="closer",
        otherwise="The expansion is not to be trusted at this learning rate.",
    )


def claims_of_regularizing(start: Start, result: Mapping[str, Any]) -> list[Claim]:
    """What EGR reaches that no learning rate does, and whether Table A.1's step follows it.

    Args:
        start: The initial point.
        result: What the study's `paths` has.
    """
    h, norms, value = result["learning_rate"], result["norm"], result["matching"]
    egr, flow = (np.linalg.norm(result[line][-1]) for line in ("EGR", "EGR, flow"))
    smallest, converged = norms.min(), np.isfinite(norms)
    orderly = h * result["sharpness"] < 1
    return [
        Claim(
            f"from {start.name} EGR ends at a smaller norm than gradient descent at h_M, and at "
            "any larger h that starts with h times sharpness below 1",
            f"{egr:.4f} against {norms[0]:.4f} at h_M and {norms[orderly].min():.4f} at "
            f"h = {h[orderly][-1]:.3g}",
            bool(egr < norms[orderly].min()),
            paper="smaller",
            otherwise="A learning rate within reach of the analysis ends at a smaller norm.",
        ),
        Claim(
            f"from {start.name} EGR ends at a smaller norm than gradient descent can at any h that "
            "converges",
            f"{egr:.4f} against {smallest:.4f} at h = {h[norms.argmin()]:.3g}, of {h.size} h up to "
            f"{h[-1]:.3g}, of which {converged.sum()} converge; "
            f"no minimum has less than {np.sqrt(2) * _flattest(result):.4f}",
            bool(egr < smallest),
            paper="not possible with IGR",
            otherwise="Steps large enough to jump, but not to diverge, can land by chance on a "
            "flatter minimum; backward error analysis says nothing about them.",
        ),
        Claim(
            f"from {start.name} gradient descent with h = 2 mu, the learning rate that would "
            "regularize as strongly, diverges",
            f"h = {2 * start.mu:g}: E = {value[3]:.0e} after 3 steps",
            not np.isfinite(value[-1]),
            paper="diverges",
            otherwise=f"It stays finite for {len(value) - 1} steps.",
        ),
        Claim(
            f"from {start.name} EGR with the printed h_Euler follows the flow of E + mu R",
            f"ends at norm {egr:.4f} against {flow:.4f}; h_Euler times sharpness of E + mu R at "
            f"the start {start.h_euler * result['regularized_sharpness']:.2g}",
            bool(abs(egr - flow) < 0.01),
            paper="very small h",
            otherwise="The printed step is not small for the regularized loss, which is much "
            "steeper than E this far out: above 2 the first step jumps over the origin. A smaller "
            "step ends nearer to the flattest minimum.",
        ),
    ]


def claims_of_ends(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What Figure 1b shows.

    Args:
        table: R/E at the end by learning rate `h`, of `gradient descent` and of both flows.
    """
    h, ratio = table["h"].to_numpy(), table["gradient descent"].to_numpy()
    rank = spearmanr(h, ratio).statistic
    off_original = np.abs(ratio - table["gradient flow"]).to_numpy()
    off_modified = np.abs(ratio - table["modified flow"]).to_numpy()
    return (
        Claim(
            "R/E at the end is smaller for larger learning rates",
            f"{ratio[0]:.3f} at h = {h[0]:.4f}, {ratio[-1]:.3f} at h = {h[-1]:.3f}; "
            f"rank correlation {rank:.3f}, falling at every step: {_yes(_falls(ratio))}",
            _falls(ratio),
            paper="axis from 4.20 to 4.60",
            otherwise="R/E rises somewhere along this range of learning rates.",
        ),
        Claim(
            "the modified flow says where gradient descent ends better than the gradient flow does",
            f"at h = {h[-1]:.3f} off by {off_modified[-1]:.4f} against {off_original[-1]:.4f}; "
            f"largest at any h {off_modified.max():.4f} against {off_original.max():.4f}",
            bool(np.all(off_modified < off_original)),
            otherwise="At some learning rate the gradient flow ends nearer.",
        ),
    )


def claims_of_large_rate(result: Mapping[str, Any]) -> tuple[Claim, ...]:
    """What appendix A.4 says of Figure A.1.

    Args:
        result: What the study's `large_rate` has.
    """
    a, b = result["large"].T
    residual = result["y"] - result["x"] * a * b
    crossings = int(np.sum(np.sign(residual[1:]) * np.sign(residual[:-1]) < 0))
    steps, curvature = len(a) - 1, result["learning_rate"] * result["sharpness"]
    return (
        Claim(
            "with h_L gradient descent steps over the line attractors before it lands",
            f"{crossings} crossings of ab = y/x in {steps} steps",
            crossings >= 2,
            otherwise="It goes to the attractor that it starts beside.",
        ),
        Claim(
            "with h_L gradient descent converges to a global minimum",
            f"E = {result['loss']:.1e} after {steps} steps",
            result["loss"] < 1e-12,
            otherwise="It has not converged.",
        ),
        Claim(
            "it can only land where the surface is flat enough: h_L times the curvature below 2",
            f"{curvature:.3f}",
            curvature < 2,
            otherwise="The minimum it ends at is one that it should leave.",
        ),
    )


def claims_of_regularization_rates(result: Mapping[str, Any]) -> tuple[Claim, ...]:
    """What appendix A.4 says of Figure A.2.

    Args:
        result: What the study's `regularization_rates` has.
    """
    mu, norm = result["mu"], result["square_norm"]
    *early, converged = result["test_error"].T
    ranks = zip([spearmanr(mu, error).statistic for error in early], result["time"], strict=False)
    return (
        Claim(
            "test error falls with mu once training has converged",
            f"{converged[0]:.6f} at mu = 0, {converged[-1]:.6f} at mu = {mu[-1]:g}; "
            f"spread {np.ptp(converged):.0e}",
            converged[0] - converged[-1] > 1e-9,
            paper="falls",
            otherwise="a and b enter only by their product, which every minimum of the training "
            "loss fixes at y/x: all predict alike at x = 0.5, and no penalty can tell them apart.",
        ),
        Claim(
            "test error falls with mu when training stops before it has converged",
            "rank correlation " + ", ".join(f"{rank:.2f} at t = {t:g}" for rank, t in ranks),
            all(_falls(error) for error in early),
            paper="falls (time not given)",
            otherwise="The penalty changes how fast ab comes down to y/x, and on the way down test "
            "error passes through zero at ab = 1.2: which mu is ahead depends on the time.",
        ),
        Claim(
            "larger mu leads to flatter minima: a^2 + b^2 at the end falls with mu",
            f"{norm[0]:.3f} at mu = 0, {norm[-1]:.3f} at mu = {mu[-1]:g}",
            _falls(norm),
            otherwise="The norm rises somewhere along this range of mu.",
        ),
    )


_LABELS = {
    "gradient descent, small rate": "gradient descent, $h_S$",
    "gradient descent, moderate rate": "gradient descent, $h_M$",
    "modified flow": r"modified flow, $\lambda = h_M/2$",
    "EGR, flow": "EGR, large $\\mu$, exact flow",
    "EGR": "EGR, large $\\mu$, $h_{\\rm Euler}$",
}
_LOOKS = {
    "gradient descent, small rate": {"color": style.GREEN},
    "gradient descent, moderate rate": {"color": style.RED},
    "modified flow": {"color": style.BLACK, "linestyle": (0, (1, 1.5)), "linewidth": 1.2},
    "EGR": {"color": style.BLUE, "linestyle": "--"},
    "EGR, flow": {"color": style.SKY, "linewidth": 0.9},
    "large rate": {"color": style.RED, "marker": "o", "markersize": 2, "linewidth": 0.8},
}


def _results(conditions: Conditions, figure: str) -> list[tuple[Start, Mapping[str, Any]]]:
    """The initial points of a figure, and what the study has from each."""
    swept = computed("igr-two-parameters", conditions, only=lambda cell: cell.figure == figure)
    return [(cell.start, result.values) for cell, result in swept.results.items()]


def _draw_loss_surface(
    axes: Axes, result: Mapping[str, Any], limits: tuple[float, float], arrows: int
) -> None:
    """Arrows along the gradient flow, the line attractor, and the flattest of its minima."""
    x, y, flattest = result["x"], result["y"], _flattest(result)
    low, high = limits
    grid = np.linspace(low, high, 2 * arrows + 1)[1::2]
    a, b = np.meshgrid(grid, grid)
    downhill = np.stack([b, a]) * (x * (y - a * b * x))  # -grad E, E = (y - a b x)^2 / 2
    downhill = downhill / np.maximum(np.linalg.norm(downhill, axis=0), 1e-12)
    axes.quiver(a, b, *downhill, color="#BBBBBB", pivot="mid", scale=1.6 * arrows, width=0.004)
    for side in (1, -1) if low < 0 else (1,):
        a = side * np.geomspace(y / x / high, high, 400)
        axes.plot(a, y / x / a, "--", color=style.BLACK, linewidth=1)
        axes.plot(side * flattest, side * flattest, "x", color=style.BLACK, markersize=7,
                  markeredgewidth=1.8, zorder=5)  # fmt: skip
    axes.set(xlim=limits, ylim=limits, xlabel="$a$", ylabel="$b$", aspect="equal")


def _flattest(result: Mapping[str, Any]) -> float:
    """a and b of the minimum with the smallest norm, where they are equal."""
    return float(np.sqrt(result["y"] / result["x"]))


def _falls(values: Float[np.ndarray, " n"]) -> bool:
    return bool(np.all(np.diff(values) < 0))


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"
