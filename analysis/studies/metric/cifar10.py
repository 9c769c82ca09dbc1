"""The learning rules of the dissertation on Metric regularization, on CIFAR-10 (section 5.6)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from analysis.data import Classification, TrainTest, cifar10, textures
from analysis.models import INITIAL_RANGES, glorot_normal, initialise
from analysis.models.conv_net import ConvNet
from analysis.scale import Scale
from analysis.studies.igr.resnet import by_products
from analysis.studies.metric import rules as metric_rules
from analysis.studies.metric.rules import EPOCHS, TABLE_4_2, Activation, Reading, Regime, Rule
from analysis.studies.optimizers import sgd
from analysis.studies.spectreg.images import averaged
from analysis.sweep import Study
from analysis.training import Options, Steps, cross_entropy, train
from igr.transforms import decay_until, decay_until_then_selective, metric_decay

ROWS = tuple(row for row in metric_rules.ROWS if "-" not in row[0] and "shrinking" not in row[0])
NUMBER = 10  # of eigenvalues in Figure 5.38


@dataclass(frozen=True)
class Cell:
    """One rule from one regime; its seeds go one after the other.

    Attributes:
        activation: Of convolutions and hidden units.
        rule: How it is learned.
        regime: The scale of the starting weights.
        steps: All steps.
        faster: What every rate of Table 4.2 is multiplied by, as in `metric-rules`.
        seeds: Of weights and batches.
        examples: To train on.
        pooled: Pixels along a side that are averaged into one.
        filters: Of the convolutions.
        units: Of the hidden dense layers.
        batch_size: Examples a step.
        seen: Training examples of the Hessian whose eigenvalues are taken.
        samples: How often accuracies and norms are taken.
        task: As in `metric-rules`.
        reading: Of the rates of Metric and of selective decay, as there.
    """

    activation: Activation
    rule: Rule
    regime: Regime
    steps: int = 2000
    faster: float = 50.0
    seeds: tuple[int, ...] = (0, 1, 2)
    examples: int = 2000
    pooled: int = 4
    filters: tuple[int, int] = (8, 16)
    units: int = 64
    batch_size: int = 32
    seen: int = 500
    samples: int = 20
    task: str = "cifar10"
    reading: Reading = "a step"


def study(scale: Scale) -> Study:
    """The rows of CIFAR-10 of Tables 5.1 and 5.2, with what its figures show on the way.

    The network stands in a picture that the text lacks. Ours has two convolutions and two hidden
    dense layers; "full" those sizes whose norm at the start, 165 in the large regime, is near that
    printed for SGD at the end, 172. Starting weights are Glorot's normal ones, their variance times
    Table 4.2's numbers. As many steps as make L2's printed norm from that of SGD: 139,000.

    Args:
        scale: "quick": 2,000 images averaged to 8 by 8, 2,000 steps at 50 times the rates; with
            ReLU, where SGD from the large regime does not survive that, 3,000 at 20 times.
            "medium": the same. "full": all, 139,000 steps. Where CIFAR-10 is absent, drawn
            textures.
    """
    activations: tuple[Activation, ...] = ("tanh", "relu")
    tuned: dict[str, dict[str, Any]] = {"tanh": {}, "relu": {"steps": 3000, "faster": 20.0}}
    if scale == "full":
        large = {"steps": 139_000, "faster": 1.0, "seeds": tuple(range(10)), "examples": 40_000,
                 "pooled": 1, "filters": (64, 128), "units": 2048, "batch_size": 200,
                 "seen": 10_000}  # fmt: skip
        tuned = dict.fromkeys(activations, large)
    cells = (Cell(a, rule, regime, **tuned[a]) for a in activations for rule, regime in ROWS)
    return Study("metric-cifar10", run, tuple(cells), cost=_cost)


def run(cell: Cell) -> Mapping[str, Any]:
    """Accuracies and parameter norms while training; with ReLU the Hessian's eigenvalues.

    Returns:
        As `metric_rules.run`.
    """
    data = images(cell.examples, cell.pooled)
    rates = TABLE_4_2["cifar10", cell.activation]
    faster = cell.faster
    stop = cell.steps * rates.until // EPOCHS["cifar10"]
    selective = rates.selective * faster if "selective" in cell.rule else 0.0
    rate = {"sgd": 0.0, "selective l2": 0.0, "metric": rates.metric}.get(cell.rule, rates.l2)
    until = {"l2": cell.steps, "l2 stopped": stop, "l2 stopped selective": stop}.get(cell.rule, 0)
    settings = {
        "learning_rate": rates.small * faster,
        "rate": rate * faster,
        "until": float(until),
        "threshold": rates.threshold,
        "selective": selective,
    }
    scale = INITIAL_RANGES["cifar10", cell.activation][cell.regime == "large"]
    side = data.train.x.shape[-1]
    runs = train(
        _network(cell.activation, side, cell.filters, cell.units, scale),
        _metric if cell.rule == "metric" else _selective if selective else _decay,
        data,
        grid={name: (value,) for name, value in settings.items()},
        seeds=cell.seeds,
        stop=Steps(cell.steps),
        options=Options(
            batch_size=cell.batch_size,
            samples=cell.samples,
            metrics=metric_rules.METRICS,
            together=1 if jax.default_backend() == "cpu" else None,
        ),
    )
    arrays = {
        n: np.asarray(v).reshape(np.shape(v)[len(settings) :]) for n, v in runs.arrays().items()
    }
    if cell.activation == "relu":
        x, y = jnp.asarray(data.train.x[: cell.seen]), jnp.asarray(data.train.y[: cell.seen])
        models = (runs.model_of(*[0] * len(settings), j) for j in range(len(cell.seeds)))
        arrays["eigenvalues"] = np.stack(
            [metric_rules.largest(model, x, y, cross_entropy, NUMBER) for model in models]
        )
    return {
        **arrays,
        "train_number": len(data.train),
        "test_number": len(data.test),
        "source": f"{runs.source}, {side} by {side}",
    }


@cache
def images(examples: int, pooled: int) -> TrainTest[Classification]:
    """So many training images, their pixels averaged; where the file is absent, drawn textures."""
    try:
        found = cifar10()
    except FileNotFoundError:
        return textures(10, examples // 10, 100)
    found = found.first(min(examples, len(found.train)))
    train, test = (replace(part, x=averaged(part.x, pooled)) for part in (found.train, found.test))
    return TrainTest(train, test, found.source)


# Rules that differ in a rate alone share a program.


def _decay(s: Mapping[str, Array]) -> optax.GradientTransformation:
    return optax.chain(sgd(s), decay_until(s["rate"], s["until"].astype(jnp.int32)))


def _selective(s: Mapping[str, Array]) -> optax.GradientTransformation:
    decay = decay_until_then_selective(
        s["rate"],
        s["until"].astype(jnp.int32),
        s["threshold"],
        metric_rules.layers,
        selective_weight_decay=s["selective"],
    )
    return optax.chain(sgd(s), decay)


def _metric(s: Mapping[str, Array]) -> optax.GradientTransformation:
    return optax.chain(sgd(s), metric_decay(s["rate"]))


@cache  # the same function for the same network: rules share what is compiled to make it
def _network(
    activation: Activation, side: int, filters: tuple[int, int], units: int, scale: float
) -> Callable[[Array], ConvNet]:
    function = jnp.tanh if activation == "tanh" else jax.nn.relu

    def make(key: Array) -> ConvNet:
        model = ConvNet(10, 3, side, filters, units, function, key=key)
        model = initialise(model, glorot_normal(scale), key)
        return by_products(model) if jax.default_backend() == "cpu" else model

    return make


def _cost(cell: Cell) -> float:
    return {"metric": 4.0}.get(cell.rule, 1.0)
