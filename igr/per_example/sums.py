"""Sums of per-example gradients and of their squares, in one pass, without overflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from igr.per_example.chunks import summed_over_chunks
from igr.per_example.example_axis import differentiable
from igr.per_example.inner_products import (
    Gradients,
    entries_kept,
    factored_gradients,
    squares,
    total,
)
from igr.per_example.units import common_exponent, in_their_unit
from igr.powers_of_two import times_power
from igr.pytrees import inner_product, num_examples, require_trained

# On CPU forming a few large gradients at a time by vmap costs many times what one at a time does.
FEW = 16


def streamed_sums(
    example_loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    batch: PyTree,
    chunk: int | None,
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """The sums |sum g_i|^2 and sum |g_i|^2 over the square of a unit, and the unit.

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading axis of n examples.
        chunk: The number of examples to differentiate at a time; None for as many as keep what is
            formed as small as the parameters.
    """
    if chunk is None:
        shapes = jax.eval_shape(lambda b: factored_gradients(example_loss_fn, params, b), batch)
        kept = entries_kept(shapes)
        parameters = sum(leaf.size for leaf in jax.tree.leaves(require_trained(params)))
        chunk = max(1, parameters // kept) if kept else None
        if chunk is not None and chunk < FEW:
            if 2 * kept < parameters:
                return _one_by_one(example_loss_fn, params, batch)
            chunk = 1  # what is formed is most of a gradient, and is added up as it comes

    def sums(part: PyTree) -> _Sums:
        gradients, exponent = _in_their_unit(factored_gradients(example_loss_fn, params, part))
        return _Sums([total(g) for g in gradients], jnp.sum(squares(gradients)), exponent)

    found = summed_over_chunks(sums, batch, chunk, _plus)
    return _in_one_unit(inner_product(found.total, found.total), found.squares, found.exponent)


def spreads_of_signs(
    example_loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    batch: PyTree,
    probes: int,
    key: PRNGKeyArray | None,
) -> tuple[Float[Array, ""], Float[Array, " probes"], Float[Array, ""]]:
    """|sum g_i|^2, and |sum (r_i - mean r) g_i|^2 for each draw of random signs r, and their unit.

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading axis of n examples.
        probes: The number of draws.
        key: For the signs; `jax.random.key(0)` by default.
    """
    trained, loss_fn = differentiable(example_loss_fn, params)
    losses, weighted = jax.vjp(lambda p: jax.vmap(loss_fn, (None, 0))(p, batch), trained)

    def square(weights: Array) -> tuple[Array, Array]:
        return _square(weighted(weights)[0])

    key = jax.random.key(0) if key is None else key
    signs = jax.random.rademacher(key, (probes, num_examples(batch)), losses.dtype)
    signs = signs - jnp.mean(signs, axis=1, keepdims=True)
    both = jnp.concatenate([jnp.ones_like(signs[:1]), signs])
    found, exponents = jax.lax.map(square, both)
    unit = common_exponent(exponents, found != 0)
    shifts = jnp.where(found != 0, exponents - unit, 0)
    found = jax.vmap(lambda x, e: times_power(times_power(x, e), e))(found, shifts)
    return found[0], found[1:], times_power(jnp.ones((), found.dtype), unit)


class _Sums(NamedTuple):
    total: list[Array]  # sum g_i / 2^exponent
    squares: Float[Array, ""]  # sum |g_i|^2 / 4^exponent
    exponent: Int[Array, ""]


def _plus(a: _Sums, b: _Sums) -> _Sums:
    known = jnp.stack([a.squares != 0, b.squares != 0])
    exponents = jnp.stack([a.exponent, b.exponent])
    unit = common_exponent(exponents, known)

    def moved(s: _Sums, shift: Array) -> tuple[list[Array], Array]:
        return (
            [times_power(x, shift) for x in s.total],
            times_power(times_power(s.squares, shift), shift),
        )

    of_a, of_b = map(moved, (a, b), jnp.where(known, exponents - unit, 0))
    both, squares = jax.tree.map(jnp.add, of_a, of_b)
    return _Sums(both, squares, unit)


def _one_by_one(
    example_loss_fn: Callable[[PyTree, PyTree], Any], params: PyTree, batch: PyTree
) -> tuple[Array, Array, Array]:
    """Both sums, with the gradient of one example at a time, and one gradient of the batch.

    The gradient of the batch gives the first sum, which costs less than to form each example's
    gradients of matrices whose squares come from factors.
    """
    trained, loss_fn = differentiable(example_loss_fn, params)

    def sum_of_losses(trained: PyTree) -> Array:
        return jnp.sum(jax.vmap(loss_fn, (None, 0))(trained, batch))

    def of_one(example: PyTree) -> _Sums:
        gradients, exponent = _in_their_unit(factored_gradients(example_loss_fn, params, example))
        found = [
            inner_product(g, g) if isinstance(g, jax.Array) else squares([g])[0] for g in gradients
        ]
        return _Sums([], jnp.asarray(sum(found)), exponent)

    found = summed_over_chunks(of_one, batch, 1, _plus)
    whole, exponent = _square(jax.grad(sum_of_losses)(trained))
    known = jnp.stack([whole != 0, found.squares != 0])
    exponents = jnp.stack([exponent, found.exponent])
    unit = common_exponent(exponents, known)
    shifts = jnp.where(known, exponents - unit, 0)
    whole, squares_sum = (
        times_power(times_power(x, e), e)
        for x, e in zip((whole, found.squares), shifts, strict=True)
    )
    return _in_one_unit(whole, squares_sum, unit)


def _in_one_unit(whole: Array, squares: Array, exponent: Array) -> tuple[Array, Array, Array]:
    return whole, squares, times_power(jnp.ones((), squares.dtype), exponent)


def _square(gradient: PyTree) -> tuple[Array, Array]:
    """The value |g|^2 / 4^e, in float32 or wider, and e."""
    wide = [
        (leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)),)
        for leaf in jax.tree.leaves(gradient)
        if leaf.size
    ]
    scaled, exponent = in_their_unit(wide)
    return inner_product(scaled, scaled), exponent


def _in_their_unit(gradients: Gradients) -> tuple[Gradients, Array]:
    scaled, exponent = in_their_unit([g if isinstance(g, tuple) else (g,) for g in gradients])
    return [
        type(g)(*arrays) if isinstance(g, tuple) else arrays[0]
        for g, arrays in zip(gradients, scaled, strict=True)
    ], exponent
