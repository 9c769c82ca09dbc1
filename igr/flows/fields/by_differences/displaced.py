"""The field of order 1 of a linear memory, from gradients at the points of past steps.

A memory that averages the gradients of steps past, d = -sum_k w_k g(theta[n-k]), has at order 0
the motion theta' = M = -W(0) g, and at order 1

    F = (3/2) d(theta) - (1/2) d(theta + h M),      d(theta) = -sum_k w_k g(theta - k h M):

h F = Delta - Delta^2/2 of the iterates, d with the past where the run would have left it. It has
the derivative of the gradient in it only as differences, so that it sees kinks. Expanded it is the
modified equation to h^1.

A memory that fades over many steps would take as many gradients: the sum over k is replaced by the
Gauss quadrature of the weights, which is exact for polynomials in k of twice its degree.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.protocols import Method
from igr.checks import Number, check_step
from igr.flows.kinds import Field, ValueFn
from igr.flows.start_up import has_first_steps
from igr.pytrees import combine, like_params, partition

NODES = 4  # of the quadrature: a memory of so many steps or fewer is taken as it is
_FADED = 1e-10


def check_displaced(method: Any) -> None:
    """Raises `ValueError` unless `displaced_field` is defined for the method.

    Raises:
      ValueError: if it is not a linear memory of gradients at params.
    """
    _points(_linear(method))


def _linear(method: Any) -> LinearMethod:
    if not has_first_steps(method) or method.rho != 0:
        raise ValueError(
            f"differences are known for methods without memory and for linear memories, such as "
            f"heavy_ball(beta); {method.name} is neither"
        )
    return method


def displaced_field(method: Method, value_fn: ValueFn, h: Number | Array) -> Field:
    """The field of a linear method to h^1, from differences over the steps it remembers.

    Args:
      method: without open symbols.
      value_fn: the loss E, `params -> scalar`.
      h: the step.

    Returns:
      `f(t, params, args)`, for at most `2 NODES + 1` gradients.

    Raises:
      ValueError: as `check_displaced`.

    Of gradient descent it is -g - (g(x) - g(x - h g))/2; on x^2/2 with h = 0.1 that is -1.05 x:

    >>> from igr.backward_error import methods
    >>> field = displaced_field(methods.gradient_descent(), lambda x: x**2 / 2, 0.1)
    >>> print(field(0.0, jnp.array(1.0), None))
    -1.05
    """
    h = check_step("h", h)
    method = _linear(method)
    lags, weights = _points(method)
    decay, total = float(method.weight_decay), float(np.sum(weights))
    # (3/2) d at lag k, -(1/2) d at lag k - 1; of equal lags one gradient.
    both: dict[float, float] = {}
    for lag, weight in zip(lags, weights, strict=True):
        for at, share in ((lag, 1.5), (lag - 1, -0.5)):
            both[round(float(at), 12)] = both.get(round(float(at), 12), 0.0) + share * float(weight)
    here = both.pop(0.0, 0.0)
    places = np.array([*both.keys()]), np.array([*both.values()])

    def field(t: Any, params: PyTree, args: Any = None) -> PyTree:
        del t, args
        dynamic, static = partition(params)

        def gradient(p: PyTree) -> PyTree:
            return jax.grad(lambda q: value_fn(combine(q, static)))(p)

        g = gradient(dynamic)
        motion = jax.tree.map(lambda a, p: -(total * a + decay * p), g, dynamic)

        def add(sofar: PyTree, at: tuple[Array, Array]) -> tuple[PyTree, None]:
            lag, weight = at
            there = jax.tree.map(lambda p, m: (p - lag * h * m).astype(p.dtype), dynamic, motion)
            found = gradient(there)
            return jax.tree.map(lambda s, a: (s - weight * a).astype(s.dtype), sofar, found), None

        # Decay acts on theta and theta + h M.
        start = jax.tree.map(
            lambda a, p, m: (-here * a - decay * (p - h * m / 2)).astype(p.dtype),
            g,
            dynamic,
            motion,
        )
        dtype = jnp.result_type(jnp.float32, *(x.dtype for x in jax.tree.leaves(dynamic)))
        found, _ = jax.lax.scan(
            add, start, (jnp.asarray(places[0], dtype), jnp.asarray(places[1], dtype))
        )
        return like_params(found, params)

    return field


def _points(method: LinearMethod) -> tuple[np.ndarray, np.ndarray]:
    """The lags and weights of the memory, or of a quadrature for it where it is long."""
    weights = _impulse_response(method)
    lags = np.arange(weights.size, dtype=float)
    if np.count_nonzero(weights) <= NODES:
        return lags[weights != 0], weights[weights != 0]
    if np.any(weights < 0):
        raise ValueError(
            f"differences are known for a memory whose weights are positive; {method.name} has "
            f"weights down to {weights.min():.3g}"
        )
    return _gauss(lags, weights)


def _impulse_response(method: LinearMethod) -> np.ndarray:
    """The weights w_k of a linear memory, up to where they have faded."""
    b, a = ([float(x) for x in part] for part in method.recurrence)
    response: list[float] = []
    most = 100_000
    while len(response) < most:
        k = len(response)
        value = b[k] if k < len(b) else 0.0
        value -= sum(a[i] * response[k - i] for i in range(1, min(len(a) - 1, k) + 1))
        response.append(value)
        recent = response[-max(len(a), 1) :]
        if k >= len(b) and max(map(abs, recent)) <= _FADED * max(map(abs, response)):
            return np.array(response)
    raise ValueError(f"{method.name} does not forget within {most} steps")


def _gauss(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nodes and weights of a discrete measure's Gauss quadrature (Golub and Welsch)."""
    total = weights.sum()
    v = np.sqrt(weights / total)
    basis, alpha, beta = [v], [], []
    for _ in range(NODES):
        w = points * basis[-1]
        alpha.append(basis[-1] @ w)
        for _ in range(2):
            w = w - np.array(basis).T @ (np.array(basis) @ w)
        beta.append(np.linalg.norm(w))
        basis.append(w / beta[-1])
    values, vectors = np.linalg.eigh(
        np.diag(alpha) + np.diag(beta[:-1], 1) + np.diag(beta[:-1], -1)
    )
    return values, total * vectors[0] ** 2
