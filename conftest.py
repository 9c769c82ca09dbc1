"""Float64 for every test: orders of accuracy cannot be read in single precision."""

import jax

jax.config.update("jax_enable_x64", True)
