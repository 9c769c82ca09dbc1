"""Tables 5.1 and 5.2 of the dissertation on Metric regularization: errors by learning rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from textwrap import fill
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter
from scipy.stats import spearmanr

from analysis.scale import Conditions
from paper_figures import style
from paper_figures.evidence import difference, mean, spearman
from paper_figures.figure import Claim, Drawing
from paper_figures.metric.runs import (
    GENERALIZING,
    RULES,
    SETS,
    TABLED,
    THEIRS,
    Activation,
    ends,
    printed,
)


def table_5_1(conditions: Conditions) -> Drawing:
    """Training and test accuracy or error by learning rule, tanh networks."""
    return _drawing("tanh", conditions)


def table_5_2(conditions: Conditions) -> Drawing:
    """Training and test accuracy or error by learning rule, ReLU networks."""
    return _drawing("relu", conditions)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error by set and rule, over the runs that stayed finite.

    Returns:
        Columns `train`, `test`, `norm`, each also with ` se`; `runs` and `diverged`. Where more
        than half diverged, NaN.
    """
    rows = []
    for (of, rule), runs in table.groupby(["set", "rule"], sort=False):
        finite = runs[runs["norm"].notna()]
        row = {"set": of, "rule": rule, "runs": len(runs), "diverged": len(runs) - len(finite)}
        for column in ("train", "test", "norm"):
            found = mean(finite[column] if 2 * len(finite) >= len(runs) else [])
            row |= {column: found.value, f"{column} se": found.error}
        rows.append(row)
    return pd.DataFrame(rows).set_index(["set", "rule"])


def claims(ours: pd.DataFrame, theirs: pd.DataFrame) -> tuple[Claim, ...]:
    """What chapter 5 says of the tables, on our numbers, and on the dissertation's own.

    Args:
        ours: As `ends` gives it.
        theirs: As `printed` gives it.
    """
    regimes = [(f"SGD {regime}", f"Metric {regime}") for regime in ("small", "large")]
    readings = [
        (sgd, f"{kind} {metric}")
        for kind in ("Gauss-Newton", "Shrinking")
        for sgd, metric in regimes
    ]
    return (
        _learned(ours, theirs),
        _compared(
            ours, theirs, "test", [("SGD small", "SGD large")],
            "SGD generalizes better from small weights than from large ones",
            "Where both regimes fit alike their solutions differ by less than seeds do, and the "
            "ranges of Table 4.2 were set for wider networks than those of quick scale.",
        ),
        _compared(
            ours, theirs, "train", regimes,
            "Metric harms the fit of the training set, on every set and from either regime",
            "Nor does it in the dissertation's own rows of CIFAR-10. Where both fit a set in full "
            "nothing tells them apart, and at a rate far below the learning rate the rule is SGD "
            "but for a few per cent.",
        ),
        _compared(
            ours, theirs, "test", regimes,
            "Metric harms the performance on the test set, on every set and from either regime",
            "Nor does it in the dissertation's own tables: where SGD overfits, what hinders the "
            "fit can help.",
        ),
        _compared(
            ours, None, "train", readings,
            "(ours) it harms the fit with a Gauss-Newton metric, and with each parameter shrunk by "
            "|H theta|, as well",
            "At small rates these, too, are SGD but for a few per cent.",
        ),
        _compared(
            ours, theirs, "test", [("Selective L2", "Metric large")],
            "from large weights Selective L2 generalizes better than Metric",
            "A rate and a threshold for other widths can take too much or too little.",
        ),
        _compared(
            ours, theirs, "test",
            [(rule, "SGD large") for rule in ("Selective L2", "L2 Stopped Selective")],
            "selective regularization generalizes better than SGD from large weights",
            "With ReLU not on every set of the dissertation's own either.",
        ),
        _compared(
            ours, theirs, "train", [("L2 Stopped", "L2")],
            "L2 harms the fit, and stopping it early gives that back",
            "Where the decay is small against what the loss pulls, there is nothing to give back.",
        ),
        _norms(ours, theirs),
        _same_order(ours, theirs),
    )  # fmt: skip


def _learned(ours: pd.DataFrame, theirs: pd.DataFrame) -> Claim:
    reached, there = (_means(runs, "xor", "train").fillna(0.0) for runs in (ours, theirs))
    runs = ours[ours["set"] == "xor"].groupby("rule")["train"]
    low = ", ".join(f"{rule} {mean(runs.get_group(rule)):.2f}" for rule in reached.index
                    if reached[rule] < 0.95)  # fmt: skip
    return Claim(
        "every rule learns XOR, to a mean accuracy of roughly 100 %",
        f"lowest {reached.min():.3f}; below 0.95: {low or 'none'}",
        bool((reached >= 0.95).all()),
        paper=f"lowest {there.min():.3f}",
        otherwise="Where a step's decay outweighs what the learning rate takes from the loss, "
        "nothing is learned.",
    )


