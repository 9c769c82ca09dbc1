"""Bounds on the geometric complexity by the Lipschitz constant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from igr.checks import Count
from igr.curvature.vectors import widened
from igr.diagnostics.complexity.input_jacobians import jacobian_shape, over_jacobians
from igr.shown import short, table


class LipschitzBound(NamedTuple):
    """The geometric complexity, and the bounds above it in increasing order.

    Attributes:
        complexity: The mean of |df/dx|_F^2.
        mean_square: min(q, d) times the mean of |df/dx|^2, the operator norm.
        bound: min(q, d) times the square of the Lipschitz constant: the one given, else `slope`.
        slope: The largest operator norm |df/dx| at an example: a lower bound of the Lipschitz
            constant on any region that contains the examples.
    """

    complexity: Float[Array, ""]
    mean_square: Float[Array, ""]
    bound: Float[Array, ""]
    slope: Float[Array, ""]

    __repr__ = short
    _repr_html_ = table


def lipschitz_bound(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    *,
    lipschitz: Any = None,
    chunk: Count | None = None,
) -> LipschitzBound:
    """Bounds the geometric complexity by the Lipschitz constant of the network.

    Equation 3 of "Appealing to gradients to investigate neural network generalization", section
    6.2: mean |df/dx|_F^2 <= min(q, d) mean |df/dx|^2 <= min(q, d) L^2, for q outputs, d inputs.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree.
        x: The examples, floating, along the leading axis: an array or a pytree of arrays.
        lipschitz: A Lipschitz constant L of f, such as `spectral_product` gives; by default the
            largest slope at an example stands for it.
        chunk: The number of Jacobians to form at a time; all by default.

    Returns:
        A `LipschitzBound`: complexity, mean_square, bound, slope.

    Raises:
        ValueError: As `geometric_complexity`; if `lipschitz` is below the slope at an example, so
            that it is no Lipschitz constant.

    >>> import jax.numpy as jnp
    >>> linear = lambda a, x: a @ x
    >>> found = lipschitz_bound(linear, jnp.array([[3.0, 0.0], [0.0, 1.0]]), jnp.ones((5, 2)))
    >>> float(found.complexity), float(found.bound)
    (10.0, 18.0)
    """

    def norms(jacobian: Array) -> tuple[Array, Array]:
        return jnp.sum(jacobian**2), _spectral_norm(_small(jacobian))

    smaller = min(jacobian_shape(apply_fn, params, x))
    squares, slopes = over_jacobians(norms, apply_fn, params, x, chunk)
    slope = jnp.max(slopes)
    if lipschitz is not None:
        rounding = 100 * jnp.finfo(slope.dtype).eps
        known = not isinstance(slope, Tracer) and not isinstance(lipschitz, Tracer)
        if known and lipschitz < slope * (1 - rounding):
            raise ValueError(
                f"lipschitz must be a Lipschitz constant; {float(lipschitz):.6g} is below the "
                f"slope {float(slope):.6g} at an example."
            )
    constant = slope if lipschitz is None else jnp.asarray(lipschitz, slope.dtype)
    return LipschitzBound(
        complexity=jnp.mean(squares),
        mean_square=smaller * jnp.mean(slopes**2),
        bound=smaller * constant**2,
        slope=slope,
    )


def spectral_product(matrices: Sequence[Array]) -> Float[Array, ""]:
    """The product of the spectral norms of a network's weight matrices, a scalar.

    It is a Lipschitz constant of a network of dense layers whose activations have slopes of at most
    1: ReLU, tanh, sigmoid (but not GELU or swish). Regularizing it bounds the geometric complexity
    ("Appealing to gradients", section 6.3).

    Args:
        matrices: The weight matrices, in any order, without biases.

    Raises:
        ValueError: If there is none, or one is not a matrix.

    >>> import jax.numpy as jnp
    >>> print(spectral_product([2 * jnp.eye(3), jnp.ones((2, 2))]).round(4))
    4.0
    """
    if not matrices:
        raise ValueError("matrices must hold at least one matrix; it is empty.")
    product = jnp.ones((), jnp.float32)
    for matrix in widened(list(matrices)):
        if matrix.ndim != 2:
            raise ValueError(f"matrices must be matrices; got one of shape {matrix.shape}.")
        product = product * _spectral_norm(matrix)
    return product


def _small(matrix: Float[Array, "m n"]) -> Float[Array, "..."]:
    """A matrix with the same singular values, square where one side is far longer than the other.

    The memory of a singular value decomposition is of the order of the longer side squared.
    """
    m, n = matrix.shape
    if not m or not n or max(m, n) < 2 * min(m, n):
        return matrix
    return jnp.linalg.qr(matrix if m > n else matrix.T, mode="r")


def _spectral_norm(matrix: Float[Array, "m n"]) -> Float[Array, ""]:
    """The largest singular value of a matrix; 0 if it has no entries."""
    return jnp.max(jnp.linalg.svd(matrix, compute_uv=False), initial=0)
