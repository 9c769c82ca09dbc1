"""Ours: which reading of the dissertation's rates is nearer to its Tables 5.1 and 5.2."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.figure import Claim, Drawing
from paper_figures.metric.runs import SETS, distances, every_end, nearer

READINGS = {"a step": (style.BLUE, "o"), "a learning rate": (style.ORANGE, "s")}


def figure_readings(conditions: Conditions) -> Drawing:
    """The distance to the tables of every rule with two readings, by set and activation."""
    table = distances(every_end(computed("metric-rules", conditions).results))
    places = table[["set", "activation"]].drop_duplicates().itertuples(index=False)
    columns = sorted(places, key=lambda place: list(SETS).index(place[0]))
    rules = sorted(table["rule"].unique())
    picture = style.picture(style.PAGE, 2.2)
    panels = np.atleast_1d(picture.subplots(1, len(columns), sharey=True, sharex=True))
    for axes, (of, activation) in zip(panels, columns, strict=True):
        here = table[(table["set"] == of) & (table["activation"] == activation)]
        for shift, (reading, (colour, mark)) in zip((-0.12, 0.12), READINGS.items(), strict=True):
            rows = here[here["reading"] == reading].set_index("rule")["distance"].reindex(rules)
            axes.plot(rows, np.arange(len(rules)) + shift, mark, color=colour, markersize=4,
                      label=f"the rate is of {reading}")  # fmt: skip
        axes.set_title(f"{SETS[of][0]}, {activation}")
        axes.grid(axis="y", color="0.92")
    panels[0].set_yticks(range(len(rules)), rules)
    panels[0].set_ylim(len(rules) - 0.5, -0.5)
    picture.supxlabel("distance to the printed table", fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=2)
    return Drawing(picture, table, claims(table))


def claims(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What is decided, for each rule.

    Args:
        table: As `distances` gives it.
    """
    chosen = nearer(table)
    found = []
    for family, reading in chosen.items():
        rows = table[table["family"] == family]
        means = rows.groupby("reading")["distance"].mean()
        pairs = rows.pivot_table(index=["set", "activation", "rule"], columns="reading",
                                 values="distance")  # fmt: skip
        said = ", ".join(f"of {name} {value:.3f}" for name, value in means.items())
        wins = (pairs.idxmin(axis=1) == reading).sum()
        name = " ".join(word.upper() if word == "l2" else word for word in family.split())
        found.append(
            Claim(
                f"{name}: the tables are nearer with a rate of each step, as it is printed, than "
                "with the rate times the learning rate",
                f"mean distance with a rate {said}; the tables are drawn with that of {reading}, "
                f"nearer in {wins} of {len(pairs)} rows",
                reading == "a step",
                paper="Table 4.1 has no learning rate before the regularizer",
                otherwise="As printed the rule takes more than the loss gives.",
            )
        )
    return tuple(found)
