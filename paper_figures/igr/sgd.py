"""Ours: the mean of many reshuffled runs of SGD, and the flows that it may follow."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.figure import Claim, Drawing


class Seen(NamedTuple):
    """Distances at the ends of epochs, from the mean of the runs at one learning rate.

    Attributes:
        time: Of the equation, m h an epoch.
        epoch: How many were done.
        distance: To each flow, by its name.
        travelled: Of the mean from its start.
        error: The standard error of the mean.
        spread: The distance of a single run, in the root mean square.
        sharpness: m h times the largest eigenvalue of the Hessian of the whole loss.
    """

    time: np.ndarray
    epoch: np.ndarray
    distance: dict[str, np.ndarray]
    travelled: np.ndarray
    error: np.ndarray
    spread: np.ndarray
    sharpness: np.ndarray


def figure_sgd(conditions: Conditions) -> Drawing:
    """How far the mean of reshuffled SGD drifts from each flow, at two learning rates."""
    ((cell, result),) = computed("igr-sgd", conditions).results.items()
    seen = {h: _seen(cell, result, i) for i, h in enumerate(cell.learning_rates)}

    picture = style.picture(style.PAGE, 2.7)
    panels = picture.subplots(1, len(seen), sharex=True, sharey=True)
    for axes, (h, at) in zip(panels, seen.items(), strict=True):
        after = slice(1, None)  # at the start every distance is 0
        axes.plot(at.time[after], at.travelled[after], color=style.GREY, linestyle=":",
                  label="their start")  # fmt: skip
        for name, look in _LOOKS.items():
            axes.plot(at.time[after], at.distance[name][after], **look, label=_SAYS[name])
        axes.fill_between(at.time[after], 1e-9, at.error[after], color=style.GREY, alpha=0.3,
                          linewidth=0, label="standard error of the mean")  # fmt: skip
        axes.set(yscale="log", xlabel="time $n h$", xlim=(0, at.time[-1]))
        axes.set_title(
            f"$h = {h:g}$, {at.epoch[-1]} epochs of {cell.batches} steps\n"
            f"$m h \\times$ sharpness {at.sharpness.min():.2f} to {at.sharpness.max():.2f}"
        )
    lowest = min(at.error[1:].min() for at in seen.values())
    panels[0].set_ylim(lowest / 2, None)
    panels[0].set_ylabel(f"distance of the mean\nof {cell.runs} runs from")
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=3)

    table = pd.concat(
        pd.DataFrame(
            {
                "h": h,
                "epoch": at.epoch,
                "time": at.time,
                "travelled": at.travelled,
                "standard error of the mean": at.error,
                "spread of a run": at.spread,
                "m h sharpness": at.sharpness,
            }
            | {f"distance to {name}": distance for name, distance in at.distance.items()}
        )
        for h, at in seen.items()
    )
    claims = [claim for h, at in seen.items() for claim in _claims(h, at)]
    return Drawing(picture, table, tuple(claims))


def _seen(cell: Any, result: Any, i: int) -> Seen:
    """What the study found at the learning rate of index i."""
    epoch_time = cell.batches * cell.learning_rates[i]
    return Seen(
        time=result["time"],
        epoch=np.round(result["time"] / epoch_time).astype(int),
        distance=dict(zip(_LOOKS, result["distance"][i], strict=True)),
        travelled=result["travelled"][i],
        error=result["error"][i],
        spread=result["spread"][i],
        sharpness=epoch_time * result["sharpness"][i],
    )


def _claims(h: float, at: Seen) -> list[Claim]:
    """Each flow against the one below, and all of it against what chance can do."""
    claims = []
    steps = (
        ("gradient flow", "SGD's loss", "the modified loss of SGD than to the gradient flow"),
        ("GD's loss", "SGD's loss", "the modified loss of SGD than to that of gradient descent"),
        ("SGD's loss", "SGD, order 2", "the equation of order 2 than to the modified loss of SGD"),
    )
    for below, above, says in steps:
        far, near = at.distance[below][1:], at.distance[above][1:]
        claims.append(
            Claim(
                f"at h = {h:g} the mean of reshuffled SGD is closer to {says}",
                f"{far[-1] / near[-1]:.1f} times closer at the end ({near[-1]:.2e} against "
                f"{far[-1]:.2e}), at least {(far / near).min():.1f} times at every record",
                bool(np.all(near < far)),
                otherwise="Where m h times the sharpness is large the next order need not help.",
            )
        )
    share = (at.error / np.maximum(at.distance["SGD's loss"], np.finfo(float).tiny))[1:]
    claims.append(
        Claim(
            f"at h = {h:g} chance does not decide this: the standard error of the mean is below "
            "a third of its distance to SGD's flow",
            f"at most {share.max():.2f} of it; a single run is {at.spread[-1]:.2e} off at the end",
            bool(share.max() < 1 / 3),
            otherwise="More runs would lower it.",
        )
    )
    return claims


_SAYS = {
    "gradient flow": "the gradient flow",
    "GD's loss": "the flow of GD's $E + \\frac{h}{4}|\\nabla E|^2$",
    "SGD's loss": "the flow of SGD's $E + \\frac{h}{4}\\langle|\\nabla E_k|^2\\rangle$",
    "SGD, order 2": "the flow of SGD's equation of order 2",
}
_LOOKS = {
    "gradient flow": {"color": style.GREEN, "linestyle": "--"},
    "GD's loss": {"color": style.ORANGE, "linestyle": (0, (3, 1, 1, 1))},
    "SGD's loss": {"color": style.RED, "linestyle": "-"},
    "SGD, order 2": {"color": style.BLUE, "linestyle": "-."},
}
