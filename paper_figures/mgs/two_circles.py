"""Two circles: decision boundaries and similarity, by regularizer (MGS paper, Figure 2)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from scipy.optimize import brentq
from scipy.special import ive

from analysis.scale import Conditions
from analysis.studies import computed
from analysis.studies.mgs.two_circles import Cell
from paper_figures import style
from paper_figures.evidence import difference, mean, spearman
from paper_figures.figure import Claim, Drawing

LOOKS = {
    "none": (style.GREY, "-", "o"),
    "weight": (style.BLUE, "--", "v"),
    "dropout": (style.ORANGE, "-.", "s"),
    "loss gradient, inputs": (style.SKY, ":", "^"),
    "loss gradient, parameters": (style.GREEN, "--", "D"),
    "MGS trace": (style.RED, "-", "P"),
    "MGS determinant": (style.PURPLE, "-.", "X"),
}
_METRICS = ("trace", "logdet", "train_loss", "test_loss", "train_accuracy", "test_accuracy")
_LAST = 5  # the paper's final value is the mean of so many samples (D.1)
_CAPTION = "caption of Figure 2, in words; no number is printed"
_CORRELATED = {
    "test_accuracy": "section 4, in words, of Figure 3: strongly correlated",
    "logdet": "section 5, in words",
}


def figure_2(conditions: Conditions) -> Drawing:
    """The first seed's boundaries with its training points; the metrics of all seeds."""
    swept = computed("mgs-two-circles", conditions).results
    results = {cell.method: (cell, found.values) for cell, found in swept.items()}
    table, ends = measured(results)
    picture = style.picture(style.PAGE, 7.3)
    top, bottom = picture.subfigures(2, 1, height_ratios=[1.1, 1])  # pyright: ignore
    panels = top.subplots(2, 4, sharex=True, sharey=True).ravel()
    for axes, (method, (cell, result)) in zip(panels, results.items(), strict=False):
        _boundary(axes, cell, result)
        axes.set_title(_title(method, float(result["factor"])))
    _legend(panels[-1])
    for axes in panels[4:7]:
        axes.set_xlabel("$x_1$")
    for axes in panels[::4]:
        axes.set_ylabel("$x_2$")
    titles = (r"$\mathrm{tr}\,K$", r"$\log\det(K + 0.01\,I)$", "training loss", "test loss",
              "training accuracy", "test accuracy")  # fmt: skip
    grid = bottom.subplots(2, 3, sharex=True).T.ravel()
    for axes, name, title in zip(grid, _METRICS, titles, strict=True):
        _curves(axes, table, name)
        axes.set_ylabel(title)
        if name == "trace":
            axes.set_yscale("log")
        elif "accuracy" in name:
            axes.set_ylim(0.76, 1.0)
    for axes in grid[1::2]:
        axes.set_xlabel("step of SGD (thousands)")
    return Drawing(picture, table, claims(ends))


