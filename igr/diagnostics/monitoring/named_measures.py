"""The measures that a monitor knows by name, and checks of those it is given.

Values that several measures need are computed once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from igr.backward_error.implicit_penalty import implicit_penalty
from igr.backward_error.protocols import Method
from igr.compiled import Traced
from igr.curvature import sharpness
from igr.curvature.vectors import size
from igr.diagnostics.coherence import Coherence, coherence
from igr.diagnostics.complexity.geometric_complexity import geometric_complexity
from igr.diagnostics.kernel.tangent_kernel import tangent_kernel_trace
from igr.diagnostics.sharpness.batch_sharpness import batch_sharpness
from igr.diagnostics.slope import loss_surface_slope
from igr.diagnostics.stiffness import stiffness
from igr.pytrees import num_examples, require_trained

SHARPNESS_TOLERANCE = 1e-2
# Of which the trace and the complexity are taken. Examples differ in theirs far less than one draw
# of random signs over all of them does from its mean: for positive inputs that is of its own size.
EXAMPLES = 32

# What each needs to be given.
NAMED = {
    "loss": {"example_loss_fn"},
    "slope": {"example_loss_fn"},
    "regularizer": {"example_loss_fn"},
    "share": {"example_loss_fn", "learning_rate"},
    "coherence": {"example_loss_fn"},
    "stiffness": {"example_loss_fn"},
    "sharpness": {"example_loss_fn"},
    "batch_sharpness": {"example_loss_fn"},
    "tangent_kernel_trace": {"apply_fn"},
    "geometric_complexity": {"apply_fn"},
}


class Point(NamedTuple):
    """The point of a run at which a network is measured.

    Attributes:
        params: The parameters.
        batch: The examples.
        key: For the random draws.
        h: The step size, or None.
        vector: The vector from which the search for the sharpness starts, or None.
    """

    params: PyTree
    batch: PyTree
    key: PRNGKeyArray
    h: Array | None
    vector: PyTree


class Functions(NamedTuple):
    """A monitor's functions, traced, and the inputs of the present batch."""

    example_loss_fn: Traced | None
    apply_fn: Traced | None
    own: dict[str, Traced]
    inputs: PyTree


