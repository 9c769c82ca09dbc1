"""`analysis.training.train` against the scan one would write by hand, and ten seeds against one.

The digits MLP (five hidden layers of 50, 13,960 parameters), SGD, batches of 32, in single
precision. The hand-written program does no more than train: it shuffles, gathers, steps.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from analysis.data import TrainTest, digits, split
from analysis.models import MLP, Dense
from analysis.training import Options, Steps, train
from benchmarks.measure import Row, median_seconds

_RATE, _BATCH, _WIDTH, _DEPTH = 0.05, 32, 50, 5


def rows() -> Iterator[Row]:
    """Yields the measurements."""
    data = split(digits(), 360, seed=0, source="digits")
    epochs = 40
    steps = epochs * (len(data.train) // _BATCH)
    few = steps // epochs
    runs = {
        "few": partial(_trained, data, 1, few),
        "one": partial(_trained, data, 1, steps),
        "ten, few": partial(_trained, data, 10, few),
        "ten": partial(_trained, data, 10, steps),
    }
    hand = {"hand": _by_hand(data, epochs), "hand, few": _by_hand(data, 1)}
    seconds = median_seconds(runs | hand, repeats=5, settle=False)
    # On all cores together, whatever else the machine does.
    work = median_seconds(runs, repeats=3, settle=False, clock=time.process_time)
    # A call of `train` also sets up, evaluates and brings home: that is taken off both ways.
    one = (seconds["one"] - seconds["few"]) / (steps - few)
    ten = (seconds["ten"] - seconds["ten, few"]) / (steps - few)
    scan = (seconds["hand"] - seconds["hand, few"]) / (steps - few)
    yield Row("digits MLP: a call of train", seconds["few"] - few * one, "s")
    yield Row("digits MLP: a step", 1e6 * one, "microseconds")
    yield Row("digits MLP: throughput", scan / one, "of a hand-written scan", ">= 0.9")
    yield Row("digits MLP: throughput, whole call", scan * steps / seconds["one"], "of a scan")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Row(f"digits MLP: 10 seeds, {cores} cores", ten / one, "of one seed", "<= 6")
    both = (work["ten"] - work["ten, few"]) / (work["one"] - work["few"])
    yield Row("digits MLP: 10 seeds, CPU time", both, "of one seed")


def _model(key: jax.Array) -> MLP:
    return MLP(64, 10, _WIDTH, _DEPTH, key=key)


def _optimizer(settings: Any) -> optax.GradientTransformation:
    return optax.sgd(settings["learning_rate"])


def _trained(data: TrainTest[Any], seeds: int, steps: int) -> Any:
    return train(
        _model,
        _optimizer,
        data,
        grid={"learning_rate": (_RATE,)},
        seeds=range(seeds),
        stop=Steps(steps),
        options=Options(
            batch_size=_BATCH,
            samples=1,
        ),
    )["test_loss"]


def _by_hand(data: TrainTest[Any], epochs: int) -> Callable[[], Any]:
    x, y = jnp.asarray(data.train.x, jnp.float32), jnp.asarray(data.train.y)
    keys = jax.random.split(jax.random.key(0), 2)
    layers: tuple[Dense, ...] = _model(keys[0]).layers
    params = [(layer.weight, layer.bias) for layer in layers]
    optimizer = optax.sgd(_RATE)

    def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
        for weight, bias in params[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        logits = x @ params[-1][0] + params[-1][1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    @jax.jit
    def run(params: Any, key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        def epoch(carry: Any, key: jax.Array) -> tuple[Any, None]:
            order = jax.random.permutation(key, len(x))
            batches = order[: len(x) // _BATCH * _BATCH].reshape(-1, _BATCH)

            def step(carry: Any, which: jax.Array) -> tuple[Any, None]:
                params, state = carry
                gradient = jax.grad(loss)(params, x[which], y[which])
                updates, state = optimizer.update(gradient, state)
                return (optax.apply_updates(params, updates), state), None

            return jax.lax.scan(step, carry, batches)[0], None

        carry = (params, optimizer.init(params))
        return jax.lax.scan(epoch, carry, jax.random.split(key, epochs))[0]

    return lambda: run(params, keys[1], x, y)
