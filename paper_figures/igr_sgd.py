"""Ours: the mean of many reshuffled runs of SGD, and the flows that it may follow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Array, Float, Int, PyTree

import igr
from analysis.data import Classification, digits
from igr.flows import run_epochs
from igr.flows.vector_field import Field
from paper_figures import style
from paper_figures.figure import Claim, Drawing
from paper_figures.igr_follow import tanh_network

EXAMPLES = 320
BATCHES = 16
LEARNING_RATES = (0.02, 0.04)
RECORDS = 30
EPOCHS_BETWEEN = (2, 1)  # so that the flows are recorded at the same times
TIME = RECORDS * BATCHES * 0.04
RUNS = 1024
_TOLERANCE = 1e-7  # far below the distances drawn
_TOGETHER = 32  # pairs of runs that are vectorised


class Seen(NamedTuple):
    """Distances at the ends of epochs, from the mean of the runs.

    Attributes:
        time: Of the equation, m h an epoch.
        distance: To each flow, by its name.
        travelled: Of the mean from its start.
        error: The standard error of the mean.
        spread: The distance of a single run, in the root mean square.
        sharpness: The largest eigenvalue of the Hessian of the whole loss, along the mean.
    """

    time: np.ndarray
    distance: dict[str, np.ndarray]
    travelled: np.ndarray
    error: np.ndarray
    spread: np.ndarray
    sharpness: np.ndarray


@jax.enable_x64(True)
def figure_sgd() -> Drawing:
    """How far the mean of reshuffled SGD drifts from each flow, at two learning rates."""
    seen = follow(LEARNING_RATES, EPOCHS_BETWEEN)

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
        axes.set(yscale="log", xlabel="time $n h$", xlim=(0, TIME))
        axes.set_title(
            f"$h = {h:g}$, {TIME / (BATCHES * h):.0f} epochs of {BATCHES} steps\n"
            f"$m h \\times$ sharpness {BATCHES * h * at.sharpness.min():.2f} to "
            f"{BATCHES * h * at.sharpness.max():.2f}"
        )
    lowest = min(at.error[1:].min() for at in seen.values())
    panels[0].set_ylim(lowest / 2, None)
    panels[0].set_ylabel(f"distance of the mean\nof {RUNS} runs from")
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=3)

    table = pd.concat(
        pd.DataFrame(
            {
                "h": h,
                "epoch": np.round(at.time / (BATCHES * h)).astype(int),
                "time": at.time,
                "travelled": at.travelled,
                "standard error of the mean": at.error,
                "spread of a run": at.spread,
                "m h sharpness": BATCHES * h * at.sharpness,
            }
            | {f"distance to {name}": distance for name, distance in at.distance.items()}
        )
        for h, at in seen.items()
    )
    claims = [claim for h, at in seen.items() for claim in _claims(h, at)]
    return Drawing(picture, table, tuple(claims))


def follow(
    learning_rates: Sequence[float],
    epochs_between: Sequence[int],
    records: int = RECORDS,
    examples: int = EXAMPLES,
    batches: int = BATCHES,
    runs: int = RUNS,
) -> dict[float, Seen]:
    """Runs reshuffled SGD many times and lays the mean beside the flows.

    Args:
        learning_rates: The learning rates h.
        epochs_between: How many epochs there are between two records, for each learning rate; the
            time between two must be the same for all.
        records: How many records there are after the start.
        examples: How many digits, from the first on.
        batches: Into how many batches they are split, each of as many.
        runs: How many runs, an even number: each is paired with one that takes every epoch in the
            opposite order, so that the leading effect of the orders cancels in the mean.

    Returns:
        The distances, by learning rate.
    """
    data = digits()
    params = tanh_network(data, jax.random.key(0))
    split = in_batches(data, examples, batches)
    times = batches * learning_rates[0] * epochs_between[0] * jnp.arange(records + 1)

    def along(name: str) -> PyTree:
        """One flow at all learning rates, compiled once."""

        def at(h: Array) -> PyTree:
            return igr.flow(
                _field(name, h, split, batches), params, times[-1], ts=times,
                rtol=_TOLERANCE, solver=diffrax.Tsit5(),
            ).ys  # fmt: skip

        return jax.jit(lambda hs: jax.lax.map(at, hs))(jnp.array(learning_rates))

    flows = {name: along(name) for name in _LOOKS}
    found = {}
    for i, (h, between) in enumerate(zip(learning_rates, epochs_between, strict=True)):
        orders = opposite_pairs(jax.random.key(1), runs // 2, records * between, batches)
        mean, error, spread = jax.tree.map(
            lambda x, between=between: x[::between], mean_and_errors(h, params, split, orders)
        )
        found[h] = Seen(
            time=np.array(times),
            distance={
                name: _distance(jax.tree.map(lambda x, i=i: x[i], flow), mean)
                for name, flow in flows.items()
            },
            travelled=_distance(jax.tree.map(lambda x: x[:1], mean), mean),
            error=np.array(error),
            spread=np.array(spread),
            sharpness=sharpness_along(split, mean),
        )
    return found


def in_batches(data: Classification, examples: int, batches: int) -> tuple[Array, Array]:
    """The first examples, with a leading axis of batches: inputs and classes."""
    size = examples // batches
    x, y = data.x[: size * batches], data.y[: size * batches]
    return jnp.asarray(x).reshape(batches, size, -1), jnp.asarray(y).reshape(batches, size)


def batch_loss(params: PyTree, batch: tuple[Array, Array]) -> Float[Array, ""]:
    """The mean cross entropy of the network over a batch."""
    x, y = batch
    hidden, output = params["hidden"], params["output"]
    logits = jnp.tanh(x @ hidden["weights"] + hidden["bias"]) @ output["weights"] + output["bias"]
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def opposite_pairs(
    key: Array, pairs: int, epochs: int, batches: int
) -> Int[Array, "pairs 2 epochs m"]:
    """Random orders, and beside each run's the same with every epoch taken backwards."""
    keys = jax.random.split(key, (pairs, epochs))
    draw = jax.vmap(jax.vmap(lambda key: jax.random.permutation(key, batches)))
    orders = draw(keys)
    return jnp.stack([orders, orders[..., ::-1]], axis=1)


