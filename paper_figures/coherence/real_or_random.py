"""Section 5.1 of "Appealing to gradients": five examples in six dimensions, real and random."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.figure import Claim, Drawing

SHARED = 5  # the index of the sixth coordinate


def figure_5_1(conditions: Conditions) -> Drawing:
    """The average gradient, the weights it leads to, and what they are worth on the test."""
    swept = computed("coherence-real-or-random", conditions)
    runs = {cell.data: result.values for cell, result in swept.results.items()}
    (rate,) = {cell.learning_rate for cell in swept.results}
    picture = style.picture(style.PAGE, 2.6)
    gradient, weights, losses = picture.subplots(1, 3)
    coordinates = np.arange(1, 7)
    step = np.arange(len(runs["real"]["train"]))
    for place, (kind, run) in zip((-0.2, 0.2), runs.items(), strict=True):
        look = _LOOKS[kind]
        gradient.bar(coordinates + place, run["gradients"].mean(axis=0), 0.38, color=look["color"],
                     hatch=_HATCHES[kind], edgecolor="white", label=f"{kind} data")  # fmt: skip
        weights.plot(step, run["weights"][:, SHARED], **look, label=f"$w_6$, {kind}")
        weights.plot(step, run["weights"][:, 0], **look | {"linewidth": 0.8}, alpha=0.7,
                     label=f"$w_1 = \\dots = w_4$, {kind}")  # fmt: skip
        losses.plot(step, run["test"], **look, label=f"test, {kind}")
        losses.plot(step, run["train"], **look | {"linewidth": 0.8}, alpha=0.7,
                    label=f"training, {kind}")  # fmt: skip
    gradient.axhline(0, color=style.BLACK, linewidth=0.6)
    gradient.set(xlabel="coordinate", xticks=coordinates, ylabel="mean gradient at $w = 0$")
    gradient.legend(loc="lower left")
    weights.set(xlabel=f"steps, $h = {rate:g}$", ylabel="weight", ylim=(-0.03, 1.55))
    weights.legend(loc="upper left", handlelength=1.6)
    losses.set(xlabel=f"steps, $h = {rate:g}$", ylabel="loss", ylim=(-0.02, 0.85))
    losses.legend(loc="upper right", handlelength=1.6)
    table = pd.concat(
        pd.DataFrame(
            {"data": kind, "step": step}
            | {f"w{i + 1}": run["weights"][:, i] for i in range(6)}
            | {
                "train loss": run["train"],
                "test loss": run["test"],
                "alpha_m / orthogonal": run["helped"],
            }
        )
        for kind, run in runs.items()
    )
    return Drawing(picture, table, claims(runs))


def claims(runs: Mapping[str, Mapping[str, Any]]) -> tuple[Claim, ...]:
    """What sections 5.1 and 5.2 say of the two sets.

    Args:
        runs: What the study found, of "real" and of "random" data.
    """
    real, random = runs["real"], runs["random"]
    sixth = {kind: run["gradients"][:, SHARED] for kind, run in runs.items()}
    own = np.abs(real["gradients"][:, :SHARED].mean(axis=0)).max()
    shared = np.abs(sixth["real"].mean())
    moved = {kind: abs(run["weights"][-1, SHARED]) for kind, run in runs.items()}
    steps = len(real["train"]) - 1
    learned, guessed = real["test"], random["test"]
    helps, alone = real["helped"][0], random["helped"]
    return (
        Claim(
            "on the real data every example reinforces the 6th entry of the average gradient, on "
            "the random data none does",
            f"real: entries {_listed(sixth['real'])}, mean {shared:.3g} in size against {own:.3g} "
            f"of any other; random: {_listed(sixth['random'])}",
            bool(
                (np.sign(sixth["real"]) == np.sign(sixth["real"][0])).all()
                and shared > own
                and not sixth["random"].any()
            ),
            paper="section 5.1, in words",
            otherwise="The sixth coordinate is not the one the examples share.",
        ),
        Claim(
            "gradient descent changes the 6th weight more on the real data",
            f"by {moved['real']:.3f} on real, {moved['random']:.3f} on random data after {steps} "
            "steps",
            moved["real"] > moved["random"],
            paper="section 5.1, in words",
            otherwise="The run is too short to show it.",
        ),
        Claim(
            "so the model learns the feature: the test loss falls on the real data, and does not "
            "on the random",
            f"from {learned[0]:.2f} to {learned[-1]:.3f} on real, from {guessed[0]:.2f} to "
            f"{guessed[-1]:.2f} on random data; training losses {real['train'][-1]:.1e}, "
            f"{random['train'][-1]:.1e}",
            bool(learned[-1] < 0.1 * learned[0] and guessed[-1] >= guessed[0]),
            paper="section 5.1, in words",
            otherwise="What the training examples do not share says nothing of the test example.",
        ),
        Claim(
            "the orthogonal gradients of the random data have alpha_m at its orthogonal limit: "
            "examples are fitted independently",
            f"alpha_m over the limit between {alone.min():.6f} and {alone.max():.6f} along the run",
            bool(np.allclose(alone, 1)),
            paper="1 (example 5.3)",
            otherwise="Rounding, where the gradients have all but vanished.",
        ),
        Claim(
            "on the real data an example helps to fit others too",
            f"alpha_m over the limit is {helps:.3f} at the start: of 4 examples, each helps "
            f"{helps:.3f}",
            bool(helps > 1),
            paper="above 1, at most m = 4 (section 5.2)",
            otherwise="The shared coordinate weighs too little against the others.",
        ),
    )


def _listed(values: Float[np.ndarray, " n"]) -> str:
    return ", ".join(f"{value + 0:g}" for value in values)


_LOOKS: dict[str, dict] = {
    "real": {"color": style.BLUE, "linestyle": "-"},
    "random": {"color": style.RED, "linestyle": "--"},
}
_HATCHES = {"real": "", "random": "////"}
