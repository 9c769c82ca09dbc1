"""Table 2 of the SpectReg paper: dropout and batch normalisation beside gradient penalties."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.evidence import difference
from paper_figures.figure import Claim, Drawing

RULES = {"baseline": "no penalty", "SpectReg": "SpectReg", "DoubleBack": "DoubleBack"}
NETWORKS = ("baseline", "batchnorm", "dropout")
PAPER = {
    "baseline": {"baseline": 96.99, "SpectReg": 97.59, "DoubleBack": 97.56},
    "batchnorm": {"baseline": 96.89, "SpectReg": 96.94, "DoubleBack": 96.89},
    "dropout": {"baseline": 97.29, "SpectReg": 97.65, "DoubleBack": 97.98},
}
_LOOKS = {
    "baseline": (style.GREY, "o"),
    "SpectReg": (style.ORANGE, "s"),
    "DoubleBack": (style.BLUE, "D"),
}
_NEAR = (
    "The draws of the training set move the accuracy by more than these do; at smaller scales the "
    "network, the images or the steps are fewer than the paper's."
)


def table_2(conditions: Conditions) -> Drawing:
    """Test accuracy by network and penalty, the paper's beside ours."""
    table, source = measured(conditions)
    picture = style.picture(style.PAGE, 2.4)
    ours, theirs = picture.subplots(1, 2)
    places = np.arange(len(NETWORKS))
    for i, (rule, label) in enumerate(RULES.items()):
        colour, mark = _LOOKS[rule]
        look = {"color": colour, "marker": mark, "markersize": 4, "linestyle": "none"}
        groups = table[table["rule"] == rule].groupby("network")["test accuracy"]
        ours.errorbar(places + 0.15 * (i - 1), groups.mean()[list(NETWORKS)],
                      groups.sem()[list(NETWORKS)], capsize=1.5, label=label, **look)  # fmt: skip
        theirs.plot(places + 0.15 * (i - 1), [PAPER[n][rule] for n in NETWORKS], **look)
    for axes in (ours, theirs):
        axes.set_xticks(places, NETWORKS)
        axes.set_xlim(-0.5, len(NETWORKS) - 0.5)
    ours.set(title=f"ours: {source}", ylabel="test accuracy (%)")
    theirs.set(title="the paper: small MNIST")
    picture.legend(*ours.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return Drawing(picture, table, claims(table))


def measured(conditions: Conditions) -> tuple[pd.DataFrame, str]:
    """A row a network, rule and reported draw, with the weight that other draws choose."""
    rows, source = [], ""
    for cell, result in computed("spectreg-networks", conditions).results.items():
        rows += [
            {"network": cell.network, "rule": cell.small.rule, "draw": cell.small.draw,
             "tuning": cell.small.tuning, "weight": weight,
             "validation": float(result["validation"][i]),
             "test accuracy": 100 * float(result["test"][i])}
            for i, weight in enumerate(cell.small.weights)
        ]  # fmt: skip
        source = str(result["source"])
    return best_weights(pd.DataFrame(rows), ["network", "rule"]), source


def best_weights(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """The reported draws at the weight of the best mean validation accuracy of the tuning draws.

    Args:
        table: A row a setting, weight and draw, with `tuning` and `validation`.
        by: The columns that make a setting. One of a single weight has no tuning draws.
    """
    found = []
    for _, rows in table.groupby(by, sort=False):
        tuning = rows[rows["tuning"]].groupby("weight")["validation"].mean()
        weight = tuning.idxmax() if len(tuning) else rows["weight"].iloc[0]
        found.append(rows[~rows["tuning"] & (rows["weight"] == weight)])
    return pd.concat(found, ignore_index=True).drop(columns=["tuning", "validation"])


def claims(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What section 4.2 says of Table 2, draw by draw.

    Args:
        table: As `measured` gives it.
    """
    draws = table["draw"].nunique()
    runs = table.set_index(["network", "rule", "draw"])["test accuracy"].sort_index()

    def over(first: tuple[str, str], second: tuple[str, str]) -> tuple[bool, str]:
        ahead = difference(runs[first], runs[second])
        return ahead.above(), f"{_name(*first)} over {_name(*second)} {ahead:+.2f}"

    def all_of(says: str, pairs: list[tuple[tuple[str, str], tuple[str, str]]]) -> Claim:
        held = [over(*pair) for pair in pairs]
        return Claim(
            says,
            f"{'; '.join(text for _, text in held)} points, paired over {draws} draws",
            all(is_so for is_so, _ in held),
            paper="; ".join(f"{PAPER[a][b] - PAPER[c][d]:+.2f}" for (a, b), (c, d) in pairs),
            otherwise=_NEAR,
        )

    plain = ("SpectReg", "DoubleBack")
    best = ("dropout", "DoubleBack")
    others = [(n, r) for n in NETWORKS for r in RULES if (n, r) != best]
    return (
        all_of(
            "SpectReg and DoubleBack alone do better than dropout and than batch normalisation",
            [(("baseline", rule), (network, "baseline")) for rule in plain
             for network in ("dropout", "batchnorm")],
        ),
        all_of(
            "combined with dropout both gain over dropout",
            [(("dropout", rule), ("dropout", "baseline")) for rule in plain],
        ),
        all_of("dropout and DoubleBack together are the best of all", [(best, o) for o in others]),
    )  # fmt: skip


def _name(network: str, rule: str) -> str:
    names = [name for name in (network, rule) if name != "baseline"]
    return " with ".join(names) or "the baseline"
