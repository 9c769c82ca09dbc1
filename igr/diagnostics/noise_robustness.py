"""How the loss, its slope or the accuracy change under multiplicative noise on the parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from igr.checks import Count, check_count
from igr.compiled import compiled, traced
from igr.curvature.vectors import random_vector
from igr.meshes import on_any_mesh
from igr.missing_parts import of_whole
from igr.one_example import of_one_example
from igr.progress.late_bar import Ticking, mapped, search_bar
from igr.pytrees import combine, num_examples, partition
from igr.shown import short, table


class NoiseRobustness(NamedTuple):
    """The values of a measure under multiplicative noise, for every noise level.

    Attributes:
        values: The measure (or the pytree of measures) of every draw, (levels, draws).
        mean: The mean over the draws, (levels,).
        deviation: The standard deviation over the draws, (levels,); NaN for a single draw.
    """

    values: PyTree
    mean: PyTree
    deviation: PyTree

    __repr__ = short
    _repr_html_ = table


@on_any_mesh
def noise_robustness(
    measure_fn: Callable[[PyTree], PyTree],
    params: PyTree,
    sigmas: Any,
    *,
    draws: Count = 100,
    chunk: Count = 10,
    key: PRNGKeyArray | None = None,
    progress: bool | None = None,
) -> NoiseRobustness:
    """Measures a network whose every parameter is multiplied by 1 + sigma eps, eps normal.

    Section 5.2 and figure 3 of "Implicit gradient regularization" (Barrett and Dherin, 2021), which
    look at the slope and the test accuracy of trained networks under theta (1 + eta), eta ~
    N(0, sigma) for each parameter, sigma up to 3, with 100 draws. A network in a flat region keeps
    a small slope and its accuracy.

    The same draws eps are taken at every sigma, so that two levels differ in sigma alone.

    Args:
        measure_fn: `params -> scalar`, or a pytree of scalars, such as
            `lambda p: {"loss": value_fn(p), "slope": loss_surface_slope(value_fn, p)}`; see
            `accuracy` for a third. Arrays it closes over become arguments of the compiled program.
        params: Any pytree with floating leaves; others are left alone.
        sigmas: The noise levels, a vector without negative entries.
        draws: The number of draws of the noise.
        chunk: The number of draws to measure at a time. Each takes the memory of the measure, and
          of
            copies of the params for the noise, some five of them.
        key: For the draws; `jax.random.key(0)` by default.
        progress: Whether to show a bar with the time left; if not given, only after some seconds.
            There is none under a transformation such as jit or vmap.

    Returns:
        A `NoiseRobustness`: values, mean, deviation, each with the structure measure_fn returns.

    Raises:
        ValueError: If `sigmas` is not a vector of finite numbers from 0 on, `params` have no
            floating leaf, measure_fn returns what is not a scalar, or `draws` or `chunk` is less
            than 1.
        TypeError: If `draws` or `chunk` is not an integer.

    >>> import jax.numpy as jnp
    >>> found = noise_robustness(lambda w: jnp.sum(w**2), jnp.ones(10_000), [0.0, 1.0, 3.0])
    >>> print((found.mean / 10_000).round(1))  # 1 + sigma^2
    [ 1.  2. 10.]
    """
    draws = check_count("draws", draws, 1)
    chunk = check_count("chunk", chunk, 1)
    levels = np.asarray(sigmas)
    good = levels.ndim == 1 and levels.size and np.issubdtype(levels.dtype, np.number)
    if not (good and np.all(np.isfinite(levels)) and np.all(levels >= 0)):
        raise ValueError(f"sigmas must be a vector of finite numbers from 0 on; got {sigmas!r}.")
    trained, constant = partition(params)

    def measured(trained: PyTree) -> PyTree:
        return jax.tree.map(jnp.asarray, of_whole(measure_fn, combine(trained, constant)))

    measure = traced(measured, trained)
    for found in jax.tree.leaves(jax.eval_shape(measure, trained)):
        if found.shape != ():
            raise ValueError(
                "measure_fn must return a scalar or a pytree of scalars; it returned shape "
                f"{found.shape}."
            )
    dtype = jnp.result_type(*jax.tree.leaves(trained), jnp.float32)
    keys = jax.random.split(jax.random.key(0) if key is None else key, draws)
    inputs = measure, trained, jnp.asarray(levels, dtype), keys
    many = draws * len(levels)
    with search_bar("noise", progress, many, measure.program.jaxpr, inputs) as bar:
        values = _values(*inputs, min(chunk, draws), bar)
        if bar is not None:
            jax.block_until_ready(values)
    mean = jax.tree.map(lambda x: jnp.mean(x, 1), values)
    return NoiseRobustness(values, mean, jax.tree.map(_deviation, values))


@on_any_mesh
def accuracy(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree, labels: Array | np.ndarray
) -> Float[Array, ""]:
    """The share of examples whose largest output is that of their class, a scalar.

    Args:
        apply_fn: `(params, x) -> outputs (q,)` for one x.
        params: Any pytree.
        x: A pytree of arrays with a leading axis of n examples.
        labels: The classes, (n,) integers.

    Raises:
        ValueError: If labels are not n integers, or apply_fn does not return a vector.

    >>> import jax.numpy as jnp
    >>> float(accuracy(lambda w, x: w * x, jnp.ones(2), jnp.eye(2), jnp.array([0, 0])))
    0.5
    """
    num_examples(x, "x")
    outputs = jax.vmap(lambda x: of_one_example(apply_fn, params, x))(x)
    if outputs.ndim != 2:
        raise ValueError(
            "apply_fn must return a vector (q,) for one example; it returned shape "
            f"{outputs.shape[1:]}."
        )
    labels = jnp.asarray(labels)
    if labels.shape != outputs.shape[:1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels must be {len(outputs)} integers, one an example; got shape {labels.shape}, "
            f"{labels.dtype}."
        )
    return jnp.mean(jnp.argmax(outputs, 1) == labels)


def _deviation(values: Array) -> Array:
    if values.shape[1] == 1:  # of one draw the sample deviation is 0/0
        return jnp.full(len(values), jnp.nan)
    largest = jnp.max(jnp.abs(values), 1)  # whose square may be out of range
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    return unit * jnp.std(values / unit[:, None], 1, ddof=1)


@compiled
def _values(
    measure: Callable[[PyTree], PyTree],
    params: PyTree,
    sigmas: Array,
    keys: Array,
    chunk: int,
    bar: Ticking | None,
) -> PyTree:
    def draw(of: tuple[Array, Array]) -> PyTree:
        sigma, key = of
        noise = random_vector(key, params)
        noisy = jax.tree.map(lambda x, e: x * (1 + sigma.astype(x.dtype) * e), params, noise)
        return measure(noisy)

    levels, draws = len(sigmas), len(keys)
    each = jnp.repeat(sigmas, draws), jnp.tile(keys, levels)
    found = mapped(bar, draw, each, chunk)
    return jax.tree.map(lambda x: x.reshape(levels, draws), found)
