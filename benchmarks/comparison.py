"""`igr.compare`: what the first call costs, what the second, and how many programs are compiled.

Two parameters, where all is overhead; and a network on digits against its own discrete run, smooth
and with kinks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

import igr
from benchmarks.measure import Row, median_seconds
from benchmarks.network import network

_STEPS = 500


def rows() -> Iterator[Row]:
    """Yields the measurements."""
    compilations: list[str] = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        compilations.extend([event] * event.endswith("backend_compile_duration"))

    jax.monitoring.register_event_duration_secs_listener(listen)

    start = time.perf_counter()
    compare = igr.compare  # `import igr` loads nothing: what it needs is loaded here
    yield Row("loading igr.compare", time.perf_counter() - start, "s")

    def two(h: float) -> Any:
        loss = lambda w: (w[0] * w[1] - 1) ** 2 / 2  # noqa: E731
        return compare(loss, jnp.array([2.0, 0.3]), h, 50)

    for name, h, seconds, programs in (
        ("first", 0.05, "<= 2", ""),
        ("second", 0.06, "<= 0.3", "<= 0"),
    ):
        before, start = len(compilations), time.perf_counter()
        two(h)
        yield Row(f"two parameters, {name} call", time.perf_counter() - start, "s", seconds)
        yield Row(f"two parameters, {name} call", len(compilations) - before, "programs", programs)
    yield from _on_digits("tanh", jnp.tanh, 0.1, (0, 1, 2), True, 12)
    for dtype in (jnp.float32, jnp.float64):
        for h in (0.1, 0.5):
            for order in (0, 1, "differences"):
                name = f"ReLU in {jnp.dtype(dtype).name}, h = {h}"
                with jax.enable_x64(dtype == jnp.float64):
                    found = list(_on_digits(name, jax.nn.relu, h, (order,), False, 60, dtype))
                yield from found


def _on_digits(
    name: str,
    activation: Callable,
    h: float,
    orders: tuple,
    sharpness: bool,
    most: float,
    dtype: Any = jnp.float32,
) -> Iterator[Row]:
    data = load_digits()
    x, y = jnp.asarray(data.data / 16, dtype), jnp.asarray(data.target)
    params = network(jax.random.key(0), (64, 64, 10), gain=1.0)
    params = jax.tree.map(lambda p: p.astype(dtype), params)

    def value_fn(p: Any) -> jax.Array:
        hidden = activation(x @ p[0]["w"] + p[0]["b"])
        logits = hidden @ p[1]["w"] + p[1]["b"]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))

    seconds = median_seconds(
        {
            "run": lambda: igr.run(optax.sgd(h), value_fn, params, _STEPS, record_every=5).value,
            "compare": lambda: np.asarray(
                igr.compare(value_fn, params, h, _STEPS, orders, sharpness=sharpness).travelled
            ),
        },
        repeats=1,
        settle=False,
    )
    what = f"digits, {name}, orders {', '.join(map(str, orders))}"
    yield Row(what, seconds["compare"] / seconds["run"], "discrete runs", f"<= {most}")
