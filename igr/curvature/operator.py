"""A symmetric matrix over the parameters, kept as the function v -> Av.

The Hessian, Gauss-Newton and Fisher matrices are all means over examples of something linear in
v; what differs is the term, (params, examples, v) -> sum over these examples of A_i v.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from igr.curvature.vectors import (
    floating_part,
    is_floating,
    require_floating,
    widened,
)

Term = Callable[[PyTree, PyTree, PyTree], PyTree]


def operator(term: Term, params: PyTree, batch: PyTree, chunk: int | None) -> "Operator":
    """The mean over the batch of `term`, linearized now unless taken in chunks.

    Args:
        term: Hashable and equal to its like, so that calls with new parameters reuse the compiled
            program. For a `batch` of None it is the whole product.
        params: Any pytree with floating leaves.
        batch: A pytree with a leading example axis, or None.
        chunk: The number of examples taken at a time, or None for all at once.
    """
    require_floating(params)
    if batch is None:
        if chunk is not None:
            raise ValueError(f"chunk={chunk} needs the examples: pass them as batch=.")
    else:
        num_examples = require_batch(batch)
        if chunk is not None and chunk < 1:
            raise ValueError(f"chunk must be a positive number of examples; got {chunk}.")
        if chunk is not None and chunk < num_examples:
            return ChunkedOperator(params, batch, term, chunk)
    return LinearizedOperator(_linearized(term, params, batch), floating_part(params))


class Operator(eqx.Module):
    """v -> Av on pytrees with the structure of the parameters."""

    def __call__(self, v: PyTree) -> PyTree:
        """Av; leaves of `v` that are not floating come back as they are."""
        vector, rest = eqx.partition(v, is_floating)
        expected = self._like()
        if jax.tree.structure(vector) != jax.tree.structure(expected) or (
            jax.tree.map(jnp.shape, vector) != jax.tree.map(jnp.shape, expected)
        ):
            raise ValueError(
                "v must have the structure and shapes of params; got "
                f"{jax.tree.map(jnp.shape, vector)}, expected {jax.tree.map(jnp.shape, expected)}."
            )
        vector = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), vector, expected)
        return eqx.combine(_applied(self, vector), rest)


class LinearizedOperator(Operator):
    """The linear part alone, with what it needs from the examples stored."""

    linear: Callable[[PyTree], PyTree]
    like: PyTree

    def _like(self) -> PyTree:
        return self.like

    def _apply(self, vector: PyTree) -> PyTree:
        return self.linear(vector)


class ChunkedOperator(Operator):
    """Recomputed from the examples, `chunk` at a time, in every product."""

    params: PyTree
    batch: PyTree
    term: Term = eqx.field(static=True)
    chunk: int = eqx.field(static=True)

    def _like(self) -> PyTree:
        return floating_part(self.params)

    def _apply(self, vector: PyTree) -> PyTree:
        # Recomputed, not stored, even where somebody linearizes or vmaps this product.
        term = jax.checkpoint(
            lambda examples, v: self.term(self.params, examples, v), prevent_cse=False
        )
        num_examples = require_batch(self.batch)
        rounds = num_examples // self.chunk
        end = rounds * self.chunk
        whole = jax.tree.map(
            lambda x: x[:end].reshape(rounds, self.chunk, *x.shape[1:]), self.batch
        )

        def add(total, examples):
            return jax.tree.map(jnp.add, total, widened(term(examples, vector))), None

        total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, widened(vector)), whole)
        if end < num_examples:
            total, _ = add(total, jax.tree.map(lambda x: x[end:], self.batch))
        return jax.tree.map(lambda t, x: (t / num_examples).astype(x.dtype), total, vector)


@eqx.filter_jit
def _applied(product: Operator, vector: PyTree) -> PyTree:
    return product._apply(vector)


@eqx.filter_jit
def _linearized(term: Term, params: PyTree, batch: PyTree) -> Callable[[PyTree], PyTree]:
    vector = floating_part(params)
    # Linear in v already: linearizing moves all that does not depend on v out of the product.
    if batch is None:
        mean = lambda v: term(params, batch, v)
    else:
        num_examples = require_batch(batch)
        mean = lambda v: jax.tree.map(lambda x: x / num_examples, term(params, batch, v))
    return jax.linearize(mean, jax.tree.map(jnp.zeros_like, vector))[1]


def require_batch(batch: PyTree) -> int:
    """The number of examples; an error where the leaves disagree about it."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    if not shapes or any(not shape for shape in shapes) or len({s[0] for s in shapes}) != 1:
        raise ValueError(
            "batch must be a pytree of arrays that share a leading example axis; "
            f"got leaves of shapes {shapes}."
        )
    if shapes[0][0] == 0:
        raise ValueError("batch must hold at least one example; got none.")
    return shapes[0][0]


def require_scalar(name: str, fn: Callable[..., Any], *args: Any) -> None:
    """An error where fn(*args) is not a floating scalar."""
    out = eqx.filter_eval_shape(fn, *args)
    if not (is_floating(out) and out.shape == ()):
        raise ValueError(f"{name} must return a floating scalar; got {out}.")
