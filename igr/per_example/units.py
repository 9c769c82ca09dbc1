"""Gradients divided by a power of two near their size, so that their squares stay in range.

In float32 the squares of gradients of 1e-20 are zero and those of gradients of 1e20 infinite, while
ratios, lengths, cosines and logarithms of them are numbers like any others. A power of two rounds
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from igr.powers_of_two import exponent_of, times_power


def in_their_unit(
    gradients: Sequence[tuple[Array, ...]],
) -> tuple[list[tuple[Array, ...]], Int[Array, ""]]:
    """Gradients divided by a power of two near their largest entry, and its exponent.

    Args:
        gradients: For each leaf the factors whose product the gradients are, or the gradients
          alone.
            Each factor is scaled by itself first, since their product may be out of range.

    Returns:
        The scaled gradients, and the exponent: 0 if all of them are zero.
    """
    largest = [[_largest(a) for a in arrays] for arrays in gradients]
    exponents = [[exponent_of(a) for a in leaf] for leaf in largest]
    known = jnp.stack([jnp.all(jnp.stack(leaf) != 0) for leaf in largest])
    totals = jnp.stack([jnp.sum(jnp.stack(leaf)) for leaf in exponents])
    unit = common_exponent(totals, known)
    shifts = jnp.where(known, totals - unit, 0)

    def scaled(
        arrays: tuple[Array, ...], exponents: list[Array], shift: Array
    ) -> tuple[Array, ...]:
        first, *others = (times_power(a, -e) for a, e in zip(arrays, exponents, strict=True))
        return times_power(first, shift), *others

    return [scaled(*leaf) for leaf in zip(gradients, exponents, shifts, strict=True)], unit


def common_exponent(exponents: Int[Array, " k"], known: Array) -> Int[Array, ""]:
    """The largest of the exponents that are `known`; 0 if none is."""
    largest = jnp.max(jnp.where(known, exponents, jnp.iinfo(exponents.dtype).min // 2))
    return jnp.where(jnp.any(known), largest, 0)


def root_of_sum_of_squares(lengths: Array) -> Array:
    """The root of the sum of squares, for numbers of any size, a scalar."""
    ((scaled,),), unit = in_their_unit([(lengths,)])
    return times_power(jnp.sqrt(jnp.sum(scaled**2)), unit)


def _largest(a: Array) -> Array:
    return jax.lax.stop_gradient(jnp.max(jnp.abs(a), initial=0))
