"""The tangent kernel of a network: the kernel, its trace and its log-determinant."""

import os
from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from igr.curvature.vectors import is_floating, require_floating, size
from igr.flows.checks import check_count
from igr.per_example.chunks import summed_over_chunks
from igr.per_example.example_axis import num_examples
from igr.per_example.inner_products import require_alike
from igr.per_example.output_gradients import (
    numbers_kept,
    output_gradients,
    products,
    square_sums,
)
from igr.per_example.outputs import (
    output_dimension,
    random_signs_of_outputs,
    square_sum,
)

KEPT = 2**24  # numbers that gradients taken at a time may fill, where the parameters fill fewer


class KernelTooLargeError(ValueError, MemoryError):
    """A kernel was asked for that memory cannot hold."""


def tangent_kernel(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    other: PyTree | None = None,
) -> Float[Array, "nq mq"]:
    """The tangent kernel: the products of the gradients of all outputs of all examples.

    K[i q + o, j q + p] = grad f_o(x_i) . grad f_p(x'_j), the gradients with respect to the
    parameters: Definition 4.1 of "Appealing to gradients to investigate neural network
    generalization", and the kernel of model gradient similarity (Szolnoky et al., "On the
    interpretability of regularisation for neural networks through model gradient similarity",
    2022). Where a matrix enters as one product an example, as in dense layers, the products come
    from activations and cotangents; the gradients of other leaves are kept for all outputs.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar (q = 1), for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.
        other: Another, of m examples in the same shapes; `x` itself by default.

    Returns:
        The matrix (n q, m q), in float32 or wider.

    Raises:
        ValueError: If the leaves of x disagree in their leading axis, the examples of the two in
            their shapes, apply_fn returns neither a vector nor a scalar, or params have no floating
            leaf.
        KernelTooLargeError: A `ValueError` and `MemoryError`, if memory cannot hold the kernel and
            what it is made of.

    >>> import jax.numpy as jnp
    >>> line = lambda p, x: p["slope"] * x + p["offset"]
    >>> print(tangent_kernel(line, {"slope": 2.0 * jnp.ones(()), "offset": jnp.zeros(())},
    ...                      jnp.array([0.0, 1.0, 3.0])))
    [[ 1.  1.  1.]
     [ 1.  2.  4.]
     [ 1.  4. 10.]]
    """
    if other is not None:
        require_alike("other", other, "x", x)
    q = output_dimension(apply_fn, params, x)
    _require_memory(apply_fn, params, x, other, q)
    rows = output_gradients(apply_fn, params, x)
    columns = rows if other is None else output_gradients(apply_fn, params, other)
    return products(rows, columns, q)


