"""Penalties on the Jacobian by the inputs, on small training sets of digits (SpectReg's MNIST)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from analysis.data import Classification, TrainTest, digits, mnist, split
from analysis.data.examples import draw_of_each_class, standardised, take
from analysis.models import MLP, LeNet
from analysis.scale import Scale
from analysis.studies.igr.resnet import by_products
from analysis.studies.images import Images
from analysis.studies.optimizers import with_dropped_rate
from analysis.sweep import Study
from analysis.training import At, Options, Runs, Steps, cross_entropy, train
from igr.penalties import (
    confidence_penalty,
    double_backprop,
    frobenius_penalty,
    jacobian_penalty,
    spectral_penalty,
    weight_penalty,
)

Rule = Literal["baseline", "SpectReg", "FrobReg", "JacReg", "DoubleBack"]
PENALTIES: dict[Rule, Callable[[At], Array]] = {
    "baseline": lambda at: jnp.zeros(()),
    "SpectReg": lambda at: spectral_penalty(at.apply_fn, at.params, at.x, at.key),
    "FrobReg": lambda at: frobenius_penalty(at.apply_fn, at.params, at.x),
    "JacReg": lambda at: jacobian_penalty(at.apply_fn, at.params, at.x),
    "DoubleBack": lambda at: double_backprop(at.example_loss_fn, at.params, at.x, at.y),
}
PAPER_DECAY = 0.0005  # Table 1
# How LeNet-5 is trained. Convolutions side by side, each with its own weights, are slow on a CPU.
MEDIUM: dict[str, Any] = {"steps": 400, "held_out": 2500, "together": 1}
FULL: dict[str, Any] = {"steps": 10_000, "held_out": 10_000}


@dataclass(frozen=True)
class Cell:
    """One rule on one draw of the training set; all its weights and weight decays side by side.

    Attributes:
        rule: The penalty.
        weights: lambda, beside the mean loss of a batch.
        decays: Weight decays, of |W|^2 / 2 over weights and not biases.
        draw: Which training set; also the seed of network, batches and dropout.
        tuning: Whether this draw chooses lambda, by validation accuracy; it is not reported then.
        data: What is learned: "digits" by an MLP, "mnist" by LeNet-5.
        per_class: Training points of each class.
        steps: Of Adam.
        learning_rate: Adam's, a tenth of it after half of the steps, a hundredth after three
            quarters.
        batch_size: Examples a step.
        dropout: Of the hidden dense layers (LeNet: of the last).
        width: Units of each of the MLP's two hidden layers.
        held_out: Examples to validate on, and as many to test on.
        together: Runs in one program; None for each core's share of them.
    """

    rule: Rule
    weights: tuple[float, ...]
    decays: tuple[float, ...]
    draw: int
    tuning: bool = False
    data: Images = "digits"
    per_class: int = 20
    steps: int = 1500
    learning_rate: float = 0.001
    batch_size: int = 50
    dropout: float = 0.5
    width: int = 64
    held_out: int = 450
    together: int | None = None


@dataclass(frozen=True)
class Timing:
    """How long a step takes with each rule, the rules in turn.

    Attributes:
        data: Whose network, on random inputs of its size.
        rounds: How often each rule is timed.
        repeat: Steps timed at once.
        batch_size: Examples a step.
        width: Units of each of the MLP's two hidden layers.
    """

    data: Images
    rounds: int = 7
    repeat: int = 1
    batch_size: int = 50
    width: int = 64


def study(scale: Scale) -> Study:
    """Tables 1 and 6 of Varga, Csiszarik and Zombori (2018), sections 4.1 and 4.6.

    Args:
        scale: "quick": an MLP on 200 digits, 8 draws, and 3 that tune; fewer weights. "medium":
            LeNet-5 on 2,000 of MNIST, three draws of 400 steps, with the paper's weights of
            SpectReg, FrobReg and JacReg and one of DoubleBack. "full": 10 draws and 10,000 steps,
            as in the paper; weights tuned.
    """
    logits = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
    # Of penalties that vanish as the training set is fitted.
    fading = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
    decays = (0.0, 0.0005, 0.002, 0.01, 0.03, 0.1)
    if scale == "quick":
        logits, fading, decays = logits[1:5], fading[1:5], decays[:5]
    grids: dict[Rule, tuple[tuple[float, ...], tuple[float, ...]]] = {
        "baseline": ((0.0,), decays),
        "SpectReg": (logits, (0.0, PAPER_DECAY)),
        "FrobReg": (logits, (PAPER_DECAY,)),
        "JacReg": (fading, (PAPER_DECAY,)),
        "DoubleBack": (fading, (PAPER_DECAY,)),
    }
    if scale == "medium":
        grids |= {
            "SpectReg": ((0.03,), (0.0, PAPER_DECAY)),
            "FrobReg": ((0.03,), (PAPER_DECAY,)),
            "JacReg": ((1.0,), (PAPER_DECAY,)),
            "DoubleBack": ((3.0,), (PAPER_DECAY,)),
            "baseline": ((0.0,), (0.0, PAPER_DECAY, 0.002)),
        }
    tuned, reported = {"quick": (3, 8), "medium": (1, 3), "full": (5, 10)}[scale]

    def cell(rule: Rule, draw: int) -> Cell:
        small = Cell(rule, *grids[rule], draw=draw, tuning=draw < tuned)
        if scale == "quick":
            return small
        large = replace(small, data="mnist", per_class=200)
        return replace(large, **(MEDIUM if scale == "medium" else FULL))

    def draws(rule: Rule) -> range:
        is_choice = rule == "baseline" or len(grids[rule][0]) > 1
        return range(0 if is_choice else tuned, tuned + reported)

    cells = tuple(cell(rule, draw) for rule in grids for draw in draws(rule))
    timings = (Timing("mnist"),) if scale != "quick" else (Timing("mnist"), Timing("digits", 7, 50))
    return Study("spectreg-mnist", run, cells + timings, cost=_cost)


def run(cell: Cell | Timing) -> Mapping[str, Any]:
    """Accuracies at the end of training; or times.

    Returns:
        Of a `Cell`: `train`, `validation` and `test`, accuracies, of axes decay, weight, and where
        the data are from. Of a `Timing`: `seconds` a step, of axes rule and round, `operations`
        (floating point, before the compiler optimizes) a step, and the names of the `rules`.
    """
    if isinstance(cell, Timing):
        return _timed(cell)
    make = trainable(cell.data, cell.width, cell.dropout)
    runs = trained(cell, make, penalty_of(PENALTIES[cell.rule]))
    accuracies = {"train": np.asarray(runs["train_accuracy"])[0, :, :, 0, -1]}
    return accuracies | held_out_accuracies(runs, cell.held_out) | {"source": runs.source}


def trained(
    cell: Cell,
    network: Callable[..., Any],
    penalty: Callable[[At], Array],
    more: Mapping[str, tuple[float, ...]] | None = None,
    metrics: Mapping[str, Callable[[At], Array]] | None = None,
) -> Runs:
    """The runs of a cell: a grid of one learning rate, weight decays and weights.

    Args:
        cell: How is trained, on what. Its rule counts through `penalty` alone.
        network: What makes a network from a key.
        penalty: What is added to the loss of a batch.
        more: Further axes of the grid, each with its settings.
        metrics: What is measured at the end beside `correct`.
    """
    grid = {"learning_rate": (cell.learning_rate,), "decay": cell.decays, "weight": cell.weights}
    return train(
        network,
        optimizer(cell.steps),
        training_set(cell),
        grid=grid | dict(more or {}),
        seeds=(cell.draw,),
        stop=Steps(cell.steps),
        options=Options(
            batch_size=cell.batch_size,
            samples=1,
            penalty=penalty,
            metrics={"correct": correct} | dict(metrics or {}),
            together=cell.together,
        ),
    )


def held_out_accuracies(runs: Runs, held_out: int) -> dict[str, np.ndarray]:
    """`validation` and `test` at the end, of the axes of the grid but for the one learning rate."""
    found = np.asarray(runs["correct"])[0, ..., 0, -1, :]
    return {
        "validation": found[..., :held_out].mean(-1),
        "test": found[..., held_out:].mean(-1),
    }


def training_set(cell: Cell) -> TrainTest[Classification]:
    """A training set, standardised; to look at, what validates and after it what tests."""
    pool, validation, test, source = _parts(cell.data, cell.held_out)
    held_out = Classification(
        np.concatenate([validation.x, test.x]), np.concatenate([validation.y, test.y]), 10
    )
    drawn = draw_of_each_class(pool, cell.per_class, cell.draw)
    return TrainTest(*standardised(drawn, held_out), source)


@cache
def _parts(name: str, held_out: int) -> tuple[Classification, Classification, Classification, str]:
    """What training sets are drawn from, what validates, what tests: the same for all draws."""
    if name == "mnist":  # as in the authors' code: the official test set tunes
        official = mnist()
        last = np.arange(len(official.train))
        return (
            take(official.train, last[:50_000]),
            take(official.test, np.arange(held_out)),
            take(official.train, last[-held_out:]),
            official.source,
        )
    rest = split(digits(), held_out, seed=0)
    parts = split(rest.train, held_out, seed=1)
    return parts.train, parts.test, rest.test, "scikit-learn's digits"


def correct(at: At) -> Float[Array, " examples"]:
    """1 for each held-out example whose class is found, else 0."""
    guess = jax.lax.map(lambda x: jnp.argmax(at.apply_fn(at.params, x)), at.test_x, batch_size=1000)
    return (guess == at.test_y).astype(jnp.float32)


# The same functions for equal arguments, so that draws share what is compiled.


@cache
def penalty_of(gradient: Callable[[At], Array], confidence: bool = False) -> Callable[[At], Array]:
    """A penalty with weight decay beside it, each times its setting of a run.

    Args:
        gradient: The penalty, times "weight".
        confidence: Whether the confidence penalty, times "confidence", is added too.
    """

    def penalty(at: At) -> Array:
        decay = at.settings["decay"] * weight_penalty(at.params, mask=is_weight)
        total = decay + at.settings["weight"] * gradient(at)
        if not confidence:
            return total
        return total + at.settings["confidence"] * sure(at)

    return penalty


def sure(at: At) -> Array:
    """The confidence penalty of a batch."""
    return confidence_penalty(at.apply_fn, at.params, at.x)


def is_weight(params: PyTree) -> PyTree:
    """By name: a convolution's bias has as many axes as its weight."""
    return jax.tree.map_with_path(lambda path, leaf: path[-1].name == "weight", params)


