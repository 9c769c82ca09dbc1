"""Traces of matrix functions and spectral densities, by stochastic Lanczos quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from igr.checks import Count, Number, check_count, check_step
from igr.compiled import compiled, traced
from igr.curvature.krylov import krylov_start, krylov_step
from igr.curvature.operator import wide_product
from igr.curvature.vectors import inner, random_signs, size, widened, working_dtype
from igr.meshes import on_any_mesh
from igr.progress.late_bar import Ticking, search_bar
from igr.pytrees import require_trained
from igr.shown import short, table


class Estimate(NamedTuple):
    """A mean over random probes, and its standard error.

    Attributes:
        value: The mean.
        error: Its standard error.
    """

    value: Float[Array, ""]
    error: Float[Array, ""]

    __repr__ = short
    _repr_html_ = table


class SpectralDensity(NamedTuple):
    """The density of a matrix's eigenvalues, with integral one.

    Attributes:
        grid: Where the density is given, shape (num_points,).
        density: The mean over the probes, smoothed by a normal kernel, shape (num_points,).
        error: Its standard error over the probes, shape (num_points,).
        width: The standard deviation of the kernel.
        nodes: Quadrature nodes, shape (num_probes, num_products).
        weights: Their weights, each row of sum one: for any function f, the mean over the rows of
            sum(weights * f(nodes)) estimates the mean of f over the eigenvalues.
    """

    grid: Float[Array, " points"]
    density: Float[Array, " points"]
    error: Float[Array, " points"]
    width: Float[Array, ""]
    nodes: Float[Array, "probes products"]
    weights: Float[Array, "probes products"]

    __repr__ = short
    _repr_html_ = table


def trace(
    product: Callable[[PyTree], PyTree],
    params: PyTree,
    *,
    function: Callable[[Array], Array] | None = None,
    num_probes: Count = 10,
    num_products: Count = 30,
    key: PRNGKeyArray | None = None,
    progress: bool | None = None,
) -> Estimate:
    """Estimates tr A, or tr f(A), of the symmetric matrix A given by its product.

    The mean of v' A v over vectors v of random signs is unbiased for tr A (Hutchinson, 1990), at
    one product a probe. For tr f(A), v' f(A) v comes from Gauss quadrature on the Krylov space of
    v, at `num_products` products a probe. Quadrature nodes below zero are read as zero for
    `fisher_product`, which has no negative eigenvalue; for any other product, those below zero by
    no more than the rounding of `params`.

    Args:
        product: Linear and symmetric, on pytrees with the structure of the floating part of
            `params`.
        params: The pytree whose floating leaves give the shapes and dtypes of vectors.
        function: f, elementwise on an array of eigenvalues; None for A itself.
        num_probes: The number of random vectors, at least 2. The error falls as its square root.
        num_products: With `function`, the size of the Krylov space; never above the number of
            parameters.
        key: For the probes, `jax.random.key(0)` by default.
        progress: Whether to show a bar with the time left; if not given, only after some seconds.
            There is none under a transformation such as jit or vmap.

    Returns:
        An `Estimate`: value, error (the standard error over the probes).

    Raises:
        ValueError: If an argument is out of its range or `params` has no floating leaf.

    >>> import jax.numpy as jnp
    >>> scale = jnp.array([1.0, -4.0, 3.0, 0.5])
    >>> found = trace(lambda v: scale * v, jnp.zeros(4))
    >>> print(found.value, found.error)
    0.5 0.0
    """
    like = require_trained(params)
    num_probes = check_count("num_probes", num_probes, 2)
    num_products = check_count("num_products", num_products, 1)
    key = jax.random.key(0) if key is None else key
    steps = min(num_products, size(like))
    least = _least(product, like, steps)
    product = traced(product, like)
    if function is not None:
        function = traced(function, jax.ShapeDtypeStruct((steps,), working_dtype(like)))
    many = num_probes * (1 if function is None else steps)
    inputs = product, like, key
    with search_bar("trace", progress, many, product.program.jaxpr, inputs) as bar:
        samples = _quadratic_forms(product, like, function, num_probes, steps, least, key, bar)
        if bar is not None:
            jax.block_until_ready(samples)
    return Estimate(*_mean_and_error(samples))


def spectral_density(
    product: Callable[[PyTree], PyTree],
    params: PyTree,
    *,
    num_probes: Count = 10,
    num_products: Count = 60,
    grid: Float[Array | np.ndarray, " points"] | None = None,
    width: Number | None = None,
    key: PRNGKeyArray | None = None,
    progress: bool | None = None,
) -> SpectralDensity:
    """Estimates the density of the eigenvalues of the symmetric matrix A given by its product.

    Each random probe gives a Gauss quadrature of its spectral measure, from a Krylov space with
    full reorthogonalization; the density is the mean of these, smoothed by a normal kernel.

    Args:
        product: Linear and symmetric, on pytrees with the structure of the floating part of
            `params`.
        params: The pytree whose floating leaves give the shapes and dtypes of vectors.
        num_probes: The number of random vectors, at least 2.
        num_products: The size of each Krylov space, so the resolution; never above the number of
            parameters. The memory is that of as many vectors.
        grid: Where to give the density; 1,000 points over the nodes and three widths beyond by
            default.
        width: The standard deviation of the kernel; a hundredth of the range of the nodes by
            default.
        key: For the probes, `jax.random.key(0)` by default.
        progress: Whether to show a bar with the time left; if not given, only after some seconds.
            There is none under a transformation such as jit or vmap.

    Returns:
        A `SpectralDensity`: grid, density, error, width, nodes, weights.

    Raises:
        ValueError: If an argument is out of its range or `params` has no floating leaf.

    >>> import jax.numpy as jnp
    >>> scale = jnp.array([1.0, 1.0, 1.0, 5.0])
    >>> found = spectral_density(lambda v: scale * v, jnp.zeros(4), num_products=2)
    >>> print(found.nodes[0].round(4), found.weights[0].round(4))
    [1. 5.] [0.75 0.25]

    References:
        Golub and Welsch, "Calculation of Gauss quadrature rules" (1969); Ghorbani, Krishnan and
        Xiao, "An investigation into neural net optimization via Hessian eigenvalue density"
        (2019).
    """
    like = require_trained(params)
    num_probes = check_count("num_probes", num_probes, 2)
    num_products = check_count("num_products", num_products, 1)
    if width is not None:
        width = check_step("width", width)
    key = jax.random.key(0) if key is None else key
    steps = min(num_products, size(like))
    least = _least(product, like, steps)
    product = traced(product, like)
    many, inputs = num_probes * steps, (product, like, key)
    with search_bar("spectral density", progress, many, product.program.jaxpr, inputs) as bar:
        nodes, weights = _quadrature(product, like, num_probes, steps, least, key, bar)
        if bar is not None:
            jax.block_until_ready(nodes)
    low, high = jnp.min(nodes), jnp.max(nodes)
    if width is None:
        span = high - low
        kernel = jnp.where(span > 0, span, jnp.where(high != 0, jnp.abs(high), 1)) / 100
    else:
        kernel = jnp.asarray(width, nodes.dtype)
    if grid is None:
        grid = jnp.linspace(low - 3 * kernel, high + 3 * kernel, 1000)
    grid = jnp.asarray(grid)

    density, error = _smoothed(grid, kernel, nodes, weights)
    return SpectralDensity(grid, density, error, kernel, nodes, weights)


@compiled
def _smoothed(
    grid: Array, kernel: Array, nodes: Array, weights: Array
) -> tuple[Float[Array, " points"], Float[Array, " points"]]:
    """The mean of the probes' quadratures under a normal kernel, and its standard error."""

    def smoothed(rule: tuple[Array, Array]) -> Array:
        nodes, weights = rule
        apart = (grid[:, None] - nodes) / kernel
        return jnp.exp(-(apart**2) / 2) @ weights / (kernel * jnp.sqrt(2 * jnp.pi))

    return _mean_and_error(jax.lax.map(smoothed, (nodes, weights)))


