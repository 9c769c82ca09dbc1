"""The default steps h at which the order of a field is observed."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import optax
from jaxtyping import Array, PyTree

from igr.backward_error.protocols import Method
from igr.checks import Number
from igr.compiled import Traced, compiled
from igr.curvature import sharpness, vectors

SEARCH = 8  # trials at most


def default_steps(
    error: Callable[[Number], Number], order: int, largest: Number, aim: Number
) -> np.ndarray:
    """Five steps h, small enough for the order to show and with errors well above rounding."""
    smallest, most = largest / 8, largest / 4
    for _ in range(SEARCH):
        measured = error(smallest)
        if not np.isfinite(measured):  # too far back along the flow, or past its expansion
            smallest, most = smallest / 16, smallest / 4
            continue
        if measured == 0 or aim / 4 < measured < 4 * aim:
            break
        wanted = smallest * (aim / measured) ** (1 / (order + 2))
        smallest, before = min(max(wanted, smallest / 16), most), smallest
        if smallest == before:
            break
    return smallest * 2.0 ** (np.arange(4, -1, -1) / 4)


def largest_step(method: Method, loss: Traced, params: PyTree) -> float:
    """A step h well within the expansion's convergence radius at params."""
    response = method.response()
    radius = 1.0 if response is None else min(response.convergence_radius(), 1.0)
    radius = min(radius, (1 - method.memory().fading) ** 2)
    curvature, speed = (abs(float(x)) for x in _curvature_and_speed(loss, params))
    scale_of_params = max(float(optax.tree.norm(params)), 1.0)
    return 0.2 * radius / max(curvature, speed / scale_of_params)


@compiled
def _curvature_and_speed(loss: Traced, params: PyTree) -> tuple[Array, Array]:
    found = sharpness(lambda p: loss(p), params, tol=1e-2)
    return found.value, vectors.norm(jax.grad(lambda p: loss(p))(params))