@jax.jit
def mean_and_errors(
    h: float, params: PyTree, split: tuple[Array, Array], orders: Int[Array, "pairs 2 epochs m"]
) -> tuple[PyTree, Array, Array]:
    """The mean of all runs after each epoch, its standard error, and the spread of a run.

    Some pairs at a time are added to sums of what is apart from a run in the first order, so that
    memory does not grow with the runs.
    """

    def run(order: Int[Array, "epochs m"]) -> PyTree:
        return run_epochs(optax.sgd(h), batch_loss, params, split, order)

    reference = run(orders[0, 0])
    pairs = orders.shape[0]
    together = math.gcd(pairs, _TOGETHER)

    def add(sums: tuple[PyTree, Array, Array], some: Int[Array, "some 2 epochs m"]):
        apart = jax.tree.map(jnp.subtract, jax.vmap(jax.vmap(run))(some), reference)
        of_pair = jax.tree.map(lambda x: x.mean(axis=1), apart)
        total, of_pairs, of_runs = sums
        total = jax.tree.map(lambda x, y: x + y.sum(axis=0), total, of_pair)
        of_pairs = of_pairs + _squares(of_pair, 2).sum(axis=0)
        of_runs = of_runs + _squares(apart, 3).mean(axis=1).sum(axis=0)
        return (total, of_pairs, of_runs), None

    nothing = jax.tree.map(jnp.zeros_like, reference)
    zeros = jnp.zeros(orders.shape[2] + 1)
    (total, of_pairs, of_runs), _ = jax.lax.scan(
        add, (nothing, zeros, zeros), orders.reshape(-1, together, *orders.shape[1:])
    )
    apart = jax.tree.map(lambda x: x / pairs, total)
    square = _squares(apart, 1)
    mean = jax.tree.map(jnp.add, reference, apart)
    error = jnp.sqrt(jnp.maximum(of_pairs / pairs - square, 0) / (pairs - 1))
    return mean, error, jnp.sqrt(jnp.maximum(of_runs / pairs - square, 0))


def sharpness_along(split: tuple[Array, Array], visited: PyTree) -> Float[np.ndarray, " records"]:
    """The largest eigenvalue of the Hessian of the mean loss, each search begun at the last."""

    def at(vector: PyTree, params: PyTree) -> tuple[PyTree, Array]:
        loss = lambda p: jax.vmap(lambda *b: batch_loss(p, b))(*split).mean()  # noqa: E731
        found = igr.curvature.sharpness(loss, params, initial=vector, tol=1e-2)
        return found.vector, found.value

    @jax.jit
    def along(visited: PyTree) -> Array:
        first = jax.tree.map(lambda x: x[0], visited)
        return jax.lax.scan(at, jax.tree.map(jnp.ones_like, first), visited)[1]

    return np.array(along(visited))


def _field(name: str, h: Array, split: tuple[Array, Array], batches: int) -> Field:
    inputs, classes = (part.reshape(-1, *part.shape[2:]) for part in split)

    def whole(params: PyTree) -> Array:
        return batch_loss(params, (inputs, classes))

    gd, sgd = igr.methods.gradient_descent(), igr.methods.reshuffled_sgd(batches)
    if name in ("gradient flow", "GD's loss"):
        order = 0 if name == "gradient flow" else 1
        return igr.vector_field(igr.modified_equation(gd, order), whole, h)
    order = 1 if name == "SGD's loss" else 2
    return igr.vector_field(igr.modified_equation(sgd, order), batch_loss, h, split)


def _squares(apart: PyTree, leading: int) -> Array:
    """The squared norm over all leaves, their leading axes kept."""
    leaves = jax.tree.leaves(apart)
    return jnp.stack(
        [jnp.sum(x**2, axis=tuple(range(leading, x.ndim))) for x in leaves]
    ).sum(axis=0)  # fmt: skip


def _distance(a: PyTree, b: PyTree) -> np.ndarray:
    return np.sqrt(np.array(_squares(jax.tree.map(jnp.subtract, a, b), 1)))


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
