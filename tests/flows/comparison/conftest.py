"""What the comparisons on networks that people train share."""

import jax
import pytest


@pytest.fixture(scope="module")
def single_precision():
    """float32 for a whole file, as networks are trained."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", False)
    yield
    jax.config.update("jax_enable_x64", before)
