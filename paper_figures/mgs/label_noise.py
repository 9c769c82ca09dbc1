"""Test accuracy at four levels of label noise, by regularizer (MGS paper, Table 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy.stats import spearmanr

from analysis.scale import Conditions
from analysis.studies import computed
from analysis.studies.mgs.label_noise import LAST
from paper_figures import style
from paper_figures.evidence import difference, least, mean, resampled, spearman
from paper_figures.figure import Claim, Drawing

NOISES = (0.0, 0.3, 0.6, 0.8)

# Table 1: final accuracy, its standard deviation over runs, and the highest, in percent.
PAPER: dict[str, dict[float, tuple[float, float, float]]] = {
    "none": {0.0: (89.6, 1.3, 90.2), 0.3: (62.0, 2.5, 85.2),
             0.6: (37.3, 2.9, 73.7), 0.8: (23.9, 2.4, 62.4)},
    "dropout": {0.0: (95.8, 0.5, 95.9), 0.3: (80.9, 2.9, 92.0),
                0.6: (59.2, 4.1, 83.7), 0.8: (39.5, 4.7, 56.6)},
    "weight": {0.0: (83.1, 9.6, 87.1), 0.3: (72.2, 4.2, 79.2),
               0.6: (10.0, 0.4, 62.3), 0.8: (10.1, 0.5, 23.5)},
    "loss gradient": {0.0: (95.1, 0.5, 95.1), 0.3: (88.7, 2.0, 92.0),
                      0.6: (80.7, 5.9, 81.4), 0.8: (15.1, 5.4, 17.2)},
    "MGS": {0.0: (95.2, 0.3, 95.2), 0.3: (93.1, 0.7, 93.4),
            0.6: (88.4, 1.4, 89.1), 0.8: (74.5, 4.0, 75.1)},
}  # fmt: skip
# Table A.1: the same with a fully connected network.
PAPER_FCN: dict[str, dict[float, tuple[float, float, float]]] = {
    "none": {0.0: (82.1, 1.9, 82.3), 0.3: (59.5, 3.7, 75.3),
             0.6: (36.9, 2.8, 65.6), 0.8: (24.8, 2.7, 53.0)},
    "dropout": {0.0: (79.5, 1.2, 80.0), 0.3: (73.7, 2.5, 75.5),
                0.6: (55.6, 4.8, 57.1), 0.8: (26.5, 3.7, 29.6)},
    "weight": {0.0: (72.8, 9.7, 79.6), 0.3: (58.7, 4.0, 74.6),
               0.6: (10.0, 0.5, 63.1), 0.8: (10.1, 0.6, 41.3)},
    "loss gradient": {0.0: (74.9, 22.0, 79.8), 0.3: (70.3, 4.3, 77.4),
                      0.6: (41.2, 6.4, 43.4), 0.8: (12.1, 2.5, 14.8)},
    "MGS": {0.0: (84.6, 1.2, 84.8), 0.3: (77.7, 1.8, 79.4),
            0.6: (67.8, 3.4, 70.0), 0.8: (51.4, 3.8, 55.0)},
}  # fmt: skip
_LOOKS = {
    "none": (style.GREY, "o", "unregularized"),
    "dropout": (style.ORANGE, "s", "dropout"),
    "weight": (style.BLUE, "v", "weight"),
    "loss gradient": (style.GREEN, "D", "loss gradient"),
    "MGS": (style.RED, "P", "MGS (trace)"),
}
NETWORKS = {
    "digits": "MLP on digits",
    "digits, LeNet-5": "LeNet-5 with filters of 3 by 3 on digits",
    "blurred mnist": "LeNet-5 on blurred MNIST",
    "blurred mnist, FCN": "FCN on blurred MNIST",
}
# What stands for it at "quick".
ON_DIGITS = {"blurred mnist": "digits, LeNet-5", "blurred mnist, FCN": "digits"}
_RESAMPLED = 2000


def table_1(conditions: Conditions) -> Drawing:
    """Final and highest test accuracy by noise and regularizer, the paper's beside ours."""
    return _table(conditions, "blurred mnist", PAPER, "Table 1")


def table_a1(conditions: Conditions) -> Drawing:
    """The same with a fully connected network."""
    return _table(conditions, "blurred mnist, FCN", PAPER_FCN, "Table A.1")


def figure_a2(conditions: Conditions) -> Drawing:
    """Test accuracy while a fully connected network trains, by noise and regularizer."""
    return _while_training(conditions, "blurred mnist, FCN", "Table A.1")


def figure_a3(conditions: Conditions) -> Drawing:
    """The same of LeNet-5."""
    return _while_training(conditions, "blurred mnist", "Table 1")


