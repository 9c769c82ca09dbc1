"""The two-parameter model of Barrett and Dherin (2021), section 5 and appendix A.4.

The model is y = a b x with one data point, so the loss E = (y - a b x)^2 / 2 has a curve of
minima, ab = y/x. Its implicit regularizer is R = |grad E|^2 / 2 = (a^2 + b^2) x^2 E (A.25), with
lambda = h/2 (A.26); explicit regularization descends E + mu R (A.31).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import igr

X, Y = 1.0, 0.6  # Table A.1, both columns
X_TEST, Y_TEST = 0.5, 0.6  # caption of Figure A.2
Params = Float[Array, "2"]  # (a, b)
Point = Float[np.ndarray, "2"]
Line = Float[np.ndarray, "points 2"]
ValueFn = Callable[[Any], Array]
Field = Callable[[Any, Any, Any], Any]
FLATTEST = np.sqrt(Y / X)  # of all minima the one with a = b has the smallest norm


@dataclass(frozen=True)
class Start:
    """A column of Table A.1, and how long we follow it."""

    name: str
    at: tuple[float, float]
    h_small: float
    h_medium: float
    mu: float
    h_euler: float
    time: float  # ours: until gradient descent has converged
    euler_time: float  # ours: until EGR has converged, as far as the picture shows
    largest_h: float  # ours: beyond the largest learning rate that converges

    @property
    def params(self) -> Params:
        return jnp.array(self.at)


START_I = Start("I", (2.8, 3.5), 1e-3, 2.5e-2, 0.5, 1e-4, 10.0, 10.0, 0.3)
START_II = Start("II", (75.0, 74.925), 1e-6, 0.5e-4, 4.1e-2, 5e-7, 2.0, 4.0, 5e-4)
H_LARGE = 1.8e-1  # Table A.1, initial point I only


def loss(params: Params) -> Float[Array, ""]:
    """E (A.24)."""
    a, b = params
    return (Y - a * b * X) ** 2 / 2


def regularizer_over_loss(params: Float[Array, "*batch 2"]) -> Float[np.ndarray, "*batch"]:
    """R/E = x^2 (a^2 + b^2) (A.25), which stays a number where E itself is zero."""
    return np.asarray(X**2 * jnp.sum(params**2, axis=-1))


def regularized_loss(mu: float) -> ValueFn:
    """E + mu R (A.31)."""
    return lambda params: loss(params) * (1 + mu * X**2 * jnp.sum(params**2))


def egr(h: float | Array, mu: float | Array) -> optax.GradientTransformationExtraArgs:
    """Gradient descent on E + mu R (A.32).

    R is |grad E|^2 / 2, and the penalty of `igr.transforms` is its rate times |grad E|^2.
    """
    return igr.transforms.egr(h, mu / 2)


def modified_field(h: float | Array, order: int = 1) -> Field:
    """The flow that gradient descent follows: for order 1 the gradient flow of (A.27)."""
    equation = igr.modified_equation(igr.methods.gradient_descent(), order=order)
    return igr.vector_field(equation, loss, h)


def regularized_field(mu: float) -> Field:
    """The flow that EGR tends to as its step goes to zero: the gradient flow of E + mu R."""
    gradient = jax.grad(regularized_loss(mu))
    return lambda t, params, args: -gradient(params)


def sharpness(value_fn: ValueFn, params: Params) -> float:
    """The largest eigenvalue of the Hessian."""
    return float(jnp.linalg.eigvalsh(jax.hessian(value_fn)(params))[-1])


def descend(optimizer: optax.GradientTransformation, start: Start, steps: int) -> Line:
    """The path of a discrete run."""
    every = max(1, steps // 20_000)
    return _thinned(igr.run(optimizer, loss, start.params, steps, record_every=every).params)


def follow(field: Field, start: Start, time: float) -> Line:
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
