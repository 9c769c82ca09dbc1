"""Figure 4 of the MGS paper: quantiles of the accuracy as what controls training is changed."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
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
        axes.set_ylim(30, 100)  # from three times what guessing gives
        axes.set_yticks((40, 60, 80), ("40", "60", "80"), fontsize=5)
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
    groups = table.groupby(["changed", "regularizer"])["final test accuracy"]
    medians = groups.median().unstack()
    spread = (groups.quantile(0.75) - groups.quantile(0.25)).unstack()
    others = [method for method in LOOKS if method != "MGS"]
    ahead = {what: medians.loc[what, "MGS"] > medians.loc[what, others].max() for what in CHANGES}
    steady = {what: spread.loc[what, "MGS"] <= spread.loc[what, others].min() for what in CHANGES}
    few = "Few values and draws of each; the factor that the loss chooses in few epochs is small."
    return (
        Claim(
            "MGS outperforms every other regularizer, whichever of the five is changed",
            f"its median is the highest for {_those(ahead)}; " + _listed(medians),
            all(ahead.values()),
            paper="section 6.3, in words",
            otherwise=few,
        ),
        Claim(
            "MGS is the least affected by a change in all but one of the five",
            f"its quartiles are the closest for {_those(steady)}; " + _listed(spread),
            sum(steady.values()) >= len(CHANGES) - 1,
            paper="section 6.3, in words",
            otherwise=few,
        ),
        Claim(
            "MGS is affected by the learning rate more than by anything else",
            ", ".join(f"{label} {spread.loc[what, 'MGS']:.1f}" for what, label in CHANGES.items())
            + " points between quartiles",
            bool(spread["MGS"].idxmax() == "learning_rate"),
            paper="section 6.3, in words: the only area in which it shows a degradation",
            otherwise="Here the training size and the noise decide more than the rate does.",
        ),
    )


def _those(held: dict[str, bool]) -> str:
    return ", ".join(CHANGES[what] for what, is_so in held.items() if is_so) or "none"


def _listed(values: pd.DataFrame) -> str:
    return "; ".join(
        f"{label}: " + ", ".join(f"{m} {values.loc[what, m]:.1f}" for m in LOOKS)
        for what, label in CHANGES.items()
    )