def _while_training(conditions: Conditions, data: str, table: str) -> Drawing:
    swept = _of(conditions, data)
    curves = _curves(swept)
    picture = style.picture(style.PAGE, 2.4)
    panels = picture.subplots(1, len(NOISES), sharey=True, sharex=True)
    rows = []
    for i, (axes, noise) in enumerate(zip(panels, NOISES, strict=True)):
        for method, (colour, _, label) in _LOOKS.items():
            runs = curves[method][i]
            step = np.asarray(swept[method][1]["step"]).reshape(-1)[-runs.shape[-1] :]
            middle, spread = runs.mean(axis=0), runs.std(axis=0, ddof=1)
            axes.plot(step, middle, color=colour, label=label, linewidth=1)
            axes.fill_between(step, middle - spread, middle + spread, color=colour, alpha=0.15,
                              linewidth=0)  # fmt: skip
            rows.append(pd.DataFrame({"noise": noise, "regularizer": method, "step": step,
                                      "test accuracy": middle, "deviation": spread}))  # fmt: skip
        axes.set_title(f"{noise:.0%} wrong")
    panels[0].set(ylabel="test accuracy (%)", ylim=(0, 102))
    picture.supxlabel("steps", fontsize=8)
    learned = learned_for(swept["MGS"][0].data, data)
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=5, title=learned)
    found = claims_of_curves(curves, table)
    return Drawing(picture, pd.concat(rows, ignore_index=True), found)


def claims_of_curves(
    curves: Mapping[str, np.ndarray], table: str = "Table A.1"
) -> tuple[Claim, ...]:
    """What appendix D.2 says of training curves: MGS's do not fall once they have risen.

    Args:
        curves: Test accuracy in percent by regularizer; axes are noise, draw, sample.
        table: The paper's, of the same network.
    """
    found = []
    for i, noise in enumerate(NOISES[1:], 1):
        lost = {m: curve[i].max(axis=-1) - _final(curve)[i] for m, curve in curves.items()}
        others = {m: difference(values, lost["MGS"]) for m, values in lost.items() if m != "MGS"}
        said = ", ".join(f"{m} {values.mean():.1f}" for m, values in lost.items())
        found.append(
            Claim(
                f"with {noise:.0%} of the labels wrong every run but MGS's loses accuracy once it "
                "over-fits: MGS's loses least",
                f"points lost from a run's highest to its end: {said}; more than MGS's by "
                f"{least(others, '.1f')}",
                all(one.above() for one in others.values()),
                paper=f"{table}: MGS is not susceptible to overfitting",
                otherwise="A penalty that holds training back as a whole loses nothing either, or "
                "the factor chosen after fewer epochs is too small.",
            )
        )
    return tuple(found)


def _of(conditions: Conditions, data: str) -> dict[str, tuple[Any, Any]]:
    """By regularizer its cell and result."""
    results = computed("mgs-label-noise", conditions).results
    known = {data, ON_DIGITS[data]}
    return {c.method: (c, found) for c, found in results.items() if c.data in known}


def learned_for(learned: str, data: str) -> str:
    """What is learned, and what of the paper's it stands for where it is not the same.

    >>> learned_for("digits", "blurred mnist, FCN")
    "MLP on digits, for the paper's FCN on blurred MNIST"
    """
    stands = "" if learned == data else f", for the paper's {NETWORKS[data]}"
    return NETWORKS[learned] + stands


def _curves(swept: Mapping[str, tuple[Any, Any]]) -> dict[str, np.ndarray]:
    return {m: 100 * np.asarray(result["test_accuracy"]) for m, (_, result) in swept.items()}


def _table(
    conditions: Conditions,
    data: str,
    paper: Mapping[str, dict[float, tuple[float, float, float]]],
    named: str,
) -> Drawing:
    swept = _of(conditions, data)
    curves = _curves(swept)
    chosen = pd.DataFrame(
        {
            "regularizer": method,
            "factor": result["factor"],
            "factors tried": ", ".join(f"{factor:g}" for factor in cell.factors),
            "data": result["source"],
        }
        for method, (cell, result) in swept.items()
    )
    table = measured(curves, paper)
    picture = style.picture(style.PAGE, 2.9)
    ours, theirs = picture.subplots(1, 2, sharey=True)
    _draw(ours, table, ("final", "sd", "highest"))
    _draw(theirs, table, ("paper final", "paper sd", "paper highest"))
    learned = swept["MGS"][0].data
    ours.set(ylabel="test accuracy (%)", title=f"ours: {NETWORKS[learned]}")
    theirs.set(title=f"the paper: {NETWORKS[data]}")
    handles = [
        Line2D([], [], color=colour, marker=mark, markersize=4, linestyle="", label=label)
        for colour, mark, label in _LOOKS.values()
    ]
    handles += [
        Line2D([], [], color=style.BLACK, marker="_", linestyle="", label="highest on the way")
    ]
    picture.legend(handles=handles, loc="outside upper center", ncols=6, handletextpad=0.2)
    shown = table.merge(chosen, on="regularizer", how="left")
    return Drawing(picture, shown, claims(curves, table, paper, named))


