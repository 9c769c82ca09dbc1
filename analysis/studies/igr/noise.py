"""Trained MLPs whose parameters are perturbed, by learning rate (Figures 3a, 3b)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PRNGKeyArray, PyTree

from analysis.data import Classification, TrainTest
from analysis.models import MLP
from analysis.scale import Scale
from analysis.studies.images import Images, images
from analysis.studies.optimizers import sgd
from analysis.sweep import Study
from analysis.training import At, MaxTestAccuracy, Options, Runs, Steps, train
from igr.diagnostics import accuracy, loss_surface_slope, noise_robustness

LEVELS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 2.0, 3.0)  # up to 300 %, as in the paper


@dataclass(frozen=True)
class Cell:
    """Networks trained at some rates, and how they are perturbed.

    Attributes:
        data: What is learned.
        learning_rates: The rates h.
        seeds: Of weights and batches.
        width: Units of each hidden layer.
        depth: Hidden layers.
        steps: Steps of SGD.
        samples: How often the test accuracy is taken.
        batch_size: Examples a step.
        levels: Standard deviations sigma of the noise, parameters being multiplied by 1 + sigma
            eps.
        draws: Of the noise, at each level.
        examples: How many training examples, the first ones, loss and slope are taken over.
        matched: The training loss at which all networks are perturbed once more.
    """

    data: Images
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    width: int = 400
    depth: int = 5
    steps: int = 100_000
    samples: int = 100
    batch_size: int = 32
    levels: tuple[float, ...] = LEVELS
    draws: int = 100
    examples: int = 5000
    matched: float = 0.05


def study(scale: Scale) -> Study:
    """The rates of Barrett and Dherin (2021), section 6 and figure 3, as far as the scale goes.

    Args:
        scale: "quick": digits, 100 units a layer, five rates, 20 draws. "medium":
            10,000 of MNIST, the paper's 400 units, three rates, 3 draws, 1,000 examples for the
            slope. "full": seven rates and all examples.
    """
    rates = (0.5, 0.1, 0.05, 0.01, 0.005, 0.001, 0.0005)
    cells = {
        "quick": [
            Cell(
                "digits", (0.2, 0.1, 0.05, 0.02, 0.01), width=100, steps=4000, samples=40, draws=20
            )
        ],
        "medium": [
            Cell("10,000 of mnist", (rate,), steps=8000, samples=32, draws=3, examples=1000)
            for rate in (0.2, 0.1, 0.05)  # at 0.5 so few steps do not fit all
        ],
        "full": [
            Cell("mnist", (rate,), (0, 1, 2, 3, 4), steps=250_000, samples=250, examples=60_000)
            for rate in rates
        ],
    }[scale]
    return Study("igr-noise", run, tuple(cells))


def run(cell: Cell) -> Mapping[str, Any]:
    """Loss, slope and test accuracy of each network under noise.

    Once at its maximum test accuracy, and once where its training loss is nearest to the same for
    all: what is flatter at a smaller loss may be so for that alone. The draws of the noise are
    those of the seed: at all rates, levels and both times the same.

    Returns:
        `loss`, `slope` and `accuracy` with the axes rate, seed, level, draw, and the same at the
        matched loss, `matched_loss` and so on, with the step that was, `matched_step`: NaN for runs
        that never fall to that loss, or never classify all training examples rightly. Beside them
        what `Runs.arrays` has, the rates, the levels, and where the data are from.
    """
    data = images(cell.data)
    runs = _trained(cell, data, cell.learning_rates, cell.seeds, MaxTestAccuracy(cell.steps))
    train_x, train_y = jnp.asarray(data.train.x), jnp.asarray(data.train.y)
    sets = (train_x[: cell.examples], train_y[: cell.examples])
    tests = (jnp.asarray(data.test.x), jnp.asarray(data.test.y))
    shape = (len(cell.learning_rates), len(cell.seeds))
    under_noise = (*shape, len(cell.levels), cell.draws)
    measures = [f"{when}{name}" for when in ("", "matched_") for name in _MEASURES]
    found = {name: np.full(under_noise, np.nan) for name in measures}
    matched_step = np.full(shape, np.nan)
    for i, j in np.ndindex(shape):
        networks = {"": runs.model_of(i, j)}
        at_loss = _at_matched_loss(cell, data, runs, i, j)
        if at_loss is not None:
            networks["matched_"], matched_step[i, j] = at_loss
        for when, network in networks.items():
            key = jax.random.key(cell.seeds[j])
            values = _perturbed(network, sets, tests, cell.levels, cell.draws, key)
            for name in _MEASURES:
                found[f"{when}{name}"][i, j] = values[name]
    return {
        **runs.arrays(),
        **found,
        "matched_step": matched_step,
        "learning_rates": np.array(cell.learning_rates),
        "levels": np.array(cell.levels),
        "source": runs.source,
    }


_MEASURES = ("loss", "slope", "accuracy")


def _trained(
    cell: Cell,
    data: TrainTest[Classification],
    rates: tuple[float, ...],
    seeds: tuple[int, ...],
    stop: Steps | MaxTestAccuracy,
    samples: int | list[int] | None = None,
    metrics: Mapping[str, Any] | None = None,
) -> Runs:
    sizes = data.train.x[0].size, data.train.num_classes
    return train(
        lambda key: MLP(*sizes, cell.width, cell.depth, key=key),
        sgd,
        data,
        grid={"learning_rate": rates},
        seeds=seeds,
        stop=stop,
        options=Options(
            batch_size=cell.batch_size,
            samples=cell.samples if samples is None else samples,
            metrics=metrics,
        ),
    )


def _at_matched_loss(
    cell: Cell, data: TrainTest[Classification], runs: Runs, i: int, j: int
) -> tuple[Any, int] | None:
    """One run's network where its loss is nearest to the matched one, and the step that is.

    The run is done once more, up to the sample that is the first below, and looked at closely from
    the sample before on. Nearest, above or below, and one of the run's own steps: the first below
    would be a dip where steps are large, and the mean of two flatter than both.
    """
    after = int(runs.first_below("train_loss", cell.matched)[i, j])
    if after < 1 or not (runs["train_accuracy"][i, j] == 1).any():
        return None
    start, end = (int(step) for step in runs.step[i][[after - 1, after]])
    close = np.unique(np.linspace(start, end, _CLOSE + 1).astype(int)).tolist()
    rate, seed = cell.learning_rates[i], cell.seeds[j]
    again = _trained(cell, data, (rate,), (seed,), Steps(end), close, {"params": _flat})
    best = int(np.argmin(np.abs(np.log(again["train_loss"][0, 0] / cell.matched))))
    last, rest = eqx.partition(again.model_of(0, 0), eqx.is_inexact_array)
    params = ravel_pytree(last)[1](jnp.asarray(again["params"][0, 0, best]))
    return eqx.combine(params, rest), int(again.step[0, best])


_CLOSE = 50  # looks between two samples


def _flat(at: At) -> Array:
    return ravel_pytree(at.params)[0]


@eqx.filter_jit
def _perturbed(
    model: Any,
    sets: tuple[Array, Array],
    tests: tuple[Array, Array],
    levels: tuple[float, ...],
    draws: int,
    key: PRNGKeyArray,
) -> dict[str, Array]:
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def apply_fn(params: PyTree, x: Array) -> Array:
        return eqx.combine(params, static)(x)

    def value_fn(params: PyTree) -> Array:
        outputs = jax.vmap(apply_fn, (None, 0))(params, sets[0])
        return optax.softmax_cross_entropy_with_integer_labels(outputs, sets[1]).mean()

    def measure(params: PyTree) -> dict[str, Array]:
        return {
            "loss": value_fn(params),
            "slope": loss_surface_slope(value_fn, params),
            "accuracy": accuracy(apply_fn, params, *tests),
        }

    # All examples are enough work for a device: one draw at a time.
    return noise_robustness(measure, params, levels, draws=draws, chunk=1, key=key).values
