"""The Newton-Schulz iteration of a loop, against the one that optax writes out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igr.flows.newton_schulz import newton_schulz


@pytest.mark.parametrize("dtype", [pytest.param(jnp.float64, marks=pytest.mark.slow), jnp.bfloat16])
@pytest.mark.parametrize("shape", [(3, 7), pytest.param((7, 3), marks=pytest.mark.slow)])
def test_newton_schulz_is_that_of_optax(shape, dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)
    of_optax = optax.contrib.scale_by_muon(beta=0.0, nesterov=False)
    (found, slope), expected = (
        jax.jit(lambda x, f=f: jax.jvp(f, (x,), (jnp.cos(x),)))(x)
        for f in (newton_schulz, lambda x: of_optax.update(x, of_optax.init(x))[0])
    )
    eps = float(jnp.finfo(dtype).eps)
    assert found.dtype == dtype
    for a, b in zip((found, slope), expected, strict=True):
        np.testing.assert_allclose(
            np.asarray(a, float), np.asarray(b, float), rtol=0, atol=40 * eps
        )


def test_several_matrices_are_each_for_itself():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 5)))
    v = jnp.cos(x)
    both = jax.jit(lambda x, v: jax.jvp(newton_schulz, (x,), (v,)))
    found, slope = both(x, v)
    for i in np.ndindex(2, 3):
        alone, slope_alone = both(x[i], v[i])
        np.testing.assert_allclose(found[i], alone, rtol=1e-13)
        np.testing.assert_allclose(slope[i], slope_alone, rtol=1e-12, atol=1e-13)
