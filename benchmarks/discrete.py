"""`igr.run`, one scan on the device, against what one would write without it.

A Python loop over a jitted optax step pays for every dispatch; the bare scan of p - h g is what no
recording of the same run can beat. A small network, where dispatch is what counts, and the one
of the field benchmark, where the gradient is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import optax

import igr
from benchmarks.field import NETWORKS, loss
from benchmarks.measure import Row, median_seconds
from benchmarks.network import examples, network

_RATE = 0.05


def rows() -> Iterator[Row]:
    """Yields the measurements."""
    yield from _compared("small network", (8, 16, 4), 32, steps=100_000, few=5_000)
    yield from _compared("large network", NETWORKS["digits"], 256, steps=1_500, few=200)


def _compared(
    name: str, widths: tuple[int, ...], number: int, steps: int, few: int
) -> Iterator[Row]:
    params = network(jax.random.key(0), widths, gain=1.0)
    batch = examples(jax.random.key(1), number, widths)
    value_fn = lambda p: loss(p, batch)  # noqa: E731
    optimizer = optax.sgd(_RATE)
    every = few // 10
    seconds = median_seconds(
        {
            "call": lambda: igr.run(optimizer, value_fn, params, 1).value,
            "run": lambda: igr.run(optimizer, value_fn, params, steps, record_every=every).value,
            "loop": _loop(optimizer, params, batch, few),
            "bare": _bare(params, batch, few),
        },
        repeats=5,
        settle=False,
    )
    # A call of `run` checks its input and traces the loss anew: that is measured apart.
    step = max(seconds["run"] - seconds["call"], 0.0) / steps
    loop, bare = seconds["loop"] / few, seconds["bare"] / few
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    yield Row(f"{name}, {size:,} parameters: a call of igr.run", seconds["call"], "s")
    yield Row(f"{name}: a step of igr.run", 1e6 * step, "microseconds")
    yield Row(f"{name}: a step of igr.run", step / loop, "jitted optax steps", "<= 1")
    yield Row(f"{name}: a step of igr.run", step / bare, "bare steps p - h g", "<= 1.5")


def _loop(
    optimizer: optax.GradientTransformation, params: Any, batch: Any, steps: int
) -> Callable[[], Any]:
    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    def run() -> Any:
        p, state = params, optimizer.init(params)
        for _ in range(steps):
            p, state, _ = step(p, state, batch)
        return p

    return run


def _bare(params: Any, batch: Any, steps: int) -> Callable[[], Any]:
    @jax.jit
    def run(params: Any, batch: Any) -> Any:
        def step(p: Any, _: None) -> tuple[Any, None]:
            gradient = jax.grad(loss)(p, batch)
            return jax.tree.map(lambda x, g: x - _RATE * g, p, gradient), None

        return jax.lax.scan(step, params, length=steps)[0]

    return lambda: run(params, batch)
