"""Section 5.1 of "Appealing to gradients": five examples in six dimensions, real and random."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Array, Float

import igr
from analysis.data import Regression, real_or_random
from igr.diagnostics import coherence
from igr.per_example import per_example_gradients
from paper_figures import style
from paper_figures.figure import Claim, Drawing

LEARNING_RATE = 0.1  # ours, as are the start at 0 and the number of steps: the text has none
STEPS = 200
SHARED = 5  # the index of the sixth coordinate
KINDS: tuple[Literal["real", "random"], ...] = ("real", "random")
Weights = Float[Array, "6"]


@dataclass(frozen=True)
class Descent:
    """Gradient descent on one of the two sets, from 0.

    Attributes:
        gradients: Those of the training examples at the start.
        weights: After every step.
        train: The training loss after every step.
        test: The loss of the test example after every step.
        helped: alpha_m over its orthogonal limit 1/m, after every step.
    """

    gradients: Float[np.ndarray, "4 6"]
    weights: Float[np.ndarray, "steps 6"]
    train: Float[np.ndarray, " steps"]
    test: Float[np.ndarray, " steps"]
    helped: Float[np.ndarray, " steps"]


@jax.enable_x64(True)
def figure_5_1() -> Drawing:
    """The average gradient, the weights it leads to, and what they are worth on the test."""
    runs: dict[str, Descent] = {kind: descend(kind) for kind in KINDS}
    picture = style.picture(style.PAGE, 2.6)
    gradient, weights, losses = picture.subplots(1, 3)
    coordinates = np.arange(1, 7)
    step = np.arange(STEPS + 1)
    for place, (kind, run) in zip((-0.2, 0.2), runs.items(), strict=True):
        look = _LOOKS[kind]
        gradient.bar(coordinates + place, run.gradients.mean(axis=0), 0.38, color=look["color"],
                     hatch=_HATCHES[kind], edgecolor="white", label=f"{kind} data")  # fmt: skip
        weights.plot(step, run.weights[:, SHARED], **look, label=f"$w_6$, {kind}")
        weights.plot(step, run.weights[:, 0], **look | {"linewidth": 0.8}, alpha=0.7,
                     label=f"$w_1 = \\dots = w_4$, {kind}")  # fmt: skip
        losses.plot(step, run.test, **look, label=f"test, {kind}")
        losses.plot(step, run.train, **look | {"linewidth": 0.8}, alpha=0.7,
                    label=f"training, {kind}")  # fmt: skip
    gradient.axhline(0, color=style.BLACK, linewidth=0.6)
    gradient.set(xlabel="coordinate", xticks=coordinates, ylabel="mean gradient at $w = 0$")
    gradient.legend(loc="lower left")
    weights.set(xlabel=f"steps, $h = {LEARNING_RATE:g}$", ylabel="weight", ylim=(-0.03, 1.55))
    weights.legend(loc="upper left", handlelength=1.6)
    losses.set(xlabel=f"steps, $h = {LEARNING_RATE:g}$", ylabel="loss", ylim=(-0.02, 0.85))
    losses.legend(loc="upper right", handlelength=1.6)
    table = pd.concat(
        pd.DataFrame(
            {"data": kind, "step": step}
            | {f"w{i + 1}": run.weights[:, i] for i in range(6)}
            | {"train loss": run.train, "test loss": run.test, "alpha_m / orthogonal": run.helped}
        )
        for kind, run in runs.items()
    )
    return Drawing(picture, table, claims(runs))


def descend(kind: Literal["real", "random"]) -> Descent:
    """Gradient descent on the mean loss of the four training examples.

    Args:
        kind: Which set.
    """
    data = real_or_random(kind)
    batch, test = _arrays(data.train), _arrays(data.test)

    def mean_loss(w: Weights, examples: tuple[Array, Array]) -> Float[Array, ""]:
        return jnp.mean(jax.vmap(example_loss, (None, 0))(w, examples))

    start = jnp.zeros(6)
    run = igr.run(optax.sgd(LEARNING_RATE), lambda w: mean_loss(w, batch), start, STEPS)
    path = run.params
    helped = jax.lax.map(lambda w: coherence(example_loss, w, batch).helped, path)
    tested = jax.vmap(lambda w: mean_loss(w, test))(path)
    gradients = per_example_gradients(example_loss, start, batch)
    return Descent(*(np.asarray(v) for v in (gradients, path, run.value, tested, helped)))


def example_loss(w: Weights, example: tuple[Array, Array]) -> Float[Array, ""]:
    """(y - w.x)^2 / 2."""
    x, y = example
    return (y - w @ x) ** 2 / 2


def claims(runs: Mapping[str, Descent]) -> tuple[Claim, ...]:
    """What sections 5.1 and 5.2 say of the two sets."""
    real, random = runs["real"], runs["random"]
    sixth = {kind: run.gradients[:, SHARED] for kind, run in runs.items()}
    own = np.abs(real.gradients[:, :SHARED].mean(axis=0)).max()
    shared = np.abs(sixth["real"].mean())
    moved = {kind: abs(run.weights[-1, SHARED]) for kind, run in runs.items()}
    lowest, highest = random.helped.min(), random.helped.max()
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
            f"by {moved['real']:.3f} on real, {moved['random']:.3f} on random data after {STEPS} "
            "steps",
            moved["real"] > moved["random"],
            paper="section 5.1, in words",
            otherwise="The run is too short to show it.",
        ),
        Claim(
            "so the model learns the feature: the test loss falls on the real data, and does not "
            "on the random",
            f"from {real.test[0]:.2f} to {real.test[-1]:.3f} on real, from {random.test[0]:.2f} to "
            f"{random.test[-1]:.2f} on random data; training losses {real.train[-1]:.1e}, "
            f"{random.train[-1]:.1e}",
            bool(real.test[-1] < 0.1 * real.test[0] and random.test[-1] >= random.test[0]),
            paper="section 5.1, in words",
            otherwise="What the training examples do not share says nothing of the test example.",
        ),
        Claim(
            "the orthogonal gradients of the random data have alpha_m at its orthogonal limit: "
            "examples are fitted independently",
            f"alpha_m over the limit between {lowest:.6f} and {highest:.6f} along the run",
            bool(np.allclose(random.helped, 1)),
            paper="1 (example 5.3)",
            otherwise="Rounding, where the gradients have all but vanished.",
        ),
        Claim(
            "on the real data an example helps to fit others too",
            f"alpha_m over the limit is {real.helped[0]:.3f} at the start: of 4 examples, each "
            f"helps {real.helped[0]:.3f}",
            bool(real.helped[0] > 1),
            paper="above 1, at most m = 4 (section 5.2)",
            otherwise="The shared coordinate weighs too little against the others.",
        ),
    )


def _arrays(data: Regression) -> tuple[Array, Array]:
    return jnp.asarray(data.x), jnp.asarray(data.y[:, 0])


def _listed(values: Float[np.ndarray, " n"]) -> str:
    return ", ".join(f"{value + 0:g}" for value in values)


_LOOKS: dict[str, dict] = {
    "real": {"color": style.BLUE, "linestyle": "-"},
    "random": {"color": style.RED, "linestyle": "--"},
}
_HATCHES = {"real": "", "random": "////"}