@compiled
@on_any_mesh
def _quadratic_forms(
    product: Callable[[PyTree], PyTree],
    like: PyTree,
    function: Callable[[Array], Array] | None,
    num_probes: int,
    steps: int,
    least: float,
    key: PRNGKeyArray,
    bar: Ticking | None,
) -> Float[Array, " probes"]:
    wide = wide_product(product, like)

    def form(number: Array, key: PRNGKeyArray) -> Float[Array, ""]:
        probe = random_signs(key, widened(like))
        if function is None:
            _tick(bar, number)
            return inner(probe, wide(probe))
        nodes, weights = _gauss(wide, probe, steps, least, bar, number * steps)
        # A node without weight is no eigenvalue, and a logarithm may be infinite there.
        return size(like) * jnp.sum(jnp.where(weights == 0, 0, weights * function(nodes)))

    keys = jax.random.split(key, num_probes)
    return jax.lax.map(lambda x: form(*x), (jnp.arange(num_probes), keys))


@compiled
@on_any_mesh
def _quadrature(
    product: Callable[[PyTree], PyTree],
    like: PyTree,
    num_probes: int,
    steps: int,
    least: float,
    key: PRNGKeyArray,
    bar: Ticking | None,
) -> tuple[Float[Array, "probes products"], Float[Array, "probes products"]]:
    wide = wide_product(product, like)

    def rule(number: Array, key: PRNGKeyArray) -> tuple[Array, Array]:
        return _gauss(wide, random_signs(key, widened(like)), steps, least, bar, number * steps)

    keys = jax.random.split(key, num_probes)
    return jax.lax.map(lambda x: rule(*x), (jnp.arange(num_probes), keys))


