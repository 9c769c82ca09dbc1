"""Powers of two near given numbers, by which to scale without rounding.

They are read from the bits of floats and written there: `jnp.frexp` and `jnp.ldexp` do the same for
ten times as many operations, which a compiler has to go through at every call.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

# By the bytes of a float: the integer of its bits, and the bits of its mantissa.
_LAYOUTS: dict[int, tuple[Any, int]] = {4: (jnp.int32, 23), 8: (jnp.int64, 52)}


def exponent_of(x: Float[Array, "*n"]) -> Int[Array, "*n"]:
    """The exponent e with |x| = m 2^e, 1/2 <= m < 1; 0 for zero, infinities and NaN.

    Subnormal numbers have the exponent of the smallest normal number of the dtype.

    >>> print(exponent_of(jnp.array([1.0, -0.3, 1e30, 0.0])))
    [  1  -1 100   0]
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    dtype, mantissa = _LAYOUTS[x.dtype.itemsize]
    lowest = jnp.finfo(x.dtype).minexp
    bits = jax.lax.bitcast_convert_type(jnp.abs(jax.lax.stop_gradient(x)), dtype)
    biased = jnp.maximum(bits >> mantissa, 1).astype(jnp.int32)
    return jnp.where(jnp.isfinite(x) & (x != 0), biased + lowest, 0)


def power_of_two(exponent: Int[Array, "*n"], dtype: Any) -> Float[Array, "*n"]:
    """The power 2^exponent; 0 below the smallest normal number, and at most the largest power.

    >>> print(power_of_two(jnp.array([3, -1, -500, 500]), jnp.float32))
    [8.0000000e+00 5.0000000e-01 0.0000000e+00 1.7014118e+38]
    """
    limits = jnp.finfo(dtype)
    wide = jnp.promote_types(dtype, jnp.float32)
    integer, mantissa = _LAYOUTS[wide.itemsize]
    known = jnp.clip(exponent, limits.minexp, limits.maxexp - 1).astype(integer)
    bits = (known + (1 - jnp.finfo(wide).minexp)) << mantissa
    found = jax.lax.bitcast_convert_type(bits, wide).astype(dtype)
    return jnp.where(exponent < limits.minexp, 0, found)


def times_power(a: Array, exponent: Int[Array, ""]) -> Array:
    """The array times 2^exponent, in two factors, since one alone may be out of range."""
    half = exponent // 2
    return a * power_of_two(half, a.dtype) * power_of_two(exponent - half, a.dtype)


def power_of_two_near(a: PyTree) -> Float[Array, ""]:
    """A power of two from 2^-120 to 2^120, at most the magnitude of the largest entry.

    Its dtype is at least float32; it is 1 if all entries are zero or one is not finite.

    >>> print(power_of_two_near({"w": jnp.array([0.1, -5.0])}))
    4.0
    """
    leaves = jax.tree.leaves(a)
    dtype = jnp.result_type(jnp.float32, *(x.dtype for x in leaves))
    largest = jax.tree.reduce(jnp.maximum, [jnp.max(jnp.abs(x), initial=0) for x in leaves])
    largest = largest.astype(dtype)
    known = jnp.isfinite(largest) & (largest > 0)
    exponent = jnp.clip(exponent_of(largest) - 1, -120, 120)
    return jnp.where(known, power_of_two(exponent, dtype), 1)
