"""Figure 4 of the MGS paper: quantiles of the accuracy as what controls training is changed."""

from __future__ import annotations

import numpy as np
import pandas as pd
from jaxtyping import Float

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.evidence import resampled
from paper_figures.figure import Claim, Drawing
from paper_figures.mgs.alexnet import LOOKS

CHANGES = {
    "examples": "training size",
    "noises": "label noise",
    "batch_size": "batch size",
    "learning_rate": "learning rate",
    "epochs": "epochs",
}
QUANTILES = (0.25, 0.5, 0.75)
_RESAMPLED = 500

# By what is changed and by regularizer: accuracies in percent, of axes value and draw; or a number.
Runs = dict[tuple[str, str], Float[np.ndarray, "values draws"]]
Numbers = dict[str, dict[str, float]]


def figure_4(conditions: Conditions) -> Drawing:
    """A radar chart a regularizer: quartiles of the final accuracy, MGS beside each other one."""
    table, about = measured(conditions)
    others = [method for method in LOOKS if method != "MGS"]
    picture = style.picture(style.PAGE, 2.5)
    panels = picture.subplots(1, len(others), subplot_kw={"projection": "polar"})
    angles = np.linspace(0, 2 * np.pi, len(CHANGES), endpoint=False)
    around = np.append(angles, angles[0])
    quartiles = table.groupby(["regularizer", "changed"])["final test accuracy"].quantile(
        list(QUANTILES)
    )
    for axes, method in zip(panels, others, strict=True):
        for name in (method, "MGS"):
            low, middle, high = (
                np.array([quartiles[name, what, q] for what in CHANGES]) for q in QUANTILES
            )
            closed = [np.append(values, values[0]) for values in (low, middle, high)]
            colour, _ = LOOKS[name]
            axes.plot(around, closed[1], color=colour, linewidth=1.2)
            axes.fill_between(around, closed[0], closed[2], color=colour, alpha=0.25, linewidth=0)
        axes.set_xticks(angles, [label.replace(" ", "\n") for label in CHANGES.values()],
                        fontsize=6)  # fmt: skip
        axes.set_ylim(10, 100)  # from what guessing gives
        axes.set_yticks((30, 50, 70, 90), ("30", "50", "70", "90"), fontsize=5)
        axes.set_title(LOOKS[method][1], color=LOOKS[method][0])
    picture.suptitle(f"quartiles of the final test accuracy (%), MGS in red; {about}", fontsize=8)
    return Drawing(picture, table, claims(table))


def measured(conditions: Conditions) -> tuple[pd.DataFrame, str]:
    """A row a regularizer, change, value and draw; and what was trained on what."""
    rows, about = [], ""
    for cell, result in computed("mgs-robustness", conditions).results.items():
        for i, value in enumerate(cell.values):
            rows += [
                {"regularizer": cell.start.method, "factor": float(result["factor"]),
                 "changed": cell.changed, "value": value, "draw": draw,
                 "final test accuracy": 100 * float(result["accuracy"][i, draw])}
                for draw in range(cell.start.draws)
            ]  # fmt: skip
        about = str(result["source"])
    return pd.DataFrame(rows), about


def claims(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What section 6.3 says of Figure 4.

    Args:
        table: As `measured` gives it.
    """
    runs = _runs(table)
    medians, spread = _quartiles(runs)
    ahead, steady = _ahead(medians), _steady(spread)
    drawn = [_quartiles(again) for again in resampled(runs, _RESAMPLED)]
    share = {
        "ahead": np.mean([_ahead(middle).all() for middle, _ in drawn]),
        "steady": np.mean([_steady(width).sum() >= len(CHANGES) - 1 for _, width in drawn]),
        "rate": np.mean([_is_the_rate(width) for _, width in drawn]),
    }
    samples = f"of {_RESAMPLED} bootstrap samples of the draws"
    few = "Few values and draws of each; the factor that the loss chooses in few epochs is small."
    return (
        Claim(
            "MGS outperforms every other regularizer, whichever of the five is changed",
            f"its median is the highest for {_those(ahead)}; for all five in {share['ahead']:.0%} "
            f"{samples}; {_listed(medians)}",
            bool(ahead.all() and share["ahead"] >= 0.95),
            paper="section 6.3, in words",
            otherwise=few,
        ),
        Claim(
            "MGS is the least affected by a change in all but one of the five",
            f"its quartiles are the closest for {_those(steady)}; for four of five in "
            f"{share['steady']:.0%} {samples}; {_listed(spread)}",
            bool(steady.sum() >= len(CHANGES) - 1 and share["steady"] >= 0.95),
            paper="section 6.3, in words",
            otherwise=few,
        ),
        Claim(
            "MGS is affected by the learning rate more than by anything else",
            ", ".join(f"{CHANGES[what]} {spread[what]['MGS']:.1f}" for what in CHANGES)
            + f" points between quartiles; by the rate most in {share['rate']:.0%} {samples}",
            bool(_is_the_rate(spread) and share["rate"] >= 0.95),
            paper="section 6.3, in words: the only area in which it shows a degradation",
            otherwise="Here the training size and the noise decide more than the rate does.",
        ),
    )


def _runs(table: pd.DataFrame) -> Runs:
    """The final accuracies by change and regularizer."""
    groups = table.groupby(["changed", "regularizer"])
    return {
        (what, method): groups.get_group((what, method))
        .pivot(index="value", columns="draw", values="final test accuracy")
        .to_numpy()
        for what in CHANGES
        for method in LOOKS
    }


def _quartiles(runs: Runs) -> tuple[Numbers, Numbers]:
    """The median, and how far the quartiles are apart, by change and regularizer."""
    medians: Numbers = {what: {} for what in CHANGES}
    spread: Numbers = {what: {} for what in CHANGES}
    for (what, method), values in runs.items():
        low, middle, high = np.quantile(values, QUANTILES)
        medians[what][method], spread[what][method] = float(middle), float(high - low)
    return medians, spread


def _ahead(medians: Numbers) -> np.ndarray:
    """Whether MGS's median is the highest, by change."""
    return np.array([
        by_method["MGS"] > max(value for method, value in by_method.items() if method != "MGS")
        for by_method in medians.values()
    ])  # fmt: skip


def _steady(spread: Numbers) -> np.ndarray:
    """Whether no other regularizer's quartiles are closer than MGS's, by change."""
    return np.array([
        by_method["MGS"] <= min(by_method.values()) for by_method in spread.values()
    ])  # fmt: skip


def _is_the_rate(spread: Numbers) -> bool:
    return max(spread, key=lambda what: spread[what]["MGS"]) == "learning_rate"


def _those(held: np.ndarray) -> str:
    labels = zip(CHANGES.values(), held, strict=True)
    return ", ".join(label for label, is_so in labels if is_so) or "none"


def _listed(values: Numbers) -> str:
    return "; ".join(
        f"{label}: " + ", ".join(f"{method} {values[what][method]:.1f}" for method in LOOKS)
        for what, label in CHANGES.items()
    )
