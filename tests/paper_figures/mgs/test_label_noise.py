"""Table 1 on the paper's own numbers, and its study against scikit-learn's optimum."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from analysis.scale import Conditions
from analysis.studies.mgs import label_noise
from analysis.studies.mgs.label_noise import Cell, run, study
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.mgs import label_noise as figure

SPREAD = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
SPREAD /= SPREAD.std(ddof=1)


def printed(method):
    """Curves whose mean, deviation and maximum are those printed for a method, in percent."""
    return np.stack(
        [
            np.stack([[10, highest + sd * x, *[final + sd * x] * 5] for x in SPREAD])
            for final, sd, highest in figure.PAPER[method].values()
        ]
    )


@pytest.fixture(params=[True, False], ids=["as printed", "MGS and none swapped"])
def results(request, monkeypatch):
    names = {method: method for method in figure.PAPER}
    if not request.param:
        names |= {"none": "MGS", "MGS": "none"}
    results = {
        cell: CellResult(
            {
                "test_accuracy": printed(names[cell.method]) / 100,
                "factor": 0.1,
                "source": "scikit-learn's digits",
            }
        )
        for cell in study("quick").cells
    }
    made_up = Sweep(Study("mgs-label-noise", run, tuple(results)), results)
    monkeypatch.setattr(figure, "computed", lambda name, _: made_up)
    return request.param


def test_the_claims_follow_the_numbers(results):
    drawing = figure.table_1(Conditions())
    assert [claim.holds for claim in drawing.claims] == [results] * 8
    if results:
        table = drawing.table
        assert len(table) == 4 * 5
        for ours in ("final", "sd", "highest"):
            np.testing.assert_allclose(table[ours], table[f"paper {ours}"])
        np.testing.assert_allclose(table["standard error"], table["sd"] / np.sqrt(5))
        assert "93.1 %; loss gradient 88.7 %" in drawing.claims[0].measured


def test_both_networks_have_their_curves(results, monkeypatch):
    whole = figure.computed("mgs-label-noise", None)
    curved = {cell: CellResult({**found.values, "step": np.arange(7)}, {})
              for cell, found in whole.results.items()}  # fmt: skip
    monkeypatch.setattr(figure, "computed", lambda name, _: Sweep(whole.study, curved))
    lenet, wide = figure.figure_a3(Conditions()), figure.figure_a2(Conditions())
    assert len(lenet.table) == 4 * 5 * 7
    assert {claim.paper.split(":")[0] for claim in lenet.claims} == {"Table 1"}
    assert {claim.paper.split(":")[0] for claim in wide.claims} == {"Table A.1"}
    assert lenet.claims[-1].holds == results


def test_a_lead_within_two_standard_errors_is_none():
    paper = {"MGS": 2.0, "none": 1.0}
    same = np.array([50.0, 51, 52])
    assert figure._ahead("", {"MGS": same + np.array([1, 1, 1.1]), "none": same}, paper).holds
    assert not figure._ahead("", {"MGS": same + np.array([3, -1, 1]), "none": same}, paper).holds


LINEAR = Cell("digits", "weight", (0.03, 0.3), noises=(0.0, 0.5), examples=100, draws=1,
              epochs=1000, tuning_examples=100, tuning_draws=2, tuning_epochs=1000,
              learning_rate=1.0, batch_size=100, depth=0, samples=10)  # fmt: skip


def optimum(data, factor):
    """Softmax regression with the weight penalty, by another program and another method."""
    strength = 1 / (factor * len(data.train))
    model = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000)
    return model.fit(data.train.x, data.train.y)


@pytest.mark.slow
def test_a_linear_network_reaches_the_optimum_and_the_better_factor_is_chosen():
    found, parts = run(LINEAR), label_noise.parts("digits")
    losses = np.empty((2, 2))
    for i, factor in enumerate(LINEAR.factors):
        for j in range(2):  # the draws after the one that is reported
            data = parts.sample(100, 0.5, 1 + j, tuning=True)
            expected = optimum(data, factor).predict_proba(parts.validation.x)
            losses[i, j] = log_loss(parts.validation.y, expected)
    np.testing.assert_allclose(found["validation_loss"], losses, rtol=5e-3)
    assert found["factor"] == LINEAR.factors[np.argmin(losses.sum(axis=1))]
    for i, noise in enumerate(LINEAR.noises):
        data = parts.sample(100, noise, 0)
        best = optimum(data, found["factor"])
        expected = log_loss(parts.test.y, best.predict_proba(parts.test.x))
        assert found["test_loss"][i, 0, -1] == pytest.approx(expected, rel=5e-3)
        accuracy = best.score(parts.test.x, parts.test.y)
        assert found["test_accuracy"][i, 0, -1] == pytest.approx(accuracy, abs=0.01)


@pytest.mark.slow
def test_the_trace_does_nothing_to_a_linear_network_and_the_loss_gradient_does():
    """The kernel of W x + b is that of the inputs, whatever W is."""
    short = dataclasses.replace(LINEAR, noises=(0.3,), epochs=20, factors=(0.5,))
    plain, trace, slope = (
        run(dataclasses.replace(short, method=method))["test_loss"]
        for method in ("none", "MGS", "loss gradient")
    )
    np.testing.assert_allclose(trace, plain, rtol=1e-6)
    assert abs(slope[0, 0, -1] - plain[0, 0, -1]) > 0.01


def test_a_sample_has_its_wrong_labels_and_shares_no_example_with_what_is_reported():
    parts = label_noise.parts("digits")
    sizes = [len(part) for part in (parts.pool, parts.validation, parts.test)]
    assert sizes == [900, 300, 597]
    together = np.concatenate([parts.pool.x, parts.validation.x, parts.test.x])
    assert len(np.unique(together, axis=0)) == 1797
    clean, noisy = (parts.sample(384, noise, 3).train for noise in (0.0, 0.6))
    np.testing.assert_array_equal(clean.x, noisy.x)
    assert (clean.y != noisy.y).sum() == 230
    assert np.ptp(np.bincount(clean.y)) <= 3
    assert parts.sample(384, 0.6, 3).test is parts.test
    assert parts.sample(384, 0.6, 3, tuning=True).test is parts.validation


def test_the_rate_falls_to_a_tenth():
    rule = label_noise._rule({"learning_rate": jnp.asarray(0.1), "tenth": jnp.asarray(2.0)})
    state, sizes = rule.init(jnp.zeros(())), []
    for _ in range(5):
        update, state = rule.update(jnp.ones(()), state)
        sizes.append(-float(update))
    np.testing.assert_allclose(sizes[::2], [0.1, 0.01, 0.001])


@pytest.mark.parametrize("scale", ["quick", "medium", "full"])
def test_every_regularizer_has_as_many_factors_to_choose_from(scale):
    cells = study(scale).cells
    methods = [cell.method for cell in cells]
    assert methods == list(figure.PAPER) * 2
    assert len({cell.data for cell in cells}) == 2
    number = {"quick": 6, "medium": 3, "full": 9}[scale]
    assert {len(cell.factors) for cell in cells if cell.method != "none"} == {number}
    assert all(cell.noises == figure.NOISES for cell in cells)


def test_table_a1_and_its_curves():
    table = figure.measured(curves_like(figure.PAPER_FCN), figure.PAPER_FCN)
    assert (table["final"] - table["paper final"]).abs().max() < 1e-9
    found = figure.claims(curves_like(figure.PAPER_FCN), table, figure.PAPER_FCN, "Table A.1")
    assert found[-1].claim.endswith("ordered as in Table A.1")
    assert "MGS 1.9" in found[5].paper  # the mean of 0.2, 1.7, 2.2 and 3.6 points
    assert not found[4].holds  # they differ by up to 3.6 points


def curves_like(paper):
    """Two draws that rise to the printed highest accuracy and end at the printed final one."""
    return {
        method: np.array([[[10.0, highest, *[final] * 5]] * 2
                          for final, _, highest in by_noise.values()])
        for method, by_noise in paper.items()
    }  # fmt: skip


def test_what_is_lost_on_the_way():
    curves = {m: np.full((4, 3, 8), 50.0) for m in figure.PAPER}
    for method, curve in curves.items():
        curve[..., 2] = 51.0 if method == "MGS" else 60.0
    assert all(claim.holds for claim in figure.claims_of_curves(curves))
    curves["weight"][..., 2] = 50.5
    assert not any(claim.holds for claim in figure.claims_of_curves(curves))


def test_a_spread_that_depends_on_the_draws_is_not_the_smallest():
    """Three draws: MGS's accuracies are the closest whichever are drawn, or but for one draw."""
    for spread, holds in (((0.0, 0.5, 1.0), True), ((0.0, 0.0, 8.0), False)):
        final = {
            method: np.tile(spread if method == "MGS" else np.array([0.0, 5.0, 10.0]), (4, 1))
            for method in figure.PAPER
        }
        curves = {method: np.repeat(50 + v[..., None], 8, axis=-1) for method, v in final.items()}
        claim = figure.claims(curves, figure.measured(curves))[6]
        assert "standard deviation" in claim.claim
        assert claim.holds == holds


def test_the_order_has_the_interval_of_its_bootstrap():
    rng = np.random.default_rng(1)
    curves = {
        method: np.array([[[value[0] + 20 * rng.normal()] * 8 for _ in range(4)]
                          for value in by_noise.values()])
        for method, by_noise in figure.PAPER.items()
    }  # fmt: skip
    table = figure.measured(curves)
    claim = figure.claims(curves, table)[-1]
    rank = spearmanr(table["final"], table["paper final"]).statistic
    low, high = map(float, claim.measured.split("[")[1].rstrip("]").split(", "))
    assert claim.measured.startswith(f"Spearman {rank:.2f}")
    assert low < rank < high
    exact = {
        method: np.array([[[value[0]] * 8] * 4 for value in by_noise.values()])
        for method, by_noise in figure.PAPER.items()
    }
    assert "in [1.00, 1.00]" in figure.claims(exact, figure.measured(exact))[-1].measured