@cache
def optimizer(steps: int) -> Callable[..., optax.GradientTransformation]:
    """Adam, its rate a tenth after half of the steps and a hundredth after three quarters."""
    return with_dropped_rate(optax.scale_by_adam(), steps // 2, 3 * steps // 4)


@cache
def network(name: str, width: int, dropout: float) -> Callable[..., Any]:
    """What makes a network for these images from a key: LeNet-5, or an MLP for digits."""
    if name == "mnist":
        return lambda key: LeNet(dropout=dropout, key=key)
    return lambda key: MLP(64, 10, width, 2, dropout=dropout, key=key)


@cache
def trainable(name: str, width: int, dropout: float) -> Callable[..., Any]:
    """The same, its convolutions written as products where that is faster: on a CPU."""
    make = network(name, width, dropout)
    return (lambda key: by_products(make(key))) if jax.default_backend() == "cpu" else make


def _timed(cell: Timing) -> Mapping[str, Any]:
    keys = jax.random.split(jax.random.key(0), 3)
    params, static = eqx.partition(
        network(cell.data, cell.width, 0.0)(keys[0]), eqx.is_inexact_array
    )
    shape = (1, 28, 28) if cell.data == "mnist" else (64,)
    x = jax.random.normal(keys[1], (cell.batch_size, *shape))
    y = jnp.arange(cell.batch_size) % 10
    settings = {"decay": jnp.asarray(PAPER_DECAY), "weight": jnp.asarray(0.03)}

    def apply_fn(params: PyTree, x: Array) -> Array:
        return eqx.combine(params, static)(x)

    def example_loss_fn(params: PyTree, example: tuple[Array, Array]) -> Array:
        return cross_entropy(apply_fn(params, example[0]), example[1])

    def gradient_with(rule: Rule) -> Callable[..., PyTree]:
        def objective(params: PyTree, x: Array, y: Array) -> Array:
            def value_fn(params: PyTree) -> Array:
                return jnp.mean(jax.vmap(lambda x, y: example_loss_fn(params, (x, y)))(x, y))

            step = jnp.zeros((), jnp.int32)
            at = At(params, apply_fn, example_loss_fn, value_fn, x, y, settings, step, keys[2])
            return value_fn(params) + penalty_of(PENALTIES[rule])(at)

        return jax.grad(objective)

    def repeated(gradient: Callable[..., PyTree]) -> Callable[..., PyTree]:
        def steps(params: PyTree, x: Array, y: Array) -> PyTree:
            def step(_: Array, params: PyTree) -> PyTree:
                return jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient(params, x, y))

            return jax.lax.fori_loop(0, cell.repeat, step, params)

        return jax.jit(steps)

    gradients = {rule: gradient_with(rule) for rule in PENALTIES}
    steps = {rule: repeated(gradient) for rule, gradient in gradients.items()}
    for step in steps.values():  # compiled before any is timed
        jax.block_until_ready(step(params, x, y))
    seconds = np.zeros((len(steps), cell.rounds))
    for turn in range(cell.rounds):
        for i, step in enumerate(steps.values()):
            start = time.perf_counter()
            jax.block_until_ready(step(params, x, y))
            seconds[i, turn] = (time.perf_counter() - start) / cell.repeat
    operations = [_operations(gradient, params, x, y) for gradient in gradients.values()]
    return {"seconds": seconds, "operations": np.array(operations), "rules": list(steps)}


def _operations(function: Callable[..., Any], *arguments: Any) -> float:
    counted = jax.jit(function).lower(*arguments).cost_analysis()
    return float("nan") if counted is None else float(counted["flops"])


def _cost(cell: Cell | Timing) -> float:
    """About the time of a step of one run, times the runs."""
    if isinstance(cell, Timing):
        return 60.0
    each = {"baseline": 1, "SpectReg": 2, "DoubleBack": 2, "FrobReg": 8, "JacReg": 9}[cell.rule]
    return each * len(cell.weights) * len(cell.decays)
