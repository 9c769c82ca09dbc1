"""The measures of a monitor as one compiled program, whose functions may read changing values."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from igr.backward_error import methods
from igr.backward_error.protocols import Method, require_method
from igr.checks import Number, check_step
from igr.compiled import traced
from igr.diagnostics.monitoring.named_measures import (
    NAMED,
    Functions,
    NamedMeasures,
    Point,
    named,
    scalars,
)
from igr.diagnostics.monitoring.watch import watched
from igr.meshes import on_any_mesh
from igr.one_example import of_one_example
from igr.options import names_of
from igr.pytrees import trained_part


class Measuring:
    """The measures of a monitor, as a function of params and a batch.

    Args:
        measures: As in `Monitor`, and so are all others.
        key: For the random draws, folded with the step.
        example_loss_fn: The loss of an example.
        apply_fn: The network.
        inputs: A function from a batch to the inputs of `apply_fn`.
        learning_rate: h, or a schedule.
        method: A method of `igr.methods`; None for gradient descent.

    Attributes:
        method: The method.
        columns: The columns of the last call, in order; before the first, the measures.
        compilations: How many times the program was compiled: once for each shape of batch.
    """

    def __init__(
        self,
        measures: Any,
        key: PRNGKeyArray,
        *,
        example_loss_fn: Callable[[PyTree, PyTree], Any] | None,
        apply_fn: Callable[[PyTree, Any], Any] | None,
        inputs: Callable[[PyTree], PyTree] | None,
        learning_rate: Number | Callable[[int], Any] | None,
        method: Method | None,
    ):
        self.measures = named(measures)
        given = {
            "example_loss_fn": example_loss_fn,
            "apply_fn": apply_fn,
            "learning_rate": learning_rate,
        }
        for name, value in given.items():
            if value is not None and name != "learning_rate" and not callable(value):
                raise TypeError(f"{name} must be a function; got {value!r}.")
            wanted = self._named_that_need(name)
            if value is None and wanted:
                raise ValueError(f"the measures {', '.join(wanted)} need {name}=.")
        if learning_rate is not None and not callable(learning_rate):
            learning_rate = check_step("learning_rate", learning_rate)
        self.method = methods.gradient_descent() if method is None else require_method(method)
        self.key = key
        self._example_loss_fn, self._apply_fn = example_loss_fn, apply_fn
        self._inputs = inputs
        self._learning_rate = learning_rate
        self.columns: list[str] = list(self.measures)
        self.compilations = 0
        self._work = eqx.filter_jit(self._traced)
        self._vector: PyTree = None

    def __call__(self, params: PyTree, batch: PyTree, step: int) -> dict[str, Array]:
        """The measures as scalars by column, computed when this returns.

        The search for the sharpness starts at the eigenvector of the last call.
        """
        if self._vector is None and "sharpness" in self._names:
            # Zeros, and not None: the first call shall compile what the later ones run.
            self._vector = jax.tree.map(jnp.zeros_like, trained_part(params))

        def work(
            params: PyTree, batch: PyTree, key: PRNGKeyArray, vector: PyTree
        ) -> tuple[list[Array], PyTree]:
            return self._work(
                self._functions_now(params, batch),
                Point(params, batch, key, self._step_size(step), vector),
                np.asarray(step, np.uint32),
            )

        values, vector = on_any_mesh(work, like=3)(params, batch, self.key, self._vector)
        # Where the compiler puts the vector is its own choice; other places would compile again.
        if vector is not None:
            self._vector = jax.tree.map(_placed_like, vector, trained_part(params))
        return dict(zip(self.columns, jax.block_until_ready(values), strict=True))

    def alone(
        self, params: PyTree, batch: PyTree, key: PRNGKeyArray | None, step: Any
    ) -> dict[str, Array]:
        """The measures as scalars by column, inside jit: nothing is remembered between calls."""
        key = self.key if key is None else key

        def work(params: PyTree, batch: PyTree, key: PRNGKeyArray) -> dict[str, Array]:
            point = Point(params, batch, key, self._step_size(step), None)
            return self._values(self._functions_now(params, batch), point)[0]

        return on_any_mesh(work)(params, batch, key)

    def _functions_now(self, params: PyTree, batch: PyTree) -> Functions:
        """The given functions, traced in this call: what they read may have changed."""
        own = {}
        for column, measure in self.measures.items():
            if not isinstance(measure, str):
                keyed = "key" in names_of(measure)
                call = measure if not keyed else lambda p, b, k, f=measure: f(p, b, key=k)
                own[column] = traced(call, params, batch, *([self.key] if keyed else []))
        loss = self._example_loss_fn if self._named_that_need("example_loss_fn") else None
        apply = self._apply_fn if self._named_that_need("apply_fn") else None
        inputs = None if apply is None else self._inputs_of(batch)
        if loss is not None:
            loss = traced(partial(of_one_example, loss), params, _first(batch))
        if apply is not None:
            apply = traced(partial(of_one_example, apply), params, _first(inputs))
        return Functions(loss, apply, own, inputs)

    def _traced(
        self,
        functions: Functions,
        at: Point,
        step: Any,
    ) -> tuple[list[Array], PyTree]:
        self.compilations += 1
        at = at._replace(key=jax.random.fold_in(at.key, step))
        values, vector = self._values(functions, at)
        self.columns = list(values)  # a dict would come back sorted
        return list(values.values()), vector

    def _values(
        self,
        functions: Functions,
        at: Point,
    ) -> tuple[dict[str, Array], PyTree]:
        params, batch, key, h, _ = at
        named = NamedMeasures(functions, at, self.method, shared="coherence" in self._names)
        values: dict[str, Array] = {}
        for i, (column, measure) in enumerate(self.measures.items()):
            if isinstance(measure, str):
                found = getattr(named, measure)()
            elif "key" in names_of(measure):
                found = functions.own[column](params, batch, jax.random.fold_in(key, i))
            else:
                found = functions.own[column](params, batch)
            values |= scalars(column, found)
            if watched(measure, column) and h is not None:
                values["h_" + column] = h * values[column]
        return values, named.vector

    @property
    def _names(self) -> list[str]:
        return [measure for measure in self.measures.values() if isinstance(measure, str)]

    def _named_that_need(self, argument: str) -> list[str]:
        return [name for name in self._names if argument in NAMED[name]]

    def _inputs_of(self, batch: PyTree) -> PyTree:
        if self._inputs is not None:
            return self._inputs(batch)
        if isinstance(batch, list | tuple):
            return batch[0]
        if isinstance(batch, jax.Array | np.ndarray):
            return batch
        raise ValueError(
            "inputs must say what of a batch is the input of apply_fn, such as "
            f"inputs=lambda batch: batch['x']; the batch is {jax.tree.structure(batch)}."
        )

    def _step_size(self, step: Any) -> Array | None:
        h = self._learning_rate
        h = h(step) if callable(h) else h
        return None if h is None else jnp.asarray(h, float)


def _first(batch: PyTree) -> PyTree:
    """The shapes and dtypes of one example of a batch."""

    def shape(x: Any) -> Any:
        if not isinstance(x, jax.Array | np.ndarray):
            return x
        weak = bool(getattr(x, "weak_type", False))
        return jax.ShapeDtypeStruct(x.shape[1:], x.dtype, weak_type=weak)

    return jax.tree.map(shape, batch)


def _placed_like(x: Array, like: Any) -> Array:
    """The array on the devices of `like`; not moved if it is there already."""
    if not isinstance(like, jax.Array) or x.sharding.is_equivalent_to(like.sharding, x.ndim):
        return x
    return jax.device_put(x, like.sharding)
