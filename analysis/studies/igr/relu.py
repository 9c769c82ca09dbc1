"""Gradient descent beside its flows where the gradient has kinks and where not (ours)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from analysis.scale import Scale
from analysis.studies.igr.compared import compared, first_digits
from analysis.sweep import Study

ACTIVATIONS: dict[str, Callable] = {
    "tanh": jnp.tanh,
    "GELU": jax.nn.gelu,
    "ReLU": jax.nn.relu,
    "max pooling": lambda x: jnp.repeat(x.reshape(*x.shape[:-1], -1, 2).max(-1), 2, -1),
}
FLOWS = (0, 1, "differences")


@dataclass(frozen=True)
class Cell:
    """One activation.

    Attributes:
        activation: Of `ACTIVATIONS`.
        windows: Of training, one after the other; in each the flows start where the run is.
        steps: Of a window.
        learning_rate: The step h.
        width: Hidden units.
        examples: Digits, from the first on.
        seed: Of the weights.
    """

    activation: str
    windows: int = 5
    steps: int = 80
    learning_rate: float = 0.1
    width: int = 32
    examples: int = 300
    seed: int = 0


def study(scale: Scale) -> Study:
    """Four activations, in double precision.

    Args:
        scale: The same cells at every scale.
    """
    del scale
    return Study("igr-relu", run, tuple(Cell(name) for name in ACTIVATIONS))


@jax.enable_x64(True)
def run(cell: Cell) -> Mapping[str, Any]:
    """How far gradient descent ends from each flow, in each window.

    Returns:
        `distance`, (windows, flows), and `remainder`, the largest of each window, with `travelled`
        and `loss` at its end.
    """
    data = first_digits(cell.examples)
    x, y = jnp.asarray(data.x), jnp.asarray(data.y)
    draw = np.random.default_rng(cell.seed).normal
    shapes = ((x.shape[1], cell.width), (cell.width, data.num_classes))
    params = [jnp.asarray(draw(size=shape) * (2 / shape[0]) ** 0.5) for shape in shapes]
    activation = ACTIVATIONS[cell.activation]

    def loss(w: list) -> jax.Array:
        logits = activation(x @ w[0]) @ w[1]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    found: dict[str, list] = {"distance": [], "remainder": [], "travelled": [], "loss": []}
    for _ in range(cell.windows):
        seen = compared(
            loss, params, cell.learning_rate, cell.steps, flows=FLOWS,
            record_every=cell.steps // 4, sharpness=False, rtol=1e-7,
        )  # fmt: skip
        found["distance"].append([seen.distance[p][-1] for p in FLOWS])
        found["remainder"].append(np.max(seen.remainder))
        found["travelled"].append(seen.travelled[-1])
        found["loss"].append(seen.discrete.value[-1])
        params = seen.discrete.last
    return {name: np.asarray(values) for name, values in found.items()} | {
        "source": "scikit-learn's digits"
    }