def _compared(
    ours: pd.DataFrame,
    theirs: pd.DataFrame | None,
    part: Literal["train", "test"],
    pairs: Iterable[tuple[str, str]],
    says: str,
    otherwise: str,
) -> Claim:
    """In every pair the first rule does better than the second."""
    pairs = list(pairs)
    rules = {rule for pair in pairs for rule in pair}
    sets = [of for of in GENERALIZING if rules <= set(ours.loc[ours["set"] == of, "rule"])]
    found = [_better(ours, of, part, *pair) for of in sets for pair in pairs]
    paper = "not in the dissertation"
    if theirs is not None:
        there = [_better(theirs, of, part, *pair)[0] for of in sets for pair in pairs]
        paper = f"so in {sum(there)} of {len(there)} comparisons of its own table"
    return Claim(
        says,
        f"in {sum(good for good, _ in found)} of {len(found)} comparisons, by more than two "
        f"standard errors of the difference: {'; '.join(text for _, text in found)}",
        all(good for good, _ in found),
        paper=paper,
        otherwise=otherwise,
    )


def _better(runs: pd.DataFrame, of: str, part: str, good: str, bad: str) -> tuple[bool, str]:
    """Whether `good` is by more than two standard errors, seed by seed, and the two means.

    A rule that diverges, where the other does not, is the worse one.
    """
    table = runs[runs["set"] == of].pivot(index="seed", columns="rule", values=part)
    first, second = table[good], table[bad]
    ahead = difference(*((first, second) if SETS[of][1] else (second, first)))
    apart = ahead.above() if ahead.number else bool(first.notna().any())
    numbers = " against ".join(_number(values.mean()) for values in (first, second))
    return apart, f"{SETS[of][0]} {good} {numbers} {bad}" + (
        f" (± {ahead.error:.2g})" if ahead.error else ""
    )


def _number(value: float) -> str:
    return "diverged" if np.isnan(value) else f"{value:.3g}"


def _norms(ours: pd.DataFrame, theirs: pd.DataFrame) -> Claim:
    def ranks(runs: pd.DataFrame) -> dict[str, float]:
        return {of: _rank(_error(runs, of), _means(runs, of, "norm")) for of in GENERALIZING}

    found = ranks(ours)
    sure = _interval(ours, lambda of: _means(ours, of, "norm"))
    return Claim(
        "rules that end at a smaller norm of the parameters generalize better",
        f"Spearman of norm and test error over the rules: {_said(found, sure)}",
        all(value > 0 for value in found.values()),
        paper=f"Figure 5.39; from the tables: {_said(ranks(theirs))}",
        otherwise="The norm is an incomplete measure, as the dissertation says itself.",
    )


def _same_order(ours: pd.DataFrame, theirs: pd.DataFrame) -> Claim:
    found = {of: _rank(_error(ours, of), _error(theirs, of)) for of in GENERALIZING}
    sure = _interval(ours, lambda of: _error(theirs, of))
    return Claim(
        "the rules are ordered by test error as in the table",
        f"Spearman with it over {len(THEIRS)} rules: {_said(found, sure)}",
        all(value > 0.5 for value in found.values()),
        paper="1, with itself",
        otherwise="Widths, batches and steps are not printed, and stand-ins are smaller; rules "
        "that differ by a few per cent change places.",
    )


def _means(runs: pd.DataFrame, of: str, column: str) -> pd.Series:
    """The means of the dissertation's rules on a set, over the runs that stayed finite."""
    return runs[runs["set"] == of].groupby("rule")[column].mean().reindex(THEIRS)


def _error(runs: pd.DataFrame, of: str) -> pd.Series:
    """What is to be small on the test set; infinite where every run diverged."""
    test = _means(runs, of, "test")
    return (-test if SETS[of][1] else test).fillna(np.inf)


def _rank(one: pd.Series, other: pd.Series) -> float:
    known = other.notna()
    return float(spearmanr(one[known], other[known]).statistic)


