"""The stability limit of an optimizer that was read, against its own steps on a quadratic."""

import jax
import jax.numpy as jnp
import optax
import pytest
from optax import contrib

from igr.tracing import read_optimizer

EPS = 1e9  # beside which the second moment, and its bias correction, are nothing
CASES = {
    "adam": lambda h: optax.adam(h, eps=EPS),
    "nadam": lambda h: optax.nadam(h, eps=EPS),
    "optimistic_adam": lambda h: optax.optimistic_adam_v2(h, eps=EPS),
    "acprop": lambda h: contrib.acprop(h, eps=EPS),
    "simplified_ademamix": lambda h: contrib.simplified_ademamix(h, eps=EPS),
}


def growth(transformation, curvature):
    """How much larger the param of curvature x^2/2 is at the end, and at most, than at first."""

    def step(carry, _):
        x, state = carry
        updates, state = transformation.update(curvature * x, state, x)
        x = x + updates
        return (x, state), jnp.abs(x)

    start = jnp.array(1e-9)
    _, sizes = jax.lax.scan(step, (start, transformation.init(start)), length=6000)
    return float(jnp.max(sizes[-200:]) / start), float(jnp.max(sizes) / start)


@pytest.mark.parametrize("name", CASES)
def test_the_limit_is_that_of_the_real_steps(name):
    """Through every memory that the gradient enters, also that of the steps themselves."""
    make = CASES[name]
    response = read_optimizer(make).method.response()
    at = dict.fromkeys(response.preconditioner.free_symbols, 1)
    h, precondition = 1.0, float(response.preconditioner.subs(at))
    edge = response.stability_limit() / (h * precondition)
    assert growth(make(h), 0.98 * edge)[0] < 1e-2
    assert growth(make(h), 1.02 * edge)[1] > 1e4
