"""A small transformer trained by clipped and scheduled AdamW, beside its flows (ours)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from analysis.models.transformer import next_token_loss, transformer
from analysis.scale import Scale
from analysis.studies.igr.compared import compared, first_digits
from analysis.sweep import Study

FLOWS = (0, 1, "differences")
LEVELS = 4


@dataclass(frozen=True)
class Cell:
    """One peak rate.

    Attributes:
        learning_rate: The peak h of warm-up and cosine.
        burn_in: Steps before the flows start, while the rate warms up.
        steps: Steps from there, to the end of the schedule.
        record_every: Steps from record to record.
        clip: The largest norm of a gradient.
        decay: Of the weights.
        sequences: Digits, from the first on, their inner pixels row by row.
        seed: Of the weights.
    """

    learning_rate: float
    burn_in: int = 60
    steps: int = 140
    record_every: int = 5
    clip: float = 0.5
    decay: float = 1e-2
    sequences: int = 16
    seed: int = 0

    def optimizer(self, h: float) -> optax.GradientTransformation:
        """AdamW as one trains with it."""
        whole = self.burn_in + self.steps
        rate = optax.warmup_cosine_decay_schedule(0.0, h, self.burn_in, whole)
        adamw = optax.adamw(rate, weight_decay=self.decay)
        return optax.chain(optax.clip_by_global_norm(self.clip), adamw)


def study(scale: Scale) -> Study:
    """A small and a large rate, in double precision.

    Args:
        scale: The same cells at every scale.
    """
    del scale
    return Study("igr-transformer", run, (Cell(1e-3), Cell(1e-2)))


@jax.enable_x64(True)
def run(cell: Cell) -> Mapping[str, Any]:
    """How far the run drifts from its flows.

    Returns:
        By record: `step`, `travelled`, `correction`, `remainder`, `trusted`, `loss`, `slope`, the
        norm of the gradient; and `distance`, (flows, r).
    """
    images = first_digits(cell.sequences).x.reshape(-1, 8, 8)[:, 1:7, 1:7]
    tokens = jnp.asarray(np.clip(images * LEVELS, 0, LEVELS - 1).astype(int))
    tokens = tokens.reshape(len(tokens), -1)
    params = transformer(cell.seed, LEVELS, tokens.shape[1])
    seen = compared(
        next_token_loss(tokens), params, cell.learning_rate, cell.steps, flows=FLOWS,
        optimizer=cell.optimizer, burn_in=cell.burn_in, record_every=cell.record_every,
        sharpness=False, rtol=1e-6,
    )  # fmt: skip
    along = ("step", "travelled", "correction", "remainder", "trusted")
    return {name: np.asarray(getattr(seen, name)) for name in along} | {
        "loss": np.asarray(seen.discrete.value),
        "slope": np.asarray(seen.discrete.gradient_norm),
        "distance": np.stack([seen.distance[p] for p in FLOWS]),
        "source": "scikit-learn's digits",
    }
