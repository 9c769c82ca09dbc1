"""What runs on the device: steps, epochs and measurements, of one run or of many side by side."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from analysis.models.resnet import BATCH_AXIS
from analysis.training.at import At


class Carry(NamedTuple):
    """What training changes: the trainable arrays, the optimizer's and the network's state."""

    params: PyTree
    optimizer: PyTree
    network: PyTree


class Fixed(NamedTuple):
    """What a run keeps throughout: its key, its settings, arrays that are not trained."""

    key: Array
    settings: Mapping[str, Any]
    constants: PyTree


class Data(NamedTuple):
    """The arrays of a data set, shared by all runs."""

    x: Array
    y: Array
    test_x: Array | None
    test_y: Array | None

    def to_train_on(self) -> Data:
        """Without the test set: what steps are compiled for does not depend on its size."""
        return self._replace(test_x=None, test_y=None)


@dataclass(frozen=True)
class Program:
    """The functions and sizes that fix the compiled program; equal ones share it."""

    static_leaves: tuple[Any, ...]
    static_structure: Any
    make_optimizer: Callable[[Mapping[str, Array]], optax.GradientTransformation] | None
    loss: Callable[[Array, Array], Array]
    gradient: Callable[..., PyTree] | None
    penalty: Callable[[At], Array] | None
    metrics: tuple[tuple[str, Callable[[At], Array]], ...]
    per_example: tuple[tuple[str, Callable[[Array, Array], Array]], ...]
    batch_size: int | None
    label_noise: float
    num_classes: int  # 0 where there are targets
    chunk: int
    stateful: bool
    random: bool
    sharding: NamedSharding | None

    def model(self, params: PyTree, constants: PyTree) -> Any:
        """The module with these arrays in it."""
        static = jax.tree.unflatten(self.static_structure, self.static_leaves)
        return eqx.combine(params, constants, static)

    def optimizer(self, settings: Mapping[str, Array]) -> optax.GradientTransformationExtraArgs:
        """The rule with these settings, which takes extra arguments."""
        assert self.make_optimizer is not None  # only a program for measuring has none
        return optax.with_extra_args_support(self.make_optimizer(settings))


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


def stepping(program: Program) -> Program:
    """The program for all that does not measure: what is measured changes no step."""
    return replace(program, metrics=())


def measuring(program: Program) -> Program:
    """The program for measuring: how a step is made changes no measure, so rules share it."""
    return replace(
        program,
        make_optimizer=None,
        gradient=None,
        penalty=None,
        batch_size=None,
        label_noise=0.0,
        random=False,
    )


def waits_for_threads(program: Program, begin: tuple[Any, ...], data: Data) -> bool:
    """Whether some kernel hands parts of its work to XLA's threads and waits for them.

    LAPACK's do in jaxlib 0.10 and the Fourier transform's do. As such a kernel itself runs in one
    of these threads, programs of which as many run at once as there are threads can wait forever.
    """
    step = np.int32(0)
    leaves, structure = jax.tree.flatten((begin, data, step))
    shapes = tuple(jax.ShapeDtypeStruct(np.shape(v), jax.dtypes.result_type(v)) for v in leaves)
    return _waits_for_threads(program, structure, shapes)


@lru_cache(maxsize=64)
def _waits_for_threads(program: Program, structure: Any, shapes: tuple[Any, ...]) -> bool:
    begin, data, step = jax.tree.unflatten(structure, shapes)
    carry, fixed = jax.eval_shape(partial(start, program), *begin)
    lowered = (
        advance.lower(stepping(program), carry, fixed, data.to_train_on(), step, step),
        measure.lower(measuring(program), carry, fixed, data, step),
    )
    return any(_WAITING_KERNELS.search(part.as_text()) for part in lowered)


# As they are called before and after XLA's own passes.
_WAITING_KERNELS = re.compile(r"\b(lapack|blas)_|stablehlo\.(fft|cholesky|triangular_solve)")


@partial(jax.jit, static_argnums=0)
def measure(
    program: Program, carry: Carry, fixed: Fixed, data: Data, step: Array
) -> dict[str, Array]:
    """Every metric of every run."""
    return jax.vmap(partial(_measure, program), (0, 0, None, None))(carry, fixed, data, step)


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
        return _step(program, optimizer, carry, fixed, _split(program, (x, y)), number, key)

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
            seen = _at(program, params, carry.network, fixed, (x, y), number, new)
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


def _measure(
    program: Program, carry: Carry, fixed: Fixed, data: Data, step: Array
) -> dict[str, Array]:
    key = jax.random.fold_in(jax.random.fold_in(fixed.key, 2**31), step)
    seen = _at(program, carry.params, carry.network, fixed, (data.x, data.y), step, key, data)
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


def _at(
    program: Program,
    params: PyTree,
    network: PyTree,
    fixed: Fixed,
    batch: tuple[Array, Array],
    step: Array,
    key: Array,
    data: Data | None = None,
) -> At:
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


def _mean(each: Callable[[Array, Array], PyTree], x: Array, y: Array, program: Program) -> PyTree:
    """The mean of what `each` gives for every example; in chunks, so that memory is bounded."""
    length, size = x.shape[0], program.chunk
    if length <= size:
        return jax.tree.map(lambda v: jnp.mean(v, axis=0), each(*_split(program, (x, y))))

    @jax.checkpoint
    def total(x: Array, y: Array) -> PyTree:
        return jax.tree.map(lambda v: jnp.sum(v, axis=0), each(*_split(program, (x, y))))

    whole = length // size * size
    chunks = [v[:whole].reshape(-1, size, *v.shape[1:]) for v in (x, y)]
    rest = total(x[whole:], y[whole:])

    def add(so_far: PyTree, chunk: Any) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, so_far, total(*chunk)), None

    sums, _ = jax.lax.scan(add, rest, tuple(chunks))
    return jax.tree.map(lambda s: s / length, sums)


def _split(program: Program, batch: tuple[Array, Array]) -> tuple[Array, Array]:
    """The batch laid out over the devices, where there are several and it divides."""
    sharding = program.sharding
    if sharding is None or batch[0].shape[0] % sharding.mesh.size:
        return batch
    along = NamedSharding(sharding.mesh, PartitionSpec(*sharding.mesh.axis_names))
    return jax.lax.with_sharding_constraint(batch, along)
