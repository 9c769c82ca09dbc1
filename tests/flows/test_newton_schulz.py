"""The Newton-Schulz iteration of a loop, against the one that optax writes out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from igr.flows.newton_schulz import newton_schulz


@pytest.mark.parametrize("dtype", [jnp.float64, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(3, 7), pytest.param((7, 3), marks=pytest.mark.slow)])
def test_newton_schulz_is_that_of_optax(shape, dtype):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), dtype)
    found, slope = jax.jvp(newton_schulz, (x,), (jnp.cos(x),))
    of_optax = optax.contrib.scale_by_muon(beta=0.0, nesterov=False)
    expected = jax.jvp(lambda x: of_optax.update(x, of_optax.init(x))[0], (x,), (jnp.cos(x),))
    eps = float(jnp.finfo(dtype).eps)
    assert found.dtype == dtype
    for a, b in zip((found, slope), expected, strict=True):
        np.testing.assert_allclose(
            np.asarray(a, float), np.asarray(b, float), rtol=0, atol=40 * eps
        )