def figure_a1(conditions: Conditions) -> Drawing:
    """The boundaries of all methods, of every seed, beside the best classifier's."""
    swept = computed("mgs-two-circles", conditions).results
    results = {cell.method: (cell, found.values) for cell, found in swept.items()}
    _, ends = measured(results)
    picture = style.picture(style.PAGE, 3.9)
    panels = picture.subplots(2, 4, sharex=True, sharey=True).ravel()
    for axes, (method, (cell, result)) in zip(panels, results.items(), strict=False):
        grid, (colour, _, _) = result["grid"], LOOKS[method]
        for margin in result["margin"]:
            axes.contour(grid, grid, margin, levels=[0.0], colors=colour, linewidths=0.6)
        _best(axes, cell)
        axes.set(aspect="equal", xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        off = f"off {ends.loc[method, 'off'].mean():.1%}"
        axes.set_title(f"{_title(method, float(result['factor']))}\n{off}", fontsize=7)
    panels[-1].axis("off")
    handles = [Line2D([], [], color=style.GREY, linewidth=0.8, label="learned, a line a seed"),
               Line2D([], [], color="k", linestyle=":", label="the best one")]  # fmt: skip
    panels[-1].legend(handles=handles, loc="center")
    shown = ["factor", "off", "from none", "from MGS trace"]
    return Drawing(picture, ends[shown].reset_index(), claims_of_boundaries(ends))


def claims_of_boundaries(ends: pd.DataFrame) -> tuple[Claim, ...]:
    """What section 5 and the caption of Figure 2 say of the boundaries.

    Args:
        ends: The second table of `measured`.
    """
    nearer = (_nearer(ends, method) for method in LOOKS if method != "none")
    return (*nearer, _subtle(ends))


def _nearer(ends: pd.DataFrame, method: str) -> Claim:
    gained = difference(ends.loc["none", "off"], ends.loc[method, "off"])
    return Claim(
        f"the boundary of {method} is nearer to the best classifier's than the unregularized one",
        f"it decides otherwise than the best on {mean(ends.loc[method, 'off']).value:.1%} of the "
        f"square, the unregularized on {mean(ends.loc['none', 'off']).value:.1%}; nearer by "
        f"{100 * gained.value:.1f} ± {100 * gained.error:.1f} points",
        gained.above(),
        paper="caption of Figure 2: the boundaries approach the true model",
        otherwise="The factor that tests best on other points moves the boundary little, or not "
        "the same way for all seeds.",
    )


def measured(
    results: Mapping[str, tuple[Cell, Mapping[str, Any]]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What was computed, as tables.

    Args:
        results: By method, a cell and its result.

    Returns:
        A row a run and sample, the metrics; and a row a run, indexed by method and seed, with the
        mean of the metrics over the last samples (`trace` as its logarithm to base 10, as
        `log trace`), what they were at first (`first log trace`, `first logdet`), the `least test
        loss` on the way, and the share of the square in which the run decides otherwise than the
        best classifier (`off`), than the run of "none" (`from none`) and of "MGS trace" (`from MGS
        trace`) with its seed.
    """
    rows, ends = [], []
    inside = {method: result["margin"] > 0 for method, (_, result) in results.items()}
    for method, (cell, result) in results.items():
        x, y = np.meshgrid(result["grid"], result["grid"])
        best = np.hypot(x, y) < best_radius(cell.noise, cell.inner)
        for i, seed in enumerate(cell.seeds):
            run = {name: np.asarray(result[name][i], float) for name in _METRICS}
            apart = {"off": _share(inside[method][i], best)}
            for other in ("none", "MGS trace"):
                apart[f"from {other}"] = _share(inside[method][i], inside[other][i])
            here = {"method": method, "factor": float(result["factor"]), "seed": seed}
            rows.append(pd.DataFrame(here | {"step": result["step"]} | run | apart))
            logs = np.log10(run["trace"])
            last = {name: values[-_LAST:].mean() for name, values in run.items()}
            ends.append(
                here | apart | last
                | {"log trace": logs[-_LAST:].mean(), "first log trace": logs[0],
                   "first logdet": run["logdet"][0], "least test loss": run["test_loss"].min()}
            )  # fmt: skip
    table = pd.concat(rows, ignore_index=True)
    return table, pd.DataFrame(ends).set_index(["method", "seed"])


def best_radius(noise: float, inner: float) -> float:
    """Where the densities of points from both circles are equal: the best classifier's boundary.

    Around a circle of radius r with normal noise s in each coordinate the density at distance d
    from the centre is exp(-(d^2 + r^2) / 2 s^2) I_0(d r / s^2) / (2 pi s^2).

    >>> round(best_radius(0.01, 0.5), 3)  # with little noise, nearly half way
    0.75
    """

    def log_ratio(distance: float) -> float:
        def log_density(radius: float) -> float:
            scaled = np.log(ive(0, distance * radius / noise**2))  # I_0 without its exponential
            return scaled - (distance - radius) ** 2 / (2 * noise**2)

        return log_density(inner) - log_density(1.0)

    return float(brentq(log_ratio, 0.0, 1.0))  # pyright: ignore[reportArgumentType]


def claims(ends: pd.DataFrame) -> tuple[Claim, ...]:
    """What the caption of Figure 2 and sections 4 and 5 say of it.

    Args:
        ends: The second table of `measured`.
    """
    regularized = [method for method in LOOKS if method != "none"]
    return (
        _overfits(ends),
        _grows(ends),
        *(_slowed(ends, method) for method in regularized),
        _related(ends, "log trace", "off", 1, "the boundary is the closer to the best classifier's "
                 "the smaller the trace"),
        _related(ends, "logdet", "off", 1, "the boundary is the closer to the best classifier's "
                 "the smaller the determinant"),
        _related(ends, "log trace", "test_accuracy", -1, "the test accuracy is the higher the "
                 "smaller the trace"),
        _related(ends, "logdet", "test_accuracy", -1, "the test accuracy is the higher the smaller "
                 "the determinant"),
        _related(ends, "log trace", "logdet", 1, "trace and determinant behave similarly"),
        _subtle(ends),
    )  # fmt: skip


def _overfits(ends: pd.DataFrame) -> Claim:
    plain = ends.loc["none"]
    gap = difference(plain["train_accuracy"], plain["test_accuracy"])
    rise = difference(plain["test_loss"], plain["least test loss"])
    return Claim(
        "the unregularized network over-fits",
        f"training accuracy above test accuracy by {gap:.3f} at the end; test "
        f"loss above its least by {rise:.2f}",
        gap.above() and rise.above(),
        paper=_CAPTION,
        otherwise="So small a network, for so few steps, does not fit single points.",
    )


def _grows(ends: pd.DataFrame) -> Claim:
    plain = ends.loc["none"]
    trace = difference(plain["log trace"], plain["first log trace"])
    logdet = difference(plain["logdet"], plain["first logdet"])
    return Claim(
        "both metrics of the unregularized network grow",
        f"log10 of the trace by {trace:.2f}, log det by {logdet:.0f}",
        trace.above() and logdet.above(),
        paper=_CAPTION,
        otherwise="The weights it starts from are already large.",
    )


def _slowed(ends: pd.DataFrame, method: str) -> Claim:
    trace = difference(ends.loc[method, "log trace"], ends.loc["none", "log trace"])
    logdet = difference(ends.loc[method, "logdet"], ends.loc["none", "logdet"])
    return Claim(
        f"{method} slows the growth of both metrics",
        f"at the end log10 of the trace differs from the unregularized network's by "
        f"{trace:+.2f}, log det by {logdet:+.0f}",
        trace.below() and logdet.below(),
        paper=_CAPTION,
        otherwise="The factor that tests best on other points need not be one that holds the "
        "kernel down: what this penalizes is not the kernel.",
    )


def _related(ends: pd.DataFrame, x: str, y: str, sign: int, says: str) -> Claim:
    """Spearman over the methods on every set of circles; then of the means over the sets.

    Each set, with the network and batches of its seed, orders the seven methods, and over many sets
    the mean of these orders is known as well as one likes. Seven methods can be in order by chance
    however many sets there are: both have to be ruled out.
    """
    methods = list(LOOKS)
    first, second = (np.stack([ends.loc[m, name] for m in methods]) for name in (x, y))
    each = mean(spearman(first, second))
    x_means, y_means = first.mean(axis=1)[:, None], second.mean(axis=1)
    rho = spearman(x_means, y_means[:, None])[0]
    shuffled = spearman(x_means, y_means[np.array(list(permutations(range(len(methods)))))].T)
    chance = float((sign * shuffled >= sign * rho - 1e-9).mean())
    return Claim(
        says,
        f"Spearman over {len(methods)} methods {each:.2f} in the mean over {each.number} sets of "
        f"circles, {rho:.2f} of the means; as much by chance with probability {chance:.3f}",
        (each.above() if sign > 0 else each.below()) and chance < 0.05,
        paper=_CORRELATED.get(y, _CAPTION),
        otherwise="Over many circles the order of the seven is sure, but so weak that any seven "
        "may have it: a kernel is also small where a method fits too little.",
    )


def _subtle(ends: pd.DataFrame) -> Claim:
    apart = 100 * ends.loc["MGS determinant", "from MGS trace"]
    plain = 100 * np.minimum(
        ends.loc["MGS determinant", "from none"], ends.loc["MGS trace", "from none"]
    )
    return Claim(
        "the differences between the boundaries of both MGS penalties are subtle: smaller than to "
        "the unregularized network's",
        f"they decide otherwise on {mean(apart):.1f} % of the square; the nearer of the two than "
        f"the unregularized on {mean(plain):.1f} %",
        difference(plain, apart).above(),
        paper="section 5, of Figure A.1, in words",
        otherwise="Neither penalty moves the boundary far from the unregularized network's: there "
        "is little room to be nearer.",
    )


def _share(one: Bool[np.ndarray, "y x"], other: Bool[np.ndarray, "y x"]) -> float:
    return float((one != other).mean())


def _boundary(axes: Axes, cell: Cell, result: Mapping[str, Any]) -> None:
    grid, x, y = result["grid"], result["train_x"][0], result["train_y"][0]
    sides = ListedColormap(["#FBE3C0", "#CFE6F5"])
    axes.contourf(grid, grid, result["margin"][0] > 0, levels=[-0.5, 0.5, 1.5], cmap=sides)
    axes.contour(grid, grid, result["margin"][0], levels=[0.0], colors="k", linewidths=1.0)
    _best(axes, cell)
    for label, colour, mark in ((0, style.ORANGE, "o"), (1, style.BLUE, "^")):
        axes.scatter(*x[y == label].T, s=7, color=colour, marker=mark, edgecolors="k",
                     linewidths=0.3, zorder=3)  # fmt: skip
    axes.set(aspect="equal", xlim=(grid[0], grid[-1]), ylim=(grid[0], grid[-1]))
    axes.set(xticks=(-1, 0, 1), yticks=(-1, 0, 1))


def _best(axes: Axes, cell: Cell) -> None:
    """The best classifier's boundary, dotted."""
    angle = np.linspace(0, 2 * np.pi, 200)
    radius = best_radius(cell.noise, cell.inner)
    axes.plot(radius * np.cos(angle), radius * np.sin(angle), ":", color="k", linewidth=0.9)


def _title(method: str, factor: float) -> str:
    if method == "none":
        return "unregularized"
    sign = "rate" if method == "dropout" else r"$\alpha$ ="
    return f"{method}\n{sign} {factor:g}"


def _curves(axes: Axes, table: pd.DataFrame, name: str) -> None:
    for method, rows in table.groupby("method"):
        colour, line, mark = LOOKS[str(method)]
        runs = rows.groupby("step")[name]
        middle, error = runs.mean(), runs.sem()
        at = middle.index / 1000
        axes.fill_between(at, middle - error, middle + error, color=colour, alpha=0.15, linewidth=0)
        axes.plot(at, middle, line, color=colour, marker=mark, markersize=3, linewidth=1.1,
                  markevery=max(1, len(at) // 5))  # fmt: skip


def _legend(axes: Axes) -> None:
    axes.axis("off")
    handles = [
        Line2D([], [], color=colour, ls=line, marker=mark, markersize=3, label=method)
        for method, (colour, line, mark) in LOOKS.items()
    ]
    handles += [
        Line2D([], [], color="k", linewidth=1.0, label="learned boundary"),
        Line2D([], [], color="k", linestyle=":", label="the best one"),
        Line2D([], [], color=style.ORANGE, marker="o", linestyle="", markersize=3, label="outer"),
        Line2D([], [], color=style.BLUE, marker="^", linestyle="", markersize=3, label="inner"),
        style.band("standard error"),
    ]
    axes.legend(handles=handles, loc="center", fontsize=6.5, handlelength=2.2)
