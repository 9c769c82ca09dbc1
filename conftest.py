"""Settings of every test: float64, and no compiled program that outlives its file."""

import gc

import jax
import pytest

# Orders of accuracy cannot be read in single precision.
jax.config.update("jax_enable_x64", True)


@pytest.fixture(scope="module", autouse=True)
def _drop_compiled_programs():
    """Frees what a file has compiled.

    XLA maps about a hundred pieces of memory for a program. Linux allows a process 65,530 of
    them (`vm.max_map_count`), and the compiler crashes when they are used up.
    """
    yield
    jax.clear_caches()
    gc.collect()