def tangent_kernel_trace(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    *,
    method: Literal["exact", "random signs"] = "exact",
    probes: int = 1,
    key: PRNGKeyArray | None = None,
    chunk: int | None = None,
) -> Float[Array, ""]:
    """The trace of the tangent kernel, sum_io |grad f_o(x_i)|^2, without the kernel.

    - "exact" adds up squares, from activations and cotangents where it can.
    - "random signs" takes one backward pass of the whole batch a probe:
      E |grad sum_io r_io f_o(x_i)|^2 = tr K for independent signs r_io. It is unbiased, and a probe
      has the variance 2 sum_(a != b) K_ab^2 <= 2 |K|_F^2.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.
        method: "exact" or "random signs".
        probes: The number of draws.
        key: For the signs; `jax.random.key(0)` by default. In a training loop give a new one each
            time.
        chunk: The number of examples to take at a time under "exact"; by default as many as keep
            what is formed as small as the parameters, or as 16 million numbers.

    Returns:
        The scalar, in float32 or wider.

    Raises:
        ValueError: As `tangent_kernel`; if `method` is none of the two, or `probes` or `chunk` is
            less than 1.
        TypeError: If `probes` or `chunk` is not an integer.

    >>> import jax.numpy as jnp
    >>> float(tangent_kernel_trace(lambda w, x: w * x, jnp.ones(2), jnp.array([[1.0, 2], [0, 3]])))
    14.0
    """
    if method not in ("exact", "random signs"):
        raise ValueError(f"method must be 'exact' or 'random signs'; got {method!r}.")
    check_count("probes", probes, 1)
    if chunk is not None:
        check_count("chunk", chunk, 1)
    n, q = num_examples(x), output_dimension(apply_fn, params, x)
    parameters = size(require_floating(params))
    if method == "random signs":
        floating, constant = eqx.partition(params, is_floating)

        def outputs(floating: PyTree) -> Float[Array, "n q"]:
            whole = eqx.combine(floating, constant)
            return jax.vmap(lambda x: jnp.ravel(apply_fn(whole, x)))(x)

        values, pull = jax.vjp(outputs, floating)
        signs = random_signs_of_outputs(key, probes, values)
        return jnp.mean(jax.lax.map(lambda r: square_sum(pull(r)[0]), signs))
    if chunk is None:
        kept = numbers_kept(jax.eval_shape(lambda x: output_gradients(apply_fn, params, x), x)) // n
        chunk = max(1, max(parameters, KEPT) // kept)
    return summed_over_chunks(
        lambda part: jnp.sum(square_sums(output_gradients(apply_fn, params, part), q)), x, chunk
    )


def tangent_kernel_logdet(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree
) -> Float[Array, ""]:
    """The logarithm of the determinant of the tangent kernel; -inf where it is singular.

    What rounding leaves of the determinant of a singular kernel is a number that says nothing. The
    kernel counts as singular where a pivot of its Cholesky factorization is within rounding,
    n q eps times its largest diagonal entry: as it is for two equal examples, for more outputs than
    parameters, and in float32 for many a large set. Compute it in float64 where this matters.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.

    Returns:
        The scalar log det K, -inf for a singular kernel, NaN where gradients are not finite.

    Raises:
        ValueError: As `tangent_kernel`.
        KernelTooLargeError: As `tangent_kernel`.

    >>> import jax.numpy as jnp
    >>> scale = lambda w, x: w * x
    >>> print(tangent_kernel_logdet(scale, jnp.ones(2), jnp.array([[2.0, 0.5]])).round(6) + 0)
    0.0
    >>> print(tangent_kernel_logdet(scale, jnp.ones(2), jnp.array([[2.0, 0.5], [1.0, 1.0]])))
    -inf
    """
    kernel = tangent_kernel(apply_fn, params, x)
    pivots = jnp.diag(jnp.linalg.cholesky(kernel)) ** 2
    diagonal = jnp.diag(kernel)
    rounding = kernel.shape[0] * jnp.finfo(kernel.dtype).eps * jnp.max(diagonal)
    regular = jnp.all(pivots > rounding)  # NaN, where the factorization broke off, is not
    value = jnp.where(regular, jnp.sum(jnp.log(jnp.where(regular, pivots, 1))), -jnp.inf)
    return jnp.where(jnp.all(jnp.isfinite(kernel)), value, jnp.nan)


def _require_memory(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree, other: PyTree | None, q: int
) -> None:
    """An error, before anything is computed, where memory cannot hold the kernel."""
    sets = [x] if other is None else [x, other]
    made_of = [jax.eval_shape(lambda x: output_gradients(apply_fn, params, x), s) for s in sets]
    itemsize = made_of[0][0][0].dtype.itemsize
    rows, columns = num_examples(sets[0]) * q, num_examples(sets[-1]) * q
    kernel = 2 * rows * columns * itemsize  # and the products of a leaf, to be added to it
    gradients = sum(map(numbers_kept, made_of)) * itemsize
    available = _memory()
    if available is not None and kernel + gradients > available:
        raise KernelTooLargeError(
            f"the tangent kernel of {rows} x {columns} entries needs {kernel / 1e9:.3g} GB, and "
            f"the gradients it is made of {gradients / 1e9:.3g} GB; the device has "
            f"{available / 1e9:.3g} GB. Take fewer examples or outputs, or "
            "tangent_kernel_trace(method='random signs'), which needs as much as one gradient."
        )


def _memory() -> int | None:
    """The bytes of memory of the device; None where it does not tell."""
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
