"""What a step at the edge of stability costs: two phases and the central flow, in gradients a step.

The network of the field benchmark with the shape of digits, 10^5 parameters, on 256 inputs, with a
step h at which it is past its edge, so that nothing is left out. The time of a step is what more
steps take beyond fewer; on a CPU it is that of the process on all cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import jax

from benchmarks.field import NETWORKS, loss
from benchmarks.measure import Row, median_seconds
from benchmarks.network import examples, network
from igr.backward_error import methods
from igr.curvature import sharpness
from igr.flows import central_flow, two_phase_flow

FEW, MORE = 2, 12  # steps


def rows() -> Iterator[Row]:
    """Yields the measurements."""
    yield from _rows(NETWORKS["digits"], 256, 5)


def _rows(widths: tuple[int, ...], number: int, repeats: int) -> Iterator[Row]:
    params = network(jax.random.key(0), widths, gain=1.0)
    batch = examples(jax.random.key(1), number, widths)
    value_fn = lambda p: loss(p, batch)  # noqa: E731
    h = 2.2 / float(sharpness(value_fn, params, which="largest").value)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    gradient = jax.jit(jax.grad(loss))

    def phases(directions: int | None) -> Callable[[int], Any]:
        return lambda steps: two_phase_flow(
            methods.gradient_descent(), value_fn, params, h, steps * h,
            directions=directions, record_every=steps,
        ).value  # fmt: skip

    def central(directions: int) -> Callable[[int], Any]:
        return lambda steps: (
            central_flow(value_fn, params, h, steps * h, directions, record_every=steps).ys
        )

    flows = {
        "two phases": phases(None),
        "two phases in 3 directions": phases(3),
        "central flow in 1 direction": central(1),
        "central flow in 3 directions": central(3),
    }
    clock = time.process_time if jax.default_backend() == "cpu" else time.perf_counter
    for name, flow in flows.items():
        work: dict[str, Callable[[], Any]] = {
            "gradients": lambda: [gradient(params, batch) for _ in range(10)],
            "few": lambda flow=flow: flow(FEW),
            "more": lambda flow=flow: flow(MORE),
        }
        seconds = median_seconds(work, repeats, settle=False, clock=clock)
        step = (seconds["more"] - seconds["few"]) / (MORE - FEW)
        what = f"a step h of {name}, {size:,} parameters"
        yield Row(what, step / (seconds["gradients"] / 10), "gradients")
