"""Gradient descent on five examples in six dimensions ("Appealing to gradients", section 5.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

import igr
from analysis.data import Regression, real_or_random
from analysis.scale import Scale
from analysis.sweep import Study
from igr.diagnostics import coherence
from igr.per_example import per_example_gradients

Weights = Float[Array, "6"]


@dataclass(frozen=True)
class Cell:
    """One of the two sets, learned from 0.

    The text has no learning rate, start or number of steps: they are ours.

    Attributes:
        data: Whether the examples share their sixth coordinate or nothing.
        learning_rate: The step h.
        steps: Of gradient descent on the mean loss of the four training examples.
    """

    data: Literal["real", "random"]
    learning_rate: float = 0.1
    steps: int = 200


def study(scale: Scale) -> Study:
    """Both sets.

    Args:
        scale: Makes no difference: this is the paper's own size.
    """
    del scale
    return Study("coherence-real-or-random", run, (Cell("real"), Cell("random")))


@jax.enable_x64(True)
def run(cell: Cell) -> Mapping[str, Any]:
    """The path of the weights and what it is worth.

    Returns:
        `gradients` (example, coordinate), those of the training examples at the start. At the
        start and after every step: `weights` (step, coordinate), `train` and `test`, the losses,
        and `helped`, alpha_m over its orthogonal limit 1/m. Beside them where the data are from.
    """
    data = real_or_random(cell.data)
    batch, test = _arrays(data.train), _arrays(data.test)

    def mean_loss(w: Weights, examples: tuple[Array, Array]) -> Float[Array, ""]:
        return jnp.mean(jax.vmap(example_loss, (None, 0))(w, examples))

    start = jnp.zeros(6)
    descent = igr.run(
        optax.sgd(cell.learning_rate), lambda w: mean_loss(w, batch), start, cell.steps
    )
    path = descent.params
    return {
        "gradients": np.asarray(per_example_gradients(example_loss, start, batch)),
        "weights": np.asarray(path),
        "train": np.asarray(descent.value),
        "test": np.asarray(jax.vmap(lambda w: mean_loss(w, test))(path)),
        "helped": np.asarray(jax.lax.map(lambda w: coherence(example_loss, w, batch).helped, path)),
        "source": data.source,
    }


def example_loss(w: Weights, example: tuple[Array, Array]) -> Float[Array, ""]:
    """(y - w.x)^2 / 2."""
    x, y = example
    return (y - w @ x) ** 2 / 2


def _arrays(data: Regression) -> tuple[Array, Array]:
    return jnp.asarray(data.x), jnp.asarray(data.y[:, 0])
