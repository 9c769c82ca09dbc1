"""Ours: what kinks do to the flows of gradient descent, over phases of training."""

from __future__ import annotations

import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from analysis.studies.igr.relu import ACTIVATIONS, FLOWS
from paper_figures import style
from paper_figures.figure import Claim, Drawing

KINKED = 0.5  # of the change of the gradient, that derivatives leave unexplained
SMOOTH, SHARP = ("tanh", "GELU"), ("ReLU", "max pooling")
LINES = {0: ("order 0", style.GREY, "--"), 1: ("order 1", style.BLUE, "-"),
         "differences": ("differences", style.RED, "-")}  # fmt: skip


def figure_relu(conditions: Conditions) -> Drawing:
    """The distance from each flow at the end of each window of training, a panel an activation."""
    results = computed("igr-relu", conditions).results
    rows = []
    for cell, seen in results.items():
        for i, ends in enumerate(seen["distance"]):
            row = {"activation": cell.activation, "window": i, "from step": i * cell.steps}
            row |= {LINES[p][0]: float(d) for p, d in zip(FLOWS, ends, strict=True)}
            rows.append(row | {"remainder": float(seen["remainder"][i])})
    table = pd.DataFrame(rows)

    picture = style.picture(style.PAGE, 2.4)
    panels = picture.subplots(1, len(ACTIVATIONS), sharey=True)
    for axes, name in zip(panels, ACTIVATIONS, strict=True):
        part = table[table["activation"] == name]
        for label, colour, line in LINES.values():
            axes.plot(part["from step"], part[label], line, color=colour, marker="o", markersize=3,
                      label=label)  # fmt: skip
        axes.set(yscale="log", title=name, xlabel="from step")
    panels[0].set_ylabel("distance at the\nend of the window")
    panels[-1].legend()
    return Drawing(picture, table, tuple(_claims(table)))


def _claims(table: pd.DataFrame) -> list[Claim]:
    smooth = table[table["activation"].isin(SMOOTH)]
    closer = (smooth["order 0"] / smooth["order 1"]).min()
    first = table[table["activation"].isin(SHARP) & (table["window"] == 0)]
    gains = {r["activation"]: r["order 0"] / r["order 1"] for _, r in first.iterrows()}
    relu = table[(table["activation"] == "ReLU") & (table["window"] == 0)].iloc[0]
    apart = smooth["remainder"].max(), table[table["activation"].isin(SHARP)]["remainder"].min()
    return [
        Claim(
            "where the activation is smooth the flow of order 1 ends at least twice as close as "
            "that of order 0, in every window",
            f"{closer:.3g} times as close at least",
            bool(closer >= 2),
        ),
        Claim(
            "in the first window kinks leave nothing of it: order 1 ends less than 1.25 times as "
            "close as order 0",
            ", ".join(f"{name} {gain:.2f}" for name, gain in gains.items()),
            bool(max(gains.values()) < 1.25),
            otherwise="Derivatives see what happens between the kinks.",
        ),
        Claim(
            "on ReLU differences of the gradient over the step see the kinks: in the first window "
            "they end at least twice as close as order 1",
            f"{relu['differences']:.2g} against {relu['order 1']:.2g}",
            bool(2 * relu["differences"] <= relu["order 1"]),
            otherwise="A step crosses many kinks at once, some of them back and forth.",
        ),
        Claim(
            f"the remainder tells which is which: below {KINKED} in every smooth window, above in "
            "every one with kinks",
            f"at most {apart[0]:.2g}, at least {apart[1]:.2g}",
            bool(apart[0] < KINKED < apart[1]),
            otherwise="Late in training few units change.",
        ),
    ]
