"""An MLP on two noisy circles with every regularizer, and its tangent kernel (MGS, Figure 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from analysis.data import Classification, TrainTest, two_circles
from analysis.models import MLP
from analysis.scale import Scale
from analysis.studies.optimizers import sgd
from analysis.sweep import Study
from analysis.training import At, Options, Runs, Steps, train
from igr.diagnostics import tangent_kernel_trace
from igr.penalties import (
    gradient_similarity_logdet,
    gradient_similarity_trace,
    loss_gradient_penalty,
    weight_penalty,
)

Method = Literal[
    "none",
    "weight",
    "dropout",
    "loss gradient, inputs",
    "loss gradient, parameters",
    "MGS trace",
    "MGS determinant",
]

# What is tried of each, ours: the paper prints none. Of dropout it is the rate.
FACTORS: dict[Method, tuple[float, ...]] = {
    "none": (0.0,),
    "weight": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "dropout": (0.1, 0.3, 0.5, 0.7, 0.8, 0.9),
    "loss gradient, inputs": (1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0),
    "loss gradient, parameters": (1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0),
    "MGS trace": (1e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
    "MGS determinant": (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}
# On the kernel's diagonal, in the penalty and in the metric. At the start all biases are zero and
# the kernel is singular; and a singular one is what the penalty alone ends at, at minus infinity.
RIDGE = 0.01
_TUNING = 1000  # what is added to a seed for the points that factors are chosen on
_EXTENT = 1.5  # the grid's square reaches this far from the centre


@dataclass(frozen=True)
class Cell:
    """One regularizer: its factor is chosen on some sets of points and shown on others.

    Attributes:
        method: One of `FACTORS`.
        factors: What to choose from.
        seeds: Of points, networks and batches, with the factor chosen.
        tuning_seeds: Of those on which it is chosen; the same numbers mean other points.
        points: To train on, half on each circle.
        noise: The standard deviation of each coordinate.
        inner: The radius of the inner circle; the outer one's is 1.
        steps: Of SGD.
        learning_rate: Its rate.
        batch_size: Examples a step, over which penalties are taken.
        width: Units of each hidden layer.
        depth: Hidden layers.
        samples: How often the metrics are taken.
        side: Points along each side of the grid that shows the decision boundary.
    """

    method: Method
    factors: tuple[float, ...]
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7)
    tuning_seeds: tuple[int, ...] = (0, 1, 2)
    points: int = 100
    noise: float = 0.2
    inner: float = 0.5
    steps: int = 4000
    learning_rate: float = 0.1
    batch_size: int = 20
    width: int = 50
    depth: int = 3
    samples: int = 40
    side: int = 81


def study(scale: Scale) -> Study:
    """Two circles as in Szolnoky et al. (2022), section 4; network, sizes and factors are ours.

    Args:
        scale: "quick": 4,000 steps, 24 seeds. "medium": 20,000 steps and 20 seeds. "full": the
            same on the network that the paper has for MNIST, six layers of 300.
    """
    more: dict[str, Any] = {
        "steps": 20_000,
        "seeds": tuple(range(20)),
        "tuning_seeds": tuple(range(5)),
        "samples": 100,
    }
    given = {
        "quick": {"seeds": tuple(range(24))},
        "medium": more,
        "full": more | {"width": 300, "depth": 6},
    }[scale]
    cells = tuple(Cell(method, FACTORS[method], **given) for method in get_args(Method))
    return Study("mgs-two-circles", run, cells)


def run(cell: Cell) -> Mapping[str, Any]:
    """The factor with the least test loss on points of their own, and what it does on others.

    Returns:
        What `Runs.arrays` has for the factor chosen, with axes seed, sample, and among it `trace`
        and `logdet` of the tangent kernel of all training points, the latter with `RIDGE`. Beside
        it `factor`; `tried` and `tuning_loss`, the mean of the final test losses of each factor,
        infinite where training diverged; `grid`, both coordinates of a square's points along a
        side; `margin`, the logit of class 1 (inside) less that of class 0 there (seed, y, x); and
        `train_x`, `train_y`.
    """
    # LAPACK's threads wait for each other a hundred times as long as a kernel of a batch takes one.
    # In float32 the rounding of the kernel of all points exceeds the ridge.
    with threadpool_limits(1, user_api="blas"), jax.enable_x64(True):
        losses = np.mean([_tuning_losses(cell, seed) for seed in cell.tuning_seeds], axis=0)
        losses = np.where(np.isfinite(losses), losses, np.inf)
        factor = cell.factors[int(np.argmin(losses))]
        data = [_points(cell, seed) for seed in cell.seeds]
        runs = [
            _train(cell, (factor,), points, seed, measured=True)
            for seed, points in zip(cell.seeds, data, strict=True)
        ]
        grid = np.linspace(-_EXTENT, _EXTENT, cell.side)
        margin = np.stack([_margin(one.model_of(0, 0, 0), grid) for one in runs])
    arrays = [one.arrays() for one in runs]
    return {
        **{name: np.stack([a[name][0, 0, 0] for a in arrays]) for name in runs[0].metrics},
        "step": arrays[0]["step"][0, 0],
        "factor": factor,
        "tried": np.array(cell.factors),
        "tuning_loss": losses,
        "grid": grid,
        "margin": margin.astype(np.float32),
        "train_x": np.stack([points.train.x for points in data]),
        "train_y": np.stack([points.train.y for points in data]),
        "source": runs[0].source,
    }


def _points(cell: Cell, seed: int) -> TrainTest[Classification]:
    return two_circles(seed, train=cell.points, noise=cell.noise, factor=cell.inner)


def _tuning_losses(cell: Cell, seed: int) -> np.ndarray:
    """The test loss of each factor at the end, which is what the paper chooses by (D.1)."""
    data = _points(cell, _TUNING + seed)
    # A rate of dropout is part of the network: one at a time.
    together = [(f,) for f in cell.factors] if cell.method == "dropout" else [cell.factors]
    runs = [_train(cell, factors, data, _TUNING + seed, measured=False) for factors in together]
    return np.concatenate([one["test_loss"][0, :, 0, -1] for one in runs])


def _train(
    cell: Cell,
    factors: tuple[float, ...],
    data: TrainTest[Classification],
    seed: int,
    measured: bool,
) -> Runs:
    """Every factor side by side."""
    return train(
        _network(cell.width, cell.depth, factors[0] if cell.method == "dropout" else 0.0),
        sgd,
        data,
        grid={"learning_rate": (cell.learning_rate,), "factor": factors},
        seeds=(seed,),
        stop=Steps(cell.steps),
        options=Options(
            batch_size=cell.batch_size,
            samples=cell.samples if measured else 1,
            penalty=_PENALTIES.get(cell.method),
            metrics={"trace": _trace, "logdet": _logdet} if measured else {},
        ),
    )


@cache  # the same function for the same network: its runs share the compiled program
def _network(width: int, depth: int, dropout: float) -> Callable[..., MLP]:
    return lambda key: MLP(2, 2, width, depth, dropout=dropout, key=key)


def _margin(model: MLP, grid: np.ndarray) -> np.ndarray:
    x, y = np.meshgrid(grid, grid)
    outputs = _outputs(model, np.stack([x.ravel(), y.ravel()], axis=-1))
    return np.asarray(outputs[:, 1] - outputs[:, 0]).reshape(len(grid), len(grid))


@eqx.filter_jit
def _outputs(model: MLP, x: np.ndarray) -> jax.Array:
    return jax.vmap(model)(jnp.asarray(x))


def _weight(at: At) -> jax.Array:
    return at.settings["factor"] * weight_penalty(at.params)


def _by_inputs(at: At) -> jax.Array:
    penalty = loss_gradient_penalty(at.example_loss_fn, at.params, at.x, at.y, by="inputs")
    return at.settings["factor"] * penalty


def _by_parameters(at: At) -> jax.Array:
    penalty = loss_gradient_penalty(at.example_loss_fn, at.params, at.x, at.y)
    return at.settings["factor"] * penalty


def _mgs_trace(at: At) -> jax.Array:
    return at.settings["factor"] * gradient_similarity_trace(at.apply_fn, at.params, at.x)


def _mgs_determinant(at: At) -> jax.Array:
    penalty = gradient_similarity_logdet(at.apply_fn, at.params, at.x, ridge=RIDGE)
    return at.settings["factor"] * penalty


_PENALTIES: dict[Method, Callable[[At], jax.Array]] = {
    "weight": _weight,
    "loss gradient, inputs": _by_inputs,
    "loss gradient, parameters": _by_parameters,
    "MGS trace": _mgs_trace,
    "MGS determinant": _mgs_determinant,
}


def _trace(at: At) -> jax.Array:
    return tangent_kernel_trace(at.apply_fn, at.params, at.x)


def _logdet(at: At) -> jax.Array:
    return gradient_similarity_logdet(at.apply_fn, at.params, at.x, ridge=RIDGE)
