"""Ours: six optimizers of optax on real data, each beside the flows derived for it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.figure import Claim, Drawing
from paper_figures.igr.follow import LOOKS, by_order

ELIMINATED = "adam, second moment eliminated"


def figure_optimizers(conditions: Conditions) -> Drawing:
    """How far six optimizers drift from the flows of their own equations."""
    cell, seen = _followed(conditions)
    picture = style.picture(style.PAGE, 4.2)
    panels = picture.subplots(2, 3, sharex=True, sharey=True)
    for axes, (name, at) in zip(panels.flat, seen.items(), strict=True):
        _distances(axes, at, 1e-9)
        axes.set_title(f"{name}, $h = {at['learning_rate']:g}$")
    for axes in panels[:, 0]:
        axes.set_ylabel("distance, of the way\ntravelled in all")
    for axes in panels[1]:
        axes.set_xlabel(f"steps, after {cell.burn_in} of burn-in")
    _legend(picture, panels.flat[0])
    table = pd.concat(_table(name, at) for name, at in seen.items())
    claims = [claim for name, at in seen.items() for claim in _claims(name, at)]
    return Drawing(picture, table, tuple(claims))


def figure_adam_kept(conditions: Conditions) -> Drawing:
    """Adam at its defaults: the second moment kept beside the parameters, or eliminated."""
    cell, seen = _followed(conditions, "adam", ELIMINATED)
    ways = {"second moment kept": seen["adam"], "second moment eliminated": seen[ELIMINATED]}
    h = seen["adam"]["learning_rate"]
    picture = style.picture(style.PAGE, 2.7)
    panels = picture.subplots(1, 2, sharex=True, sharey=True)
    for axes, (name, at) in zip(panels, ways.items(), strict=True):
        _distances(axes, at, 1e-5)
        axes.set_title(f"adam, $h = {h:g}$, $\\beta_2 = 0.999$: {name}")
        axes.set_xlabel(f"steps, after {cell.burn_in} of burn-in")
    panels[0].set_ylabel("distance, of the way\ntravelled in all")
    _legend(picture, panels[0])
    kept, eliminated = (_shares(at) for at in ways.values())
    far = [float(np.nan_to_num(share[-1], nan=np.inf)) for share in eliminated.values()]
    claims = (
        Claim(
            "with its second moment kept, the flow is within 3 % of the way at order 0 and 0.2 % "
            "at order 1",
            f"{kept[0][-1]:.2%} and {kept[1][-1]:.3%} at the end",
            bool(kept[0][-1] <= 0.03 and kept[1][-1] <= 0.002),
            otherwise="The run is still settling: a longer burn-in brings both down.",
        ),
        Claim(
            "with its second moment eliminated, the flow is further off than the run has travelled",
            "; ".join(
                f"order {p}: {share[-1]:.2f} of the way at the end"
                if np.isfinite(share[-1])
                else f"order {p}: out of the finite numbers, and not drawn from there"
                for p, share in eliminated.items()
            ),
            min(far) > 1,
            otherwise="The gradients changed little while the second moment was averaged.",
        ),
    )
    table = pd.concat(_table(name, at) for name, at in ways.items())
    return Drawing(picture, table, claims)


def _followed(conditions: Conditions, *names: str) -> tuple[Any, dict[str, Any]]:
    """A cell of the study, for what all have alike, and what was found by optimizer.

    Those of these names; without any, all but the one that no figure shows beside them.
    """
    swept = computed("igr-optimizers", conditions, only=lambda cell: _among(cell.optimizer, names))
    return next(iter(swept.results)), {c.optimizer: found for c, found in swept.results.items()}


def _among(name: str, names: tuple[str, ...]) -> bool:
    return name in names if names else name != ELIMINATED


def _shares(seen: Any) -> dict[int, np.ndarray]:
    """The distance from the flow of each order, of the way that the run travels in all."""
    return {p: distance / seen["travelled"][-1] for p, distance in by_order(seen).items()}


def _distances(axes: Axes, seen: Any, lowest: float) -> None:
    after = slice(1, None)  # at the start every distance is 0, which a logarithm cannot show
    step, share = seen["step"][after], seen["travelled"] / seen["travelled"][-1]
    axes.plot(step, share[after], color=style.GREY, linestyle=":", label="its start")
    for order, distance in _shares(seen).items():
        if np.isfinite(distance[after]).sum() > 1:  # else there is no line
            axes.plot(step, distance[after], **LOOKS[order], label=f"the flow of order {order}")
    axes.set(yscale="log", xlim=(0, step[-1]), ylim=(lowest, 5))


def _legend(picture, axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=4)


def _table(name: str, seen: Any) -> pd.DataFrame:
    columns = {
        "optimizer": name,
        "h": seen["learning_rate"],
        "step": seen["step"],
        "loss": seen["loss"],
        "travelled": seen["travelled"],
        "h |F1| / |F0|": seen["correction"],
        "h sharpness": seen["h_sharpness"],
        "stability limit": float(seen["stability_limit"]),
        "trusted": seen["trusted"],
    }
    return pd.DataFrame(
        columns | {f"distance to order {p}": distance for p, distance in by_order(seen).items()}
    )


def _claims(name: str, seen: Any) -> list[Claim]:
    """Each order against the one below, at the end."""
    claims = []
    for (below, far), (above, near) in pairwise(by_order(seen).items()):
        claims.append(
            Claim(
                f"{name}: closer to the flow of order {above} than to that of order {below}",
                f"{far[-1] / near[-1]:.1f} times closer at the end: "
                f"{near[-1] / seen['travelled'][-1]:.2e} of the way; h times sharpness "
                f"{np.nanmax(seen['h_sharpness']):.2g} of {float(seen['stability_limit']):.2g}",
                bool(near[-1] < far[-1]),
                otherwise="The expansion does not help where a mode oscillates.",
            )
        )
    return claims
