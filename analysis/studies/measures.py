"""What several studies measure of a network while it trains."""

from __future__ import annotations

import jax
import optax

from analysis.training import At
from igr.diagnostics import implicit_gradient_regularizer


def regularizer(at: At) -> jax.Array:
    """R_IG = |grad E|^2 / m of the training loss, m the number of parameters."""
    return implicit_gradient_regularizer(at.value_fn, at.params)


def regularizer_of_test(at: At) -> jax.Array:
    """The same of the test loss."""
    assert at.test_value_fn is not None  # there is one wherever a metric is taken
    return implicit_gradient_regularizer(at.test_value_fn, at.params)


def norm(at: At) -> jax.Array:
    """The Euclidean norm of the parameters."""
    return optax.tree.norm(at.params)
