"""The loss of one example (x, y): as given, or the cross-entropy of a network's logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, PyTree

from igr.one_example import of_one_example
from igr.per_example.outputs import output_dimension
from igr.pytrees import num_examples

ExampleLoss = Callable[[PyTree, Any, Any], Array]


def example_loss(
    fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree, y: PyTree
) -> ExampleLoss:
    """The loss of one example as a function of (params, x, y).

    Args:
        fn: `example_loss_fn`, `(params, (x, y)) -> scalar`; or `apply_fn`, `(params, x) -> logits`,
            where y holds integer labels. The shape that `fn` returns for a pair, found
            without computing anything, decides: a scalar is a loss.
        params: Any pytree.
        x: A pytree of arrays with a leading axis of n examples.
        y: Another.

    Raises:
        ValueError: If the batch axes disagree; or, of an apply_fn, where it returns no vector, and
            where labels are not integers or lie outside the classes.
    """
    num_examples({"x": x, "y": y})
    pair = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (x, y))
    try:
        value = jax.eval_shape(lambda pair: of_one_example(fn, params, pair), pair)
    except Exception as error:
        if not _applies(fn, params, pair[0]):
            raise
        return _cross_entropy(fn, params, x, y, error)
    if getattr(value, "shape", None) == () and jnp.issubdtype(value.dtype, jnp.floating):
        return lambda params, x, y: of_one_example(fn, params, (x, y))
    if _applies(fn, params, pair[0]):
        return _cross_entropy(fn, params, x, y, None)
    raise ValueError(
        "example_loss_fn must return one real floating number for one example (x, y); it returned "
        f"{value}."
    )


def require_inputs(x: PyTree) -> None:
    """Raises `ValueError` unless all leaves of x are floating arrays."""
    for leaf in jax.tree.leaves(x):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"x must be floating to be differentiated by; got {leaf.dtype}.")


def require_classes(apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree) -> int:
    """The number of logits of an example.

    Raises:
      ValueError: If there are fewer than two.
    """
    num_examples(x)
    classes = output_dimension(apply_fn, params, x)
    if classes < 2:
        raise ValueError(
            f"apply_fn must return the logits of two classes or more; it returned {classes}."
        )
    return classes


def _applies(fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree) -> bool:
    """Whether `fn` can be called with one x alone."""
    try:
        jax.eval_shape(lambda x: fn(params, x), x)
    except Exception:
        return False
    return True


def _cross_entropy(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    y: PyTree,
    error: Exception | None,
) -> ExampleLoss:
    labels = jax.tree.leaves(y)
    if len(labels) != 1 or labels[0].ndim != 1 or not jnp.issubdtype(labels[0].dtype, jnp.integer):
        raise ValueError(
            "y must hold one integer label an example where an apply_fn is given; got "
            f"{[(leaf.shape, str(leaf.dtype)) for leaf in labels]}. For any other loss give "
            "an example_loss_fn, (params, (x, y)) -> scalar."
        ) from error
    classes = require_classes(apply_fn, params, x)
    if not isinstance(labels[0], Tracer):
        known = np.asarray(labels[0])  # under jit jnp would trace what is known
        least, largest = int(known.min()), int(known.max())
        if least < 0 or largest >= classes:
            raise ValueError(
                f"the labels y must lie in 0 to {classes - 1}, the classes that apply_fn returns; "
                f"got {least if least < 0 else largest}."
            )

    def loss(params: PyTree, x: PyTree, y: PyTree) -> Array:
        log_probabilities = jax.nn.log_softmax(jnp.ravel(of_one_example(apply_fn, params, x)))
        (label,) = jax.tree.leaves(y)
        chosen = jax.nn.one_hot(label, classes, dtype=log_probabilities.dtype)
        # under jit a label outside the classes is seen here only
        inside = (label >= 0) & (label < classes)
        return -jnp.sum(jnp.where(inside, chosen, jnp.nan) * log_probabilities)

    return loss
