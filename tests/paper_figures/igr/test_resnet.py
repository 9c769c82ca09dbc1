"""Figure 3c on numbers made up; the study's convolutions and its steps by other means."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax.flatten_util import ravel_pytree
from scipy.signal import correlate2d

from analysis.data import Classification, TrainTest
from analysis.models import ResNet
from analysis.scale import Conditions
from analysis.studies.igr import resnet as study
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.igr import resnet as figure


def made_up(cell, accuracies):
    """The best of three samples is the second one."""
    noise = 0.002 * np.random.default_rng(0).normal(size=(1, len(cell.seeds), 1))
    best = np.array([accuracies.get(rate, 0.7) for rate in cell.rates])[:, None, None]
    return {
        "test_accuracy": (best + noise) * np.array([0.5, 1.0, 0.98]),
        "train_accuracy": np.ones((len(cell.rates), len(cell.seeds), 3)),
        "train_loss": np.full((len(cell.rates), len(cell.seeds), 3), 0.01),
        "step": np.tile([0, 10, 20], (len(cell.rates), 1)),
        "parameters": 9,
        "source": "made up",
    }


RATES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2)
# As the paper's axes have it; the other way round but for the last; without EGR best.
CASES = {
    "rises and falls": ((0.62, 0.66, 0.69, 0.72, 0.745, 0.74, 0.5), [True, True, True, True, True]),
    "falls and rises": (
        (0.68, 0.64, 0.61, 0.58, 0.55, 0.56, 0.75),
        [False, True, False, False, True],
    ),
    "falls": ((0.7, 0.69, 0.68, 0.67, 0.66, 0.65, 0.64), [False, False, False, True, False]),
}


@pytest.mark.parametrize(("case", "scale"), [(c, "quick") for c in CASES] + [("falls", "medium")])
def test_the_claims_follow_the_numbers(monkeypatch, case, scale):
    accuracies, holds = CASES[case]
    cells = study.study(scale).cells
    results = {
        cell: CellResult(made_up(cell, dict(zip(RATES, accuracies, strict=True)))) for cell in cells
    }
    swept = Sweep(Study("igr-resnet", study.run, cells), results)
    monkeypatch.setattr(figure, "computed", lambda name, _: swept)
    drawing = figure.figure_3c(Conditions())
    assert [claim.holds for claim in drawing.claims] == holds
    if case == "rises and falls":
        assert "by 12.5 ± 0.0 points, from 62" in drawing.claims[0].measured
    at_end = drawing.table["test accuracy at the end"] / drawing.table["maximum test accuracy"]
    np.testing.assert_allclose(at_end, 0.98)
    assert (drawing.table["at step"] == 10).all()
    assert set(drawing.table["data"]) == {"made up"}


def test_no_gain_where_all_rates_are_alike():
    rng = np.random.default_rng(1)
    columns = [0.0, 0.01, 0.05]
    curve = pd.DataFrame(rng.normal(size=(200, 3)), columns=columns)
    found = figure.gain(curve)
    assert abs(found.mean) < 3 * found.error  # the best of each row alone would gain 0.8
    with_gain = figure.gain(curve + np.array([0.0, 5.0, 0.0]))
    assert with_gain.rate == 0.01
    assert abs(with_gain.mean - 5) < 3 * with_gain.error


@pytest.mark.parametrize(
    ("size", "step", "length", "padded"),
    [(1, 2, 5, True), (3, 2, 8, True),
     *(pytest.param(*case, marks=pytest.mark.slow) for case in
       [(3, 1, 5, True), (3, 2, 5, True), (5, 1, 9, False), (5, 2, 8, False)])],
)  # fmt: skip
def test_convolutions_as_products(size, step, length, padded):
    weight, x = (np.random.default_rng(i).normal(size=shape) for i, shape in
                 enumerate([(2, 3, size, size), (3, length, length)]))  # fmt: skip
    kind, padding = ("same", size // 2) if padded else ("valid", 0)
    expected = [sum(correlate2d(x[c], w[c], kind) for c in range(3)) for w in weight]
    found = study.Products(jnp.asarray(weight), step, padding=padding)(jnp.asarray(x))
    np.testing.assert_allclose(found, np.array(expected)[:, ::step, ::step], atol=1e-12)


@pytest.mark.slow
def test_a_step_descends_the_loss_and_its_squared_gradient():
    """One full batch: theta moves by -h (g + 2 mu H g), where H g is a difference of gradients.

    The loss is written out here over equinox's own convolutions, normalising by the batch.
    """
    rng = np.random.default_rng(0)
    part = Classification(rng.normal(size=(6, 1, 4, 4)), np.arange(6) % 2, 2)
    cell = study.Cell("digits", (0.0, 0.3), (3,), 0.1, (4,), 0, None, 6, 1, 1)
    runs = study.trained(cell, TrainTest(part, part, "made up"))

    key = jax.random.split(jax.random.key(np.uint32(3)))[0]
    network, state = eqx.nn.make_with_state(ResNet)(2, 1, (4,), 0, key=key)
    params, static = eqx.partition(network, eqx.is_inexact_array)

    @jax.jit
    @jax.grad
    def gradient(params):
        model = eqx.combine(params, static)
        batch = jax.vmap(model, (0, None), (0, None), axis_name="batch")
        outputs = batch(jnp.asarray(part.x), state)[0]
        return -jnp.mean(jax.nn.log_softmax(outputs)[jnp.arange(6), part.y])

    g = ravel_pytree(gradient(params))[0]
    theta, unravel = ravel_pytree(params)
    ahead, behind = (ravel_pytree(gradient(unravel(theta + e * g)))[0] for e in (1e-5, -1e-5))
    for i, mu in enumerate(cell.rates):
        expected = theta - 0.1 * (g + 2 * mu * (ahead - behind) / 2e-5)
        found = ravel_pytree(eqx.filter(runs.model_of(0, i, 0), eqx.is_inexact_array))[0]
        np.testing.assert_allclose(found, expected, atol=1e-8)
        assert np.abs(found - (theta - 0.1 * g)).max() > (1e-3 if mu else -1)


def test_digits_are_images_and_scales_differ_in_size_alone():
    data = study.images(study.study("quick").cells[0])
    assert data.train.x.shape == (400, 1, 8, 8)
    assert data.test.x.shape == (1397, 1, 8, 8)
    full = study.study("full").cells
    assert {cell.widths for cell in full} == {(64, 128, 256, 512)}
    assert replace(full[0], rates=(), learning_rate=0) == replace(
        full[-1], rates=(), learning_rate=0
    )
