"""Geometric complexity: the Dirichlet energy of a network on its data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from igr.checks import Count, check_choice, check_count
from igr.diagnostics.complexity.input_jacobians import jacobian_shape, over_jacobians
from igr.meshes import on_any_mesh
from igr.one_example import of_one_example
from igr.per_example.outputs import random_signs_of_outputs, square_sum
from igr.pytrees import num_examples


@on_any_mesh
def geometric_complexity(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    *,
    method: Literal["exact", "random_signs"] = "exact",
    probes: Count = 1,
    key: PRNGKeyArray | None = None,
    chunk: Count | None = None,
) -> Float[Array, ""]:
    """The geometric complexity: the mean of |df/dx|_F^2 over the examples, f the logits.

    Definition 6.1 of "Appealing to gradients to investigate neural network generalization", after
    Dherin, Munn, Rosca and Barrett, "Why neural networks find simple solutions" (2022). It is at
    most min(q, d) times the square of the Lipschitz constant of f, for q outputs and d inputs
    (`lipschitz_bound`), and on a ReLU network the mean of |A|_F^2 over the pieces x -> A x + b that
    the examples are on (`linear_pieces`).

    - "exact" forms the Jacobian of each example, one pass an output or an input, whichever are
      fewer.
    - "random_signs" takes one backward pass of the batch a probe: E |r' df/dx|^2 = |df/dx|_F^2 for
      signs r drawn for each output of each example. It is unbiased, and the variance of a probe is
      (2 / n^2) sum_i sum_(o != p) ((J_i J_i')_op)^2. Differentiable, as the exact one is.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree.
        x: The examples, floating, along the leading axis: an array or a pytree of arrays.
        method: "exact" or "random_signs".
        probes: The number of draws.
        key: For the signs; `jax.random.key(0)` by default. In a training loop give a new one each
            time.
        chunk: The number of examples to take at a time under "exact", all n by default.

    Returns:
        The scalar, in float32 or wider.

    Raises:
        ValueError: If the leaves of x disagree in their leading axis or are not floating, apply_fn
            returns neither a vector nor a scalar, `method` is none of the two, or `probes` or
            `chunk` is less than 1.
        TypeError: If `probes` or `chunk` is not an integer.

    >>> import jax.numpy as jnp
    >>> linear = lambda a, x: a @ x
    >>> float(geometric_complexity(linear, jnp.array([[1.0, 2.0], [0.0, 3.0]]), jnp.ones((5, 2))))
    14.0
    """
    check_choice("method", method, ("exact", "random_signs"))
    probes = check_count("probes", probes, 1)
    if chunk is not None:
        chunk = check_count("chunk", chunk, 1)
    n = num_examples(x)
    if method == "exact":
        return jnp.mean(over_jacobians(square_sum, apply_fn, params, x, chunk))
    jacobian_shape(apply_fn, params, x)

    def of_one(x: PyTree) -> Array:
        return jnp.ravel(of_one_example(apply_fn, params, x))

    values, vjp_fn = jax.vjp(jax.vmap(of_one), x)
    signs = random_signs_of_outputs(key, probes, values)
    return jnp.mean(jax.lax.map(lambda r: square_sum(vjp_fn(r)[0]), signs)) / n
