"""Matrices used at several positions: over pairs of positions, or formed, whichever is less.

Norms and products of the gradients of 32 examples of 784 inputs, float32, in gradients of their
mean cross-entropy: `python -m benchmarks positions`. The choice is held against the better of the
two, both measured, and against what a matrix costs whose use is not understood: its gradients one
by one, by vmap.

- LeNet-5: kernels of 5 x 5 at 784 and 100 positions;
- sequence: two dense layers, 96-192-96, on 8 positions;
- recurrent: 28 steps of 128 units;
- tied: a matrix of 784 x 256 and its transpose.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp

from benchmarks.measure import Row, median_seconds
from igr.per_example import factors, inner_products, output_gradients

EXAMPLES = 32
CLASSES = 10
REPEATS = 7
_RULES = ("pairs_are_less_for_squares", "pairs_are_less_for_products")
_MEASURES = ("norms", "Gram matrix", "tr K", "K")


def rows() -> Iterator[Row]:
    """Yields the measurements."""
    x = jax.random.uniform(jax.random.key(0), (EXAMPLES, 784))
    for name, (apply_fn, params) in networks().items():
        gradient = jax.jit(jax.grad(partial(_mean_loss, apply_fn)))
        work: dict[str, Callable[[], Any]] = {"gradient": partial(gradient, params, x)}
        for way in ("chosen", "pairs", "formed", "one by one"):
            if name == "LeNet-5" and way == "pairs":
                continue  # 784^2 pairs: known to be hopeless
            for measure in _MEASURES:
                work[f"{measure}, {way}"] = _compiled(apply_fn, params, x, measure, way)
        seconds = median_seconds(work, REPEATS, clock=time.process_time)
        unit = seconds.pop("gradient")
        cost = {what: value / unit for what, value in seconds.items()}
        for measure in _MEASURES:
            what, chosen = f"{name}: {measure}", cost[f"{measure}, chosen"]
            known = (f"{measure}, {way}" for way in ("pairs", "formed"))
            ways = [cost[way] for way in known if way in cost]
            yield Row(what, chosen, "gradients")
            yield Row(what, chosen / min(ways), "of the better way", "<= 1.5")
            if len(ways) == 2:
                yield Row(what, chosen / max(ways), "of the other way")
            yield Row(what, chosen / cost[f"{measure}, one by one"], "of one by one", "<= 1.25")


def _compiled(
    apply_fn: Callable[..., Any], params: Any, x: jax.Array, measure: str, way: str
) -> Callable[[], Any]:
    def measured(params: Any, x: jax.Array) -> jax.Array:
        if measure in ("norms", "Gram matrix"):
            loss = partial(_example_loss, apply_fn)
            found = inner_products.factored_gradients(loss, params, x)
            if measure == "norms":
                return inner_products.squares(found)
            return inner_products.gram(found, found)
        gradients = output_gradients.output_gradients(apply_fn, params, x)
        if measure == "tr K":
            return jnp.sum(output_gradients.square_sums(gradients, CLASSES))
        return output_gradients.output_gram(gradients, gradients, CLASSES)

    def whole(*args: Any, positions: bool = False) -> Any:
        return factors.per_example_factors(*args)

    changes: dict[str, Any] = {}
    if way in ("pairs", "formed"):
        changes = dict.fromkeys(_RULES, lambda *_: way == "pairs")
    patches = [patch.multiple(m, **changes) for m in (inner_products, output_gradients) if changes]
    if way == "one by one":
        patches = [patch.object(inner_products, "per_example_factors", whole)]
    for change in patches:
        change.start()
    try:
        program = jax.jit(measured).lower(params, x).compile()
    finally:
        for change in patches:
            change.stop()
    return partial(program, params, x)


def networks() -> dict[str, tuple[Callable[..., Any], Any]]:
    """The networks and their parameters."""
    keys = iter(jax.random.split(jax.random.key(1), 16))

    def weights(*shape: int) -> jax.Array:
        fan_in = max(1, int(jnp.prod(jnp.asarray(shape[:-1]))))
        return jax.random.normal(next(keys), shape) / fan_in**0.5

    lenet = {
        "kernels": [weights(5, 5, 1, 6), weights(5, 5, 6, 16)],
        "dense": [weights(400, 120), weights(120, 84), weights(84, CLASSES)],
    }
    sequence = {"up": weights(96, 192), "down": weights(192, 96), "out": weights(96, CLASSES)}
    recurrent = {"in": weights(28, 128), "step": weights(128, 128), "out": weights(128, CLASSES)}
    tied = {"code": weights(784, 256), "out": weights(784, CLASSES)}
    return {
        "LeNet-5": (_lenet, lenet),
        "sequence": (_sequence, sequence),
        "recurrent": (_recurrent, recurrent),
        "tied": (_tied, tied),
    }


def _lenet(p: Any, x: jax.Array) -> jax.Array:
    x = x.reshape(1, 28, 28, 1)
    for kernel, padding in zip(p["kernels"], ("SAME", "VALID"), strict=True):
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jax.nn.relu(x)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x.reshape(-1)
    for w in p["dense"][:-1]:
        x = jax.nn.relu(x @ w)
    return x @ p["dense"][-1]


def _sequence(p: Any, x: jax.Array) -> jax.Array:
    x = x[: 8 * 96].reshape(8, 96)
    return jnp.mean(x + jax.nn.relu(x @ p["up"]) @ p["down"], axis=0) @ p["out"]


def _recurrent(p: Any, x: jax.Array) -> jax.Array:
    def step(state: jax.Array, row: jax.Array) -> tuple[jax.Array, None]:
        return jnp.tanh(state @ p["step"] + row @ p["in"]), None

    return jax.lax.scan(step, jnp.zeros(128), x.reshape(28, 28))[0] @ p["out"]


def _tied(p: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(jax.nn.relu(x @ p["code"]) @ p["code"].T) @ p["out"]


def _example_loss(apply_fn: Callable[..., Any], params: Any, x: jax.Array) -> jax.Array:
    """The cross-entropy for the first class."""
    return -jax.nn.log_softmax(apply_fn(params, x))[0]


def _mean_loss(apply_fn: Callable[..., Any], params: Any, x: jax.Array) -> jax.Array:
    return jnp.mean(jax.vmap(lambda x: _example_loss(apply_fn, params, x))(x))