def _tick(bar: Ticking | None, done: Array) -> None:
    if bar is not None:
        bar.show(done, done / bar.units)


def _least(product: Any, like: PyTree, steps: int) -> float:
    """How far below zero, relative to the largest node, a node is read as zero; may be infinite.

    An eigenvalue of zero may be computed as slightly negative, where a root or logarithm is NaN.
    """
    if getattr(product, "semidefinite", False):
        return math.inf
    narrow = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(like))
    wide = float(jnp.finfo(working_dtype(like)).eps)
    return max(10 * steps * wide, narrow)


def _gauss(
    product: Callable[[PyTree], PyTree],
    probe: PyTree,
    steps: int,
    least: float,
    bar: Ticking | None,
    done: Array,
) -> tuple[Float[Array, " products"], Float[Array, " products"]]:
    """The nodes and weights of the Gauss quadrature of a probe's spectral measure."""

    def step(j: Any, carry: tuple[PyTree, Array]) -> tuple[PyTree, Array]:
        basis, projected = carry
        _tick(bar, done + j)
        # From an exhausted space on, what follows is uncoupled and has no weight.
        return krylov_step(product, basis, projected, j, jnp.uint32(j))[:2]

    start = krylov_start(probe, steps, working_dtype(probe))
    _, projected = jax.lax.fori_loop(0, steps, step, start)
    size = jnp.max(jnp.abs(projected))
    size = jnp.where(size > 0, size, 1)
    nodes, vectors = jnp.linalg.eigh(projected / size)
    nodes = jnp.where((nodes < 0) & (nodes >= -least), 0, nodes) * size
    return nodes, vectors[0] ** 2


def _mean_and_error(samples: Array) -> tuple[Array, Array]:
    """The mean over the leading axis, and its standard error."""
    count = samples.shape[0]
    # Scaled, since squares of what is far from one may be out of the dtype's range.
    size = jnp.max(jnp.abs(samples))
    size = jnp.where((size > 0) & jnp.isfinite(size), size, 1)
    return jnp.mean(samples, 0), size * (jnp.std(samples / size, 0, ddof=1) / jnp.sqrt(count))
