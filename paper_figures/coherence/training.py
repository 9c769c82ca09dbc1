"""Coherence along training with real and random labels ("Appealing to gradients", section 5)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.stats import spearmanr

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.evidence import difference
from paper_figures.figure import Claim, Drawing

DRAWN = {0.0: (style.BLUE, "o"), 0.5: (style.ORANGE, "s"), 1.0: (style.RED, "^")}
EARLY = 0.5  # the training accuracy that "early" ends with
AGREES = 0.1  # the relative difference within which the estimate from batches is called right


def figure_training(conditions: Conditions) -> Drawing:
    """Accuracies above, coherence over its orthogonal limit below, against the steps of SGD."""
    table = measured(conditions)
    picture = style.picture(style.COLUMN, 4.3)
    accuracy, helped = picture.subplots(2, 1, sharex=True)
    for part, (colour, mark) in DRAWN.items():
        rows = table[table["random labels"] == part]
        _draw(accuracy, rows, "train accuracy", colour, mark, "-")
        _draw(accuracy, rows, "test accuracy", colour, "", ":")
        _draw(helped, rows, "helped", colour, mark, "-")
    helped.axhline(1, color=style.BLACK, linewidth=0.8, linestyle="--")
    helped.annotate("orthogonal", (0, 1), (2, -3), textcoords="offset points", va="top", size=7)
    accuracy.set(ylabel="accuracy", ylim=(0, 1.03))
    helped.set(yscale="log", ylabel=r"coherence $\alpha_m/\alpha_m^{\perp}$", xlabel="steps of SGD")
    helped.set_xscale("symlog", linthresh=1)
    helped.set_xlim(0, table["step"].max())
    handles = [
        Line2D([], [], color=colour, marker=mark, markersize=3, label=f"{part:.0%} random")
        for part, (colour, mark) in DRAWN.items()
    ]
    picture.legend(handles=handles, loc="outside upper center", ncols=3, handlelength=1.4)
    kinds = (
        Line2D([], [], color=style.GREY, linestyle="-", label="training"),
        Line2D([], [], color=style.GREY, linestyle=":", label="test"),
        style.band("all seeds"),
    )
    accuracy.legend(handles=kinds, loc="upper left", handlelength=1.6)
    return Drawing(picture, table, claims(table))


def measured(conditions: Conditions) -> pd.DataFrame:
    """A row a run and sample: accuracies, coherence, and its estimate from batches."""
    swept = computed("coherence-training", conditions)
    frames = []
    for cell, result in swept.results.items():
        for j, seed in enumerate(cell.seeds):
            columns = {name: result[key][0, j].astype(float) for name, key in _COLUMNS.items()}
            here = {"random labels": cell.random, "seed": seed, "step": result["step"][0]}
            frames.append(pd.DataFrame(here | columns | {"data": result["source"]}))
    return pd.concat(frames, ignore_index=True)


def claims(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What section 5 says of real and random data, on runs of both."""
    runs = table.groupby(["random labels", "seed"])
    start = runs["helped"].first()
    early = runs[list(table.columns)].apply(_early)
    highest = runs["helped"].max()
    gap = runs["train accuracy"].last() - runs["test accuracy"].last()
    order = float(spearmanr(early, gap).statistic)
    exact, estimate = table["helped"], table["from batches"]
    apart = np.abs(estimate / exact - 1)
    words = "section 5, in words; no number is printed"
    return (
        _more_on_real(start, "before the first step", words),
        _more_on_real(early, f"on average until {EARLY:.0%} of the training labels are fitted",
                      words),
        _more_on_real(highest, "at the highest of each run", words),
        Claim(
            "the higher the coherence early on, the smaller the gap between training and test",
            f"Spearman {order:.2f} between early coherence and the gap of the accuracies at the "
            f"end, {len(gap)} runs, {gap.index.get_level_values(0).nunique()} parts of random "
            f"labels; gaps {gap.min():.2f} to {gap.max():.2f}",
            order < 0,
            paper="remark 5.5 to theorem 5.4, in words",
            otherwise="The theorem bounds the gap and does not order runs by it.",
        ),
        Claim(
            "the coherence of the examples can be had from the gradients of batches",
            f"median difference {np.median(apart):.1%} (of 9 in 10 samples at most "
            f"{np.quantile(apart, 0.9):.1%}), mean of estimate over exact "
            f"{np.mean(estimate / exact):.3f}",
            bool(np.median(apart) <= AGREES),
            paper="theorem 5.6: equal for independent draws",
            otherwise="An epoch has few batches, and their gradients scatter.",
        ),
    )  # fmt: skip


def _more_on_real(helped: pd.Series, when: str, paper: str) -> Claim:
    """By seed, as weights and batches are the same with either labels."""
    real, random = helped.loc[0.0], helped.loc[1.0]
    more = difference(real, random)
    return Claim(
        f"on real labels an example helps to fit more others than on random ones, {when}",
        f"coherence over its orthogonal limit {real.mean():.1f} ({real.min():.1f} to "
        f"{real.max():.1f}) on real, {random.mean():.1f} ({random.min():.1f} to "
        f"{random.max():.1f}) on random labels; more by {more:.1f} over {more.number} seeds",
        more.above(),
        paper=paper,
        otherwise="Not beyond what seeds differ by. Coherence rises too when a network learns "
        "random labels by heart, and both have passing peaks, which may be swings of SGD along "
        "sharp directions.",
    )


def _early(run: pd.DataFrame) -> float:
    """The mean over the samples up to the first that fits so much."""
    reached = np.flatnonzero(run["train accuracy"] >= EARLY)
    end = reached[0] if len(reached) else len(run) - 1
    return float(run["helped"].iloc[: end + 1].mean())


def _draw(axes: Axes, rows: pd.DataFrame, what: str, colour: str, mark: str, look: str) -> None:
    found = rows.groupby("step")[what]
    mean, low, high = found.mean(), found.min(), found.max()
    axes.fill_between(mean.index, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(mean.index, mean, look, color=colour, marker=mark, markersize=3, markevery=3)


_COLUMNS = {
    "train accuracy": "train_accuracy",
    "test accuracy": "test_accuracy",
    "train loss": "train_loss",
    "helped": "helped",
    "from batches": "from_batches",
}
