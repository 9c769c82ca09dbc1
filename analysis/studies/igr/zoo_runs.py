"""Optimizers of optax as they run on real data, each beside the flows read from it (ours)."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import jax

import igr
from analysis.models.tanh_network import cross_entropy, tanh_network
from analysis.scale import Scale
from analysis.studies.igr.compared import compared, first_digits
from analysis.studies.igr.follow import arrays_of
from analysis.studies.igr.optimizers import Cell
from analysis.studies.igr.zoo import KINDS, OPTIMIZERS, SMOOTH
from analysis.sweep import Study

# Each at a step where h |F1| is small beside |F0|, as the results say; mechanize tunes its own
# step, to 1.7 of them whatever the rate.
LEARNING_RATES: dict[str, float] = {
    "sgd": 0.05,
    "sgd, momentum 0.9": 2e-3,
    "optimistic_gradient_descent": 0.05,
    "adam": 5e-4,
    "adamw": 5e-4,
    "nadam": 5e-4,
    "nadamw": 5e-4,
    "adabelief": 2e-4,
    "adan": 1e-3,
    "rmsprop": 1e-4,
    "radam": 5e-4,
    "optimistic_adam": 5e-4,
    "optimistic_adam_v2": 5e-4,
    "adagrad": 0.01,
    "adadelta": 0.05,
    "yogi": 2e-4,
    "amsgrad": 1e-3,
    "adamax": 1e-3,
    "adamaxw": 1e-3,
    "lion": 1e-3,
    "sign_sgd": 1e-3,
    "signum": 5e-4,
    "acprop": 5e-4,
    "ademamix": 5e-4,
    "simplified_ademamix": 5e-6,
    "adopt": 5e-4,
    "madgrad": 1e-4,
    "cocob": 1.0,
    "schedule_free_sgd": 0.02,
    "schedule_free_adamw": 2e-3,
    "adafactor": 2e-3,
    "fromage": 1e-3,
    "lamb": 5e-4,
    "lars": 0.02,
    "novograd": 2e-4,
    "sm3": 2e-4,
    "muon": 5e-4,
    "prodigy": 0.1,
    "dadapt_adamw": 1e-3,
    "dog": 0.01,
    "dowg": 0.01,
    "mechanize": 1e-6,
}

# Where the rule divides a long memory by a short one, which as good as vanishes with the gradient.
KEEP = {"simplified_ademamix": ("m", "n")}


def study(scale: Scale) -> Study:
    """Each of them, in double precision.

    Args:
        scale: The same cells at every scale: distances as small as these need no larger network.
    """
    del scale
    short = {"burn_in": 300, "steps": 60, "record_every": 10, "examples": 60}
    return Study("igr-zoo-runs", run, tuple(Cell(name, **short) for name in LEARNING_RATES))


@jax.enable_x64(True)
def run(cell: Cell) -> Mapping[str, Any]:
    """How far the optimizer drifts from the flows that were read from its own code.

    Returns:
        What `arrays_of` has, `learning_rate`, and `kind`.
    """
    make, jumps = OPTIMIZERS[cell.optimizer]
    h = LEARNING_RATES[cell.optimizer]
    some = first_digits(cell.examples)
    params = tanh_network(some, jax.random.key(cell.seed))
    loss, smooth, keep = cross_entropy(some), SMOOTH if jumps else None, KEEP.get(cell.optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        method = igr.from_optax(make, keep=keep, params=params, smooth=smooth, certify=False)
        seen = compared(
            loss,
            params,
            h,
            cell.steps,
            (0, 1),
            # What is smoothed is another optimizer, whose steps are the method's own.
            method=method if jumps or keep else None,
            optimizer=None if jumps else make,
            burn_in=cell.burn_in,
            record_every=cell.record_every,
            rtol=1e-7,
            sharpness=False,
        )
    return arrays_of(seen) | {
        "learning_rate": h,
        "kind": KINDS[type(method).__name__],
        "source": "scikit-learn's digits",
    }
