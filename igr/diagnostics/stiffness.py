"""Stiffness: whether a gradient step on one example helps another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree

from igr.checks import Count, check_count
from igr.curvature.vectors import HIGHEST
from igr.meshes import on_any_mesh
from igr.per_example.inner_products import (
    Gradients,
    factored_gradients,
    gram,
    require_alike,
    scaled_to_one,
    squares,
)
from igr.pytrees import num_examples
from igr.shown import short, table

Kind = Literal["cosine", "sign", "distance"]


@on_any_mesh
def stiffness(
    example_loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    batch: PyTree,
    other: PyTree | None = None,
    kind: Kind = "cosine",
) -> Float[Array, "n m"]:
    """The stiffness of every pair of examples, (n, m): the cosine of their gradients, or its sign.

    A small step down the gradient g_i changes the loss of example j by -h g_i . g_j. The sign says
    whether it helps, the cosine g_i . g_j / (|g_i| |g_j|) how well the two agree (Definitions 3.1
    and 3.2 of "Appealing to gradients to investigate neural network generalization", after Fort,
    Nowak and Narayanan, 2019). The distance of section 3.4 is 1 - cosine. Give `batch` and `other`
    from the training and validation sets for stiffness within and between them.

    For a gradient that is exactly zero cosine and sign are 0, with the example itself too.
    Gradients are normalized before the products, so that those of examples already fitted, which
    are tiny, do not underflow.

    Where a matrix enters the loss as products alone, as in dense layers, sequences and scans, the
    products come from activations and cotangents; the gradients of other leaves are kept for all
    examples.

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading axis of n examples.
        other: A second pytree, of m examples in the same shapes; `batch` itself by default.
        kind: "cosine", "sign" or "distance".

    Returns:
        The matrix (n, m), in float32 or wider; its mean over pairs of different examples is the
        stiffness of the papers.

    Raises:
        ValueError: If the leaves of a batch disagree in their leading axis, the examples of the
            two in their shapes, params have no floating leaf, the loss is not a scalar, or `kind`
            is none of the three.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[3.0, 4.0], [-1.0, 0.0]])
    >>> print(stiffness(lambda w, x: w @ x, jnp.zeros(2), x))
    [[ 1.  -0.6]
     [-0.6  1. ]]
    >>> print(stiffness(lambda w, x: w @ x, jnp.zeros(2), x, kind="sign"))
    [[ 1. -1.]
     [-1.  1.]]
    """
    _require_kind(kind)
    num_examples(batch)
    if other is not None:
        require_alike("other", other, "batch", batch)
    rows, row_lengths = _directions(example_loss_fn, params, batch)
    columns, column_lengths = (
        (rows, row_lengths) if other is None else _directions(example_loss_fn, params, other)
    )
    products = gram(rows, columns)
    if kind == "sign":
        return jnp.sign(products)
    cosine = products / (row_lengths[:, None] * column_lengths)
    cosine = jnp.clip(cosine, -1, 1)  # rounding leads past the ends
    return 1 - cosine if kind == "distance" else cosine


class ClassStiffness(NamedTuple):
    """The mean stiffness between the examples of each pair of classes.

    Attributes:
        matrix: C, the mean stiffness between an example of class i and another of class j
            (Definition 3.4); NaN where there is no such pair.
        within: The mean of C_ii (Definition 3.6), over the classes that have a pair.
        between: The mean of C_ij with i != j (Definition 3.5), over the classes that have a pair.
    """

    matrix: Float[Array, "classes classes"]
    within: Float[Array, ""]
    between: Float[Array, ""]

    __repr__ = short
    _repr_html_ = table


@on_any_mesh
def class_stiffness(
    example_loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    batch: PyTree,
    labels: Int[Array | np.ndarray, " n"],
    num_classes: Count,
    kind: Kind = "cosine",
    *,
    other: PyTree | None = None,
    other_labels: Int[Array | np.ndarray, " m"] | None = None,
) -> ClassStiffness:
    """The mean stiffness between and within classes, as a matrix over classes.

    Definitions 3.4 to 3.6 of "Appealing to gradients to investigate neural network generalization".

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading axis of n examples.
        labels: The class of each example, an integer from 0 to num_classes - 1.
        num_classes: The number of classes.
        kind: "cosine", "sign" or "distance" (see `stiffness`).
        other: Another set of examples, such as those for validation: the rows of the matrix are
            then classes of `batch` and its columns classes of `other`, and every pair counts. By
            default pairs are taken within `batch`, none of an example with itself.
        other_labels: The classes of `other`.

    Returns:
        A `ClassStiffness`: matrix, within, between.

    Raises:
        ValueError: As `stiffness`; if the labels are not one integer an example or one lies outside
            the classes (under jit, where this cannot be seen, all results are then NaN), if
            `num_classes` is less than 1, `other` is given without `other_labels`, or neither is
            and `batch` holds one example, which makes no pair.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]])
    >>> found = class_stiffness(lambda w, x: w @ x, jnp.zeros(2), x, jnp.array([0, 0, 1]), 2)
    >>> print(found.matrix)
    [[ 1.  0.]
     [ 0. nan]]
    """
    _require_kind(kind)
    num_classes = check_count("num_classes", num_classes, 1)
    if (other is None) != (other_labels is None):
        raise ValueError(
            "other and other_labels must be given together; got one without the other."
        )
    n = num_examples(batch)
    if n == 1 and other is None:
        raise ValueError(
            "batch must hold at least two examples, for pairs are of different ones; it holds 1."
        )
    labels = _checked_labels("labels", labels, n, num_classes)
    if other_labels is None:
        columns = labels
    else:
        columns = _checked_labels("other_labels", other_labels, num_examples(other), num_classes)
    pairs = stiffness(example_loss_fn, params, batch, other, kind)
    counted = jnp.ones_like(pairs)
    if other is None:
        counted = counted - jnp.eye(len(pairs), dtype=pairs.dtype)
    of_rows = jax.nn.one_hot(labels, num_classes, dtype=pairs.dtype)
    of_columns = jax.nn.one_hot(columns, num_classes, dtype=pairs.dtype)

    def by_class(m: Array) -> Array:
        return jnp.einsum("ia,ij,jb->ab", of_rows, m, of_columns, precision=HIGHEST)

    inside = jnp.all(jnp.sum(of_rows, 1) > 0) & jnp.all(jnp.sum(of_columns, 1) > 0)
    # 0 / 0 where there is no pair: no other result is NaN on the way, for `jax_debug_nans`.
    counts = jnp.where(inside, by_class(counted), 0)
    matrix = jnp.where(inside, by_class(pairs * counted), 0) / counts
    own = jnp.eye(num_classes, dtype=bool)

    def mean_over(wanted: Array) -> Array:
        wanted = wanted & (counts > 0)
        return jnp.sum(jnp.where(wanted, matrix, 0)) / jnp.sum(wanted)

    within, between = mean_over(own), mean_over(~own)
    return ClassStiffness(matrix, within, between)


def _directions(
    example_loss_fn: Callable[[PyTree, PyTree], Any], params: PyTree, batch: PyTree
) -> tuple[Gradients, Float[Array, " n"]]:
    """The gradients, each scaled to a largest entry of one, and their lengths (1 if zero)."""
    gradients = scaled_to_one(factored_gradients(example_loss_fn, params, batch))
    lengths = jnp.sqrt(squares(gradients))
    return gradients, jnp.where(lengths > 0, lengths, 1)


def _require_kind(kind: Any) -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be 'cosine', 'sign' or 'distance'; got {kind!r}.")


def _checked_labels(name: str, labels: Any, n: int, num_classes: int) -> Array:
    labels = jnp.asarray(labels)
    if labels.shape != (n,) or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"{name} must be {n} integers, one an example; got shape {labels.shape}, "
            f"{labels.dtype}."
        )
    if isinstance(labels, Tracer):
        return labels
    known = np.asarray(labels)  # under jit jnp would trace what is known
    outside = np.unique(known[(known < 0) | (known >= num_classes)])
    if outside.size:
        raise ValueError(
            f"{name} must lie in 0, ..., {num_classes - 1}; got {outside[:5].tolist()}."
        )
    return labels
