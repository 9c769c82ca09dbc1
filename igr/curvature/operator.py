"""A symmetric matrix over the parameters as a function v -> Av.

The Hessian, Gauss-Newton and Fisher matrices are means over examples; what differs is the term,
(params, examples, v) -> sum over these examples of A_i v.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from igr.batch_parts import added_over_parts
from igr.checks import Count, check_count
from igr.compiled import Traced, compiled, traced
from igr.curvature.vectors import cast_like, require_like, widened
from igr.forward_mode import linearize
from igr.missing_parts import of_whole
from igr.one_example import of_one_example
from igr.pytrees import combine, is_trained, num_examples, partition, trained_part
from igr.statistics_beside import reject_statistics

Term = Callable[[PyTree, PyTree, PyTree], PyTree]


def operator(
    term: Term,
    params: PyTree,
    batch: PyTree,
    chunk: Count | None,
    *,
    semidefinite: bool = False,
) -> Operator:
    """The function v -> Av of a mean over a batch, linearized in this call unless taken in chunks.

    Args:
        term: `(params, examples, v) -> sum over the examples of A_i v`, linear in v, and a pytree
            whose functions are `traced`, so that calls with new parameters reuse the compiled
            program. If `batch` is None, it is the whole product.
        params: Any pytree with floating leaves.
        batch: A pytree with a leading example axis, or None.
        chunk: The number of examples taken at a time, or None for all at once.
        semidefinite: Whether A is known to have no negative eigenvalue, whatever rounding makes.
    """
    reject_statistics(params)
    vector, rest = partition(params)
    params = combine(vector, rest)
    if batch is None:
        if chunk is not None:
            raise ValueError(f"chunk={chunk} needs the examples: give them as batch=.")
    else:
        n = num_examples(batch)
        if chunk is not None:
            chunk = check_count("chunk", chunk, 1)
        if chunk is not None and chunk < n:
            return ChunkedOperator(params, batch, term, chunk, semidefinite)
    return LinearizedOperator(vector, _linearized(term, params, batch), semidefinite)


class Operator(eqx.Module):
    """The function v -> Av on pytrees with the structure of the parameters; a pytree itself."""

    params: PyTree

    def __call__(self, v: PyTree) -> PyTree:
        """The product Av, like `v`; leaves of `v` that are not floating are returned unchanged."""
        like = trained_part(self.params)
        vector, rest = trained_part(v, "v"), eqx.filter(v, is_trained, inverse=True)
        require_like("v", vector, like)
        return combine(_applied(self, cast_like(vector, like)), rest)

    @abstractmethod
    def apply(self, vector: PyTree) -> PyTree:
        """The product Av of a vector in the dtypes of the parameters."""


class LinearizedOperator(Operator):
    """A matrix stored as its linear function, with the residuals of the linearization."""

    linear: Callable[[PyTree], PyTree]
    semidefinite: bool = eqx.field(static=True, default=False)

    def apply(self, vector: PyTree) -> PyTree:
        """The product Av by the stored linear function."""
        return self.linear(vector)


class ChunkedOperator(Operator):
    """A matrix whose every product is computed from the examples, `chunk` of them at a time."""

    batch: PyTree
    term: Term
    chunk: int = eqx.field(static=True)
    semidefinite: bool = eqx.field(static=True, default=False)

    def apply(self, vector: PyTree) -> PyTree:
        """The product Av, summed over chunks in at least float32; the last chunk may be smaller."""
        n = num_examples(self.batch)

        def add(total: PyTree, examples: PyTree) -> PyTree:
            part = self.term(self.params, examples, vector)
            return jax.tree.map(jnp.add, total, widened(part))

        none = jax.tree.map(jnp.zeros_like, widened(vector))
        total = added_over_parts(add, none, self.batch, self.chunk)
        return jax.tree.map(lambda t, x: (t / n).astype(x.dtype), total, vector)


@compiled
def _applied(product: Operator, vector: PyTree) -> PyTree:
    return product.apply(vector)


@compiled
def _linearized(term: Term, params: PyTree, batch: PyTree) -> Callable[[PyTree], PyTree]:
    def mean(v: PyTree) -> PyTree:
        total = term(params, batch, v)
        if batch is None:
            return total
        return jax.tree.map(lambda x: x / num_examples(batch), total)

    # `mean` is linear already: what linearizing gains is to compute once, here, all that does
    # not depend on v.
    zero = jax.tree.map(jnp.zeros_like, trained_part(params))
    return linearize(mean, zero)[1]


def wide_product(product: Callable[[PyTree], PyTree], like: PyTree) -> Callable[[PyTree], PyTree]:
    """The product on vectors in at least float32, made from one in the dtypes of `like`."""

    def wide(v: PyTree) -> PyTree:
        out = trained_part(product(cast_like(v, like)), "product(v)")
        require_like("product(v)", out, like)
        return widened(out)

    return wide


def first_example(batch: PyTree) -> PyTree:
    """The shapes and dtypes of one example of a batch."""
    num_examples(batch)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)


def traced_scalar(name: str, fn: Callable[..., Any], *args: Any) -> Traced:
    """The function traced as it is in this call.

    Raises:
      ValueError: if fn(*args) is not a floating scalar.
    """
    # With more than the parameters it is given one example.
    found = traced(partial(of_one_example if len(args) > 1 else of_whole, fn), *args)
    out = eqx.filter_eval_shape(found, *args)
    if not (is_trained(out) and out.shape == ()):
        raise ValueError(f"{name} must return a floating scalar; got {out}.")
    return found
