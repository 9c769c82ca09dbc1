"""Claims of Table 2 on the paper's numbers; normalised networks; the choice of weights."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from analysis.models.batch_norm import NormalisedMLP
from analysis.models.resnet import BATCH_AXIS
from paper_figures.spectreg.networks import PAPER, best_weights, claims


def test_claims_follow_the_papers_numbers_and_their_contrary():
    rows = [
        {"network": network, "rule": rule, "draw": draw, "test accuracy": mean + 0.01 * draw}
        for network, values in PAPER.items() for rule, mean in values.items() for draw in range(4)
    ]  # fmt: skip
    printed = pd.DataFrame(rows)
    assert [claim.holds for claim in claims(printed)] == [True] * 3
    turned = printed.assign(**{"test accuracy": 200 - printed["test accuracy"]})
    assert [claim.holds for claim in claims(turned)] == [False] * 3


def test_the_weight_is_chosen_on_tuning_draws_and_others_are_reported():
    rows = [
        {"rule": rule, "weight": weight, "draw": draw, "tuning": draw == 0,
         "validation": weight if draw == 0 else -weight, "test accuracy": 10 * weight + draw}
        for rule, weights in (("a", (1.0, 2.0)), ("b", (0.5, 0.1))) for weight in weights
        for draw in range(3)
    ]  # fmt: skip
    found = best_weights(pd.DataFrame(rows), ["rule"])
    assert found["test accuracy"].tolist() == [21.0, 22.0, 6.0, 7.0]
    alone = pd.DataFrame(rows).query("rule == 'a' and weight == 1 and draw > 0")
    assert best_weights(alone, ["rule"])["test accuracy"].tolist() == [11.0, 12.0]


@pytest.mark.slow
def test_a_normalised_mlp_by_numpy():
    model, state = eqx.nn.make_with_state(NormalisedMLP)(3, 2, 4, 2, key=jax.random.key(0))
    x = np.random.default_rng(0).normal(size=(6, 3))
    call = jax.vmap(model, axis_name=BATCH_AXIS, in_axes=(0, None), out_axes=(0, None))
    found, _ = call(jnp.asarray(x), state)
    h = x
    for layer, norm in zip(model.inner.layers[:-1], model.norms, strict=True):
        h = np.asarray(jax.vmap(layer)(jnp.asarray(h)))
        h = np.maximum((h - h.mean(0)) / np.sqrt(h.var(0) + norm.eps), 0)
    expected = jax.vmap(model.inner.layers[-1])(jnp.asarray(h))
    assert found == pytest.approx(np.asarray(expected), rel=1e-5)
