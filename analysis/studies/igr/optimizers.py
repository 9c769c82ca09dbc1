"""Six optimizers of optax on digits, each beside the flows derived for it (ours)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import diffrax
import jax
import optax

import igr
from analysis.models.tanh_network import cross_entropy, tanh_network
from analysis.scale import Scale
from analysis.studies.igr.compared import compared, first_digits
from analysis.studies.igr.follow import arrays_of
from analysis.sweep import Study


class Optimizer(NamedTuple):
    """An optimizer of optax and its description.

    Attributes:
        method: What igr derives the equation from.
        real: The transformation that is run, by learning rate.
        learning_rate: The step h.
        orders: The powers of h to which the equation is kept, each on its own.
        half_steps: Whether the flow takes two steps of Heun for one of the optimizer, instead of
            adaptive ones.
    """

    method: igr.methods.Method | igr.methods.ElementwiseMethod
    real: Callable[[float], optax.GradientTransformation]
    learning_rate: float
    orders: tuple[int, ...]
    half_steps: bool = False


METHODS = igr.methods
ELIMINATED = "adam, second moment eliminated"
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(METHODS.gradient_descent(), optax.sgd, 0.1, (0, 1, 2)),
    "sgd, momentum 0.9": Optimizer(
        METHODS.heavy_ball(0.9), lambda h: optax.sgd(h, momentum=0.9), 0.01, (0, 1, 2)
    ),
    "sgd, Nesterov 0.9": Optimizer(
        METHODS.nesterov(0.9), lambda h: optax.sgd(h, momentum=0.9, nesterov=True), 0.01, (0, 1, 2)
    ),
    "rmsprop, decay 0.99": Optimizer(
        METHODS.rmsprop(0.99, keep=("nu",)),
        lambda h: optax.rmsprop(h, decay=0.99, eps_in_sqrt=True),
        1e-3,
        (0, 1),
    ),
    "adam": Optimizer(METHODS.adam(), optax.adam, 1e-3, (0, 1, 2)),
    "adamw, decay 0.1": Optimizer(
        METHODS.adamw(weight_decay=0.1), lambda h: optax.adamw(h, weight_decay=0.1), 1e-3, (0, 1)
    ),
    # The eliminated field is nearly that of sign descent and turns wherever a gradient changes
    # sign: no adaptive solver gets through it. The root is made smooth on the scale of eps: some
    # pixels never give a gradient.
    ELIMINATED: Optimizer(
        METHODS.adam(eps_root=1e-16, keep=()), optax.adam, 1e-3, (0, 1), half_steps=True
    ),
}


@dataclass(frozen=True)
class Cell:
    """One optimizer.

    Attributes:
        optimizer: One of `OPTIMIZERS`.
        burn_in: Steps before the flows start beside it.
        steps: Steps after these.
        record_every: Steps from record to record.
        examples: Digits, from the first on.
        seed: Of the weights.
    """

    optimizer: str
    burn_in: int = 500
    steps: int = 300
    record_every: int = 20
    examples: int = 360
    seed: int = 0


def study(scale: Scale) -> Study:
    """Each of them, in double precision.

    Args:
        scale: The same cells at every scale: distances as small as these need no larger network.
    """
    del scale
    return Study("igr-optimizers", run, tuple(Cell(name) for name in OPTIMIZERS))


@jax.enable_x64(True)
def run(cell: Cell) -> Mapping[str, Any]:
    """How far the optimizer drifts from the flows of its own equations: what `arrays_of` has.

    A flow that leaves the finite numbers is infinitely far from there on.
    """
    optimizer = OPTIMIZERS[cell.optimizer]
    some = first_digits(cell.examples)
    h = optimizer.learning_rate
    how: dict[str, Any] = {}
    if optimizer.half_steps:
        constant = diffrax.ConstantStepSize()
        how = {"solver": diffrax.Heun(), "stepsize_controller": constant, "dt0": h / 2}
    seen = compared(
        cross_entropy(some),
        tanh_network(some, jax.random.key(cell.seed)),
        h,
        cell.steps,
        optimizer.orders,
        optimizer.method,
        optimizer=optimizer.real(h),
        burn_in=cell.burn_in,
        record_every=cell.record_every,
        rtol=1e-8,
        **how,
    )
    return arrays_of(seen) | {"learning_rate": h, "source": "scikit-learn's digits"}
