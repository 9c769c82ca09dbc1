"""Ours: a network on real data, gradient descent, and the flows of order 0, 1 and 2 beside it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.figure import Claim, Drawing


def figure_follow(conditions: Conditions) -> Drawing:
    """How far gradient descent drifts from each flow, at two learning rates."""
    swept = computed("igr-follow", conditions)
    compared = {cell.learning_rate: result for cell, result in swept.results.items()}

    picture = style.picture(style.PAGE, 2.6)
    panels = picture.subplots(1, len(compared), sharex=True, sharey=True)
    for axes, (h, seen) in zip(panels, compared.items(), strict=True):
        after = slice(1, None)  # at the start every distance is 0, which a logarithm cannot show
        time, distance = seen["time"][after], by_order(seen)
        axes.plot(time, seen["travelled"][after], color=style.GREY, linestyle=":",
                  label="its own start")  # fmt: skip
        for order, look in LOOKS.items():
            axes.plot(time, distance[order][after], **look,
                      label=f"the flow of order {order}" + _SAYS[order])  # fmt: skip
        axes.set(yscale="log", xlabel="time $n h$", xlim=(0, time[-1]))
        sharpness = seen["h_sharpness"]
        axes.set_title(f"$h = {h:g}$, {seen['step'][-1]} steps; $h \\times$ sharpness "
                       f"{sharpness.min():.2f} to {sharpness.max():.2f}")  # fmt: skip
    panels[0].set_ylabel("distance of gradient descent from")
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=4)

    table = pd.concat(
        pd.DataFrame(
            {
                "h": h,
                "step": seen["step"],
                "time": seen["time"],
                "loss": seen["loss"],
                "h sharpness": seen["h_sharpness"],
                "travelled": seen["travelled"],
            }
            | {f"distance to order {p}": distance for p, distance in by_order(seen).items()}
        )
        for h, seen in compared.items()
    )
    claims = [claim for h, seen in compared.items() for claim in claims_of(h, seen)]
    return Drawing(picture, table, tuple(claims))


def by_order(seen: Any) -> dict[int, Any]:
    """The distances of run and flow at every record, by the order of the flow."""
    return dict(zip(seen["orders"].tolist(), seen["distance"], strict=True))


def claims_of(h: float, seen: Any) -> list[Claim]:
    """Each order against the one below: at the end, and at every time on the way."""
    claims = []
    for i, (below, above) in enumerate(pairwise(seen["orders"].tolist())):
        far, near = seen["distance"][i][1:], seen["distance"][i + 1][1:]
        ratio = far / near
        rounding = seen["at_rounding"][i + 1][1:].any()
        claims.append(
            Claim(
                f"at h = {h:g} gradient descent is closer to the flow of order {above} than to "
                f"that of order {below}",
                f"{ratio[-1]:.1f} times closer at the end ({near[-1]:.2e} against "
                f"{far[-1]:.2e}), at least {ratio.min():.1f} times at every time"
                + ("; partly at rounding" if rounding else ""),
                bool((near < far).all()),
                otherwise="The next order does not help where h times the sharpness nears 1.",
            )
        )
    return claims


_SAYS = {0: " (gradient flow)", 1: " (modified loss)", 2: ""}
LOOKS: dict[int, dict[str, Any]] = {
    0: {"color": style.GREEN, "linestyle": "--"},
    1: {"color": style.RED, "linestyle": "-"},
    2: {"color": style.BLUE, "linestyle": "-."},
}
