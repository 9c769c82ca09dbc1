"""Settings of every test: float64, programs that compile fast, and few of them at a time."""

import ast
import gc
import json
import math
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

# Compiling is nearly all that the tests take, and half of that is optimizing programs that run
# once; they are too small to be compiled in parts. XLA ends the process over a flag that its
# version does not know.
_FLAGS = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if version("jaxlib").startswith("0.10."):
    _FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", _FLAGS)
# Which lines each operation comes from is written down for profilers: a seventh of all time.
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# What a run has compiled, the next one reads from here; a program that calls back into Python is
# compiled each time.
_KEPT = Path(__file__).parent / ".pytest_cache" / "jax"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_KEPT))
# To write a program takes what a small one takes to compile.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import pytest  # noqa: E402

from analysis.sweep.compiled_programs import drop_compiled_programs  # noqa: E402

# Orders of accuracy cannot be read in single precision.
jax.config.update("jax_enable_x64", True)


def pytest_collection_finish():
    """What is imported by now stays: the collector of garbage, a tenth of all, goes by it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)


@pytest.fixture(scope="module", autouse=True)
def _drop_compiled_programs():
    """Frees what a file has compiled, whatever room there is."""
    yield
    drop_compiled_programs(0.35, math.inf)


def pytest_configure(config):
    """Room for the calls of annotations that are checked: each call of ours is several then."""
    if config.getoption("--jaxtyping-packages", None):
        sys.setrecursionlimit(2500)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Under `--jaxtyping-packages`, what a test gives on purpose is refused by its annotation."""
    try:
        return (yield)
    except Exception as error:
        # It may have come as such, or have been caught and found to say something else.
        refused = type(error).__name__ == "TypeCheckError" or "Type-check error" in str(error)
        if refused and _where_an_error_is_due(error, pyfuncitem):
            pytest.skip("its annotation refuses what is given before the check that is tested")
        raise


def _where_an_error_is_due(error, item):
    """Whether an exception went through a `with pytest.raises(...)` of the file of a test."""
    blocks = [
        range(node.lineno, node.end_lineno + 1)
        for node in ast.walk(ast.parse(Path(item.path).read_text(encoding="utf-8")))
        if isinstance(node, ast.With)
        and any("pytest.raises" in ast.unparse(part.context_expr) for part in node.items)
    ]
    trace, lines = error.__traceback__, []
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(item.path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return any(line in block for line in lines for block in blocks)


@pytest.fixture(scope="session")
def compilations():
    """How many programs the backend compiles while a function runs; tracing alone does not tell."""
    events = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        events.extend([event] * event.endswith("backend_compile_duration"))

    jax.monitoring.register_event_duration_secs_listener(listen)

    def count(run):
        before = len(events)
        jax.block_until_ready(run())
        return len(events) - before

    return count


@pytest.fixture(scope="session")
def on_four_devices():
    """Runs a test file once more where there are four virtual devices: it prints JSON at last.

    The number of virtual devices is fixed when JAX starts, hence the process of its own. Optimizing
    its programs would take longer than running them.
    """
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    env = dict(os.environ, XLA_FLAGS=flags, JAX_PLATFORMS="cpu")

    def run(*what):
        command = [sys.executable, *what]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run
