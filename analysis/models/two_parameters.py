"""The two-parameter model of Barrett and Dherin (2021), section 5 and appendix A.4.

The model is y = a b x with one data point, so the loss E = (y - a b x)^2 / 2 has a curve of
minima, ab = y/x. Its implicit regularizer is R = |grad E|^2 / 2 = (a^2 + b^2) x^2 E (A.25), with
lambda = h/2 (A.26); explicit regularization descends E + mu R (A.31).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import igr

X, Y = 1.0, 0.6  # Table A.1, both columns
Params = Float[Array, "2"]  # (a, b)
ValueFn = Callable[[Any], Array]
Field = Callable[[Any, Any, Any], Any]


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
