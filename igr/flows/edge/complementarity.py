"""A small semidefinite complementarity problem, solved on the device."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from igr.shown import short, table

MOST_ITERATIONS = 60
CENTERING = 0.1  # of the complementarity that a step aims at
BACK_OFF = 0.95  # of the way to the border of the cone


class ConeSolution(NamedTuple):
    """What `solve_complementarity` found.

    Attributes:
      matrix: X, positive semidefinite, (k, k).
      slack: B X + A, (k, k).
      gap: <X, M> and |B X + A - M| for the M that was kept positive definite, relative to the size
        of the problem, added up: zero at a solution.
      converged: whether the gap came below the tolerance; it cannot where no X makes the slack
        positive semidefinite.
      iterations: Newton steps taken.
    """

    matrix: Float[Array, "k k"]
    slack: Float[Array, "k k"]
    gap: Float[Array, ""]
    converged: Bool[Array, ""]
    iterations: Int[Array, ""]

    __repr__ = short
    _repr_html_ = table


def solve_complementarity(a: Float[Array, "k k"], b: Float[Array, "m m"]) -> ConeSolution:
    """X and M = B X + A, both positive semidefinite, with <X, M> = 0.

    The conditions of the smallest <A, X> + <X, B X>/2 over the cone. A primal-dual interior point
    method in the direction of Helmberg, Rendl, Vanderbei and Wolkowicz (1996), Kojima and others
    (1997) and Monteiro (1997), from a start that need not be feasible. For k up to about five: the
    Newton system is dense in the m = k (k + 1)/2 entries.

    Args:
      a: symmetric.
      b: symmetric and positive semidefinite, in the coordinates of `symmetric_basis(k)`.

    >>> basis = symmetric_basis(2)
    >>> found = solve_complementarity(jnp.diag(jnp.array([-3.0, 1.0])), jnp.eye(3))
    >>> print(found.matrix.round(6), bool(found.converged))
    [[3. 0.]
     [0. 0.]] True
    """
    k = a.shape[0]
    dtype = jnp.result_type(a, jnp.float32)
    basis = jnp.asarray(symmetric_basis(k), dtype)
    tolerance = 1e-12 if dtype == jnp.float64 else 1e-5
    identity = jnp.eye(k, dtype=dtype)

    # In units in which both data are of size one.
    size_a, size_b = (jnp.maximum(jnp.linalg.norm(x), jnp.finfo(dtype).tiny) for x in (a, b))
    a, b = (a + a.T) / (2 * size_a), (b + b.T) / (2 * size_b)

    def flat(x: Array) -> Array:
        return jnp.einsum("pij,ij->p", basis, x)

    def full(x: Array) -> Array:
        return jnp.einsum("p,pij->ij", x, basis)

    def image(x: Array) -> Array:
        return full(b @ flat(x)) + a

    def gap_of(x: Array, m: Array) -> Array:
        # Each part by its own size: an X that grows without end must not hide what M lacks.
        apart = jnp.linalg.norm(image(x) - m) / (1 + jnp.linalg.norm(b @ flat(x)))
        return jnp.abs(jnp.sum(x * m)) / (1 + jnp.linalg.norm(x)) + apart

    def unfinished(carry: tuple[Array, Array, Array]) -> Array:
        x, m, i = carry
        return (gap_of(x, m) > tolerance) & (i < MOST_ITERATIONS)

    def newton(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        x, m, i = carry
        inverse = jnp.linalg.inv(m)
        short = image(x) - m
        target = CENTERING * jnp.sum(x * m) / k * inverse - x
        mixed = jax.vmap(lambda e: flat(_sym(x @ e @ inverse)), out_axes=1)(basis)
        right = flat(target - _sym(x @ short @ inverse))
        dx = full(jnp.linalg.solve(jnp.eye(len(b), dtype=dtype) + mixed @ b, right))
        dm = full(b @ flat(dx)) + short
        length = BACK_OFF * jnp.minimum(_to_border(x, dx), _to_border(m, dm))
        length = jnp.minimum(length, 1.0)
        following = _sym(x + length * dx), _sym(m + length * dm)
        good = jnp.all(jnp.isfinite(following[0])) & jnp.all(jnp.isfinite(following[1]))
        # What is not a number ends the search where it stands.
        x, m = (jnp.where(good, new, old) for new, old in zip(following, (x, m), strict=True))
        return x, m, jnp.where(good, i + 1, MOST_ITERATIONS)

    x, m, iterations = jax.lax.while_loop(
        unfinished, newton, (identity, identity, jnp.asarray(0, jnp.int32))
    )
    gap = gap_of(x, m)
    scale = size_a / size_b
    return ConeSolution(
        matrix=scale * x,
        slack=size_a * image(x),
        gap=gap,
        converged=gap <= 1e3 * tolerance,
        iterations=iterations,
    )


def symmetric_basis(k: int) -> np.ndarray:
    """An orthonormal basis of the symmetric k by k matrices, (k (k + 1)/2, k, k)."""
    basis = []
    for i in range(k):
        for j in range(i, k):
            e = np.zeros((k, k))
            e[i, j] = e[j, i] = 1.0 if i == j else np.sqrt(0.5)
            basis.append(e)
    return np.stack(basis)


def _sym(x: Array) -> Array:
    return (x + x.T) / 2


def _to_border(x: Array, direction: Array) -> Array:
    """How far along a direction a positive definite matrix stays so."""
    factor = jnp.linalg.cholesky(x)
    half = jax.scipy.linalg.solve_triangular(factor, direction, lower=True)
    inner = jax.scipy.linalg.solve_triangular(factor, half.T, lower=True)
    lowest = jnp.linalg.eigvalsh(_sym(inner))[0]
    return jnp.where(lowest < 0, -1 / jnp.where(lowest < 0, lowest, -1), jnp.inf)
