"""What reading an optimizer costs: every alias of optax and optax.contrib that can be read.

From the function of the learning rate to the method, each alias in turn in one fresh process, with
nothing of the aliases before it at hand but what JAX and sympy keep. The certificate, which runs
the optimizer, is measured apart for Adam: it is taken once for each optimizer.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import optax
from optax import contrib

import igr
from benchmarks.measure import Row
from igr.tracing import read_optimizer

_PLAIN = [
    "sgd",
    "optimistic_gradient_descent",
    "adam",
    "adamw",
    "nadam",
    "nadamw",
    "adabelief",
    "adan",
    "rmsprop",
    "radam",
    "optimistic_adam",
    "optimistic_adam_v2",
    "adagrad",
    "adadelta",
    "adafactor",
    "fromage",
    "lamb",
    "lars",
    "novograd",
    "sm3",
    "acprop",
    "ademamix",
    "simplified_ademamix",
    "madgrad",
    "schedule_free_sgd",
    "schedule_free_adamw",
    "muon",
    "prodigy",
    "dadapt_adamw",
    "dog",
    "dowg",
]
_SMOOTHED = [
    "yogi",
    "amsgrad",
    "adamax",
    "adamaxw",
    "lion",
    "sign_sgd",
    "signum",
    "adopt",
    "cocob",
]


def rows() -> Iterator[Row]:
    """Yields the measurements."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield from _rows()


def _rows() -> Iterator[Row]:
    read_optimizer(lambda h: optax.sgd(h, 0.5))  # the first trace of a process loads what it needs
    seconds = {name: _seconds(_called(name), None) for name in _PLAIN}
    seconds |= {name: _seconds(_called(name), 1e-2) for name in _SMOOTHED}
    seconds["mechanize"] = _seconds(lambda h: contrib.mechanize(optax.sgd(h)), None)
    yield Row("aliases read", len(seconds), "aliases", ">= 40")
    slowest = sorted(seconds, key=lambda name: -seconds[name])
    for name in slowest[:5]:
        yield Row(f"reading {name}, of the slowest", seconds[name], "s", "<= 2")
    yield Row("reading an alias, the mean", sum(seconds.values()) / len(seconds), "s")
    start = time.perf_counter()
    igr.from_optax(optax.adam)
    yield Row("adam read and certified", time.perf_counter() - start, "s")
    start = time.perf_counter()
    igr.from_optax(optax.adam)
    yield Row("adam again, its certificate at hand", time.perf_counter() - start, "s")


def _called(name: str) -> Callable[[Any], optax.GradientTransformation]:
    make = getattr(optax, name, None) or getattr(contrib, name)
    return lambda h: make(h)


def _seconds(make: Callable[[Any], optax.GradientTransformation], smooth: float | None) -> float:
    start = time.perf_counter()
    read_optimizer(make, smooth=smooth)
    return time.perf_counter() - start
