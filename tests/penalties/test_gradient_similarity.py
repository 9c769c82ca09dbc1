"""Model gradient similarity on networks of every kind, against plain Jacobians."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from igr.penalties import gradient_similarity_logdet, gradient_similarity_trace
from tests.diagnostics.conftest import NETWORKS

# what runs once is compiled in half the time without the backend's optimizations
quickly_compiled = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def kernel(apply_fn, params, x):
    """The tangent kernel from the Jacobian of every example."""
    floating, constant = eqx.partition(params, eqx.is_inexact_array)
    jacobian = jax.vmap(jax.jacrev(lambda p, x: apply_fn(eqx.combine(p, constant), x)), (None, 0))(
        floating, x
    )
    leaves = jax.tree.leaves(jacobian)
    rows = leaves[0].shape[0] * leaves[0].shape[1]
    features = jnp.concatenate([g.reshape(rows, -1) for g in leaves], axis=1)
    return features @ features.T


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=[pytest.mark.slow] if n in ("lenet", "norm", "scan", "tied") else [])
        for n in NETWORKS
    ],
)
def test_values_and_gradients(name):
    apply_fn, params, d = NETWORKS[name]()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, d)))
    floating, constant = eqx.partition(params, eqx.is_inexact_array)

    @quickly_compiled
    def measured(floating, x):
        def ours(p):
            whole = eqx.combine(p, constant)
            trace = gradient_similarity_trace(apply_fn, whole, x)
            logdet = gradient_similarity_logdet(apply_fn, whole, x, ridge=0.1)
            return trace + 10 * logdet, (trace, logdet)

        def theirs(p):
            k = kernel(apply_fn, eqx.combine(p, constant), x)
            logdet = jnp.linalg.slogdet(k + 0.1 * jnp.eye(len(k)))[1]
            return jnp.trace(k) + 10 * logdet, (jnp.trace(k), logdet)

        return [jax.value_and_grad(fn, has_aux=True)(floating) for fn in (ours, theirs)]

    ours, theirs = measured(floating, x)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)
