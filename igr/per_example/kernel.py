"""The tangent kernel from per-example gradients of the outputs: matrix, trace, log-determinant."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from igr.meshes import in_parts, on_any_mesh
from igr.one_example import of_one_example
from igr.per_example.chunks import summed_over_chunks
from igr.per_example.output_gradients import (
    less_their_mean,
    numbers_kept,
    numbers_kept_for_products,
    output_gradients,
    output_gram,
    square_sums,
)
from igr.per_example.outputs import output_dimension, random_signs_of_outputs, square_sum
from igr.per_example.units import in_their_unit, root_of_sum_of_squares
from igr.powers_of_two import times_power
from igr.pytrees import combine, num_examples, partition, trained_part

KEPT = 2**24  # numbers that gradients taken at a time may fill, where the parameters fill fewer


class KernelTooLargeError(ValueError, MemoryError):
    """Raised when a tangent kernel is asked for that does not fit in memory."""


@on_any_mesh
def kernel_matrix(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree, other: PyTree | None = None
) -> Float[Array, "nq mq"]:
    """The tangent kernel grad f_o(x_i) . grad f_p(x'_j), a matrix (n q, m q)."""
    q = output_dimension(apply_fn, params, x)
    _require_memory(apply_fn, params, x, other, q)
    rows = output_gradients(apply_fn, params, x)
    columns = rows if other is None else output_gradients(apply_fn, params, other)
    return output_gram(rows, columns, q)


@on_any_mesh
def kernel_in_unit(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree, centred: bool = False
) -> tuple[Float[Array, "nq nq"], Float[Array, ""]]:
    """The tangent kernel of the gradients divided by a unit near their size, and the unit.

    The unit is a power of two.

    `centred` subtracts the mean over the examples from the gradients of each output.

    The kernel holds squares of gradients, which may be out of the range of the dtype where
    gradients, and ranks, cosines, eigenvectors and logarithms of the kernel, are not.
    """
    q = output_dimension(apply_fn, params, x)
    _require_memory(apply_fn, params, x, None, q)
    rows, exponent = in_their_unit(output_gradients(apply_fn, params, x))
    if centred:
        rows, more = in_their_unit(less_their_mean(rows, q, KEPT))
        exponent = exponent + more
    kernel = output_gram(rows, rows, q)
    if centred:  # what was too much to form is centred now
        n = num_examples(x)
        blocks = kernel.reshape(n, q, n, q)
        blocks = blocks - jnp.mean(blocks, axis=0, keepdims=True)
        kernel = (blocks - jnp.mean(blocks, axis=2, keepdims=True)).reshape(n * q, n * q)
    return kernel, times_power(jnp.ones((), kernel.dtype), exponent)


@on_any_mesh
def kernel_trace(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree, chunk: int | None = None
) -> Float[Array, ""]:
    """The trace of the tangent kernel, a scalar, from `chunk` examples at a time."""
    q = output_dimension(apply_fn, params, x)
    chunk = _chunk(apply_fn, params, x) if chunk is None else chunk
    return summed_over_chunks(
        lambda part: jnp.sum(square_sums(output_gradients(apply_fn, params, part), q)), x, chunk
    )


@on_any_mesh
def kernel_norm(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree
) -> Float[Array, ""]:
    """The root of the tangent kernel's trace, for gradients of any size."""
    n, q = num_examples(x), output_dimension(apply_fn, params, x)

    def of_part(part: PyTree) -> Array:
        gradients, exponent = in_their_unit(output_gradients(apply_fn, params, part))
        return times_power(jnp.sqrt(jnp.sum(square_sums(gradients, q))), exponent)

    chunk = min(n, _chunk(apply_fn, params, x))
    parts, rest = in_parts(jax.tree.map(jnp.asarray, x), chunk)
    norms = jax.lax.map(of_part, parts)
    if n % chunk:
        norms = jnp.append(norms, of_part(rest))
    return root_of_sum_of_squares(norms)


def _chunk(apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree) -> int:
    """The number of examples at a time whose gradients take the parameters' size, or `KEPT`."""
    made_of = jax.eval_shape(lambda x: output_gradients(apply_fn, params, x), x)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(trained_part(params)))
    return max(1, max(parameters, KEPT) // max(1, numbers_kept(made_of) // num_examples(x)))


@on_any_mesh
def drawn_kernel_traces(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    probes: int,
    key: PRNGKeyArray | None,
) -> Float[Array, " probes"]:
    """An unbiased estimate of the kernel's trace for each draw of random signs, (probes,).

    Each is |sum_io r_io grad f_o(x_i)|^2 for independent signs r_io, with the variance
    2 sum_(a != b) K_ab^2.
    """
    num_examples(x)
    output_dimension(apply_fn, params, x)
    trained, constant = partition(params)

    def outputs(trained: PyTree) -> Float[Array, "n q"]:
        whole = combine(trained, constant)
        return jax.vmap(lambda x: jnp.ravel(of_one_example(apply_fn, whole, x)))(x)

    values, vjp_fn = jax.vjp(outputs, trained)
    signs = random_signs_of_outputs(key, probes, values)
    if probes == 1:  # a loop of one would keep copies of all that its derivative needs
        return square_sum(vjp_fn(signs[0])[0])[None]
    return jax.lax.map(lambda r: square_sum(vjp_fn(r)[0]), signs)


def log_determinant(kernel: Float[Array, "k k"], unit: Float[Array, ""]) -> Float[Array, ""]:
    """The log-determinant of unit^2 K; -inf where a pivot is within rounding.

    NaN where an entry of the kernel is not finite.
    """
    pivots = jnp.diag(jnp.linalg.cholesky(kernel)) ** 2
    rounding = kernel.shape[0] * jnp.finfo(kernel.dtype).eps * jnp.max(jnp.diag(kernel))
    regular = jnp.all(pivots > rounding)  # NaN, where the factorization broke off, is not
    value = jnp.where(regular, jnp.sum(jnp.log(jnp.where(regular, pivots, 1))), -jnp.inf)
    value = value + 2 * len(kernel) * jnp.log(unit)
    return jnp.where(jnp.all(jnp.isfinite(kernel)), value, jnp.nan)


def _require_memory(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree, other: PyTree | None, q: int
) -> None:
    """Raises `KernelTooLargeError`, before any computation, if memory cannot hold the kernel."""
    sets = [x] if other is None else [x, other]
    made_of = [jax.eval_shape(lambda x: output_gradients(apply_fn, params, x), s) for s in sets]
    itemsize = made_of[0][0][0].dtype.itemsize
    rows, columns = num_examples(sets[0]) * q, num_examples(sets[-1]) * q
    kernel = 2 * rows * columns * itemsize  # and the products of a leaf, to be added to it
    gradients = numbers_kept_for_products(made_of[0], made_of[-1]) * itemsize
    available = _memory()
    if available is not None and kernel + gradients > available:
        raise KernelTooLargeError(
            f"the tangent kernel of {rows} x {columns} entries needs {kernel / 1e9:.3g} GB, and "
            f"the gradients it is made of {gradients / 1e9:.3g} GB; the device has "
            f"{available / 1e9:.3g} GB. Take fewer examples or outputs, or "
            "tangent_kernel_trace(method='random_signs'), which needs as much as one gradient."
        )


def _memory() -> int | None:
    """The device's memory in bytes, or None where it does not say."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
