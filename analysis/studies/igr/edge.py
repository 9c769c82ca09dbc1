"""Gradient descent past the edge of stability, beside the flows that hold there or not (ours)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import igr
from analysis.scale import Scale
from analysis.studies.igr.compared import compared, first_digits
from analysis.sweep import Study

FLOWS = (0, 1, "two-phase", "central")


@dataclass(frozen=True)
class Cell:
    """One start.

    Attributes:
        seed: Of the weights.
        before: Steps until the edge is crossed.
        steps: Steps from there.
        record_every: Steps from record to record.
        learning_rate: The step h.
        examples: Digits, from the first on.
    """

    seed: int
    before: int
    steps: int = 400
    record_every: int = 8
    learning_rate: float = 0.6
    examples: int = 200


def study(scale: Scale) -> Study:
    """One start, in double precision.

    Args:
        scale: The same cells at every scale.
    """
    del scale
    return Study("igr-edge", run, (Cell(0, 140),))


@jax.enable_x64(True)
def run(cell: Cell) -> Mapping[str, Any]:
    """A tanh network's run past the edge, and its flows.

    Returns:
        By record: `step`, `travelled`; `distance`, (flows, r); `loss` and `sharpness`, each for the
        run and then the flows, (1 + flows, r): of the run the loss averaged over the oscillation
        and the sharpness in its middle, of the flows past the edge what they predict of these.
    """
    data = first_digits(cell.examples)
    x = jnp.asarray(data.x)
    x = x - x.mean(0)
    y = jax.nn.one_hot(jnp.asarray(data.y), data.num_classes)
    draw = np.random.default_rng(cell.seed).normal
    shapes = ((x.shape[1], 16), (16, 16), (16, data.num_classes))
    params = [(jnp.asarray(0.5 * draw(size=s) / s[0] ** 0.5), jnp.zeros(s[1])) for s in shapes]

    def loss(layers: list) -> jax.Array:
        out = x
        for weights, bias in layers[:-1]:
            out = jnp.tanh(out @ weights + bias)
        weights, bias = layers[-1]
        return jnp.mean(jnp.sum((out @ weights + bias - y) ** 2, 1)) / 2

    h = cell.learning_rate
    start = igr.run(optax.sgd(h), loss, params, cell.before, record_every=cell.before).last
    seen = compared(
        loss, start, h, cell.steps, flows=FLOWS, record_every=cell.record_every, rtol=1e-6
    )
    at = jax.jit(jax.vmap(loss))
    sharpest = jax.jit(
        lambda ps: jax.lax.map(
            lambda p: igr.curvature.sharpness(loss, p, tol=1e-2, which="largest").value, ps
        )
    )
    losses, sharpness = [seen.mean_value["run"]], [seen.eigenvalues["run"][:, 0]]
    for p in FLOWS:
        known = p in seen.mean_value
        losses.append(seen.mean_value[p] if known else at(seen.flows[p]))
        own = seen.eigenvalues.get(p)
        sharpness.append(sharpest(seen.flows[p]) if own is None else own[:, 0])
    return {
        "step": seen.step,
        "travelled": seen.travelled,
        "distance": np.stack([seen.distance[p] for p in FLOWS]),
        "loss": np.stack([np.asarray(x) for x in losses]),
        "sharpness": np.stack([np.asarray(x) for x in sharpness]),
        "source": "scikit-learn's digits",
    }
