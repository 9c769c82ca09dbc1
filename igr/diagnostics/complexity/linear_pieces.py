"""The linear pieces of a ReLU network on which its data lie."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree

from igr.checks import Count
from igr.diagnostics.complexity.input_jacobians import over_jacobians
from igr.meshes import on_any_mesh
from igr.shown import short, table


class LinearPieces(NamedTuple):
    """The affine pieces x -> A x + b of a network on which examples lie, the fullest first.

    Attributes:
        matrices: A of each piece, (pieces, q, d).
        offsets: b of each, (pieces, q).
        counts: The number of examples on each piece, (pieces,).
        piece: The index of each example's piece, (n,).
        complexity: sum counts |A|_F^2 / n, which is the geometric complexity.
    """

    matrices: Float[Array, "pieces q d"]
    offsets: Float[Array, "pieces q"]
    counts: Int[Array, " pieces"]
    piece: Int[Array, " n"]
    complexity: Float[Array, ""]

    __repr__ = short
    _repr_html_ = table


@on_any_mesh
def linear_pieces(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: Any,
    *,
    chunk: Count | None = None,
) -> LinearPieces:
    """The affine maps to which a piecewise linear network is equal at its examples.

    Section 6.1 of "Appealing to gradients to investigate neural network generalization": a ReLU
    network is A_i x + b_i on its pieces, so that the geometric complexity is
    sum_i (m_i / n) |A_i|_F^2 for m_i of n examples on piece i, exactly, and that of a batch which
    holds the pieces in the same shares is the same.

    Two examples count as on one piece if A and b agree to rounding. On a smooth network almost
    every example is a piece of its own.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree.
        x: The examples, a floating array with a leading axis of n; d is the size of one.
        chunk: The number of Jacobians to form at a time; all by default.

    Returns:
        `LinearPieces`: matrices, offsets, counts, piece, complexity. All A are held at once.

    Raises:
        ValueError: As `geometric_complexity`.
        TypeError: If called under jit: how many pieces there are depends on the numbers.

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.array([[-1.0], [1.0], [2.0]])
    >>> found = linear_pieces(lambda w, x: w * jax.nn.relu(x[0]), 3.0, x)
    >>> print(found.counts, found.matrices.ravel(), found.complexity)
    [2 1] [3. 0.] 6.0
    """
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((params, x))):
        raise TypeError(
            "linear_pieces counts pieces, which jit cannot; call it outside, or take "
            "geometric_complexity, the same number, inside."
        )
    matrices = np.asarray(over_jacobians(lambda j: j, apply_fn, params, x, chunk))
    values = np.asarray(jax.vmap(lambda x: jnp.ravel(apply_fn(params, x)))(x), matrices.dtype)
    flat = np.asarray(x, matrices.dtype).reshape(len(matrices), -1)
    offsets = values - np.einsum("nqd,nd->nq", matrices, flat)

    # What rounding may do to A and b on one piece.
    eps = 100 * np.finfo(matrices.dtype).eps
    of_matrix = eps * np.max(np.abs(matrices), initial=0, axis=(1, 2))
    of_offset = np.sqrt(flat.shape[1]) * of_matrix * np.linalg.norm(flat, axis=1)
    of_offset += eps * np.max(np.abs(values), axis=1)
    piece = np.full(len(matrices), -1)
    first: list[int] = []
    for i in range(len(matrices)):
        if piece[i] >= 0:
            continue
        same = np.max(np.abs(matrices - matrices[i]), axis=(1, 2)) <= of_matrix[i]
        same &= np.max(np.abs(offsets - offsets[i]), axis=1) <= of_offset + of_offset[i]
        piece[same & (piece < 0)] = len(first)
        piece[i] = len(first)  # where a Jacobian is NaN it equals nothing
        first.append(i)
    counts = np.bincount(piece)
    order = np.argsort(-counts, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    chosen = np.asarray(first)[order]
    squares = np.sum(matrices[chosen] ** 2, axis=(1, 2))
    return LinearPieces(
        matrices=jnp.asarray(matrices[chosen]),
        offsets=jnp.asarray(offsets[chosen]),
        counts=jnp.asarray(counts[order]),
        piece=jnp.asarray(rank[piece]),
        complexity=jnp.asarray(counts[order] @ squares / len(matrices), matrices.dtype),
    )
