"""Measures along a run that say whether a truncated equation is to be trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from igr.backward_error.protocols import Method
from igr.checks import Number
from igr.compiled import Traced, compiled
from igr.curvature import hessian_product, top_eigenpairs, vectors
from igr.flows import kinds
from igr.flows.fields.vector_field import vector_field
from igr.flows.runnable import time_like
from igr.forward_mode import jvp
from igr.meshes import on_any_mesh
from igr.progress.late_bar import Ticking, scan, search_bar

CORRECTION, SEARCH = 10, 60  # losses that a record takes, about: for a bar
DENSE = 20  # parameters: up to there the matrix of a Hessian costs less than a search in it

ValueFn = Callable[[PyTree], Array]


def unexplained(loss: ValueFn, before: PyTree, after: PyTree) -> Array:
    """The share of the gradient's change over a step that the Hessian does not explain, a scalar.

    |g(after) - g - H (after - before)| / |g(after) - g|, less the part due to rounding: near 0
    where the loss is smooth on the scale of the step, near 1 where the step crosses kinks, which
    no derivative sees.
    """
    return unexplained_by(jax.grad(lambda p: loss(p)), before, after)


def unexplained_by(gradient: Callable[[PyTree], PyTree], before: PyTree, after: PyTree) -> Array:
    """The same as `unexplained` for a gradient function, or any other vector field."""
    move = jax.tree.map(jnp.subtract, after, before)
    g, along = jvp(gradient, (before,), (move,))
    change = jax.tree.map(jnp.subtract, gradient(after), g)
    norm = vectors.norm(change)
    rest = vectors.norm(optax.tree.sub(change, along))
    rest = jnp.maximum(rest - 32 * jnp.finfo(rest.dtype).eps * vectors.norm(g), 0)
    return share_of(rest, norm)


def share_of(part: Array, whole: Array) -> Array:
    """The ratio part/whole of two lengths; 0 where whole is 0, and nan where either is nan."""
    return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))


def corrections_along(
    equation: Any,
    loss: Traced,
    recorded: PyTree,
    times: np.ndarray,
    h: Number,
    progress: bool | None = False,
) -> np.ndarray:
    """The ratio h |F1| / |F0| of the field of params at each record, (r,).

    Args:
      equation: an equation of order 1.
      loss: `params -> scalar`.
      recorded: the states of the flow with a leading axis r: params, or `(params, kept)`.
      times: n h at each record, (r,).
      h: the step.
      progress: whether to show a bar; if None, only after some seconds.
    """
    inputs = loss, recorded, np.asarray(times), time_like(h, recorded)
    with _bar("corrections", progress, len(times), CORRECTION, inputs) as bar:
        return np.array(_corrections(equation, *inputs, bar))


def _bar(what: str, progress: bool | None, records: int, losses: int, inputs: Any) -> Any:
    """A progress bar over records that each take as long as `losses` evaluations of the loss."""
    return search_bar(what, progress, records, inputs[0].program.jaxpr, inputs, times=losses)


@compiled
@on_any_mesh
def _corrections(
    equation: Any, loss: Traced, recorded: PyTree, times: Array, h: Array, bar: Ticking | None
) -> Array:
    kept = bool(getattr(equation, "kept", None))
    plain = vector_field(equation.truncate(0), loss, h)
    corrected = vector_field(equation, loss, h)

    def ratio(point: tuple[PyTree, Array]) -> Array:
        state, t = point
        f0, f = plain(t, state, None), corrected(t, state, None)
        if kept:
            f0, f = f0[0], f[0]
        norm = vectors.norm(f0)
        apart = vectors.norm(optax.tree.sub(f, f0))
        return share_of(apart, norm)

    return scan(bar, lambda _, at: (None, ratio(at)), None, (recorded, times), len(times))[1]


def sharpness_along(
    method: Method,
    loss: Traced,
    recorded: PyTree,
    times: np.ndarray,
    h: Number,
    progress: bool | None = False,
) -> np.ndarray:
    """The sharpness at each record, (r,), each search started from the last eigenvector.

    For few parameters numpy takes the eigenvalues of the whole matrix, because compiling a search
    takes longer.

    For a method with a preconditioner C it is the sharpness of C^(1/2) H C^(1/2); nan for a method
    without linear response.

    Args:
      method: from `igr.methods`.
      loss: `params -> scalar`.
      recorded: params with a leading axis r, or `(params, kept)` where the method keeps states.
      times: n h at each record, (r,).
      h: the step.
      progress: whether to show a bar; once it has taken some seconds if None.
    """
    if method.response() is None:
        return np.full(len(times), np.nan)
    inputs = loss, recorded, np.asarray(times), time_like(h, recorded)
    with _bar("sharpness", progress, len(times), SEARCH, inputs) as bar:
        found = np.array(_sharpness(method, *inputs, bar))
    return found if found.ndim == 1 else _extremes(found)


@compiled
@on_any_mesh
def _sharpness(
    method: Any, loss: Traced, recorded: PyTree, times: Array, h: Array, bar: Ticking | None
) -> Array:
    precondition = kinds.preconditioner_of(method.response(), h)
    keeps = bool(method.kept)

    def extreme(vector: PyTree | None, state: PyTree, t: Array) -> tuple[PyTree, Array]:
        params, kept = state if keeps else (state, {})
        root = None
        if precondition is not None:
            c = precondition(jax.grad(lambda p: loss(p))(params), params, kept, t)
            root = jax.tree.map(lambda x: jnp.sqrt(jnp.abs(x)), c)
        hessian = hessian_product(lambda p: loss(p), params)

        def product(v: PyTree) -> PyTree:
            return _times(root, hessian(_times(root, v)))

        if size <= DENSE:
            return vector, _matrix(product, params)
        found = top_eigenpairs(product, params, 1, tol=1e-2, initial=vector)
        return jax.tree.map(lambda x: x[0], found.vectors), found.values[0]

    like = recorded[0] if keeps else recorded
    size = sum(x[0].size for x in jax.tree.leaves(like))
    keys = optax.tree.split_key_like(jax.random.key(0), like)
    vector = jax.tree.map(lambda k, x: jax.random.normal(k, x.shape[1:], x.dtype), keys, like)
    along = lambda v, at: extreme(v, *at)  # noqa: E731
    return scan(bar, along, vector, (recorded, times), len(times))[1]


def _matrix(product: Callable[[PyTree], PyTree], params: PyTree) -> Array:
    """The symmetric matrix of a matrix-vector product, (p, p), in at least float32."""
    flat, unravel = ravel_pytree(params)
    rows = jax.vmap(lambda v: ravel_pytree(product(unravel(v)))[0])(
        jnp.eye(flat.size, dtype=flat.dtype)
    )
    return rows.astype(jnp.promote_types(flat.dtype, jnp.float32))


def _extremes(matrices: np.ndarray) -> np.ndarray:
    """The eigenvalue of largest magnitude of each symmetric matrix, (r,); nan if not finite."""
    finite = np.all(np.isfinite(matrices), axis=(1, 2))
    matrices = np.where(finite[:, None, None], matrices, 0)
    values = np.linalg.eigvalsh((matrices + matrices.swapaxes(1, 2)) / 2)
    largest = np.take_along_axis(values, np.abs(values).argmax(1)[:, None], 1)[:, 0]
    return np.where(finite, largest, np.nan)


def _times(root: PyTree | None, v: PyTree) -> PyTree:
    return v if root is None else jax.tree.map(lambda r, x: (r * x).astype(x.dtype), root, v)
