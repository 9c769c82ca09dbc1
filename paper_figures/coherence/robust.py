"""Robust means of gradients against wrong labels ("Appealing to gradients", section 5.5)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.evidence import difference, rank_correlation
from paper_figures.figure import Claim, Drawing

RULES = {
    "winsorized": "level of winsorization $c$ (%)",
    "median of means": "groups $k$ of the median of means",
}
_LOOKS = {0.0: (style.BLUE, "o", "real labels"), 0.5: (style.ORANGE, "s", "half of them random")}
_WORDS = "section 5.5, in words; no number is printed"


def figure_robust(conditions: Conditions) -> Drawing:
    """Accuracies at the end, over the level of winsorization and the number of groups."""
    table = measured(conditions)
    picture = style.picture(style.COLUMN, 4.3)
    panels = np.atleast_1d(picture.subplots(2, 1, sharey=True))
    for axes, (rule, label) in zip(panels, RULES.items(), strict=True):
        rows = table[table["rule"] == rule]
        levels = sorted(rows["level"].unique())
        for part, (colour, mark, _) in _LOOKS.items():
            here = rows[rows["random labels"] == part]
            _draw(axes, here, levels, "train accuracy", colour, mark, "-")
            _draw(axes, here, levels, "test accuracy", colour, mark, ":")
        axes.set_xticks(range(len(levels)), ["SGD", *(f"{level:g}" for level in levels[1:])])
        axes.set(xlabel=label, ylabel="accuracy at the end", ylim=(0, 1.03))
    handles = [
        Line2D([], [], color=colour, marker=mark, markersize=3, label=name)
        for colour, mark, name in _LOOKS.values()
    ]
    handles += [
        Line2D([], [], color=style.GREY, linestyle="-", label="training"),
        Line2D([], [], color=style.GREY, linestyle=":", label="test"),
        style.band("all seeds"),
    ]
    picture.legend(handles=handles, loc="outside upper center", ncols=3, handlelength=1.4)
    return Drawing(picture, table, claims(table))


def measured(conditions: Conditions) -> pd.DataFrame:
    """A row a run: accuracies at the end, and the highest on the test set on the way there."""
    swept = computed("coherence-robust", conditions)
    rows = []
    for cell, result in swept.results.items():
        for j, seed in enumerate(cell.seeds):
            train, test = result["train_accuracy"][0, j], result["test_accuracy"][0, j]
            rows.append(
                {"rule": cell.rule, "level": cell.level, "random labels": cell.random, "seed": seed,
                 "steps": cell.steps, "train accuracy": float(train[-1]),
                 "test accuracy": float(test[-1]), "highest test accuracy": float(test.max()),
                 "data": result["source"]}
            )  # fmt: skip
    return pd.DataFrame(rows)


def claims(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What section 5.5 says of the two rules."""
    found = []
    for rule, symbol in (("winsorized", "c"), ("median of means", "k")):
        rows = table[table["rule"] == rule]
        real, wrong = (rows[rows["random labels"] == part] for part in _LOOKS)
        name = "winsorization" if rule == "winsorized" else "the median of means"
        found += [
            _falls(real, f"on real labels training accuracy falls as {symbol} grows"),
            _falls(wrong, f"with half random labels training accuracy falls as {symbol} grows"),
            _forgets(wrong, name, symbol),
            _generalizes(wrong, name, symbol),
        ]
    return (*found, _steadier(table[table["random labels"] == 0]))


def _falls(rows: pd.DataFrame, says: str) -> Claim:
    runs = rows.pivot(index="level", columns="seed", values="train accuracy")
    order = rank_correlation(runs.index.to_numpy(float), list(runs.to_numpy()))
    return Claim(
        says,
        f"{_by_level(rows, 'train accuracy')}; {order}",
        order.high < 0,
        paper="section 5.5.1, in words, of high winsorization: after a certain point",
        otherwise="The robust mean still has enough of the gradient to fit the labels.",
    )


def _forgets(rows: pd.DataFrame, name: str, symbol: str) -> Claim:
    lost = rows.assign(lost=rows["highest test accuracy"] - rows["test accuracy"])
    runs = lost.pivot(index="seed", columns="level", values="lost")
    plain, *levels = runs.columns
    less = {level: difference(runs[plain], runs[level]) for level in levels}
    said = ", ".join(f"{gain:.3f} ({level:g})" for level, gain in less.items())
    return Claim(
        f"with half random labels {name} over-fits less, at every {symbol}: the test accuracy "
        "loses less of its highest by the end",
        f"lost on average {_by_level(lost, 'lost')}; less than SGD by {said}, over {len(runs)} "
        "seeds",
        all(gain.above() for gain in less.values()),
        paper=_WORDS,
        otherwise="Little clipping differs from SGD by no more than seeds do; where a rule clips "
        "much its training wavers, and the last sample is below the highest for that reason.",
    )


def _generalizes(rows: pd.DataFrame, name: str, symbol: str) -> Claim:
    runs = rows.pivot(index="seed", columns="level", values="test accuracy")
    plain, best = runs.columns[0], runs.mean().iloc[1:].idxmax()
    more = difference(runs[best], runs[plain])
    return Claim(
        f"with half random labels {name} generalizes better at the end, at its best {symbol}",
        f"test accuracy {_by_level(rows, 'test accuracy')}; at {symbol} = {best} above SGD by "
        f"{more:.3f}, over {len(runs)} seeds",
        more.above(),
        paper=_WORDS,
        otherwise="The rule clips right labels' gradients as well as wrong ones'.",
    )


def _steadier(rows: pd.DataFrame) -> Claim:
    ends = rows.pivot(index="seed", columns=["rule", "level"], values="train accuracy")
    ends = ends.sort_index(axis=1)
    winsorized, groups = ends["winsorized"], ends["median of means"]
    most, fewest = winsorized.columns[-1], groups.columns[1]
    more = difference(groups[fewest], winsorized[most])
    return Claim(
        "the median of means addresses the fall of training accuracy at high winsorization",
        f"on real labels {groups[fewest].mean():.3f} at k = {fewest}, "
        f"{winsorized[most].mean():.3f} at c = {most}, {winsorized.iloc[:, 0].mean():.3f} by SGD; "
        f"more by {more:.3f}, over {len(ends)} seeds",
        more.above(),
        paper="section 5.5.1, in words",
        otherwise="A median of few means throws away as much as clipping does.",
    )


def _by_level(rows: pd.DataFrame, what: str) -> str:
    means = rows.groupby("level")[what].mean()
    return ", ".join(
        f"{mean:.3f} ({'SGD' if i == 0 else f'{level:g}'})"
        for i, (level, mean) in enumerate(zip(means.index, means, strict=True))
    )


def _draw(
    axes: Axes, rows: pd.DataFrame, levels: list, what: str, colour: str, mark: str, look: str
) -> None:
    runs = rows.groupby("level")[what]
    places = [levels.index(level) for level in runs.mean().index]
    axes.fill_between(places, runs.min(), runs.max(), color=colour, alpha=0.18, linewidth=0)
    axes.plot(places, runs.mean(), look, color=colour, marker=mark, markersize=3)
