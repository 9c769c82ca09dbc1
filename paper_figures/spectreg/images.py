"""Tables 4 and 5 of the SpectReg paper: residual networks on small colour images."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.evidence import difference
from paper_figures.figure import Claim, Drawing
from paper_figures.spectreg.networks import best_weights

# Mean and standard deviation of ten runs, in percent.
PAPER_4 = {"baseline": (55.63, 2.06), "SpectReg": (59.24, 1.48), "DoubleBack": (57.45, 1.79),
           "CP": (58.30, 1.79)}  # fmt: skip
PAPER_5 = {"top 1": {"baseline": (44.62, 0.58), "SpectReg": (50.76, 0.59)},
           "top 5": {"baseline": (70.20, 0.58), "SpectReg": (75.93, 0.40)}}  # fmt: skip
_COLOURS = {"baseline": style.GREY, "SpectReg": style.ORANGE, "DoubleBack": style.BLUE,
            "CP": style.GREEN}  # fmt: skip
_FEW = "A narrow network, a few hundred steps and three draws: draws decide more than penalties."


def table_4(conditions: Conditions) -> Drawing:
    """Test accuracy on small CIFAR-10 by regularizer, the paper's beside ours."""
    table, source = measured(conditions, "cifar10")
    picture = style.picture(style.PAGE, 2.3)
    ours, theirs = picture.subplots(1, 2)
    runs = table.groupby("rule")["top 1"]
    _points(ours, {rule: (runs.mean()[rule], runs.std()[rule]) for rule in PAPER_4})
    _points(theirs, PAPER_4)
    ours.set(title=f"ours: {source}", ylabel="test accuracy (%)")
    theirs.set(title="the paper: small CIFAR-10")
    picture.suptitle(
        "mean and standard deviation; the table's row of CIFAR-100 is not here", fontsize=8
    )
    return Drawing(picture, table, claims_of_cifar10(table))


def table_5(conditions: Conditions) -> Drawing:
    """Top-1 and top-5 accuracy with and without SpectReg, the paper's beside ours."""
    table, source = measured(conditions, "tiny")
    picture = style.picture(style.PAGE, 2.3)
    panels = picture.subplots(1, 4)
    for axes, what in zip(panels[:2], PAPER_5, strict=True):
        runs = table.groupby("rule")[what]
        _points(axes, {rule: (runs.mean()[rule], runs.std()[rule]) for rule in PAPER_5[what]})
        axes.set_title(f"ours: {what}")
    for axes, (what, values) in zip(panels[2:], PAPER_5.items(), strict=True):
        _points(axes, values)
        axes.set_title(f"the paper: {what}")
    panels[0].set_ylabel("test accuracy (%)")
    picture.suptitle(f"ours: {source}; mean and standard deviation", fontsize=8)
    return Drawing(picture, table, claims_of_tiny(table))


def measured(conditions: Conditions, data: str) -> tuple[pd.DataFrame, str]:
    """A row a rule and reported draw, in percent, with the weight that another draw chooses."""
    rows, source = [], ""
    swept = computed("spectreg-images", conditions, lambda cell: cell.data == data)
    for cell, result in swept.results.items():
        rows += [
            {"rule": cell.rule, "draw": cell.draw, "tuning": cell.tuning, "weight": weight,
             "validation": float(result["validation"][i]),
             "top 1": 100 * float(result["test"][i]),
             "top 5": 100 * float(result["test_top_5"][i]), "data": result["source"]}
            for i, weight in enumerate(cell.weights)
        ]  # fmt: skip
        source = str(result["source"])
    return best_weights(pd.DataFrame(rows), ["rule"]), source


def claims_of_cifar10(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What section 4.3 says of Table 4's row of CIFAR-10, draw by draw.

    Args:
        table: As `measured` gives it.
    """
    runs = table.set_index(["rule", "draw"])["top 1"].sort_index()
    gains = {rule: difference(runs[rule], runs["baseline"]) for rule in PAPER_4}
    ahead = {rule: difference(runs["SpectReg"], runs[rule]) for rule in ("DoubleBack", "CP")}
    base = PAPER_4["baseline"][0]
    return (
        Claim(
            "every regularizer improves on the baseline",
            ", ".join(f"{rule} {gain:+.2f}" for rule, gain in gains.items() if rule != "baseline")
            + f" points of {runs['baseline'].mean():.1f} %",
            all(gain.above() for rule, gain in gains.items() if rule != "baseline"),
            paper=", ".join(f"{rule} {value - base:+.2f}" for rule, (value, _) in PAPER_4.items()
                            if rule != "baseline"),
            otherwise=_FEW,
        ),
        Claim(
            "SpectReg clearly dominates",
            ", ".join(f"over {rule} {one:+.2f}" for rule, one in ahead.items()) + " points",
            all(one.above() for one in ahead.values()),
            paper=", ".join(f"over {rule} {PAPER_4['SpectReg'][0] - PAPER_4[rule][0]:+.2f}"
                            for rule in ahead),
            otherwise=_FEW,
        ),
    )  # fmt: skip


def claims_of_tiny(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What section 4.5 says of Table 5, draw by draw.

    Args:
        table: As `measured` gives it.
    """
    found = []
    for what, printed in PAPER_5.items():
        runs = table.set_index(["rule", "draw"])[what].sort_index()
        gain = difference(runs["SpectReg"], runs["baseline"])
        found.append(
            Claim(
                f"SpectReg raises the {what.replace(' ', '-')} accuracy",
                f"{gain:+.2f} points of {runs['baseline'].mean():.1f} %, paired over "
                f"{len(runs['baseline'])} draws",
                gain.above(),
                paper=f"{printed['SpectReg'][0] - printed['baseline'][0]:+.2f}",
                otherwise=_FEW,
            )
        )
    return tuple(found)


def _points(axes: Axes, values: dict[str, tuple[float, float]]) -> None:
    for i, (rule, (middle, spread)) in enumerate(values.items()):
        axes.errorbar(i, middle, np.nan_to_num(spread), fmt="o", color=_COLOURS[rule],
                      markersize=5, capsize=2)  # fmt: skip
    axes.set_xticks(range(len(values)), values)
    axes.set_xlim(-0.5, len(values) - 0.5)
