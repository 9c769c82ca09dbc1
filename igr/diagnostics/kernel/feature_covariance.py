"""The eigenpairs of the covariance of the tangent features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.checks import Count, check_count
from igr.meshes import on_any_mesh
from igr.one_example import of_one_example
from igr.per_example.kernel import kernel_in_unit
from igr.per_example.outputs import output_dimension
from igr.pytrees import combine, num_examples, partition
from igr.shown import short, table


class FeatureEigenpairs(NamedTuple):
    """Eigenpairs of the feature covariance, Sigma = 1/n sum_io Phi_o(x_i) Phi_o(x_i)'.

    Attributes:
        values: lambda_j, the largest first.
        vectors: v_j, of length one: a pytree as params, with a leading axis of k; None for leaves
            that are no floating arrays. Zero where lambda_j is zero to rounding.
        functions: u_j(x_i) = v_j . Phi(x_i) / sqrt(lambda_j) for every output: (k, n, q). Their
            mean square, summed over the outputs, is 1.
    """

    values: Float[Array, " k"]
    vectors: PyTree
    functions: Float[Array, "k n q"]

    __repr__ = short
    _repr_html_ = table


@on_any_mesh
def feature_covariance_eigenpairs(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree, k: Count
) -> FeatureEigenpairs:
    """The k leading eigenpairs of the tangent features' covariance, from the tangent kernel.

    These are the directions in parameter space in which training is fastest: "Appealing to
    gradients to investigate neural network generalization", section 4.1, with the mean over the
    examples for the expectation and the sum over outputs. Sigma and K / n share their eigenvalues,
    and v_j is the gradient of sum_io u_j(x_i)_o f_o(x_i), scaled: one backward pass a pair. Where
    the kernel is too large, `igr.curvature.top_eigenpairs` finds them from `gauss_newton_product`
    of half a squared error, whose matrix is Sigma.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.
        k: The number of pairs, at most n q.

    Returns:
        `FeatureEigenpairs`: values, vectors and functions, in float32 or wider (the vectors in the
        dtypes of params). Signs are arbitrary.

    Raises:
        ValueError: As `tangent_kernel`; if k is not from 1 to n q.
        TypeError: If k is not an integer.
        KernelTooLargeError: As `tangent_kernel`.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    >>> found = feature_covariance_eigenpairs(lambda w, x: w @ x, jnp.ones(2), x, 1)
    >>> print(found.values, abs(found.vectors))
    [2.] [[1. 0.]]
    """
    n, q = num_examples(x), output_dimension(apply_fn, params, x)
    k = check_count("k", k, 1)
    if k > n * q:
        raise ValueError(f"k must be at most the number of outputs n q = {n * q}; got {k}.")
    values, functions, unit = eigenfunctions(apply_fn, params, x)
    values, functions = values[:k], functions[:k]
    trained, constant = partition(params)

    def outputs(trained: PyTree) -> Float[Array, "n q"]:
        whole = combine(trained, constant)
        return jax.vmap(lambda x: jnp.ravel(of_one_example(apply_fn, whole, x)))(x)

    sample, vjp_fn = jax.vjp(outputs, trained)
    found = values > n * q * jnp.finfo(values.dtype).eps * jnp.max(values)
    scale = jnp.where(found, 1 / (n * jnp.sqrt(jnp.where(found, values, 1))), 0)
    cotangents = (functions * (scale / unit)[:, None, None]).astype(sample.dtype)
    values = unit * (unit * values)
    return FeatureEigenpairs(values, jax.lax.map(lambda r: vjp_fn(r)[0], cotangents), functions)


def eigenfunctions(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree
) -> tuple[Float[Array, " nq"], Float[Array, "nq n q"], Float[Array, ""]]:
    """The eigenvalues of K / n, largest first, sqrt(n) times the eigenvectors, and a unit.

    The eigenvalues are those of gradients divided by the unit.

    """
    n, q = num_examples(x), output_dimension(apply_fn, params, x)
    kernel, unit = kernel_in_unit(apply_fn, params, x)
    values, vectors = jnp.linalg.eigh(kernel)
    functions = (n**0.5 * vectors.T[::-1]).reshape(n * q, n, q)
    return jnp.maximum(values[::-1], 0) / n, functions, unit
