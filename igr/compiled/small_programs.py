"""Compiler options for small programs, whose time is nearly all compilation.

A flow of two parameters takes seconds to compile and milliseconds to run. XLA's older code
generator and LLVM without its dear passes take half of that; on small arrays their programs are no
slower, and on arrays that fill a vector register many times they are. Where no array fills one,
LLVM's optimizations gain nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Jaxpr

from igr.progress.expected import expected_seconds, largest_array

NUMBERS = 1_000  # that a small program is given, in all
SECONDS = 1e-3  # that each function in it is expected to take
REGISTER = 8  # numbers of float64 in a vector register

_OPTIONS: dict[str, Any] = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_parallel_codegen_split_count": 1,
}
_OF_SCALARS: dict[str, Any] = {**_OPTIONS, "xla_backend_optimization_level": 0}


def does_little(programs: Iterable[Jaxpr]) -> bool:
    """Whether each of these functions is expected to take at most `SECONDS`."""
    return all(expected_seconds(jaxpr) <= SECONDS for jaxpr in programs)


def fills_no_register(programs: Iterable[Jaxpr]) -> bool:
    """Whether there are functions, and none of them has an array larger than `REGISTER`."""
    sizes = [largest_array(jaxpr) for jaxpr in programs]
    return bool(sizes) and max(sizes) <= REGISTER


def given_little(arrays: Sequence[Any]) -> bool:
    """Whether these arrays have at most `NUMBERS` entries together, and none of them is traced."""
    if any(isinstance(x, Tracer) for x in arrays):
        return False
    return sum(np.size(x) for x in arrays) <= NUMBERS


@functools.cache
def fast_to_compile(scalars: bool) -> dict[str, Any]:
    """Options of `jax.jit` for small programs; empty where the backend has no such options.

    Args:
        scalars: For programs none of whose arrays fills a register.
    """
    if jax.default_backend() != "cpu":
        return {}
    options = _OF_SCALARS if scalars else _OPTIONS
    if _known(options):
        return options
    return {name: value for name, value in options.items() if _known({name: value})}


def _known(options: dict[str, Any]) -> bool:
    """Whether the installed version of XLA has these options."""
    try:
        jax.jit(jnp.negative, compiler_options=options).lower(np.float32(0)).compile()
    except Exception:
        return False
    return True
