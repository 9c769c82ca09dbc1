"""Steps and epochs on the device, of one run or of many side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from analysis.models.resnet import BATCH_AXIS
from analysis.training.measuring import seen_at
from analysis.training.program import Carry, Data, Fixed, Program


def make(make_model: Callable[[Array], Any], seeds: Any) -> tuple[Any, Any, Array]:
    """The models of all seeds, stacked; their states or None; the keys of their training."""
    return _make(make_model, seeds)


@partial(jax.jit, static_argnums=0)
def start(
    program: Program,
    params: PyTree,
    network: PyTree,
    fixed: Fixed,
    which: Array,
) -> tuple[Carry, Fixed]:
    """The runs before their first step: of each seed in `which`, with the settings in `fixed`."""

    def one(params: PyTree, network: PyTree, settings: Mapping[str, Array]) -> Carry:
        return Carry(params, program.optimizer(settings).init(params), network)

    params, network, key, constants = jax.tree.map(
        lambda v: v[which], (params, network, fixed.key, fixed.constants)
    )
    fixed = Fixed(key, fixed.settings, constants)
    return jax.vmap(one)(params, network, fixed.settings), fixed


@partial(jax.jit, static_argnums=0)
def advance(
    program: Program, carry: Carry, fixed: Fixed, data: Data, first: Array, end: Array
) -> Carry:
    """Every run from step `first` to step `end`, its batches the same however it is cut up."""
    one = partial(_advance, program)
    if fixed.key.shape[0] == 1:  # an axis of one run is not free: a quarter of a small step
        carry, fixed = jax.tree.map(lambda v: v[0], (carry, fixed))
        return jax.tree.map(lambda v: v[None], one(carry, fixed, data, first, end))
    return jax.vmap(one, (0, 0, None, None, None))(carry, fixed, data, first, end)


@jax.jit
def keep(better: Array, new: PyTree, old: PyTree) -> PyTree:
    """Run by run the new arrays where they are better, else the old ones."""

    def choose(n: Array, o: Array) -> Array:
        return jnp.where(better.reshape(-1, *[1] * (n.ndim - 1)), n, o)

    return jax.tree.map(choose, new, old)


def _make_all(make_model: Callable[[Array], Any], seeds: Array) -> Any:
    def one(seed: Array) -> tuple[Any, Any, Array]:
        for_model, for_training = jax.random.split(jax.random.key(seed))
        made = make_model(for_model)
        if isinstance(made, tuple) and len(made) == 2 and isinstance(made[1], eqx.nn.State):
            return *made, for_training
        return made, None, for_training

    return eqx.filter_vmap(one)(seeds)


# Every random draw takes long to compile and is done once: not worth optimizing (LeNet-5 on a CPU:
# 1 s instead of 9).
_make = eqx.filter_jit(  # pyright: ignore[reportCallIssue]
    _make_all, compiler_options={"xla_backend_optimization_level": 0}
)


def _advance(
    program: Program, carry: Carry, fixed: Fixed, data: Data, first: Array, end: Array
) -> Carry:
    optimizer = program.optimizer(fixed.settings)
    for_batches, for_steps = jax.random.split(fixed.key)

    def step(number: Array, carry: Carry, x: Array, y: Array) -> Carry:
        key = jax.random.fold_in(for_steps, number)
        return _step(program, optimizer, carry, fixed, program.on_devices((x, y)), number, key)

    if program.batch_size is None:
        return jax.lax.fori_loop(first, end, lambda i, c: step(i, c, data.x, data.y), carry)
    size = program.batch_size
    length = data.x.shape[0]
    steps = length // size

    def epoch(number: Array, carry: Carry) -> Carry:
        order = jax.random.permutation(jax.random.fold_in(for_batches, number), length)
        before = number * steps

        def one(i: Array, carry: Carry) -> Carry:
            which = jax.lax.dynamic_slice_in_dim(order, i * size, size)
            return step(before + i, carry, data.x[which], data.y[which])

        return jax.lax.fori_loop(
            jnp.maximum(first - before, 0), jnp.minimum(end - before, steps), one, carry
        )

    # No epoch where there is no step: the order of its examples alone takes time.
    epochs = jnp.where(end > first, (end - 1) // steps + 1, first // steps)
    return jax.lax.fori_loop(first // steps, epochs, epoch, carry)


def _step(
    program: Program,
    optimizer: optax.GradientTransformationExtraArgs,
    carry: Carry,
    fixed: Fixed,
    batch: tuple[Array, Array],
    number: Array,
    key: Array,
) -> Carry:
    x, y = batch
    if program.label_noise:
        y = _noisy(program, y, jax.random.fold_in(key, 0))
    keys = None
    if program.random:
        keys = jax.random.split(jax.random.fold_in(key, 1), x.shape[0])

    def outputs_and_state(params: PyTree) -> tuple[Array, PyTree]:
        return _outputs(program, program.model(params, fixed.constants), carry.network, x, keys)

    def outputs_fn(params: PyTree) -> Array:
        return outputs_and_state(params)[0]

    def output_loss_fn(outputs: Array) -> Array:
        return jnp.mean(jax.vmap(program.loss)(outputs, y))

    def objective(params: PyTree) -> tuple[Array, PyTree]:
        outputs, network = outputs_and_state(params)
        value = output_loss_fn(outputs)
        if program.penalty is not None:
            new = jax.random.fold_in(key, 2)
            seen = seen_at(program, params, carry.network, fixed, (x, y), number, new)
            value = value + program.penalty(seen)
        return value, network

    def value_fn(params: PyTree) -> Array:
        return objective(params)[0]

    if program.gradient is None:
        (value, network), gradient = jax.value_and_grad(objective, has_aux=True)(carry.params)
        known = {"value": value, "grad": gradient}
    else:

        def example_loss_fn(params: PyTree, example: Any) -> Array:
            model = program.model(params, fixed.constants)
            key = example[2] if program.random else None
            return program.loss(_one_output(model, example[0], key), example[1])

        examples = (x, y) if keys is None else (x, y, keys)
        gradient = program.gradient(example_loss_fn, carry.params, examples)
        network, known = carry.network, {}
    updates, state = optimizer.update(
        gradient,
        carry.optimizer,
        carry.params,
        value_fn=value_fn,
        apply_fn=outputs_fn,
        output_loss_fn=output_loss_fn,
        **known,
    )
    return Carry(optax.apply_updates(carry.params, updates), state, network)


def _outputs(
    program: Program, model: Any, network: PyTree, x: Array, keys: Array | None
) -> tuple[Array, PyTree]:
    if program.stateful:
        return jax.vmap(model, axis_name=BATCH_AXIS, in_axes=(0, None), out_axes=(0, None))(
            x, network
        )
    if keys is None:
        return jax.vmap(lambda x: _one_output(model, x, None))(x), network
    return jax.vmap(lambda x, key: _one_output(model, x, key))(x, keys), network


def _one_output(model: Any, x: Array, key: Array | None) -> Array:
    return model(x) if key is None else model(x, key=key)


def _noisy(program: Program, y: Array, key: Array) -> Array:
    where, to = jax.random.split(key)
    classes = program.num_classes
    shift = jax.random.randint(to, y.shape, 1, classes)
    wrong = jax.random.bernoulli(where, program.label_noise, y.shape)
    return jnp.where(wrong, (y + shift) % classes, y).astype(y.dtype)
