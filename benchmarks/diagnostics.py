"""Diagnostics against the plain gradient, and a monitor against the run it watches.

MLP 784-256-256-10 (269,322 parameters), batch 128, float32: `python -m benchmarks diagnostics`.
A gradient is that of the mean loss of the batch. What is taken without per-example gradients is
exact; the masked network, whose matrices are multiplied by masks first, is one on which that is not
possible, and its unit is its own gradient. Rows of long work with small differences are taken in
processor time, which the load of the machine moves less.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

import igr
from benchmarks.curvature import images
from benchmarks.measure import Row, median_seconds
from benchmarks.network import example_loss, logits, network
from igr.diagnostics import (
    coherence,
    coherence_from_batches,
    stiffness,
    tangent_kernel,
    tangent_kernel_trace,
)
from igr.per_example import grouped_gradients

BATCH = 128
GROUPS = 8
PROBES = 8
EVERY = 50
STEPS = 400


def rows() -> Iterator[Row]:
    """Yields the measurements."""
    params = network(jax.random.key(0))
    many = images()
    batch = jax.tree.map(lambda x: x[:BATCH], many)
    yield from _measures(params, batch)
    yield from _streaming(params, batch)
    yield from _from_batches(params, many)
    yield from _monitor(params, batch)


def _measures(params: Any, batch: Any) -> Iterator[Row]:
    x = batch[0]
    work = {
        "coherence": jax.jit(lambda p, b: coherence(example_loss, p, b)),
        "stiffness": jax.jit(lambda p, b: stiffness(example_loss, p, b)),
        "tr K": jax.jit(lambda p, b: tangent_kernel_trace(logits, p, b[0])),
        "tr K by one probe": jax.jit(
            lambda p, b: tangent_kernel_trace(logits, p, b[0], method="random_signs")
        ),
    }
    targets = {name: "<= 3" for name in work} | {"tr K by one probe": "<= 1.6"}
    unit, cost = _in_gradients(example_loss, work, params, batch)
    for name, gradients in cost.items():
        yield Row(name, gradients, "gradients", targets[name])
    kernel = jax.jit(lambda p, x: tangent_kernel(logits, p, x))
    seconds = median_seconds({"kernel": lambda: kernel(params, x)}, 5)
    outputs = BATCH * 10
    yield Row(f"kernel, {outputs} x {outputs}", seconds["kernel"] / unit, "gradients", "<= 40")


def _streaming(params: Any, batch: Any) -> Iterator[Row]:
    masks = jax.tree.map(lambda x: (x != 0).astype(x.dtype) if x.ndim == 2 else None, params)

    def masked_loss(state: Any, example: Any) -> jax.Array:
        params, masks = state
        return example_loss(
            [
                {"w": layer["w"] * jax.lax.stop_gradient(mask["w"]), "b": layer["b"]}
                for layer, mask in zip(params, masks, strict=True)
            ],
            example,
        )

    def loss(params: Any, example: Any) -> jax.Array:
        return masked_loss((params, masks), example)

    def signs(probes: int) -> Callable[[Any, Any], Any]:
        return jax.jit(
            lambda p, b: coherence(example_loss, p, b, method="random_signs", probes=probes)
        )

    exact = jax.jit(lambda p, b: coherence(loss, p, b))
    _, cost = _in_gradients(loss, {"streamed": exact}, params, batch)
    yield Row("coherence of the masked network", cost["streamed"], "gradients", "<= 15")
    analysis: Any = exact.lower(params, batch).compile().memory_analysis()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    yield Row("... its memory", analysis.temp_size_in_bytes / size, "times the parameters", "<= 10")
    many, one = f"{PROBES + 1} probes", "one probe"
    _, cost = _in_gradients(
        example_loss, {many: signs(PROBES + 1), one: signs(1)}, params, batch, repeats=30
    )
    each = (cost[many] - cost[one]) / PROBES
    yield Row("coherence by random signs, a probe more", each, "gradients", "<= 1.3")
    whole = cost[many] / (PROBES + 2)
    yield Row(f"... {PROBES + 1} probes and the mean, each", whole, "gradients", "<= 1.3")


def _from_batches(params: Any, batch: Any) -> Iterator[Row]:
    groups = jax.jit(lambda p, b: grouped_gradients(example_loss, p, b, GROUPS))

    @jax.jit
    def measured(params: Any, batch: Any) -> Any:
        gradients = grouped_gradients(example_loss, params, batch, GROUPS)
        return coherence_from_batches(gradients, len(batch[1]) // GROUPS)

    for size, target in ((BATCH, "<= 1.2"), (BATCH // GROUPS, "")):
        some = jax.tree.map(lambda x, size=size: x[: size * GROUPS], batch)
        seconds = median_seconds(
            {
                "groups": lambda some=some: groups(params, some),
                "measured": lambda some=some: measured(params, some),
            },
            20,
            clock=time.process_time,
        )
        cost = seconds["measured"] / seconds["groups"]
        yield Row(f"coherence from {GROUPS} batches of {size}", cost, "of the gradients", target)


def _monitor(params: Any, batch: Any) -> Iterator[Row]:
    optimizer = optax.sgd(1e-2)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> Any:
        gradient = jax.grad(_mean_loss)(params, example_loss, batch)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), state

    warnings.simplefilter("ignore", UserWarning)  # that coherence falls under its limit
    monitor = igr.Monitor(
        ["slope", "coherence", "tangent_kernel_trace"],
        every=EVERY,
        example_loss_fn=example_loss,
        apply_fn=logits,
    )

    def run(watch: Callable[..., Any]) -> Any:
        p, state = params, optimizer.init(params)
        for i in range(STEPS):
            watch(p, batch, i)
            p, state = step(p, state, batch)
        return p

    def watched() -> Any:
        return run(monitor)

    seconds = median_seconds(
        {"alone": lambda: run(lambda *_: None), "watched": watched},
        9,
        settle=False,
        clock=time.process_time,
    )
    what = f"monitor of slope, coherence and tr K every {EVERY} steps"
    share = 100 * (seconds["watched"] / seconds["alone"] - 1)
    yield Row(f"{what}: longer than without", share, "% of the run", "<= 5")

    fresh = igr.Monitor(
        ["slope", "coherence", "tangent_kernel_trace"],
        every=EVERY,
        example_loss_fn=example_loss,
        apply_fn=logits,
    )
    jax.block_until_ready(run(fresh))
    yield Row("... by its own account", 100 * fresh.cost.share, "% of the run", "<= 5")


def _mean_loss(params: Any, loss_fn: Any, batch: Any) -> jax.Array:
    return jnp.mean(jax.vmap(lambda example: loss_fn(params, example))(batch))


def _in_gradients(
    loss_fn: Any,
    work: dict[str, Callable[[Any, Any], Any]],
    params: Any,
    batch: Any,
    repeats: int = 20,
) -> tuple[float, dict[str, float]]:
    """The seconds of a gradient, and what each piece of work costs in gradients."""
    gradient = jax.jit(jax.grad(_mean_loss), static_argnums=1)
    runs: dict[str, Callable[[], Any]] = {"gradient": lambda: gradient(params, loss_fn, batch)}
    runs |= {name: lambda fn=fn: fn(params, batch) for name, fn in work.items()}
    seconds = median_seconds(runs, repeats)
    unit = seconds.pop("gradient")
    return unit, {name: value / unit for name, value in seconds.items()}
