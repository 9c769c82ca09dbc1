"""The modified equation of explicit Euler, all trees, against kauri where it is installed; Adam's.

Every figure is the median over fresh processes, taken after import: the tables of trees are cold.
An order counts vertices in the literature on B-series (n vertices go with h^(n-1)) and powers of
the step in `igr.modified_equation`; both readings are measured.

kauri (Shmelev) is the peer that installs: its `omega` are the coefficients of explicit Euler, in
floating point, by the antipode of the substitution Hopf algebra. pybs 0.1 (Sundklakk), as it is
published, lacks its modules and does not import on Python 3.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from benchmarks.measure import Row

_TARGETS = {8: 0.05, 10: 0.5, 12: 5.0}
_PEER_VERTICES = 7  # kauri takes seconds there, and a minute at 8

_OURS = """
import time
from igr.backward_error import methods, modified_equation
start = time.perf_counter()
equation = modified_equation(methods.gradient_descent(), {vertices} - 1)
seconds = time.perf_counter() - start
assert equation.weights[0] == 1
print(seconds)
"""

_ADAM = """
import time
from igr.backward_error import methods, modified_equation
start = time.perf_counter()
equation = modified_equation(methods.adam({settings}), 2)
seconds = time.perf_counter() - start
assert len(equation.field) == 3
print(seconds)
"""

_KAURI = """
import time
import kauri
start = time.perf_counter()
weights = [kauri.omega(tree) for tree in kauri.trees_up_to_order({vertices})]
seconds = time.perf_counter() - start
assert weights[1] == 1
print(seconds)
"""


def rows() -> Iterator[Row]:
    """Yields the measurements."""
    for order, target in _TARGETS.items():
        for vertices in (order, order + 1):
            yield Row(
                f"explicit Euler, trees to {vertices} vertices (h^{vertices - 1})",
                _median_seconds(_OURS, vertices, 5 if vertices < 12 else 3),
                "s",
                f"<= {target}",
            )
    for what, settings in (("second moment kept", ""), ("both moments kept", "keep=('mu', 'nu')")):
        seconds = _median(_ADAM.format(settings=settings), 3)
        yield Row(f"Adam to h^2, {what}", seconds, "s", "<= 5.0")
    if find_spec("kauri") is not None:
        ours = _median_seconds(_OURS, _PEER_VERTICES, 5)
        theirs = _median_seconds(_KAURI, _PEER_VERTICES, 1)
        yield Row(f"kauri, trees to {_PEER_VERTICES} vertices", theirs, "s")
        yield Row("kauri / igr there", theirs / ours, "times", ">= 10")


def _median_seconds(script: str, vertices: int, repeats: int) -> float:
    return _median(script.format(vertices=vertices), repeats)


def _median(script: str, repeats: int) -> float:
    command = [sys.executable, "-c", script]
    return statistics.median(
        float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        for _ in range(repeats)
    )