def measured(
    curves: Mapping[str, np.ndarray],
    printed: Mapping[str, dict[float, tuple[float, float, float]]] = PAPER,
) -> pd.DataFrame:
    """A row a level of noise and regularizer, with the paper's numbers.

    Args:
        curves: Test accuracy in percent by regularizer; axes are noise, draw, sample.
        printed: The paper's table.

    Returns:
        `final`, the mean over draws of the mean of the last samples, with the standard deviation
        and the standard error over draws; and `highest`, of the mean over draws.
    """
    rows: list[dict[str, Any]] = []
    for i, noise in enumerate(NOISES):
        for method, paper in printed.items():
            final = _final(curves[method])[i]
            rows.append(
                {"noise": noise, "regularizer": method, "final": final.mean(),
                 "sd": final.std(ddof=1),
                 "standard error": mean(final).error,
                 "highest": curves[method][i].mean(axis=0).max(), "draws": len(final),
                 "paper final": paper[noise][0], "paper sd": paper[noise][1],
                 "paper highest": paper[noise][2]}
            )  # fmt: skip
    return pd.DataFrame(rows)


def claims(
    curves: Mapping[str, np.ndarray],
    table: pd.DataFrame,
    printed: Mapping[str, dict[float, tuple[float, float, float]]] = PAPER,
    named: str = "Table 1",
) -> tuple[Claim, ...]:
    """What section 6.1 and the table's caption say.

    Args:
        curves: As in `measured`.
        table: What that gave.
        printed: The paper's table.
        named: Its name.
    """
    final = {method: _final(curve) for method, curve in curves.items()}
    levels = [
        _ahead(
            f"with {noise:.0%} of the labels wrong MGS ends at a higher accuracy than any other",
            {method: values[i] for method, values in final.items()},
            {method: by_noise[noise][0] for method, by_noise in printed.items()},
        )
        for i, noise in enumerate(NOISES)
        if noise > 0
    ]
    overall = _ahead(
        "MGS achieves the best performance overall: in the mean over the four levels",
        {method: values.mean(axis=0) for method, values in final.items()},
        _mean_by(table, "paper final"),
    )
    return (
        *levels,
        overall,
        _coincide(table),
        _consistent(curves, table),
        _steady(final, table),
        _order(final, table, named),
    )


def _ahead(says: str, runs: Mapping[str, np.ndarray], paper: Mapping[str, float]) -> Claim:
    """Draw by draw, as all regularizers see the same samples, labels and starting weights."""
    lead = {m: difference(runs["MGS"], values) for m, values in runs.items() if m != "MGS"}
    nearest = min(lead, key=lambda method: lead[method].value)
    printed = sorted((value, method) for method, value in paper.items() if method != "MGS")[-1]
    return Claim(
        says,
        f"{runs['MGS'].mean():.1f} %; {nearest} {runs[nearest].mean():.1f} %; MGS is ahead by "
        f"{lead[nearest]:.1f} (standard error of {lead[nearest].number} pairs)",
        all(one.above() for one in lead.values()),
        paper=f"{paper['MGS']:.1f} %; {printed[1]} {printed[0]:.1f} %",
        otherwise=f"MGS is not ahead of {nearest} by two standard errors. Factors are chosen "
        "after fewer epochs than are trained, where few wrong labels are fitted yet, and are "
        "small.",
    )


def _coincide(table: pd.DataFrame) -> Claim:
    gap = (table["highest"] - table["final"])[table["regularizer"] == "MGS"]
    return Claim(
        "for MGS the highest and the final accuracy essentially coincide (within 1 %)",
        f"they differ by {_list(gap)} at 0, 30, 60, 80 % of wrong labels",
        bool(gap.max() <= 1),
        paper=_list((table["paper highest"] - table["paper final"])[table["regularizer"] == "MGS"]),
        otherwise="The factor, chosen after fewer epochs, holds over-fitting back for as long as "
        "that and not to the end.",
    )


