"""Figures 2a and 2b of the IGR paper: R and test accuracy against lambda = h m / 4."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.evidence import rank_correlation
from paper_figures.figure import Claim, Drawing

LEVELS = (0.05, 0.01)
_MARKS = "osD^vP*X"
_COLOURS = (style.BLUE, style.RED, style.GREEN, style.ORANGE, style.PURPLE, style.SKY, style.BLACK)


def figure_2a(conditions: Conditions) -> Drawing:
    """R at the time of maximum test accuracy, and where the training loss falls to two levels."""
    table = measured(conditions)
    panels = [("max accuracy", "at maximum test accuracy")]
    panels += [(f"loss {level:g}", f"where E falls to {level:g}") for level in LEVELS]
    reached = table.groupby("when")["lambda"].nunique()
    panels = [(when, title) for when, title in panels if reached.get(when, 0) >= 3]
    picture = style.picture(style.PAGE, 2.7)
    axes = np.atleast_1d(picture.subplots(1, len(panels), sharex=True, sharey=True))
    for one, (when, title) in zip(axes, panels, strict=True):
        _scatter(one, table[table["when"] == when], "R")
        one.set(xscale="log", yscale="log", xlabel=r"$\lambda = h m / 4$", title=title)
    axes[0].set_ylabel(r"$R_{IG} = |\nabla E|^2 / m$")
    _legend(picture, table, columns=3)
    claims = [
        _claim(
            table, when, "R", -1, f"R_IG is smaller where lambda is larger, {title}",
            "Figure 2a: it falls" if when == "max accuracy" else "not in the paper",
        )
        for when, title in panels
    ] + [
        _claim(
            table, when, "slope squared", -1,
            f"|grad E|^2, not divided by m, is smaller where lambda is larger, {title}",
            "not in the paper",
        )
        for when, title in panels
    ]  # fmt: skip
    return Drawing(picture, table, tuple(claims))


def figure_2b(conditions: Conditions) -> Drawing:
    """The maximum test accuracy."""
    table = measured(conditions)
    table = table[table["when"] == "max accuracy"]
    picture = style.picture(style.COLUMN, 2.9)
    axes = picture.subplots()
    _scatter(axes, table, "test accuracy")
    axes.set(xscale="log", xlabel=r"$\lambda = h m / 4$", ylabel="maximum test accuracy")
    _legend(picture, table, columns=2)
    says = "the maximum test accuracy is higher where lambda is larger"
    claim = _claim(table, "max accuracy", "test accuracy", 1, says, "Figure 2b: it rises")
    return Drawing(picture, table, (claim,))


def measured(conditions: Conditions) -> pd.DataFrame:
    """A row a run and moment: parameters, rate, lambda, seed, R, loss, accuracies.

    As in the paper, runs that never classify all training examples rightly are left out.
    """
    swept = computed("igr-width-and-rate", conditions)
    rows = []
    for cell, result in swept.results.items():
        for i, rate in enumerate(cell.learning_rates):
            for j, seed in enumerate(cell.seeds):
                run = {
                    name: result[name][i, j]
                    for name in ("R", "train_loss", "train_accuracy", "test_accuracy")
                }
                if not (run["train_accuracy"] == 1).any():
                    continue
                here = {
                    "width": cell.width,
                    "parameters": result["parameters"],
                    "h": rate,
                    "lambda": rate * result["parameters"] / 4,
                    "seed": seed,
                    "data": result["source"],
                }
                run["step"] = result["step"][i].astype(float)
                best = int(result["kept"][i, j])
                moments = {"max accuracy": {name: v[best] for name, v in run.items()}}
                moments |= {f"loss {level:g}": crossing(run, level) for level in LEVELS}
                rows += [
                    here
                    | {"when": when, "slope squared": seen["R"] * result["parameters"]}
                    | {_COLUMNS[name]: value for name, value in seen.items()}
                    for when, seen in moments.items()
                    if seen is not None
                ]
    return pd.DataFrame(rows)


def crossing(run: dict[str, np.ndarray], level: float) -> dict[str, float] | None:
    """A run at the moment its training loss falls to `level`, between two samples.

    Losses fall far from sample to sample where the rate is large. Compared at the first sample
    below the level, large rates would have the smaller losses and seem flatter for that alone: so R
    is interpolated, its logarithm in the logarithm of E, and the rest linearly.

    Args:
        run: The samples of each quantity, `train_loss` and `R` among them.
        level: The loss.

    Returns:
        Each quantity there; None where the loss starts below the level or never falls to it.

    >>> run = {"train_loss": np.array([1.0, 0.01]), "R": np.array([4.0, 0.04]),
    ...        "step": np.array([0.0, 100.0])}
    >>> {name: round(float(value), 9) for name, value in crossing(run, 0.1).items()}
    {'train_loss': 0.1, 'R': 0.4, 'step': 50.0}
    """
    below = np.flatnonzero(run["train_loss"] <= level)
    if len(below) == 0 or below[0] == 0:
        return None
    after = below[0]
    high, low = np.log(run["train_loss"][[after - 1, after]])
    part = (high - np.log(level)) / (high - low)

    def between(values: np.ndarray) -> float:
        return float(values[after - 1] * (1 - part) + values[after] * part)

    in_logarithms = ("train_loss", "R")
    return {
        name: np.exp(between(np.log(values))) if name in in_logarithms else between(values)
        for name, values in run.items()
    }


_COLUMNS = {
    "R": "R",
    "train_loss": "E",
    "train_accuracy": "train accuracy",
    "test_accuracy": "test accuracy",
    "step": "step",
}


def _claim(table: pd.DataFrame, when: str, what: str, sign: int, says: str, paper: str) -> Claim:
    rows = table[table["when"] == when]
    points = [(keys, group) for keys, group in rows.groupby(["parameters", "h"])]
    values = [np.asarray(group[what], float) for _, group in points]
    found = rank_correlation(np.array([group["lambda"].iloc[0] for _, group in points]), values)
    edge = found.high if sign < 0 else -found.low
    return Claim(
        says,
        f"{found}; {len(points)} models, {len(rows)} runs",
        edge < 0,
        paper=paper,
        otherwise="lambda grows with m and R is divided by m; and the times compared differ "
        "between rates. What falls with one reading need not fall with another."
        if what != "test accuracy"
        else "On a small test set accuracies differ by a few examples, less than seeds do.",
    )


def _scatter(axes: Axes, rows: pd.DataFrame, what: str) -> None:
    for (width, group), colour, mark in zip(rows.groupby("width"), _COLOURS, _MARKS, strict=False):
        del width
        axes.scatter(group["lambda"], group[what], s=6, color=colour, alpha=0.35, linewidths=0)
        means = group.groupby("lambda")[what].mean()
        axes.plot(means.index, means, color=colour, marker=mark, markersize=4)


def _legend(picture, table: pd.DataFrame, columns: int) -> None:
    sizes = table.groupby("width")["parameters"].first()
    handles = [
        Line2D([], [], color=colour, marker=mark, markersize=4, label=f"{size:,} parameters")
        for size, colour, mark in zip(sizes, _COLOURS, _MARKS, strict=False)
    ]
    picture.legend(handles=handles, loc="outside upper center", ncols=columns)
