"""What says whether a truncated equation is to be trusted, along a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import sympy
from jaxtyping import Array, PyTree

from igr.backward_error.methods import Method
from igr.backward_error.response import GradientResponse, gradient_response
from igr.backward_error.terms.algebra import THETA, G, T
from igr.backward_error.terms.elementwise import ElementwiseMethod
from igr.curvature import hessian_product, top_eigenpairs
from igr.flows.fields.lambdify import LeafFunctions
from igr.flows.fields.vector_field import vector_field

ValueFn = Callable[[PyTree], Array]


def corrections_along(
    equation: Any, loss: ValueFn, recorded: PyTree, times: np.ndarray, h: float
) -> np.ndarray:
    """h |F1| / |F0| of the params' field at each record.

    Args:
      equation: of order 1.
      loss: `params -> scalar`.
      recorded: the states of the flow with a leading axis r: params, or `(params, kept)`.
      times: n h at each record, (r,).
      h: the step.
    """
    kept = bool(getattr(equation, "kept", None))

    @eqx.filter_jit
    def along(loss: ValueFn, recorded: PyTree, times: Array) -> Array:
        plain = vector_field(equation.truncate(0), loss, h)
        corrected = vector_field(equation, loss, h)

        def ratio(point: tuple[PyTree, Array]) -> Array:
            state, t = point
            f0, f = plain(t, state, None), corrected(t, state, None)
            if kept:
                f0, f = f0[0], f[0]
            norm = optax.tree.norm(f0)
            apart = optax.tree.norm(optax.tree.sub(f, f0))
            return jnp.where(norm > 0, apart / jnp.where(norm > 0, norm, 1), 0.0)

        return jax.lax.map(ratio, (recorded, times))

    return np.array(along(loss, recorded, jnp.asarray(times)))


def linear_response(method: Method | ElementwiseMethod) -> Method | None:
    """The linear or Runge-Kutta method whose limits hold for h times the sharpness.

    The method itself, or what an elementwise method does with the preconditioned gradient; None
    where there is no such method.
    """
    if not isinstance(method, ElementwiseMethod):
        return method
    response = gradient_response(method)
    return None if response is None else response.method


def sharpness_along(
    method: Method | ElementwiseMethod,
    loss: ValueFn,
    recorded: PyTree,
    times: np.ndarray,
    h: float,
) -> np.ndarray:
    """The sharpness at each record, each search started from the last eigenvector.

    For an elementwise method that of C^(1/2) H C^(1/2), C the preconditioner of
    `gradient_response`; nan where the method has none.

    Args:
      method: from `igr.methods`.
      loss: `params -> scalar`.
      recorded: params with a leading axis r, or `(params, kept)` where the method keeps states.
      times: n h at each record, (r,).
      h: the step.
    """
    response = None
    if isinstance(method, ElementwiseMethod):
        response = gradient_response(method)
        if response is None:
            return np.full(len(times), np.nan)
    precondition = _preconditioner(method, response, h)
    keeps = isinstance(method, ElementwiseMethod) and bool(method.kept)

    @eqx.filter_jit
    def along(loss: ValueFn, recorded: PyTree, times: Array) -> Array:
        def extreme(vector: PyTree | None, state: PyTree, t: Array) -> tuple[PyTree, Array]:
            params, kept = state if keeps else (state, {})
            root = precondition(loss, params, kept, t)
            hessian = hessian_product(lambda p: loss(p), params)

            def product(v: PyTree) -> PyTree:
                return _times(root, hessian(_times(root, v)))

            found = top_eigenpairs(product, params, 1, tol=1e-2, initial=vector)
            return jax.tree.map(lambda x: x[0], found.vectors), found.values[0]

        first = jax.tree.map(lambda x: x[0], recorded)
        vector, _ = extreme(None, first, times[0])
        return jax.lax.scan(lambda v, at: extreme(v, *at), vector, (recorded, times))[1]

    return np.array(along(loss, recorded, jnp.asarray(times)))


def _times(root: PyTree | None, v: PyTree) -> PyTree:
    return v if root is None else jax.tree.map(lambda r, x: (r * x).astype(x.dtype), root, v)


def _preconditioner(method: Any, response: GradientResponse | None, h: float) -> Callable[..., Any]:
    """(loss, params, kept, t) -> C^(1/2), or None for the identity."""
    if response is None:
        return lambda *_: None
    functions = LeafFunctions()
    scalars: dict[sympy.Symbol, Any] = {symbol: float(rate) / h for symbol, rate in method.rates}

    def root(loss: ValueFn, params: PyTree, kept: dict[str, PyTree], t: Array) -> PyTree:
        read = {THETA: params, G: jax.grad(lambda p: loss(p))(params)}
        read |= {sympy.Symbol(y): value for y, value in kept.items()}
        at = {**scalars, T: t + h}
        for channel, steady in response.steady:
            read[channel] = functions(steady, read, at, params)
        c = functions(response.preconditioner, read, at, params)
        return jax.tree.map(lambda x: jnp.sqrt(jnp.abs(x)), c)

    return root
