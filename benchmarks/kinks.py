"""Where the expansion is to be trusted, and what kinks do to it: not speed, but distances.

Small networks on digits, smooth and with kinks. A table of 24 runs, activation by optimizer by
step, says whether `trusted` keeps its word; windows of training say where differences of the
gradient are closer than its derivatives; and steps of explicit gradient regularization say whether
these lower what they are to lower.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import igr
from benchmarks.measure import Row
from benchmarks.network import network

ACTIVATIONS: dict[str, Callable] = {
    "tanh": jnp.tanh,
    "GELU": jax.nn.gelu,
    "leaky ReLU": jax.nn.leaky_relu,
    "ReLU": jax.nn.relu,
    "max pooling": lambda x: jnp.repeat(x.reshape(*x.shape[:-1], -1, 2).max(-1), 2, -1),
}
OPTIMIZERS: dict[str, tuple[Any, tuple[float, float]]] = {
    "gradient descent": (igr.methods.gradient_descent(), (0.02, 0.3)),
    "heavy ball": (igr.methods.heavy_ball(0.9), (0.003, 0.03)),
    "Adam": (igr.methods.adam(), (0.0005, 0.004)),
}
STEPS = 60
SIZES = ((128, 200), (32, 1000), (128, 1000))  # widths and numbers of examples


def rows() -> Iterator[Row]:
    """Yields the measurements."""
    broken = wasted = 0
    for activation in ("tanh", "GELU", "ReLU", "max pooling"):
        for name, (method, rates) in OPTIMIZERS.items():
            for h in rates:
                seen = _compared(activation, h, (0, 1), method)
                zero, one = (float(seen.distance[p][-1]) for p in (0, 1))
                share = float(np.mean(seen.trusted))
                what = f"{activation}, {name}, h = {h}"
                yield Row(f"{what}: order 1 over order 0", one / zero, "of the distance")
                yield Row(f"{what}: remainder", float(np.nanmax(seen.remainder)), "at most")
                yield Row(f"{what}: h|F1|/|F0|", float(np.max(seen.correction)), "at most")
                yield Row(f"{what}: trusted", share, "of the records")
                told = ~seen.at_rounding[0][-1]
                broken += bool(share == 1 and told and not one <= zero / 2)
                wasted += bool(share == 0 and one <= zero / 10)
    yield Row("24 runs: trusted, and order 1 not twice as close", broken, "runs", "<= 0")
    yield Row("24 runs: ten times as close, and nowhere trusted", wasted, "runs", "<= 0")
    yield from _windows()
    yield from _sizes()
    for activation in ("tanh", "ReLU"):
        yield from _penalty(activation)


def _windows() -> Iterator[Row]:
    """Derivatives and differences over windows of training."""
    for activation in ACTIVATIONS:
        for start in (0, 160):
            seen = _compared(
                activation, 0.1, (0, 1, "differences"), OPTIMIZERS["gradient descent"][0], start
            )
            zero = float(seen.distance[0][-1])
            for p in (1, "differences"):
                what = "derivatives" if p == 1 else p
                row = f"{activation}, steps {start} to {start + STEPS}: {what} over order 0"
                yield Row(row, float(seen.distance[p][-1]) / zero, "of the distance")


def _sizes() -> Iterator[Row]:
    """The same over widths and numbers of examples."""
    method = OPTIMIZERS["gradient descent"][0]
    for activation in ("ReLU", "max pooling"):
        for width, examples in SIZES:
            for start in (0, 160):
                flows = (0, 1, "differences")
                seen = _compared(activation, 0.1, flows, method, start, width, examples)
                zero = float(seen.distance[0][-1])
                for p, what in ((1, "derivatives"), ("differences", "differences")):
                    row = (
                        f"{activation}, width {width}, {examples} examples, steps {start} to "
                        f"{start + STEPS}: {what} over order 0"
                    )
                    yield Row(row, float(seen.distance[p][-1]) / zero, "of the distance")


def _penalty(activation: str, mu: float = 0.05, h: float = 0.1) -> Iterator[Row]:
    """|grad E|^2 after a step with a penalty over that after one without, a mean over ten steps."""
    loss, params = _problem(activation)
    gradient = jax.jit(jax.grad(loss))
    square = jax.jit(lambda p: optax.tree.norm(gradient(p), squared=True))
    start = igr.run(optax.sgd(h), loss, params, 40, record_every=40).last

    def slope_product(p: Any) -> Any:
        return jax.jvp(gradient, (p,), (gradient(p),))[1]

    def by_differences(p: Any) -> Any:
        g = gradient(p)
        back = gradient(jax.tree.map(lambda x, d: x - h * d, p, g))
        return jax.tree.map(lambda a, b: (a - b) / h, g, back)

    for name, product in (("derivatives", slope_product), ("differences", by_differences)):
        lowered = []
        p = start
        for _ in range(10):
            plain = jax.tree.map(lambda x, d: x - h * d, p, gradient(p))
            added = jax.tree.map(lambda x, d: x - h * 2 * mu * d, plain, product(p))
            lowered.append(float(square(added) / square(plain)))
            p = plain
        yield Row(
            f"{activation}: |grad E|^2 after a step of EGR by {name}, over that without",
            float(np.mean(lowered)),
            "of it",
        )


def _problem(activation: str, width: int = 32, examples: int = 200) -> tuple[Callable, Any]:
    data = load_digits()
    x = jnp.asarray(data.data[:examples] / 16, jnp.float32)
    y = jnp.asarray(data.target[:examples])
    params = network(jax.random.key(0), (64, width, 10), gain=1.5)

    def value_fn(p: Any) -> jax.Array:
        hidden = ACTIVATIONS[activation](x @ p[0]["w"] + p[0]["b"])
        logits = hidden @ p[1]["w"] + p[1]["b"]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    return value_fn, params


def _compared(
    activation: str,
    h: float,
    flows: tuple,
    method: Any,
    before: int | None = None,
    width: int = 32,
    examples: int = 200,
) -> Any:
    value_fn, params = _problem(activation, width, examples)
    return igr.compare(
        value_fn, params, h, STEPS, method=method, flows=flows, burn_in=before, record_every=15
    )
