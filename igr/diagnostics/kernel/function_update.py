"""One step of gradient descent in function space, in the eigenbasis of the tangent kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.checks import Number, check_step
from igr.diagnostics.kernel.feature_covariance import eigenfunctions
from igr.meshes import on_any_mesh
from igr.per_example.inner_products import HIGHEST
from igr.per_example.outputs import output_dimension
from igr.pytrees import num_examples
from igr.shown import short, table


class FunctionSpaceUpdate(NamedTuple):
    """One step of gradient descent in function space, to first order in the step.

    Attributes:
        eigenvalues: lambda_j of the feature covariance, the largest first.
        functions: u_j(x_i) for every output, (n q, n, q): the eigenfunctions on the sample.
        coefficients: df_j = -h lambda_j u_j . dL/df, the change along each eigenfunction, (n q,).
        update: The change of the outputs, sum_j df_j u_j(x_i) = -h K dL/df: (n, q).
    """

    eigenvalues: Float[Array, " nq"]
    functions: Float[Array, "nq n q"]
    coefficients: Float[Array, " nq"]
    update: Float[Array, "n q"]

    __repr__ = short
    _repr_html_ = table


@on_any_mesh
def function_space_update(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    loss_of_outputs: Callable[[Float[Array, "n q"]], Any],
    learning_rate: Number | Array,
) -> FunctionSpaceUpdate:
    """The change of the outputs in a step -h grad L, in the eigenbasis of the tangent kernel.

    Lemma 4.2 of "Appealing to gradients to investigate neural network generalization": the outputs
    change by sum_j df_j u_j(x) with df_j = -h lambda_j u_j . dL/df, where lambda_j belongs to the
    feature covariance and u_j . u_j = n on the sample: the outputs change along u_j at a rate
    proportional to lambda_j. The lemma is for the loss L that is minimised, whatever its
    normalisation: a mean over n examples has a 1/n in dL/df.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.
        loss_of_outputs: From the outputs of all examples, (n, q), to the scalar L; it knows the
            targets.
        learning_rate: The step h.

    Returns:
        A `FunctionSpaceUpdate`, in float32 or wider. The signs of `functions`, and of
        `coefficients` with them, are arbitrary; where eigenvalues coincide, so is their basis.

    Raises:
        ValueError: As `tangent_kernel`; if the loss of the outputs is not a scalar.
        KernelTooLargeError: As `tangent_kernel`.

    Two examples of f = w x, at x = 1 and 2, for half a squared error: K = x x', and with the
    residuals (1, 0) both outputs move by -h K (1, 0) = -h (1, 2).

    >>> import jax.numpy as jnp
    >>> x, y = jnp.array([1.0, 2.0]), jnp.array([[2.0], [6.0]])
    >>> half = lambda f: jnp.sum((f - y) ** 2) / 2
    >>> found = function_space_update(lambda w, x: w * x, jnp.array(3.0), x, half, 0.1)
    >>> print(found.update.ravel().round(6), found.eigenvalues.round(6))
    [-0.1 -0.2] [2.5 0. ]
    """
    learning_rate = check_step("learning_rate", learning_rate)
    num_examples(x)
    output_dimension(apply_fn, params, x)
    sample = jax.vmap(lambda x: jnp.ravel(apply_fn(params, x)))(x)
    loss = jax.eval_shape(loss_of_outputs, sample)
    if getattr(loss, "shape", None) != ():
        raise ValueError(f"loss_of_outputs must return a scalar; it returned {loss}.")
    values, functions, unit = eigenfunctions(apply_fn, params, x)
    slope = jax.grad(loss_of_outputs)(sample).astype(values.dtype)
    along = jnp.tensordot(functions, slope, 2, precision=HIGHEST)
    coefficients = -learning_rate * (unit * (unit * (values * along)))
    update = jnp.tensordot(coefficients, functions, 1, precision=HIGHEST)
    return FunctionSpaceUpdate(unit * (unit * values), functions, coefficients, update)
