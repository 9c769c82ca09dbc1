"""Figure 1 of the SpectReg paper: test accuracy against the size of the training set."""

from __future__ import annotations

import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.evidence import difference
from paper_figures.figure import Claim, Drawing
from paper_figures.spectreg.networks import best_weights

RULES = {
    "baseline": (style.BLACK, "o"),
    "CP": (style.GREEN, "v"),
    "JacReg": (style.PURPLE, "^"),
    "SpectReg": (style.ORANGE, "s"),
    "DoubleBack": (style.BLUE, "D"),
}
_NEAR = (
    "The draws of the training set move the accuracy by more than these do; at smaller scales the "
    "network, the images or the steps are fewer than the paper's."
)


def figure_1(conditions: Conditions) -> Drawing:
    """Test accuracy over the training size by regularizer, and what each gains."""
    table, source = measured(conditions)
    picture = style.picture(style.PAGE, 2.7)
    accuracy, gain = picture.subplots(1, 2)
    grid = table.pivot(index=["examples", "draw"], columns="rule", values="test accuracy")
    sizes = sorted(table["examples"].unique())
    for rule, (colour, mark) in RULES.items():
        groups = grid[rule].groupby("examples")
        look = {"color": colour, "marker": mark, "markersize": 3.5, "capsize": 1.5}
        accuracy.errorbar(sizes, groups.mean(), groups.sem(), label=rule, **look)
        if rule != "baseline":
            over = (grid[rule] - grid["baseline"]).groupby("examples")
            gain.errorbar(sizes, over.mean(), over.sem(), **look)
    gain.axhline(0, color=style.GREY, linewidth=0.8)
    for axes in (accuracy, gain):
        axes.set(xscale="log", xlabel="training examples")
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
    accuracy.set_ylabel("test accuracy (%)")
    gain.set_ylabel("points over the baseline")
    title = f"{source}; mean and standard error of {table['draw'].nunique()} draws"
    picture.legend(*accuracy.get_legend_handles_labels(), loc="outside upper center", ncols=5,
                   title=title)  # fmt: skip
    return Drawing(picture, table, claims(table))


def measured(conditions: Conditions) -> tuple[pd.DataFrame, str]:
    """A row a rule, size and reported draw, with the weight that other draws choose."""
    rows, source = [], ""
    for cell, result in computed("spectreg-sizes", conditions).results.items():
        small = cell.small
        for i, weight in enumerate(small.weights):
            for k, sure in enumerate(cell.confidences):
                rule = "CP" if sure else small.rule
                rows.append(
                    {"rule": rule, "examples": 10 * small.per_class, "draw": small.draw,
                     "tuning": small.tuning, "weight": sure or weight,
                     "validation": float(result["validation"][0, i, k]),
                     "test accuracy": 100 * float(result["test"][0, i, k])}
                )  # fmt: skip
        source = str(result["source"])
    return best_weights(pd.DataFrame(rows), ["rule", "examples"]), source


def claims(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What section 4.4 says of Figure 1, draw by draw.

    Args:
        table: As `measured` gives it.
    """
    runs = table.set_index(["rule", "examples", "draw"])["test accuracy"].sort_index()
    sizes = sorted(table["examples"].unique())

    def ahead(first: str, second: str, size: int):
        return difference(runs[first, size], runs[second, size])

    def listed(first: str, second: str) -> str:
        return f"{first} over {second} " + ", ".join(
            f"{ahead(first, second, size):+.2f} at {size}" for size in sizes
        )

    penalties = [rule for rule in RULES if rule != "baseline"]
    gains = {rule: [ahead(rule, "baseline", size) for size in sizes] for rule in penalties}
    others = ("SpectReg", "JacReg", "CP")
    least = [rule for rule in penalties if rule != "JacReg"]
    return (
        Claim(
            "every regularizer gains over the baseline, at every size",
            "; ".join(listed(rule, "baseline") for rule in penalties),
            all(one.above() for rule in penalties for one in gains[rule]),
            paper="section 4.4, in words: a significant benefit up to 20,000",
            otherwise=_NEAR,
        ),
        Claim(
            "the gain is the larger the smaller the training set: more at the smallest size than "
            "at the largest",
            ", ".join(f"{rule} {gains[rule][0].value:+.2f} and {gains[rule][-1].value:+.2f}"
                      for rule in penalties),
            all(gains[rule][0].value > gains[rule][-1].value for rule in penalties),
            paper="section 4.4, in words",
            otherwise="With five examples a class there is little a penalty on slopes can save.",
        ),
        Claim(
            "DoubleBack performs best for all sizes",
            "; ".join(listed("DoubleBack", other) for other in others),
            all(ahead("DoubleBack", o, s).above() for o in others for s in sizes),
            paper="section 4.4 and the caption of Figure 1",
            otherwise=_NEAR,
        ),
        Claim(
            "SpectReg is better than the confidence penalty for smaller sizes, and no more for "
            "the largest",
            listed("SpectReg", "CP"),
            ahead("SpectReg", "CP", sizes[0]).above()
            and not ahead("SpectReg", "CP", sizes[-1]).above(),
            paper="section 4.4, in words",
            otherwise=_NEAR,
        ),
        Claim(
            "JacReg is worse than its peers at every size",
            "; ".join(listed("JacReg", other) for other in least),
            all(ahead("JacReg", o, s).below() for o in least for s in sizes),
            paper="section 4.4, in words: consistently",
            otherwise=_NEAR,
        ),
    )  # fmt: skip
