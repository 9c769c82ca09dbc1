"""Every derived h^1 term against the memory theorem, which knows the real updates alone."""

from itertools import pairwise

import jax
import numpy as np
import optax
import pytest
from optax import contrib

import igr
from tests.quick import quick
from tests.tracing.memory_theorem import POINT, first_two_terms, loss

CASES = {
    "sgd": optax.sgd,
    "momentum": lambda h: optax.sgd(h, 0.9),
    "nesterov": lambda h: optax.sgd(h, 0.8, nesterov=True),
    "adam": lambda h: optax.adam(h, 0.9, 0.95, 0.1),
    "adam, eps inside": lambda h: optax.adam(h, 0.8, 0.9, 0.01, 0.05),
    "adamw": lambda h: optax.adamw(h, 0.9, 0.95, 0.1, weight_decay=0.1),
    "nadamw": lambda h: optax.nadamw(h, 0.9, 0.95, 0.1, weight_decay=0.1),
    "adabelief": lambda h: optax.adabelief(h, 0.8, 0.9, 0.1, 0.01),
    "adan": lambda h: optax.adan(h, 0.9, 0.92, 0.9, 0.1),
    "rmsprop": lambda h: optax.rmsprop(h, 0.9, 0.1),
    "rmsprop, centered, with momentum": lambda h: optax.rmsprop(
        h, 0.9, 0.1, centered=True, momentum=0.8
    ),
    "radam": lambda h: optax.radam(h, 0.9, 0.95, 0.1),
    "ademamix": lambda h: contrib.ademamix(h, 0.8, 0.9, 0.95, 2.0, 0.1),
    "simplified ademamix": lambda h: contrib.simplified_ademamix(h, 0.9, 0.9, 0.5, 0.1),
    "optimistic": optax.optimistic_gradient_descent,
    "decay, trace, average": lambda h: optax.chain(
        optax.add_decayed_weights(0.05),
        optax.trace(0.5),
        optax.ema(0.7),
        optax.scale_by_learning_rate(h),
    ),
    "clipping, then momentum": lambda h: optax.chain(
        optax.clip_by_global_norm(0.5), optax.sgd(h, 0.5)
    ),
    "momentum, then clipping": lambda h: optax.chain(
        optax.trace(0.5), optax.clip_by_global_norm(0.5), optax.scale_by_learning_rate(h)
    ),
    "lamb": lambda h: optax.lamb(h, 0.9, 0.95, 0.1),
    "lars": lambda h: optax.lars(h, 0.1, trust_coefficient=1.0, momentum=0.5),
    "novograd": lambda h: optax.novograd(h, 0.9, 0.25, 0.1),
    "optimistic adam": lambda h: optax.optimistic_adam_v2(h, b1=0.8, b2=0.9, eps=0.1),
    "acprop": lambda h: contrib.acprop(h, 0.9, 0.9, 0.1, 0.01),
    "inject_hyperparams": lambda h: optax.inject_hyperparams(optax.adam)(h, 0.9, 0.95, 0.1),
}


LATE = 4.0  # a time by which every memory has filled, whatever the step below


QUICK = ("adamw", "decay, trace, average")


@pytest.mark.parametrize("make", quick(CASES, *QUICK))
def test_the_first_two_terms(make):
    """A rule's field is not cut after h^1: the terms are what is left as h goes to zero."""
    equation = igr.modified_equation(igr.from_optax(make, keep=(), certify=False), 1)
    hs = 4e-4 / 2.0 ** np.arange(5)
    at = jax.jit(lambda h: igr.vector_field(equation, loss, h)(LATE, POINT, None))
    zeroth = jax.jit(igr.vector_field(equation.truncate(0), loss, 1e-3))(LATE, POINT, None)
    row = [np.asarray((at(h) - zeroth) / h) for h in hs]
    for k in range(1, len(hs)):  # Richardson's extrapolation
        row = [b + (b - a) / (2**k - 1) for a, b in pairwise(row)]
    f0, f1 = map(np.asarray, first_two_terms(make(1.0)))
    assert np.max(np.abs(zeroth - f0)) < 1e-12 * np.max(np.abs(f0))
    assert np.max(np.abs(row[-1] - f1)) < 1e-9 * np.max(np.abs(f1))