class NamedMeasures:
    """The named measures at one point of a run, each a method of its name.

    Args:
        functions: The monitor's functions.
        at: The point.
        method: The method whose implicit penalty is measured.
        shared: Whether the coherence is among the measures, whose pass gives |grad E| too.

    Attributes:
        vector: After `sharpness`, the eigenvector from which the next search starts.
    """

    def __init__(self, functions: Functions, at: Point, method: Method, *, shared: bool):
        self._params, self._batch, self._key = at.params, at.batch, at.key
        self._example_loss_fn: Any = functions.example_loss_fn  # None where no measure needs it
        self._apply_fn: Any = functions.apply_fn
        self._inputs = functions.inputs
        self._method, self._learning_rate = method, at.h
        self.vector = at.vector
        self._shared = shared

    def loss(self) -> Float[Array, ""]:
        """The mean loss of the batch, a scalar."""
        return self._value(self._params)

    def slope(self) -> Float[Array, ""]:
        """The norm |grad E| of the gradient of the mean loss, a scalar."""
        return self._slope

    def regularizer(self) -> Float[Array, ""]:
        """The implicit gradient regularizer R_IG = |grad E|^2 / m for m parameters, a scalar."""
        return (self._slope / size(require_trained(self._params)) ** 0.5) ** 2

    def share(self) -> Float[Array, ""]:
        """The share of the implicit penalty in the modified loss, a scalar."""
        assert self._learning_rate is not None
        steepness = implicit_penalty(self._method) * self._learning_rate * self._slope
        # penalty / (loss + penalty), of which no part leaves the range of the dtype.
        return 1 / (1 + self.loss() / self._slope / steepness)

    def coherence(self) -> dict[str, Array]:
        """The coherence `alpha`, and `helped` = n alpha, in a dictionary."""
        return {"alpha": self._coherence.alpha, "helped": self._coherence.helped}

    def stiffness(self) -> Float[Array, ""]:
        """The mean cosine between the gradients of different examples, a scalar."""
        n = num_examples(self._batch)
        if n == 1:
            raise ValueError(
                "stiffness is that of pairs: batch must hold two examples; it holds 1."
            )
        pairs = stiffness(self._example_loss_fn, self._params, self._batch)
        return (jnp.sum(pairs) - jnp.trace(pairs)) / (n * (n - 1))

    def sharpness(self) -> dict[str, Array]:
        """The largest eigenvalue of the Hessian, and whether the search converged.

        The search starts from the eigenvector of the last one.
        """
        found = sharpness(
            self._example_loss_fn,
            self._params,
            self._batch,
            which="largest",
            tol=SHARPNESS_TOLERANCE,
            key=self._key,
            initial=self.vector,
        )
        self.vector = found.vector
        return {"": found.value, "converged": found.converged}

    def batch_sharpness(self) -> Float[Array, ""]:
        """The curvature of the batch's loss along its own gradient, a scalar."""
        size = num_examples(self._batch)
        return batch_sharpness(self._example_loss_fn, self._params, self._batch, size).value

    def tangent_kernel_trace(self) -> Float[Array, ""]:
        """The tangent kernel's trace over the batch, estimated from at most `EXAMPLES` examples."""
        some = self._some_inputs
        trace = tangent_kernel_trace(self._apply_fn, self._params, some)
        return trace * (num_examples(self._inputs) / num_examples(some))

    def geometric_complexity(self) -> Float[Array, ""]:
        """The geometric complexity (Dirichlet energy) on at most `EXAMPLES` examples."""
        return geometric_complexity(self._apply_fn, self._params, self._some_inputs)

    @cached_property
    def _some_inputs(self) -> PyTree:
        """At most `EXAMPLES` inputs, drawn without replacement."""
        n = num_examples(self._inputs)
        if n <= EXAMPLES:
            return self._inputs
        chosen = jax.random.choice(self._key, n, (EXAMPLES,), replace=False)
        return jax.tree.map(lambda x: jnp.asarray(x)[chosen], self._inputs)

    def _value(self, params: PyTree) -> Float[Array, ""]:
        return jnp.mean(jax.vmap(self._example_loss_fn, (None, 0))(params, self._batch))

    @cached_property
    def _coherence(self) -> Coherence:
        return coherence(self._example_loss_fn, self._params, self._batch)

    @cached_property
    def _slope(self) -> Float[Array, ""]:
        """The norm |grad E|, from the coherence's pass if that is measured."""
        if self._shared:
            return self._coherence.mean_gradient_norm
        return loss_surface_slope(self._value, self._params)


def named(measures: Any) -> dict[str, Any]:
    """The measures by column, from a list or mapping of them.

    Raises:
      TypeError: if they are neither, or a measure is neither a name nor a function.
      ValueError: if there is none, or a name is unknown.
    """
    if isinstance(measures, str) or not isinstance(measures, Mapping | Sequence):
        raise TypeError(
            "measures must be a list of names, or a mapping from columns to names or functions; "
            f"got {measures!r}."
        )
    if not isinstance(measures, Mapping):
        measures = {name: name for name in measures}
    if not measures:
        raise ValueError(f"measures must hold at least one; the names are {', '.join(NAMED)}.")
    for column, measure in measures.items():
        if not isinstance(column, str):
            raise TypeError(
                f"measures in a list must be names; got {column!r}. Give functions in a mapping: "
                "{'column': function}."
            )
        if isinstance(measure, str) and measure not in NAMED:
            raise ValueError(f"measures must be among {', '.join(NAMED)}; got {measure!r}.")
        if not isinstance(measure, str) and not callable(measure):
            raise TypeError(f"measure {column!r} must be a name or a function; got {measure!r}.")
    return dict(measures)


def scalars(column: str, found: Any) -> dict[str, Array]:
    """The value of a measure as scalars by column, nested fields joined by "/".

    Raises:
      ValueError: if it is not made of scalars.
    """
    if hasattr(found, "_asdict"):
        found = found._asdict()
    if isinstance(found, Mapping):
        parts = {f"{column}/{field}".rstrip("/"): value for field, value in found.items()}
        return {k: v for part, value in parts.items() for k, v in scalars(part, value).items()}
    shape = jnp.shape(found) if eqx.is_array_like(found) else repr(found)
    if shape != ():
        raise ValueError(
            f"measure {column!r} must return a scalar, or a mapping or NamedTuple of scalars; it "
            f"returned {shape}."
        )
    return {column: jnp.asarray(found)}
