"""Every optimizer of optax that can be read has an equation on batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import igr
from igr.backward_error.protocols import UnansweredError
from igr.flows import reshuffled_field, sampled_field
from igr.flows.fields.batches.as_rule import as_rule
from igr.flows.steps.rules import starting_states
from tests.tracing.test_every_alias import DERIVED

# What bends a memory, or has one that another or a kept state reads; all others have a formula.
BY_SEQUENCES = {
    "acprop", "adabelief", "adadelta", "adan", "dadapt_adamw", "lamb", "muon", "novograd",
    "optimistic_adam", "optimistic_adam_v2", "prodigy", "rmsprop", "signum", "simplified_ademamix",
}  # fmt: skip


def test_most_have_a_formula():
    assert len(DERIVED) == 41
    assert len(DERIVED.keys() - BY_SEQUENCES) == 27
    assert DERIVED.keys() > BY_SEQUENCES


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*optimistic_adam_v2")
@pytest.mark.parametrize("name", DERIVED)
def test_every_alias_has_an_equation(name):
    """Of all that can be read: by a formula, or as a finite mean over sequences."""
    make, _, jumps = DERIVED[name]
    params = {"w": jnp.array([[0.3, 0.2], [-0.1, 0.4]]), "b": jnp.array([0.1, 0.2])}
    data = jax.random.normal(jax.random.key(0), (4, 3, 2))
    of_batch = lambda p, x: jnp.mean(jnp.tanh(x @ p["w"] + p["b"]) ** 2)
    method = igr.from_optax(make, smooth=1e-2 if jumps else None, certify=False, params=params)
    kept = starting_states(as_rule(method, affine=False), params)
    kept = jax.tree.map(lambda x: 1.0 + jnp.arange(x.size).reshape(x.shape) / 9.0, kept)
    state = (params, kept) if kept else params
    for field in (reshuffled_field, sampled_field):
        found = lambda f=field, **how: drift(f(method, of_batch, 0.01, data, **how))(1e4, state)
        if name not in BY_SEQUENCES:
            jax.eval_shape(found)
            continue
        with pytest.raises(UnansweredError, match="sequences=64"):
            found()
    if name in BY_SEQUENCES:
        how = {"sequences": 2, "key": jax.random.key(1)}
        field = reshuffled_field(method, of_batch, 0.01, data, **how)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(jax.jit(field.field)(1e4, state)))


def drift(field):
    return getattr(field, "drift", field)
