"""Regularizers on blurred faces whose points are noisy (MGS, Tables 2 and A.2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal, get_args

import jax
import numpy as np
from jaxtyping import Float

from analysis.data import Regression, TrainTest, drawn_keypoints, keypoints, shift_targets, split
from analysis.data.motion_blur import SEVERITIES, blurred
from analysis.models import MLP, LeNet
from analysis.scale import Scale
from analysis.studies.mgs.label_noise import LAST, PENALTIES, Method
from analysis.studies.optimizers import sgd
from analysis.sweep import Study
from analysis.training import Options, Runs, Steps, train

Network = Literal["LeNet-5", "FCN"]
SIDE = 96  # of the photographs, in whose pixels errors are
_HALF = SIDE / 2  # networks learn (target - half) / half


@dataclass(frozen=True)
class Cell:
    """One regularizer on one network: its factor is chosen first, then all noises.

    Attributes:
        network: LeNet-5, or fully connected.
        method: The regularizer.
        factors: What to choose from.
        faces: How many are drawn where the photographs are absent.
        side: Pixels along a side of a drawn face.
        noises: Standard deviations of what is added to the training targets, in pixels of 96.
        draws: Training sets and networks.
        epochs: Through the training faces.
        tuning_noise: The noise when the factor is chosen.
        tuning_draws: Training sets and networks then.
        learning_rate: Of SGD.
        batch_size: Faces a step.
        width: Units of a hidden layer of the fully connected network.
        depth: Its hidden layers.
        samples: How often losses are taken.
    """

    network: Network
    method: Method
    factors: tuple[float, ...]
    faces: int = 2140
    side: int = SIDE
    noises: tuple[float, ...] = (0.0, 10.0, 20.0, 30.0)
    draws: int = 10
    epochs: int = 50
    tuning_noise: float = 15.0
    tuning_draws: int = 3
    learning_rate: float = 0.1
    batch_size: int = 128
    width: int = 300
    depth: int = 6
    samples: int = 100


# Ours, as the paper prints none; decades apart.
FACTORS: dict[Method, tuple[float, ...]] = {
    "none": (0.0,),
    "dropout": (0.1, 0.3, 0.5),
    "weight": (1e-4, 1e-3, 1e-2),
    "loss gradient": (1e-2, 1e-1, 1.0),
    "MGS": (1e-6, 1e-5, 1e-4),
}


def study(scale: Scale) -> Study:
    """The regression of Szolnoky et al. (2022), section 6.2 and appendix D.1.

    30 % of the faces train, the others test; of the pool a sixth chooses factors. Targets are
    learned in units of half an image about its middle, so that the learning rate of the
    classification serves: the paper prints neither.

    Args:
        scale: "quick": 500 drawn faces of 16 by 16, two draws, two noises of LeNet-5's four.
            "medium": 1,000 of 32 by 32. "full": the photographs, or where the file is absent as
            many drawn faces of their size; 400 epochs of the fully connected network.
    """
    sizes: dict[str, Any] = {
        "quick": {"faces": 500, "side": 16, "draws": 2, "tuning_draws": 1, "batch_size": 25,
                  "width": 64, "depth": 3, "samples": 20},
        "medium": {"faces": 1000, "side": 32, "draws": 3, "tuning_draws": 1, "batch_size": 50},
        "full": {},
    }[scale]  # fmt: skip
    epochs: dict[str, dict[Network, int]] = {
        "quick": {"LeNet-5": 30, "FCN": 400},
        "medium": {"LeNet-5": 50, "FCN": 200},
        "full": {"LeNet-5": 50, "FCN": 400},
    }

    def cell(network: Network, method: Method) -> Cell:
        one = Cell(network, method, FACTORS[method], epochs=epochs[scale][network], **sizes)
        few = scale == "quick" and network == "LeNet-5"
        return replace(one, noises=(0.0, 30.0)) if few else one

    cells = (cell(network, method) for network in get_args(Network) for method in FACTORS)
    return Study("mgs-keypoints", run, tuple(cells), cost=_cost)


def run(cell: Cell) -> Mapping[str, Any]:
    """Chooses the factor by the loss on faces held out, then trains at every noise.

    Returns:
        `test_loss` and `train_loss` in squared pixels of 96, of axes noise, draw, sample, the
        latter on the noisy targets; `step`; the `factor`; `tried` and, by factor and draw,
        `validation_loss`; and where the data are from.
    """
    pool, held_out, test, source = faces(cell.faces, cell.side)
    losses = np.stack(
        [_tuning_losses(cell, pool, held_out, cell.draws + i) for i in range(cell.tuning_draws)],
        axis=1,
    )
    factor = cell.factors[int(np.argmin(losses.mean(axis=1)))]
    runs = [
        [_trained(cell, (factor,), TrainTest(pool, test, source), noise, draw)
         for draw in range(cell.draws)]
        for noise in cell.noises
    ]  # fmt: skip
    found = {
        part: _HALF**2 * np.array([[one[part].reshape(-1) for one in row] for row in runs])
        for part in ("train_loss", "test_loss")
    }
    return {
        **found,
        "step": runs[0][0].step.reshape(-1),
        "factor": factor,
        "tried": np.array(cell.factors),
        "validation_loss": losses,
        "source": source,
    }


@cache
def faces(number: int, side: int) -> tuple[Regression, Regression, Regression, str]:
    """Faces to train on, to choose by and to test on, blurred; targets in halves of an image."""
    try:
        data = keypoints()
    except FileNotFoundError:
        data = drawn_keypoints(number, side=side)
    across = data.train.x.shape[-1]
    rest = split(data.train, max(len(data.train) // 6, 1), seed=0)
    parts = [
        _prepared(part, across, i) for i, part in enumerate((rest.train, rest.test, data.test))
    ]
    source = f"{data.source}, {across} by {across}, blurred"
    return parts[0], parts[1], parts[2], source


def _prepared(part: Regression, across: int, seed: int) -> Regression:
    """Blurred as MNIST-C's digits, in proportion to the image's side."""
    radius, sigma = (across / SIDE * size for size in SEVERITIES[0])
    angles = np.random.default_rng(seed).uniform(-45.0, 45.0, len(part))
    x = blurred(part.x, radius, sigma, angles)
    y = (part.y * (SIDE / across) - _HALF) / _HALF
    return Regression(x, y.astype(np.float32))


def _tuning_losses(
    cell: Cell, pool: Regression, held_out: Regression, draw: int
) -> Float[np.ndarray, " factors"]:
    """The loss at the end of each factor; infinite where training diverged."""
    if len(cell.factors) == 1:
        return np.zeros(1)
    data = TrainTest(pool, held_out, "")
    # The rate of dropout is part of the network: one at a time.
    groups = [(f,) for f in cell.factors] if cell.method == "dropout" else [cell.factors]
    runs = [_trained(cell, factors, data, cell.tuning_noise, draw) for factors in groups]
    losses = np.concatenate([one.last_mean("test_loss", LAST).reshape(-1) for one in runs])
    return np.where(np.isfinite(losses), _HALF**2 * losses, np.inf)


def _trained(
    cell: Cell, factors: tuple[float, ...], data: TrainTest[Regression], noise: float, seed: int
) -> Runs:
    noisy = shift_targets(data, noise / _HALF, seed)
    dropout = factors[0] if cell.method == "dropout" else 0.0
    inputs, side = data.train.x[0].size, data.train.x.shape[-1]
    return train(
        _network(cell.network, inputs, side, cell.width, cell.depth, dropout),
        sgd,
        noisy,
        grid={"learning_rate": (cell.learning_rate,), "factor": factors},
        seeds=(seed,),
        stop=Steps(cell.epochs * (len(data.train) // cell.batch_size)),
        options=Options(
            batch_size=cell.batch_size,
            samples=cell.samples,
            penalty=PENALTIES.get(cell.method),
            together=1 if jax.default_backend() == "cpu" else None,
            devices=jax.local_devices()[:1],
        ),
    )


@cache  # the same functions for the same sizes: runs share the compiled program
def _network(
    name: Network, inputs: int, side: int, width: int, depth: int, dropout: float
) -> Callable[..., Any]:
    if name == "FCN":
        return lambda key: MLP(inputs, 30, width, depth, dropout=dropout, key=key)
    return partial(_lenet, side, dropout)


def _lenet(side: int, dropout: float, key: jax.Array) -> LeNet:
    return LeNet(30, 1, side, dropout, dropout_everywhere=True, key=key)


def _cost(cell: Cell) -> float:
    return {"MGS": 20.0, "loss gradient": 2.0}.get(cell.method, 1.0)
