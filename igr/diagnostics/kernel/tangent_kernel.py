"""The tangent kernel of a network: the matrix, its trace and its log-determinant."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from igr.checks import Count, check_choice, check_count
from igr.per_example.inner_products import require_alike
from igr.per_example.kernel import (
    drawn_kernel_traces,
    kernel_in_unit,
    kernel_matrix,
    kernel_trace,
    log_determinant,
)
from igr.powers_of_two import power_of_two_near
from igr.shown import short, table


def tangent_kernel(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    other: PyTree | None = None,
) -> Float[Array, "nq mq"]:
    """The tangent kernel: the inner products of the gradients of all outputs of all examples.

    K[i q + o, j q + p] = grad f_o(x_i) . grad f_p(x'_j), the gradients with respect to the
    parameters: Definition 4.1 of "Appealing to gradients to investigate neural network
    generalization", and the kernel of model gradient similarity (Szolnoky et al., "On the
    interpretability of regularisation for neural networks through model gradient similarity",
    2022). Where a matrix enters as products alone, as in dense layers, convolutions, sequences
    and scans, the products come from activations and cotangents, over pairs of positions or from
    the gradients of that matrix, whichever is less work; the gradients of other leaves are kept for
    all outputs.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar (q = 1), for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.
        other: A second pytree, of m examples in the same shapes; `x` itself by default.

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
    return kernel_matrix(apply_fn, params, x, other)


def tangent_kernel_trace(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    *,
    method: Literal["exact", "random_signs"] = "exact",
    probes: Count = 1,
    key: PRNGKeyArray | None = None,
    chunk: Count | None = None,
) -> Float[Array, ""]:
    """The trace of the tangent kernel, sum_io |grad f_o(x_i)|^2, without the kernel.

    - "exact" adds up squares, from activations and cotangents where it can.
    - "random_signs" takes one backward pass of the whole batch a probe:
      E |grad sum_io r_io f_o(x_i)|^2 = tr K for independent signs r_io. It is unbiased, and a probe
      has the variance 2 sum_(a != b) K_ab^2 <= 2 |K|_F^2; `tangent_kernel_trace_estimate` gives
      it too.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.
        method: "exact" or "random_signs".
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
    check_choice("method", method, ("exact", "random_signs"))
    probes = check_count("probes", probes, 1)
    if chunk is not None:
        chunk = check_count("chunk", chunk, 1)
    if method == "random_signs":
        return jnp.mean(drawn_kernel_traces(apply_fn, params, x, probes, key))
    return kernel_trace(apply_fn, params, x, chunk)


class TraceEstimate(NamedTuple):
    """An estimate of a tangent kernel's trace by random signs, with its standard error.

    Attributes:
        trace: The mean of the probes.
        variance: The sample variance of a single probe, an unbiased estimate of
            2 sum_(a != b) K_ab^2.
        standard_error: The standard error of the mean, sqrt(variance / probes).
    """

    trace: Float[Array, ""]
    variance: Float[Array, ""]
    standard_error: Float[Array, ""]

    __repr__ = short
    _repr_html_ = table


def tangent_kernel_trace_estimate(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    *,
    probes: Count = 8,
    key: PRNGKeyArray | None = None,
) -> TraceEstimate:
    """Estimates the trace of the tangent kernel by random signs, with its standard error.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.
        probes: The number of draws, at least 2, without which there is no error estimate.
        key: For the signs; `jax.random.key(0)` by default. In a training loop give a new one each
            time.

    Returns:
        A `TraceEstimate`: trace, variance, standard_error, in float32 or wider.

    Raises:
        ValueError: As `tangent_kernel`; if `probes` is less than 2.
        TypeError: If `probes` is not an integer.

    The kernel of w x is diagonal here, so that signs cancel in the squares:

    >>> import jax.numpy as jnp
    >>> found = tangent_kernel_trace_estimate(lambda w, x: w * x, jnp.ones(2), jnp.ones((1, 2)))
    >>> float(found.trace), float(found.variance)
    (2.0, 0.0)
    """
    probes = check_count("probes", probes, 2)
    each = drawn_kernel_traces(apply_fn, params, x, probes, key)
    size = power_of_two_near(each)  # of numbers whose squares may be out of range
    spread = size * jnp.std(each / size, ddof=1)
    return TraceEstimate(jnp.mean(each), spread**2, spread / jnp.sqrt(probes))


def tangent_kernel_logdet(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree
) -> Float[Array, ""]:
    """The log-determinant of the tangent kernel, a scalar; -inf where it is singular.

    The computed determinant of a singular kernel is rounding alone, so -inf is returned instead.
    The kernel counts as singular where a pivot of its Cholesky factorization is within rounding,
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
    return log_determinant(*kernel_in_unit(apply_fn, params, x))
