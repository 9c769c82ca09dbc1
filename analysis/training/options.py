"""What training may be told beside the grid, the seeds and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Array, PyTree

from analysis.training.at import At


@dataclass(frozen=True)
class Options:
    """How a network is trained, what is measured, and how the device is used.

    Attributes:
        batch_size: Examples a step; None for all, in which case nothing is shuffled. What does not
            fill a batch at the end of an epoch waits for another epoch.
        samples: At how many evenly spaced points, beside the start, or at which steps metrics are
            taken. The last step always is a sample.
        loss: Of one example, `(outputs, y) -> scalar`. By default cross entropy for classes and
            squared error for targets.
        gradient: `(example_loss_fn, params, batch) -> updates` in place of the mean gradient, for
            the rules that need more: `igr.per_example.per_example_gradients`, `grouped_gradients`
            or `igr.transforms.winsorized_gradient` with their further arguments bound.
        penalty: A term added to the loss of every batch, such as
            `lambda at: at.settings["mu"] * spectral_penalty(at.apply_fn, at.params, at.x, at.key)`.
        label_noise: The probability with which a label is replaced by another class, drawn anew
            each time it is seen. For wrong labels that stay, see `analysis.data.flip_labels`.
        metrics: More of them, by name, each a function of `At`. Always taken are the loss and, for
            classes, the accuracy: `train_loss`, `train_accuracy`, `test_loss`, `test_accuracy`.
        chunk: How many examples are evaluated at once.
        together: How many runs of equal length are vmapped into one program. By default all; on a
            CPU each core's share. Fewer need less memory.
        devices: Share each batch among these; by default among as many local devices as divide it.
    """

    batch_size: int | None = 32
    samples: int | Sequence[int] = 100
    loss: Callable[[Array, Array], Array] | None = None
    gradient: Callable[..., PyTree] | None = None
    penalty: Callable[[At], Array] | None = None
    label_noise: float = 0.0
    metrics: Mapping[str, Callable[[At], Any]] | None = None
    chunk: int = 1000
    together: int | None = None
    devices: Sequence[Any] | None = None
