"""What a program of training is made of: what fixes it, and the arrays it changes and reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

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

    def for_steps(self) -> Program:
        """The program for all that does not measure: what is measured changes no step."""
        return replace(self, metrics=())

    def for_measures(self) -> Program:
        """The program for measuring: how a step is made changes no measure, so rules share it."""
        return replace(
            self,
            make_optimizer=None,
            gradient=None,
            penalty=None,
            batch_size=None,
            label_noise=0.0,
            random=False,
        )

    def on_devices(self, batch: tuple[Array, Array]) -> tuple[Array, Array]:
        """The batch laid out over the devices, where there are several and it divides."""
        sharding = self.sharding
        if sharding is None or batch[0].shape[0] % sharding.mesh.size:
            return batch
        along = NamedSharding(sharding.mesh, PartitionSpec(*sharding.mesh.axis_names))
        return jax.lax.with_sharding_constraint(batch, along)
