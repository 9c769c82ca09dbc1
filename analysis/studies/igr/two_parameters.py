"""Descent and flows on the surface (y - abx)^2 / 2 (Figures 1a, 1b, A.1 and A.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import igr
from analysis.models.two_parameters import (
    Field,
    Params,
    X,
    Y,
    egr,
    loss,
    modified_field,
    regularized_field,
    regularized_loss,
    regularizer_over_loss,
    sharpness,
)
from analysis.scale import Scale
from analysis.sweep import Study

H_LARGE = 1.8e-1  # Table A.1, initial point I only
X_TEST, Y_TEST = 0.5, 0.6  # caption of Figure A.2
TIMES = (0.1, 0.2, 0.5, 20.0)  # ours: where Figure A.2 looks at the test error
Line = Float[np.ndarray, "points 2"]


@dataclass(frozen=True)
class Start:
    """A column of Table A.1, and how long we follow it.

    Attributes:
        name: The number of the initial point.
        at: Its a and b.
        h_small: The learning rate h_S.
        h_medium: The learning rate h_M.
        mu: The rate of explicit regularization.
        h_euler: The step of EGR.
        time: Ours: until gradient descent has converged.
        euler_time: Ours: until EGR has converged, as far as the picture shows.
        largest_h: Ours: beyond the largest learning rate that converges.
    """

    name: str
    at: tuple[float, float]
    h_small: float
    h_medium: float
    mu: float
    h_euler: float
    time: float
    euler_time: float
    largest_h: float

    @property
    def params(self) -> Params:
        """The two parameters as an array."""
        return jnp.array(self.at)


START_I = Start("I", (2.8, 3.5), 1e-3, 2.5e-2, 0.5, 1e-4, 10.0, 10.0, 0.3)
START_II = Start("II", (75.0, 74.925), 1e-6, 0.5e-4, 4.1e-2, 5e-7, 2.0, 4.0, 5e-4)


@dataclass(frozen=True)
class Cell:
    """What a figure shows from an initial point.

    Attributes:
        figure: Its number in the paper.
        start: The initial point, with the rates and times that go with it.
    """

    figure: Literal["1a", "1b", "A.1", "A.2"]
    start: Start


def study(scale: Scale) -> Study:
    """Section 5 and appendix A.4 of Barrett and Dherin (2021), in double precision.

    Args:
        scale: The same cells at every scale: the paper's own are this small.
    """
    del scale
    cells = (
        Cell("1a", START_I),
        Cell("1a", START_II),
        Cell("1b", START_I),
        Cell("A.1", START_I),
        Cell("A.2", START_I),
    )
    return Study("igr-two-parameters", run, cells)


@jax.enable_x64(True)
def run(cell: Cell) -> Mapping[str, Any]:
    """The arrays of a figure from an initial point.

    Returns:
        `x` and `y` of the data point, and by the cell's figure what `paths`, `ends`, `large_rate`
        or `regularization_rates` has.
    """
    shown = {"1a": paths, "1b": ends, "A.1": large_rate, "A.2": regularization_rates}
    return {"x": X, "y": Y, **shown[cell.figure](cell.start)}


def paths(start: Start) -> dict[str, Any]:
    """The lines of Figure 1a and what is said of them.

    Returns:
        Each line by its name in the figure's table, (points, 2). `distance`, (2, steps + 1): at
        h_M of gradient descent from the gradient flow and from the modified flow, at equal time
        n h. `learning_rate` and `norm`: gradient descent's learning rates from h_M on and the norm
        where it ends, infinite where it does not converge. `matching`: the loss along gradient
        descent with h = 2 mu. `sharpness` and `regularized_sharpness`: of E and of E + mu R at the
        start.
    """
    steps = round(start.time / start.h_medium)
    compared = igr.compare(
        loss, start.params, start.h_medium, steps, orders=(0, 1), sharpness=False
    )
    h = jnp.geomspace(start.h_medium, start.largest_h, 2000)
    landed = _end_of_descent(h, start, 4 * steps)
    # A run that left the finite numbers compares as False.
    converged = np.asarray(jax.vmap(loss)(landed) < 1e-16)
    return {
        "gradient descent, small rate": _descend(
            optax.sgd(start.h_small), start, round(start.time / start.h_small)
        ),
        "gradient descent, moderate rate": _descend(optax.sgd(start.h_medium), start, steps),
        "modified flow": _follow(modified_field(start.h_medium), start, start.time),
        "EGR, flow": _follow(regularized_field(start.mu), start, start.euler_time),
        "EGR": _descend(
            egr(start.h_euler, start.mu), start, round(start.euler_time / start.h_euler)
        ),
        "distance": np.stack([compared.distance[order] for order in (0, 1)]),
        "learning_rate": np.asarray(h),
        "norm": np.where(converged, np.linalg.norm(landed, axis=1), np.inf),
        "matching": np.asarray(igr.run(optax.sgd(2 * start.mu), loss, start.params, 100).value),
        "sharpness": sharpness(loss, start.params),
        "regularized_sharpness": sharpness(regularized_loss(start.mu), start.params),
    }


def ends(start: Start) -> dict[str, Any]:
    """R/E where gradient descent and the flows end (Figure 1b).

    Returns:
        `learning_rate`, (r,); R/E at the end by them, (r,), of gradient `descent` and of the
        `modified` flow; and of the `original` one, a number.
    """
    h = jnp.linspace(5e-4, start.h_medium, 25)

    def end_of_flow(h: Array | float, order: int = 1) -> Params:
        saved = igr.flow(modified_field(h, order), start.params, start.time).ys
        assert saved is not None  # as it would be without a save point
        return saved[-1]

    return {
        "learning_rate": np.asarray(h),
        "descent": regularizer_over_loss(
            _end_of_descent(h, start, round(start.time / float(h[0])))
        ),
        "modified": regularizer_over_loss(jax.vmap(end_of_flow)(h)),
        "original": float(regularizer_over_loss(end_of_flow(1.0, order=0))),
    }


def large_rate(start: Start) -> dict[str, Any]:
    """A learning rate too large for backward error analysis (Figure A.1).

    Returns:
        The paths `small` and `large`, the latter with every step, (points, 2); the `learning_rate`
        h_L of the latter; the `loss` and the `sharpness` where it ends.
    """
    large = igr.run(optax.sgd(H_LARGE), loss, start.params, 400)
    return {
        "small": _descend(optax.sgd(start.h_small), start, round(start.time / start.h_small)),
        "large": np.asarray(large.params),
        "learning_rate": H_LARGE,
        "loss": float(loss(large.last)),
        "sharpness": sharpness(loss, large.last),
    }


def regularization_rates(start: Start) -> dict[str, Any]:
    """EGR at many rates of explicit regularization (Figure A.2).

    Returns:
        `mu`, (r,); `time`, (t,); `test_error` at these times, (r, t); and `square_norm`,
        a^2 + b^2 at the last of them, (r,).
    """
    mu = jnp.linspace(0.0, start.mu, 26)
    steps, every = round(TIMES[-1] / start.h_euler), round(0.1 / start.h_euler)
    records = jax.vmap(
        lambda mu: (
            igr.run(egr(start.h_euler, mu), loss, start.params, steps, record_every=every).params
        )
    )(mu)
    seen = np.asarray(records)[:, [round(time / 0.1) for time in TIMES]]
    return {
        "mu": np.asarray(mu),
        "time": np.array(TIMES),
        "test_error": (Y_TEST - X_TEST * seen[..., 0] * seen[..., 1]) ** 2 / 2,
        "square_norm": np.sum(seen[:, -1] ** 2, axis=-1),
    }


def _end_of_descent(h: Float[Array, " r"], start: Start, steps: int) -> Float[Array, "r 2"]:
    return jax.vmap(
        lambda h: igr.run(optax.sgd(h), loss, start.params, steps, record_every=steps).last
    )(h)


def _descend(optimizer: optax.GradientTransformation, start: Start, steps: int) -> Line:
    """The path of a discrete run."""
    every = max(1, steps // 20_000)
    return _thinned(igr.run(optimizer, loss, start.params, steps, record_every=every).params)


def _follow(field: Field, start: Start, time: float) -> Line:
    """The path of a flow; the times are close at the start, where it is fast."""
    ts = jnp.concatenate([jnp.zeros(1), jnp.geomspace(1e-9 * time, time, 10_000)])
    path = igr.flow(field, start.params, time, ts=ts).ys
    assert path is not None  # as it would be without save points
    return _thinned(path)


def _thinned(path: Float[Array, "n 2"], apart: float = 0.02) -> Line:
    """Points of a path at least `apart` from one another, with its first and last."""
    points = np.asarray(path)
    keep = [0]
    for i in range(1, len(points) - 1):
        if np.linalg.norm(points[i] - points[keep[-1]]) >= apart:
            keep.append(i)
    return points[[*keep, len(points) - 1]]
