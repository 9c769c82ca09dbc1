"""An AlexNet variant on wrong labels: accuracy and tangent kernel on the way (MGS, Figure 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import jax
import numpy as np

from analysis.data import mnist, motion_blur, split
from analysis.models import AlexNet, initialise, lecun_normal, num_parameters
from analysis.scale import Scale
from analysis.studies.igr.resnet import by_products
from analysis.studies.mgs.label_noise import LAST, PENALTIES, Method, Parts, parts
from analysis.studies.optimizers import sgd
from analysis.sweep import Study
from analysis.training import At, Options, Runs, Steps, train
from igr.diagnostics import tangent_kernel_trace
from igr.penalties import gradient_similarity_logdet

RIDGE = 0.01  # on the kernel's diagonal in the metric: kernels of dead units are singular
MEASURED = 32  # examples of the kernel: a batch, as in the paper


@dataclass(frozen=True)
class Cell:
    """One regularizer: its factor is chosen on a validation set, then some seeds.

    Attributes:
        data: "digits", or "mnist" for blurred MNIST.
        method: The regularizer.
        factors: What to choose from.
        noise: The part of the training labels that is wrong.
        examples: To train on.
        seeds: Of training sets, networks and batches.
        epochs: Through the training examples.
        learning_rate: Of SGD.
        batch_size: Examples a step.
        filters: Of the convolutions.
        units: Of the hidden dense layers.
        samples: How often accuracy and kernel are taken.
    """

    data: Literal["digits", "mnist"]
    method: Method
    factors: tuple[float, ...]
    noise: float = 0.5
    examples: int = 3000
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 100
    learning_rate: float = 0.1
    batch_size: int = 32
    filters: tuple[int, int, int, int, int] = (64, 192, 384, 256, 256)
    units: int = 1024
    samples: int = 50


FACTORS: dict[Method, tuple[float, ...]] = {
    "none": (0.0,),
    "weight": (1e-3, 1e-2),
    "dropout": (0.3, 0.6),
    "loss gradient": (1e-1, 1.0),
    "MGS": (1e-5, 1e-4),
}


def study(scale: Scale) -> Study:
    """The AlexNet of Szolnoky et al. (2022), section 4, which they do not describe further.

    Noise, sizes, factors and starting weights (normal of variance 2 over the fan in) are ours; the
    level of noise is that at which they tune elsewhere.

    Args:
        scale: "quick": 320 digits, a sixteenth of the filters. "medium": 500 of blurred MNIST, a
            quarter of the filters, three seeds, 15 epochs. "full": 3,000 and all of them.
    """
    sizes: dict[str, dict[str, Any]] = {
        "quick": {"examples": 320, "seeds": (0, 1), "epochs": 60, "samples": 20,
                  "filters": (4, 12, 24, 16, 16), "units": 64},
        "medium": {"examples": 500, "epochs": 15, "samples": 15,
                   "filters": (16, 48, 96, 64, 64), "units": 256},
        "full": {},
    }  # fmt: skip
    data = "digits" if scale == "quick" else "mnist"
    cells = (Cell(data, method, FACTORS[method], **sizes[scale]) for method in FACTORS)
    return Study("mgs-alexnet", run, tuple(cells), cost=_cost)


def run(cell: Cell) -> Mapping[str, Any]:
    """Accuracy and kernel of each seed while it trains, with the factor chosen on another.

    Returns:
        `test_accuracy`, `train_loss`, `trace` and `logdet` of the kernel of `MEASURED` training
        examples, of axes seed, sample; `step`; `factor`, `tried` and `validation_loss`; the number
        of `parameters`; and where the data are from.
    """
    if len(cell.factors) == 1:
        losses = np.zeros(1)
    else:
        # A rate of dropout is part of the network: one at a time.
        runs = [_trained(cell, factor, 100, tuning=True) for factor in cell.factors]
        losses = np.array([one.last_mean("test_loss", min(LAST, cell.samples)).item()
                           for one in runs])  # fmt: skip
        losses = np.where(np.isfinite(losses), losses, np.inf)
    factor = cell.factors[int(np.argmin(losses))]
    runs = [_trained(cell, factor, seed) for seed in cell.seeds]
    return {
        **{
            name: np.stack([one[name].reshape(-1) for one in runs])
            for name in ("test_accuracy", "train_loss", "trace", "logdet")
        },
        "step": runs[0].step.reshape(-1),
        "factor": factor,
        "tried": np.array(cell.factors),
        "validation_loss": losses,
        "parameters": num_parameters(runs[0].model_of(0, 0, 0)),
        "source": runs[0].source,
    }


def _trained(cell: Cell, factor: float, seed: int, tuning: bool = False) -> Runs:
    data = _parts(cell.data).sample(cell.examples, cell.noise, seed, tuning=tuning)
    dropout = factor if cell.method == "dropout" else 0.0
    return train(
        _network(cell.filters, cell.units, data.train.x.shape[-1], dropout),
        sgd,
        data,
        grid={"learning_rate": (cell.learning_rate,), "factor": (factor,)},
        seeds=(seed,),
        stop=Steps(cell.epochs * (cell.examples // cell.batch_size)),
        options=Options(
            batch_size=cell.batch_size,
            samples=cell.samples,
            penalty=PENALTIES.get(cell.method),
            metrics={} if tuning else {"trace": _trace, "logdet": _logdet},
            chunk=50 if jax.default_backend() == "cpu" else 1000,
            devices=jax.local_devices()[:1],
        ),
    )


@cache
def _parts(name: str) -> Parts:
    if name == "mnist":
        blurred = motion_blur(mnist())
        known = split(blurred.train, 5000, seed=0)
        return Parts(known.train, known.test, blurred.test, blurred.source)
    return parts("digits, LeNet-5")


@cache  # the same functions for the same sizes: runs share the compiled program
def _network(
    filters: tuple[int, int, int, int, int], units: int, side: int, dropout: float
) -> Callable[..., Any]:
    def make(key: jax.Array) -> Any:
        model = AlexNet(10, 1, side, dropout, filters, units, key=key)
        # With smaller weights seven layers pass on so little that SGD at this rate stays at chance.
        model = initialise(model, lecun_normal(2.0), key)
        return by_products(model) if jax.default_backend() == "cpu" else model

    return make


def _trace(at: At) -> jax.Array:
    return tangent_kernel_trace(at.apply_fn, at.params, at.x[:MEASURED])


def _logdet(at: At) -> jax.Array:
    return gradient_similarity_logdet(at.apply_fn, at.params, at.x[:MEASURED], ridge=RIDGE)


def _cost(cell: Cell) -> float:
    return {"MGS": 10.0, "loss gradient": 2.0}.get(cell.method, 1.0)
