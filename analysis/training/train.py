"""Train a network on a grid of settings and seeds, all in one program."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PRNGKeyArray, PyTree

from analysis.data.examples import Classification, TrainTest
from analysis.training.losses import accuracy, cross_entropy, squared_error
from analysis.training.measuring import measure
from analysis.training.options import Options
from analysis.training.program import Data, Fixed, Program
from analysis.training.runs import Runs
from analysis.training.stepping import advance, keep, make, start
from analysis.training.stopping import MaxTestAccuracy, PhysicalTime, Steps, sample_points
from analysis.training.threads import cores_allowed, in_threads
from analysis.training.waiting import waits_for_threads

Settings = Mapping[str, Array]
Run = tuple[int, int]  # the places of its settings and of its seed


def train(
    make_model: Callable[[PRNGKeyArray], Any],
    make_optimizer: Callable[[Settings], optax.GradientTransformation],
    data: TrainTest[Any],
    *,
    grid: Mapping[str, Sequence[float]],
    seeds: Sequence[int],
    stop: Steps | PhysicalTime | MaxTestAccuracy,
    options: Options | None = None,
) -> Runs:
    """Train one network from every seed with every combination of settings.

    Whole stretches of training, from sample to sample, run on the device without coming back:
    the order of the examples is drawn there anew every epoch. Runs go side by side, vmapped, in
    one compiled program; on a CPU the program is run in one thread a core, but where it has
    kernels that wait for XLA's own threads (LAPACK's), which could then wait forever. A run's
    numbers depend on its seed and settings, neither on where samples are taken nor, but for
    rounding, on which runs are beside it.

    Args:
        make_model: From a key to an equinox module of one example, `model(x)`; where it has
            dropout `model(x, key=key)`; where it has state, what `equinox.nn.make_with_state`
            makes.
        make_optimizer: From settings (scalars, traced) to any optax transformation. In `update` it
            gets `params` and, by keyword, `value_fn` of the batch and its two parts `apply_fn`
            (`params -> outputs`) and `output_loss_fn`; without `gradient` also `value` and `grad`.
        data: What to train and test on.
        grid: The settings, values by name; every combination is run. "learning_rate" is one.
        seeds: Of the starting weights and of everything drawn at random. A seed starts from the
            same weights, and sees the same batches, with all settings.
        stop: `Steps`, `PhysicalTime` or `MaxTestAccuracy`.
        options: Batches, losses, penalties, what is measured, and how the device is used.

    Returns:
        The metrics of every run at every sample, and the models.

    Raises:
        ValueError: If an argument is not as said above.

    >>> from analysis.data import sin
    >>> from analysis.models import MLP
    >>> from analysis.training import Options, Steps
    >>> runs = train(
    ...     lambda key: MLP(1, 1, 8, 1, key=key),
    ...     lambda settings: optax.sgd(settings["learning_rate"]),
    ...     sin(), grid={"learning_rate": (0.05, 0.1)}, seeds=(0, 1, 2), stop=Steps(60),
    ...     options=Options(samples=3),
    ... )
    >>> runs["test_loss"].shape, runs.step[0].tolist()
    ((2, 3, 4), [0, 20, 40, 60])
    >>> bool((runs["train_loss"][..., -1] < runs["train_loss"][..., 0]).all())
    True
    """
    options = options or Options()
    grid = {name: tuple(float(v) for v in values) for name, values in grid.items()}
    seeds = tuple(int(seed) for seed in seeds)
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    _check(grid, seeds, data, options)
    is_classes = isinstance(data.train, Classification)
    if isinstance(stop, MaxTestAccuracy) and not is_classes:
        raise ValueError("stop is MaxTestAccuracy, and targets have no accuracy: use Steps")
    steps = [stop.steps_at(point) for point in points]
    sampled = np.stack([sample_points(options.samples, number) for number in steps])
    mesh = _mesh(options.devices, options.batch_size or len(data.train))

    model, network, keys = make(make_model, np.asarray(seeds, np.uint32))
    arrays, static = eqx.partition(model, eqx.is_array)
    params, constants = eqx.partition(arrays, eqx.is_inexact_array)
    if not jax.tree.leaves(params):
        raise ValueError("make_model made a model without floating arrays")
    if options.gradient is not None and network is not None:
        raise ValueError("gradient works example by example, a network with state does not")
    loss = options.loss or (cross_entropy if is_classes else squared_error)
    leaves, structure = jax.tree.flatten(static)
    program = Program(
        static_leaves=tuple(leaves),
        static_structure=structure,
        make_optimizer=make_optimizer,
        loss=loss,
        gradient=options.gradient,
        penalty=options.penalty,
        metrics=tuple((options.metrics or {}).items()),
        per_example=(("loss", loss), *([("accuracy", accuracy)] if is_classes else [])),
        batch_size=options.batch_size,
        label_noise=options.label_noise,
        num_classes=data.train.num_classes if is_classes else 0,
        chunk=options.chunk,
        stateful=network is not None,
        random=_drops(model),
        sharding=None if mesh is None else NamedSharding(mesh, PartitionSpec()),
    )
    dtype = jax.tree.leaves(params)[0].dtype
    on_device = _data(data, dtype, program.sharding)

    runs = [(p, s) for p in range(len(points)) for s in range(len(seeds))]
    groups = [[run for run in runs if steps[run[0]] == n] for n in sorted(set(steps), reverse=True)]
    largest = max(len(group) for group in groups)

    def begin(members: list[Run], size: int) -> tuple[PyTree, PyTree, Fixed, np.ndarray]:
        # A part of the same size for all: one compiled program. What is doubled is dropped.
        full = members + members[-1:] * (size - len(members))
        which = np.array([s for _, s in full])
        settings = {name: np.array([points[p][name] for p, _ in full], dtype) for name in grid}
        return params, network, Fixed(keys, settings, constants), which

    cores = cores_allowed() if mesh is None and jax.default_backend() == "cpu" else 1
    one_each = min(options.together or math.ceil(largest / cores), largest)
    if one_each < len(runs) and cores > 1:
        any_part = begin(groups[0][:one_each], one_each)
        if waits_for_threads(program, any_part, on_device):
            cores = 1
    size = min(options.together or math.ceil(largest / cores), largest)
    parts = [group[i : i + size] for group in groups for i in range(0, len(group), size)]

    double = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]

    def work(members: list[Run]) -> Any:
        first = begin(members, size)
        if program.sharding is not None:
            first = jax.device_put(first, program.sharding)
        with jax.enable_x64(double):  # a thread does not inherit it
            return _run(program, first, on_device, sampled[members[0][0]], stop, len(members))

    done = in_threads(work, parts, cores)

    order = np.argsort([p * len(seeds) + s for part in parts for p, s in part])
    records, kept, carried = (
        jax.tree.map(lambda *v: np.concatenate([np.asarray(x) for x in v])[order], *column)
        for column in zip(*done, strict=True)
    )
    axes = (*(len(values) for values in grid.values()), len(seeds))

    def shaped(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda v: v.reshape(*axes, *v.shape[1:]), tree)

    tiled = jax.tree.map(lambda v: np.asarray(v)[[s for _, s in runs]], constants)
    return Runs(
        settings=grid,
        seeds=seeds,
        step=sampled.reshape(*axes[:-1], -1),
        metrics=shaped(records),
        kept=shaped(kept),
        model=eqx.combine(shaped(carried[0]), shaped(tiled), static),
        state=None if network is None else shaped(carried[1]),
        source=data.source,
    )


def _run(
    program: Program,
    begin: tuple[PyTree, PyTree, Fixed, np.ndarray],
    data: Data,
    points: np.ndarray,
    stop: Steps | PhysicalTime | MaxTestAccuracy,
    wanted: int,
) -> tuple[dict[str, np.ndarray], np.ndarray, tuple[PyTree, PyTree]]:
    """Some runs side by side from the first sample to the last: records, kept sample and model."""
    for_steps, for_measures = program.for_steps(), program.for_measures()
    carry, fixed = start(for_steps, *begin)
    to_train_on = data.to_train_on()
    best = (carry.params, carry.network)
    records: list[Mapping[str, Any]] = []
    number = fixed.key.shape[0]
    kept, highest, stale = np.zeros(number, int), np.full(number, -np.inf), np.zeros(number, int)
    going = np.ones(number, bool)
    before = 0
    for i, point in enumerate(points):
        carry = advance(for_steps, carry, fixed, to_train_on, *_integers(before, point))
        before = point
        found = measure(for_measures, carry, fixed, data, *_integers(point))
        if isinstance(stop, MaxTestAccuracy):
            reached = np.asarray(found["test_accuracy"])
            better = going & (reached > highest)
            best = keep(better, (carry.params, carry.network), best)
            highest, kept = np.where(better, reached, highest), np.where(better, i, kept)
            stale = np.where(better, 0, stale + 1)
            found = {name: _masked(value, going) for name, value in found.items()}
        records.append(found)
        if isinstance(stop, MaxTestAccuracy) and stop.patience is not None:
            going = going & (stale < stop.patience)
            if not going.any():
                break
    if not isinstance(stop, MaxTestAccuracy):
        best, kept = (carry.params, carry.network), np.full(number, len(points) - 1)
    stacked = {
        name: _filled(np.stack([np.asarray(r[name]) for r in records], axis=1), len(points))
        for name in records[0]
    }
    return jax.tree.map(lambda v: v[:wanted], (stacked, kept, best))


def _masked(value: Array, going: np.ndarray) -> np.ndarray:
    seen = np.asarray(value, float)
    return np.where(going.reshape(-1, *[1] * (seen.ndim - 1)), seen, np.nan)


def _filled(values: np.ndarray, length: int) -> np.ndarray:
    """NaN for the samples that were not reached."""
    missing = length - values.shape[1]
    if not missing:
        return values
    widths = [(0, 0), (0, missing)] + [(0, 0)] * (values.ndim - 2)
    return np.pad(values.astype(float), widths, constant_values=np.nan)


def _integers(*numbers: int) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(number, np.int32) for number in numbers)


def _drops(model: Any) -> bool:
    """Whether a model has dropout."""
    is_dropout = lambda node: isinstance(node, eqx.nn.Dropout)  # noqa: E731
    return any(is_dropout(n) and n.p > 0 for n in jax.tree.leaves(model, is_leaf=is_dropout))


def _data(data: TrainTest[Any], dtype: Any, sharding: NamedSharding | None) -> Data:
    def cast(v: np.ndarray) -> np.ndarray:
        return v.astype(np.int32 if np.issubdtype(v.dtype, np.integer) else dtype)

    parts = (data.train.x, data.train.y, data.test.x, data.test.y)
    return Data(*(jax.device_put(cast(part), sharding) for part in parts))


def _mesh(devices: Sequence[Any] | None, batch: int) -> Mesh | None:
    if devices is None:
        local = jax.local_devices()
        number = next(n for n in range(len(local), 0, -1) if batch % n == 0)
        devices = local[:number]
    elif not devices or batch % len(devices):
        raise ValueError(
            f"devices must divide the batch of {batch} examples evenly; got {len(devices)}"
        )
    return Mesh(np.array(devices), ("data",)) if len(devices) > 1 else None


def _check(
    grid: Mapping[str, tuple[float, ...]],
    seeds: tuple[int, ...],
    data: TrainTest[Any],
    options: Options,
) -> None:
    batch_size, chunk, together = options.batch_size, options.chunk, options.together
    label_noise = options.label_noise
    if "learning_rate" not in grid:
        raise ValueError(f'grid must have "learning_rate"; got {sorted(grid)}')
    for name, values in grid.items():
        if not values or not all(math.isfinite(v) for v in values):
            raise ValueError(f"grid[{name!r}] must hold finite numbers, at least one; got {values}")
    if min(grid["learning_rate"]) <= 0:
        raise ValueError(f'grid["learning_rate"] must be positive; got {grid["learning_rate"]}')
    if not seeds or len(set(seeds)) != len(seeds) or min(seeds) < 0 or max(seeds) >= 2**32:
        raise ValueError(f"seeds must be different integers from 0 to 2**32 - 1; got {seeds}")
    if batch_size is not None and not 1 <= batch_size <= len(data.train):
        raise ValueError(f"batch_size must be from 1 to {len(data.train)}; got {batch_size}")
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1; got {chunk}")
    if together is not None and together < 1:
        raise ValueError(f"together must be at least 1; got {together}")
    if not 0 <= label_noise <= 1:
        raise ValueError(f"label_noise must be in [0, 1]; got {label_noise}")
    if label_noise and not isinstance(data.train, Classification):
        raise ValueError("label_noise needs classes; shift_targets puts noise on targets")
    if options.gradient is not None and options.penalty is not None:
        raise ValueError("give either gradient or penalty: a penalty has no gradient by example")
