"""Trained MLPs whose parameters are perturbed, by learning rate (Figures 3a, 3b)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray, PyTree

from analysis.data import Classification, TrainTest, digits, mnist, split
from analysis.models import MLP
from analysis.scale import Scale
from analysis.sweep import Study
from analysis.training import MaxTestAccuracy, train
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
    """

    data: Literal["digits", "mnist"]
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


def study(scale: Scale) -> Study:
    """The rates of Barrett and Dherin (2021), section 6 and figure 3, as far as the scale goes.

    Args:
        scale: "quick": digits, 100 units a layer, five rates, 20 draws. "medium": MNIST, the
            paper's 400 units, four rates, 5,000 examples for the slope. "full": seven rates and all
            examples.
    """
    rates = (0.5, 0.1, 0.05, 0.01, 0.005, 0.001, 0.0005)
    cells = {
        "quick": [
            Cell(
                "digits", (0.2, 0.1, 0.05, 0.02, 0.01), width=100, steps=4000, samples=40, draws=20
            )
        ],
        "medium": [Cell("mnist", (rate,)) for rate in rates[:4]],
        "full": [
            Cell("mnist", (rate,), (0, 1, 2, 3, 4), steps=250_000, samples=250, examples=60_000)
            for rate in rates
        ],
    }[scale]
    return Study("igr-noise", run, tuple(cells))


def run(cell: Cell) -> Mapping[str, Any]:
    """Loss, slope and test accuracy of each network under noise, at its maximum test accuracy.

    The draws of the noise are those of the seed: at all rates and levels the same.

    Returns:
        `loss`, `slope` and `accuracy` with the axes rate, seed, level, draw. Beside them what
        `Runs.arrays` has, the rates, the levels, and where the data are from.
    """
    data = _data(cell.data)
    runs = train(
        lambda key: MLP(
            data.train.x[0].size, data.train.num_classes, cell.width, cell.depth, key=key
        ),
        lambda settings: optax.sgd(settings["learning_rate"]),
        data,
        grid={"learning_rate": cell.learning_rates},
        seeds=cell.seeds,
        stop=MaxTestAccuracy(cell.steps),
        batch_size=cell.batch_size,
        samples=cell.samples,
    )
    train_x, train_y = jnp.asarray(data.train.x), jnp.asarray(data.train.y)
    sets = (train_x[: cell.examples], train_y[: cell.examples])
    tests = (jnp.asarray(data.test.x), jnp.asarray(data.test.y))
    found = [
        [
            _perturbed(
                runs.model_of(i, j), sets, tests, cell.levels, cell.draws, jax.random.key(seed)
            )
            for j, seed in enumerate(cell.seeds)
        ]
        for i in range(len(cell.learning_rates))
    ]
    stacked = {
        name: np.stack([np.stack([np.asarray(one[name]) for one in row]) for row in found])
        for name in ("loss", "slope", "accuracy")
    }
    return {
        **runs.arrays(),
        **stacked,
        "learning_rates": np.array(cell.learning_rates),
        "levels": np.array(cell.levels),
        "source": runs.source,
    }


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


def _data(name: str) -> TrainTest[Classification]:
    if name == "mnist":
        return mnist()
    return split(digits(), 597, seed=0, source="scikit-learn's digits, a third to test on")
