"""What is measured on the device, of many runs side by side."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from analysis.training.at import At
from analysis.training.program import Carry, Data, Fixed, Program


@partial(jax.jit, static_argnums=0)
def measure(
    program: Program, carry: Carry, fixed: Fixed, data: Data, step: Array
) -> dict[str, Array]:
    """Every metric of every run."""
    return jax.vmap(partial(_measure, program), (0, 0, None, None))(carry, fixed, data, step)


def _measure(
    program: Program, carry: Carry, fixed: Fixed, data: Data, step: Array
) -> dict[str, Array]:
    key = jax.random.fold_in(jax.random.fold_in(fixed.key, 2**31), step)
    seen = seen_at(program, carry.params, carry.network, fixed, (data.x, data.y), step, key, data)
    found = {}
    assert data.test_x is not None  # whatever measures has both
    assert data.test_y is not None
    for part, x, y in (("train", data.x, data.y), ("test", data.test_x, data.test_y)):

        def each(x: Array, y: Array) -> dict[str, Array]:
            outputs = jax.vmap(seen.apply_fn, (None, 0))(carry.params, x)
            return {name: jax.vmap(one)(outputs, y) for name, one in program.per_example}

        means = _mean(each, x, y, program)
        found |= {f"{part}_{name}": value for name, value in means.items()}
    return found | {name: jnp.asarray(metric(seen)) for name, metric in program.metrics}


def seen_at(
    program: Program,
    params: PyTree,
    network: PyTree,
    fixed: Fixed,
    batch: tuple[Array, Array],
    step: Array,
    key: Array,
    data: Data | None = None,
) -> At:
    """What metrics, and with a batch of a step penalties, are given of a run."""
    x, y = batch

    def apply_fn(params: PyTree, x: Array) -> Array:
        model = eqx.nn.inference_mode(program.model(params, fixed.constants))
        return model(x, network)[0] if program.stateful else model(x)

    def example_loss_fn(params: PyTree, example: tuple[Array, Array]) -> Array:
        return program.loss(apply_fn(params, example[0]), example[1])

    def value_over(x: Array, y: Array) -> Callable[[PyTree], Array]:
        def value_fn(params: PyTree) -> Array:
            losses = jax.vmap(lambda x, y: example_loss_fn(params, (x, y)))
            return _mean(losses, x, y, program)

        return value_fn

    return At(
        params,
        apply_fn,
        example_loss_fn,
        value_over(x, y),
        x,
        y,
        fixed.settings,
        step,
        key,
        None if data is None else data.test_x,
        None if data is None else data.test_y,
        None if data is None else value_over(data.test_x, data.test_y),  # pyright: ignore
    )


def _mean(each: Callable[[Array, Array], PyTree], x: Array, y: Array, program: Program) -> PyTree:
    """The mean of what `each` gives for every example; in chunks, so that memory is bounded."""
    length, size = x.shape[0], program.chunk
    if length <= size:
        return jax.tree.map(lambda v: jnp.mean(v, axis=0), each(*program.on_devices((x, y))))

    @jax.checkpoint
    def total(x: Array, y: Array) -> PyTree:
        return jax.tree.map(lambda v: jnp.sum(v, axis=0), each(*program.on_devices((x, y))))

    whole = length // size * size
    chunks = [v[:whole].reshape(-1, size, *v.shape[1:]) for v in (x, y)]
    rest = total(x[whole:], y[whole:])

    def add(so_far: PyTree, chunk: Any) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, so_far, total(*chunk)), None

    sums, _ = jax.lax.scan(add, rest, tuple(chunks))
    return jax.tree.map(lambda s: s / length, sums)