def _interval(
    runs: pd.DataFrame, beside: Callable[[str], pd.Series], draws: int = 2000
) -> dict[str, tuple[float, float]]:
    """What 95 % of the bootstrap over seeds holds of the rank of the test errors with something."""
    rng = np.random.default_rng(0)
    found = {}
    for of in GENERALIZING:
        table = runs[runs["set"] == of].pivot(index="seed", columns="rule", values="test")
        errors = (-1 if SETS[of][1] else 1) * table.reindex(columns=list(THEIRS)).to_numpy(float)
        other = beside(of).to_numpy(float)
        drawn = errors[rng.integers(len(errors), size=(draws, len(errors)))]  # draw, seed, rule
        known = np.isfinite(drawn)
        means = np.where(known, drawn, 0.0).sum(1) / np.maximum(known.sum(1), 1)
        means = np.where(known.any(1), means, np.inf)  # as where every run diverged
        kept = ~np.isnan(other)
        low, high = np.percentile(spearman(other[kept, None], means.T[kept]), [2.5, 97.5])
        found[of] = (float(low), float(high))
    return found


def _said(ranks: dict[str, float], sure: dict[str, tuple[float, float]] | None = None) -> str:
    if sure is None:
        return ", ".join(f"{SETS[of][0]} {rank:.2f}" for of, rank in ranks.items())
    return ", ".join(
        f"{SETS[of][0]} {rank:.2f} in [{sure[of][0]:.2f}, {sure[of][1]:.2f}]"
        for of, rank in ranks.items()
    ) + " (95 % of the bootstrap over seeds)"  # fmt: skip


def _drawing(activation: Activation, conditions: Conditions) -> Drawing:
    table = ends(conditions, activation)
    theirs = printed(activation)
    ours, paper = summary(table), theirs.set_index(["set", "rule"])
    picture = style.picture(style.PAGE, 5.6)
    panels = picture.subplots(2, len(TABLED), sharey=True)
    for row, part in zip(panels, ("train", "test"), strict=True):
        for axes, of in zip(row, TABLED, strict=True):
            title, accuracy = SETS[of]
            if of == "xor" and part == "test":
                axes.set_axis_off()
                continue
            _dots(axes, ours.loc[of], paper.loc[of], part, log=not accuracy)
            kind = "accuracy" if accuracy else "error"
            axes.set(xlabel=f"{'training' if part == 'train' else part} {kind}")
            if part == "train":
                axes.set_title(title)
    panels[0, 0].set_yticks(range(len(RULES)), RULES)
    panels[0, 0].set_ylim(len(RULES) - 0.5, -0.5)
    for place, rule in enumerate(RULES):  # where XOR's test panel would be
        panels[1, 1].annotate(
            rule, (-0.06, place), xycoords=("axes fraction", "data"), ha="right", va="center",
            fontsize=7, annotation_clip=False,
        ).set_in_layout(False)  # fmt: skip
    data = "; ".join(dict.fromkeys(table["data"]))
    title = fill(f"Ours: {data}", 90)
    picture.legend(handles=_legend(), loc="outside upper center", ncols=2, title=title)
    beside = paper[["train", "test", "norm"]].add_prefix("paper's ")
    return Drawing(picture, table.join(beside, on=["set", "rule"]), claims(table, theirs))


def _dots(axes: Axes, ours: pd.DataFrame, theirs: pd.DataFrame, part: str, *, log: bool) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="y", color="0.92")
    if log:
        axes.set_xscale("log")
    floor = 1e-3 if log else -np.inf  # an error below is drawn there
    for place, rule in enumerate(RULES):
        if rule not in ours.index:  # ours, and not run on CIFAR-10
            continue
        row = ours.loc[rule]
        if np.isfinite(row[part]):
            axes.errorbar(max(row[part], floor), place - 0.15, xerr=row[f"{part} se"], fmt="o",
                          color=style.BLUE, markersize=3.5, linewidth=1)  # fmt: skip
        if row["diverged"]:
            text = f"{row['diverged']:.0f} of {row['runs']:.0f} diverged"
            axes.annotate(text, (0.98, place), xycoords=("axes fraction", "data"), ha="right",
                          va="center", fontsize=5.5, color=style.BLUE)  # fmt: skip
        if rule in theirs.index:
            axes.plot(max(theirs.loc[rule, part], floor), place + 0.15, "s", color=style.RED,
                      markersize=3.5, fillstyle="none")  # fmt: skip
    if log:  # whole decades, of which the ends alone have room for a number
        low, high = np.log10(axes.get_xlim())
        axes.set_xlim(10 ** np.floor(low), 10 ** np.ceil(high))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _legend() -> list[Line2D]:
    return [
        Line2D([], [], color=style.BLUE, marker="o", markersize=3.5, label="ours, standard error"),
        Line2D([], [], color=style.RED, marker="s", markersize=3.5, linestyle="",
               fillstyle="none", label="the dissertation"),
    ]  # fmt: skip