def _consistent(curves: Mapping[str, np.ndarray], table: pd.DataFrame) -> Claim:
    gaps = table["highest"] - table["final"]
    ours = _mean_by(table.assign(gap=gaps), "gap")
    paper = _mean_by(table.assign(gap=table["paper highest"] - table["paper final"]), "gap")
    gaps_drawn = (
        {
            m: float((v.mean(axis=1).max(-1) - _final(v.mean(axis=1))).mean())
            for m, v in drawn.items()
        }
        for drawn in resampled(curves, _RESAMPLED)
    )
    share = np.mean([min(gap, key=lambda m: gap[m]) == "MGS" for gap in gaps_drawn])
    return Claim(
        "MGS is the most consistent: it loses least of its highest accuracy by the end",
        f"in the mean over the levels {_named(ours)}; MGS least in {share:.0%} of "
        f"{_RESAMPLED} bootstrap samples of the draws",
        bool(min(ours, key=lambda m: ours[m]) == "MGS" and share >= 0.95),
        paper=_named(paper),
        otherwise="Another regularizer holds what it has as well, be it that it learns less.",
    )


def _steady(final: Mapping[str, np.ndarray], table: pd.DataFrame) -> Claim:
    ours, paper = _mean_by(table, "sd"), _mean_by(table, "paper sd")
    draws = next(iter(final.values())).shape[1]
    spreads = (
        {method: values.std(axis=1).mean() for method, values in drawn.items()}
        for drawn in resampled(final, _RESAMPLED)
    )
    some = [spread for spread in spreads if any(spread.values())]  # not of one draw alone
    share = np.mean([min(one, key=lambda m: one[m]) == "MGS" for one in some] or [False])
    return Claim(
        "MGS is robust: the standard deviation of its final accuracy is the smallest",
        f"in the mean over the levels {_named(ours)} ({draws} draws); MGS's smallest in "
        f"{share:.0%} of {_RESAMPLED} bootstrap samples of the draws",
        bool(min(ours, key=lambda method: ours[method]) == "MGS" and share >= 0.95),
        paper=_named(paper),
        otherwise="A standard deviation of a few draws is itself uncertain, and where a "
        "regularizer hardly learns it is small.",
    )


def _order(final: Mapping[str, np.ndarray], table: pd.DataFrame, named: str) -> Claim:
    rank = float(spearmanr(table["final"], table["paper final"]).statistic)
    drawn = np.stack(
        [
            np.stack([runs[m].mean(axis=1) for m in PAPER], axis=1).ravel()
            for runs in resampled(final, _RESAMPLED)
        ],
        axis=1,
    )  # in the table's order: level by level, and in each the regularizers
    ranks = spearman(table[["paper final"]].to_numpy(), drawn)
    low, high = np.percentile(ranks, [2.5, 97.5])
    return Claim(
        f"the 20 accuracies are ordered as in {named}",
        f"Spearman {rank:.2f}, 95 % of the bootstrap over draws in [{low:.2f}, {high:.2f}]",
        rank > 0.8,
        paper=named,
        otherwise="The paper's weight penalty ends at 10 % from 60 % of wrong labels on, which "
        "depends on the factor that tuning chose; the paper prints none.",
    )


def _final(curve: np.ndarray) -> np.ndarray:
    """The mean of the last samples."""
    return curve[..., -LAST:].mean(axis=-1)


def _mean_by(table: pd.DataFrame, what: str) -> dict[str, float]:
    means = table.groupby("regularizer")[what].mean()
    return {method: float(means[method]) for method in PAPER}


def _named(values: Mapping[str, float]) -> str:
    return ", ".join(f"{method} {value:.1f}" for method, value in values.items())


def _list(values: pd.Series) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def _draw(axes: Axes, table: pd.DataFrame, columns: tuple[str, str, str]) -> None:
    """A group a level of noise: the final accuracy with its deviation, a dash at the highest."""
    final, deviation, highest = columns
    for i, (method, (colour, mark, _)) in enumerate(_LOOKS.items()):
        rows = table[table["regularizer"] == method]
        places = np.arange(len(rows)) + 0.15 * (i - 2)
        axes.vlines(places, rows[final], rows[highest], color=colour, linewidth=0.7, linestyle=":")
        axes.plot(places, rows[highest], "_", color=colour, markersize=6)
        axes.errorbar(places, rows[final], rows[deviation], fmt=mark, color=colour, markersize=4,
                      elinewidth=1, capsize=1.5)  # fmt: skip
    axes.set_xticks(range(len(NOISES)), [f"{noise:.0%}" for noise in NOISES])
    axes.set(xlabel="training labels that are wrong", ylim=(0, 102))
    for place in np.arange(len(NOISES) - 1) + 0.5:
        axes.axvline(place, color=style.GREY, linewidth=0.4)
