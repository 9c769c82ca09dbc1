"""The central flow of Cohen, Damian and others: gradient flow that the edge of stability stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from igr.checks import Count, Number, check_count, check_step
from igr.compiled import compiled
from igr.curvature import hessian_product, top_eigenpairs
from igr.curvature.tracking import follow_eigenpairs
from igr.curvature.vectors import cast_like, combination, coordinates, row, size, widened
from igr.flows.edge.complementarity import solve_complementarity, symmetric_basis
from igr.flows.edge.march import count_steps, in_single, march, only_arrays, runge_kutta_4
from igr.flows.runnable import check_start
from igr.forward_mode import jvp
from igr.meshes import on_any_mesh
from igr.pytrees import combine, partition, same_shapes, shapes
from igr.shown import short, table

CRITICAL = 0.8  # of 2/h: below, a step cannot carry an eigenvalue past it
CROWDED = 0.98  # of 2/h, which all eigenvalues that are followed have reached


class CentralFlow(NamedTuple):
    """A central flow at r recorded times.

    Attributes:
      ts: the times, (r,), the first 0.
      ys: params with a leading axis r, to lay beside the run's `midpoints`.
      nu: RMSProp's second moment, with a leading axis r; None for gradient descent.
      eigenvalues: the k largest of the Hessian, preconditioned for RMSProp, (r, k). The limit of
        stability is 2/h.
      covariance: that of the oscillation along the k directions v with v'Pv = 1, (r, k, k): the
        run is at about w + sum_i x_i v_i with E[x x'] this. Zero where nothing is critical.
      amplitude: the root of the mean square of the oscillation, sqrt(tr S), (r,).
      value: E + <H, S>/2, the loss averaged over the oscillation, (r,).
      solved: whether the complementarity problem was solved in every step since the last record,
        (r,).
      crowded: whether all k directions were critical in some step since the last record, (r,): the
        flow may lack others, and wants more `directions`.
      reached: which records are finite, (r,).
    """

    ts: Float[Array, " r"]
    ys: PyTree
    nu: PyTree | None
    eigenvalues: Float[Array, "r k"]
    covariance: Float[Array, "r k k"]
    amplitude: Float[Array, " r"]
    value: Float[Array, " r"]
    solved: Bool[Array, " r"]
    crowded: Bool[Array, " r"]
    reached: Bool[Array, " r"]

    __repr__ = short
    _repr_html_ = table


class _State(NamedTuple):
    params: PyTree
    nu: PyTree | None
    vectors: PyTree
    values: Array
    covariance: Array
    solved: Array
    crowded: Array


class _RMSProp(NamedTuple):
    decay: float
    eps: float


def central_flow(
    value_fn: Callable[[PyTree], Array],
    params: PyTree,
    h: Number,
    t1: Number,
    directions: Count = 3,
    *,
    decay: Number | None = None,
    eps: Number = 1e-8,
    nu: PyTree | None = None,
    record_every: int | None = None,
    progress: bool | None = None,
) -> CentralFlow:
    """The flow of the centre of gradient descent, or RMSProp, that oscillates at its edge.

        theta' = -P^(-1) [grad E + (1/2) grad <H, S>]

    S, the covariance of the oscillation, is positive semidefinite on the directions in which the
    preconditioned sharpness is at 2/h, and as large as it takes to keep it there:

        M = (2/h) I - (P^(-1/2) H P^(-1/2) on them) >= 0,    S >= 0,    <M, S> = 0.

    P is 1 for gradient descent; for RMSProp P = sqrt(nu + eps), and nu' = (-log(decay)/h)
    [g^2 + diag(H S H) - nu]. It needs nothing of the run but where it starts.

    In a step of h the k sharpest directions are followed from those of the step before, the
    complementarity problem for the end of the step is solved on the device, and the force of the
    oscillation is held while the gradient flow takes one step of the classical Runge-Kutta method.
    The k (k + 1)/2 third derivatives grad <H, v v'> that it takes, most of the cost, are left out
    while h times the sharpness is below 1.6. The memory is that of those, which are held three
    times over, and of some 4 k + 3 vectors more: 33 copies of params for k = 3, at least 21; for
    RMSProp 7 times over, 60 copies. Records are kept by the host.

    Args:
      value_fn: the loss E, `params -> scalar`.
      params: the start, at time 0: best a midpoint of the run.
      h: the learning rate.
      t1: the end, a whole number of steps of h.
      directions: k, at least the number of eigenvalues that come near 2/h.
      decay: that of RMSProp's second moment, in (0, 1); gradient descent if not given.
      eps: inside RMSProp's root, as `optax.rmsprop` has it.
      nu: RMSProp's second moment at the start, like params, as the next step of the run will divide
        by it; that of its first step from nu = 0, (1 - decay) g^2, if not given.
      record_every: steps of h from one record to the next; by default for about 100 records.
      progress: whether to show a bar with the time left; once it has taken some seconds if not
        given.

    Returns:
      A `CentralFlow`. Look at `reached`, `solved` and `crowded`. Where no oscillation can lower the
      sharpness, as on a quadratic past its edge, the problem has no solution, and neither has the
      run a centre: `solved` is false, and the step is taken without the oscillation.

    Raises:
      ValueError: if `h` is not positive and finite, t1 is not a whole number of steps, `directions`
        is less than 1 or more than the number of parameters, `decay` is outside (0, 1), `nu` is
        given without it or unlike params, or the loss is not a finite scalar at params.

    A valley along y gets narrower on the way to y = 3, and is too narrow past 1 + y^2 = 2/h:

    >>> E = lambda w: w[0] ** 2 * (1 + w[1] ** 2) / 2 + (w[1] - 3) ** 2 / 40
    >>> sol = central_flow(E, jnp.array([0.0, 1.5]), 0.5, 50.0, directions=1, record_every=50)
    >>> print(sol.ys[-1, 1].round(3), bool(sol.solved.all()))
    1.732 True

    References:
      Cohen, Damian, Talwalkar, Kolter and Lee, "Understanding optimization in deep learning with
      central flows" (2024), sections 3 and 4.
    """
    h = check_step("h", h)
    steps = count_steps(h, t1)
    dynamic, static = partition(params)
    directions = check_count("directions", directions, 1)
    if directions > size(dynamic):
        raise ValueError(
            f"directions must be at most the number of parameters, {size(dynamic)}; "
            f"got {directions}"
        )
    rule = _rule(decay, eps, nu)
    loss = check_start(value_fn, params)
    moment = _moment(nu, dynamic, rule)
    loss, wide = in_single(loss, dynamic)
    start = _start(loss, wide, None if moment is None else widened(moment), directions, rule)

    def advance(state: _State, count: Array) -> tuple[_State, Any]:
        return _advance(loss, state, jnp.asarray(h), count, rule)

    done, records = march(advance, start, steps, record_every, progress, "central flow")
    ys, moment, eigenvalues, covariance, amplitude, value, solved, crowded = records
    return CentralFlow(
        ts=jnp.asarray(done * float(h)),
        ys=combine(cast_like(ys, dynamic), static),
        nu=moment,
        eigenvalues=eigenvalues,
        covariance=covariance,
        amplitude=amplitude,
        value=value,
        solved=solved,
        crowded=crowded,
        reached=jnp.isfinite(value) & jnp.all(jnp.isfinite(eigenvalues), axis=1),
    )


def _rule(decay: Number | None, eps: Number, nu: PyTree | None) -> _RMSProp | None:
    if decay is None:
        if nu is not None:
            raise ValueError("nu is RMSProp's: give its decay= too")
        return None
    if not 0 < float(decay) < 1:
        raise ValueError(f"decay must be in (0, 1); got {decay}.")
    if not (np.isfinite(eps) and eps >= 0):
        raise ValueError(f"eps must be finite and at least 0; got {eps}.")
    return _RMSProp(float(decay), float(eps))


def _moment(nu: PyTree | None, dynamic: PyTree, rule: _RMSProp | None) -> PyTree | None:
    if rule is None or nu is None:
        return None
    nu = partition(nu)[0]
    if not same_shapes(nu, dynamic):
        raise ValueError(f"nu must be like params, {shapes(dynamic)}; got {shapes(nu)}")
    return nu


@compiled
@on_any_mesh(like=1)
def _start(loss: Any, params: PyTree, nu: PyTree | None, k: int, rule: _RMSProp | None) -> _State:
    if rule is not None and nu is None:
        gradient = jax.grad(lambda p: loss(p))(params)
        nu = jax.tree.map(lambda g: (1 - rule.decay) * g**2, gradient)
    product, _ = _preconditioned(loss, params, _roots(nu, rule))
    pairs = top_eigenpairs(product, params, k, which="largest")
    values = pairs.values
    return _State(
        params, nu, pairs.vectors, values, jnp.zeros((k, k), values.dtype), jnp.array(True),
        jnp.array(False),
    )  # fmt: skip


@compiled
@on_any_mesh(like=lambda loss, state, *_: state.params)
def _advance(
    loss: Any, state: _State, h: Array, count: Array, rule: _RMSProp | None
) -> tuple[_State, Any]:
    state = state._replace(solved=jnp.array(True), crowded=jnp.array(False))
    state = jax.lax.fori_loop(0, count, lambda _, s: _step(loss, s, h, rule), state)
    roots = _roots(state.nu, rule)
    product, whitened = _preconditioned(loss, state.params, roots)
    values = follow_eigenpairs(product, state.params, state.vectors).values
    # |V x|^2 for v = P^(-1/2) u: their Gram matrix weighs the covariance.
    v = jax.vmap(whitened)(state.vectors)
    gram = jax.vmap(lambda a: coordinates(v, a))(v)
    spread = jnp.sum(gram * state.covariance)
    value = loss(state.params) + jnp.sum(values * jnp.diag(state.covariance)) / 2
    amplitude = jnp.sqrt(jnp.maximum(spread, 0))
    record = (only_arrays(state.params), state.nu, values, state.covariance, amplitude, value)
    return state, (*record, state.solved, state.crowded)


def _roots(nu: PyTree | None, rule: _RMSProp | None) -> PyTree | None:
    """P = sqrt(nu + eps), None for the identity."""
    if rule is None:
        return None
    return jax.tree.map(lambda x: jnp.sqrt(x + rule.eps), nu)


def _preconditioned(loss: Any, params: PyTree, p: PyTree | None) -> tuple[Any, Any]:
    """The product of P^(-1/2) H P^(-1/2), and P^(-1/2)."""
    hessian = hessian_product(lambda q: loss(q), params)

    def whitened(v: PyTree) -> PyTree:
        return v if p is None else jax.tree.map(lambda x, d: x / jnp.sqrt(d), v, p)

    return (lambda v: whitened(hessian(whitened(v)))), whitened


def _step(loss: Any, state: _State, h: Array, rule: _RMSProp | None) -> _State:
    params, nu = state.params, state.nu
    p = _roots(nu, rule)
    product, whitened = _preconditioned(loss, params, p)
    pairs = follow_eigenpairs(product, params, state.vectors)
    values, u = pairs.values, pairs.vectors
    k = values.size
    gradient = jax.grad(lambda q: loss(q))
    taken = 0.0 if rule is None else 1 - rule.decay

    def downhill(force: PyTree | None) -> PyTree:
        """Where theta' = -P^(-1) (grad E + force) is after h."""

        def field(y: PyTree) -> PyTree:
            g = gradient(y)
            if force is not None:
                g = jax.tree.map(jnp.add, g, force)
            divided = g if p is None else jax.tree.map(jnp.divide, g, p)
            return jax.tree.map(jnp.negative, divided)

        return runge_kutta_4(field, params, h, 1)

    def with_moment(covariance: Array, v: PyTree) -> PyTree:
        """nu after the step: h g^2 and the oscillation's share taken in."""
        if nu is None:
            return None
        swung = _swung(covariance, v, values, p)
        g = gradient(params)
        return jax.tree.map(lambda n, g, s: n + taken * (g**2 + s - n), nu, g, swung)

    def calm() -> tuple[PyTree, PyTree, Array, Array]:
        zero = jnp.zeros((k, k), values.dtype)
        return downhill(None), with_moment(zero, u), zero, jnp.array(True)

    def critical() -> tuple[PyTree, PyTree, Array, Array]:
        v = jax.vmap(whitened)(u)
        basis = jnp.asarray(symmetric_basis(k), values.dtype)
        slopes = _third_derivatives(loss, params, v, k)  # grad <H, v_i v_j'>, one a pair
        pairs_of = basis[:, *np.triu_indices(k)] * _twice_off_diagonal(k, values.dtype)
        slopes = jax.tree.map(  # in the coordinates of the basis: grad <H, V E_q V'>
            lambda s: jnp.tensordot(pairs_of.astype(s.dtype), s, 1), slopes
        )
        free = jax.tree.map(jnp.subtract, downhill(None), params)
        drift = coordinates(slopes, free)

        def answered(slope: PyTree) -> PyTree:
            """What a unit of this force moves in a step: h P^(-1) of it, less what H takes back."""
            white = whitened(slope)
            along = coordinates(u, white)
            x = h * values
            # int_0^1 e^(-x s) ds - 1, with 0 where x is
            share = jnp.where(
                jnp.abs(x) < 1e-3, -x / 2, jnp.expm1(-x) / jnp.where(x == 0, 1, -x) - 1
            )
            white = jax.tree.map(jnp.add, white, combination(share * along, u))
            return jax.tree.map(lambda d: (h * d).astype(d.dtype), whitened(white))

        moved = jax.lax.map(answered, slopes)
        b = jax.vmap(lambda s: coordinates(moved, s))(slopes) / 2
        if p is not None:
            # nu grows by the oscillation, and P^(-1/2) H P^(-1/2) falls by Lambda dP/P.
            change = with_moment(jnp.zeros((k, k), values.dtype), v)
            dp = jax.tree.map(lambda new, old, d: (new - old) / (2 * d), change, nu, p)
            mean = (values[:, None] + values) / 2
            weighed = jax.vmap(lambda a: coordinates(v, jax.tree.map(jnp.multiply, dp, a)))(v)
            drift = drift - jnp.einsum("qij,ij->q", basis, mean * weighed)
            swung = jax.lax.map(lambda e: _swung(e, v, values, p), basis)
            answer = jax.tree.map(lambda s, d: taken * s / (2 * d), swung, p)
            # <v_i v_j, dP> Lambda with H V = P V Lambda: the same symmetric form twice.
            shape = jax.lax.map(
                lambda e: _swung(mean * e, v, jnp.ones(k, values.dtype), None), basis
            )
            b = b + jax.vmap(lambda s: coordinates(answer, s))(shape)
        limit = 2 / h
        slack = limit * jnp.eye(k, dtype=values.dtype) - jnp.diag(values)
        a = slack - jnp.einsum("q,qij->ij", drift, basis)
        found = solve_complementarity(a, (b + b.T) / 2)
        # Without a solution the matrix is as large as the search took it: no force, and said.
        covariance = jnp.where(found.converged, found.matrix, 0).astype(values.dtype)
        weights = jnp.einsum("qij,ij->q", basis, covariance) / 2
        force = combination(weights, slopes)
        return downhill(force), with_moment(covariance, v), covariance, found.converged

    near = h * values[0] > 2 * CRITICAL
    params, nu, covariance, solved = jax.lax.cond(near, critical, calm)
    crowded = (k < size(params)) & (h * values[-1] > 2 * CROWDED)
    return _State(params, nu, u, values, covariance, state.solved & solved, state.crowded | crowded)


def _third_derivatives(loss: Any, params: PyTree, v: PyTree, k: int) -> PyTree:
    """grad (v_i' H v_j) for i <= j, with a leading axis of k (k + 1)/2."""
    rows, columns = np.triu_indices(k)

    def slope(pair: tuple[Array, Array]) -> PyTree:
        a, b = (row(v, i) for i in pair)

        def curvature(y: PyTree) -> Array:
            along = lambda z: jvp(lambda q: loss(q), (z,), (b,))[1]  # noqa: E731
            return jvp(along, (y,), (a,))[1]

        return jax.grad(curvature)(params)

    return jax.lax.map(slope, (jnp.asarray(rows), jnp.asarray(columns)))


def _twice_off_diagonal(k: int, dtype: Any) -> Array:
    rows, columns = np.triu_indices(k)
    return jnp.asarray(np.where(rows == columns, 1.0, 2.0), dtype)


def _swung(matrix: Array, v: PyTree, values: Array, p: PyTree | None) -> PyTree:
    """diag(H V X V' H), with H V = P V Lambda; p None for P = 1."""
    weighed = values[:, None] * matrix * values

    def leaf(x: Array) -> Array:
        flat = x.reshape(x.shape[0], -1)
        return jnp.sum(flat * (weighed.astype(x.dtype) @ flat), axis=0).reshape(x.shape[1:])

    swung = jax.tree.map(leaf, v)
    return swung if p is None else jax.tree.map(lambda s, d: s * d**2, swung, p)
