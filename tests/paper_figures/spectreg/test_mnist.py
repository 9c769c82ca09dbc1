"""Claims of Tables 1 and 6 on made-up accuracies; how lambda is chosen; the study by hand."""

from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from analysis.models import LeNet
from analysis.scale import Conditions
from analysis.studies.spectreg import mnist as study
from analysis.studies.spectreg.mnist import (
    PAPER_DECAY,
    PENALTIES,
    Cell,
    Timing,
    training_set,
)
from paper_figures.spectreg import mnist
from paper_figures.spectreg.mnist import (
    BOTH,
    DECAY,
    PAPER_1,
    PAPER_6,
    PLAIN,
    SPECTREG,
    TABLE_1,
    TABLE_6,
    TUNED,
    claims_of_cost,
    claims_of_decay,
    claims_of_penalties,
)


def draws(paper: dict[str, tuple[float, float]]) -> pd.DataFrame:
    """Ten draws with exactly these means and standard deviations, correlated by one half."""
    rng = np.random.default_rng(0)
    noise = np.linalg.qr(np.c_[np.ones(10), rng.normal(size=(10, 9))])[0][:, 1:] * 3
    columns = {}
    for own, (name, (mean, deviation)) in enumerate(paper.items(), start=1):
        columns[name] = mean + deviation * (noise[:, 0] + noise[:, own]) / np.sqrt(2)
    return pd.DataFrame(columns)


def test_claims_hold_on_the_papers_own_numbers():
    one = draws(PAPER_1 | {TUNED: PAPER_1[DECAY]})
    assert one[PLAIN].std() == pytest.approx(0.22)
    assert all(claim.holds for claim in claims_of_decay(one))
    six = draws(PAPER_6)[list(TABLE_6)]
    assert all(claim.holds for claim in claims_of_penalties(six))


def test_claims_fail_where_it_is_the_other_way_round():
    one = draws(PAPER_1 | {TUNED: PAPER_1[DECAY]})
    assert not any(claim.holds for claim in claims_of_decay(200 - one))
    six = draws(PAPER_6)[list(TABLE_6)]
    reversed_ = 200 - six
    reversed_["FrobReg and decay"] += 1
    reversed_["DoubleBack and decay"] -= 1
    assert not any(claim.holds for claim in claims_of_penalties(reversed_))


def test_a_gain_is_set_against_the_error_of_the_paired_difference():
    accuracies = pd.DataFrame({name: [90.0, 95.0, 85.0] for name in TABLE_1})
    accuracies[SPECTREG] += np.array([0.1, 0.2, 0.3])  # 0.2 and sqrt(0.01 / 3), by hand
    claims = claims_of_decay(accuracies)
    assert "+0.20 ± 0.06 over 3 draws" in claims[0].measured
    assert [claim.holds for claim in claims] == [True, False, True, True]


def test_cost_is_held_against_spectreg():
    def times(full: float) -> pd.DataFrame:
        index = pd.MultiIndex.from_product(
            [["LeNet-5"], ["SpectReg", "FrobReg", "JacReg"]], names=["network", "rule"]
        )
        values = {"over SpectReg": [1, full, full], "operations": [2.0, 12.0, 13.0]}
        return pd.DataFrame(values, index)

    (dear,), (cheap,) = claims_of_cost(times(5.0)), claims_of_cost(times(2.0))
    assert dear.holds
    assert not cheap.holds
    assert "operations 6.0, 6.5" in dear.measured


def test_tuning_draws_choose_by_validation_and_the_others_are_reported(monkeypatch):
    """Validation points at the second lambda, test accuracy at the first."""
    rules = ("SpectReg", "FrobReg", "JacReg", "DoubleBack")
    cells = {}
    for draw, tuning in ((0, True), (1, True), (2, False), (3, False)):
        for rule in rules:
            cell = Cell(rule, (0.1, 0.2), (0.0, PAPER_DECAY), draw, tuning)
            validation = np.array([[0.5, 0.6], [0.5, 0.6]]) if tuning else np.eye(2)
            test = np.array([[0.9, 0.7 + draw / 100], [0.9, 0.8 + draw / 100]])
            cells[cell] = {"train": test, "validation": validation, "test": test}
        decays = (0.0, PAPER_DECAY, 0.002, 0.01)
        cell = Cell("baseline", (0.0,), decays, draw, tuning)
        baseline = np.array([[0.9], [0.1], [0.5 if tuning else 0.0], [0.2]])
        cells[cell] = {"train": baseline, "validation": baseline, "test": 1 - baseline}
    monkeypatch.setattr(mnist, "computed", lambda name, _: SimpleNamespace(results=cells))

    accuracies = mnist.chosen(mnist.measured(Conditions()))
    assert accuracies.index.tolist() == [2, 3]
    assert accuracies[SPECTREG].tolist() == pytest.approx([72, 73])
    assert accuracies[BOTH].tolist() == pytest.approx([82, 83])
    assert accuracies[TUNED].tolist() == pytest.approx([100, 100])
    assert accuracies[PLAIN].tolist() == pytest.approx([10, 10])


def test_training_sets_are_balanced_standardised_and_apart_from_what_is_held_out():
    first, second = (training_set(Cell("baseline", (0.0,), (0.0,), draw)) for draw in (0, 1))
    assert np.bincount(first.train.y).tolist() == [20] * 10
    spread = first.train.x.std(0)
    np.testing.assert_allclose(spread[spread > 0], 1)
    np.testing.assert_allclose(first.train.x.mean(0), 0, atol=1e-12)
    assert not np.array_equal(first.train.y, second.train.y) or not np.array_equal(
        first.train.x, second.train.x
    )
    pool, validation, test, _ = study._parts("digits", 450)
    seen = np.concatenate([part.x for part in (pool, validation, test)])
    assert len(seen) == 1797
    assert sorted(map(bytes, seen)) == sorted(map(bytes, study.digits().x))  # each of them once


@pytest.mark.slow
def test_accuracies_are_those_of_the_networks_on_what_validates_and_on_what_tests(monkeypatch):
    kept = []
    train = study.train
    monkeypatch.setattr(study, "train", lambda *a, **k: kept.append(train(*a, **k)) or kept[-1])
    cell = Cell("SpectReg", (0.0, 30.0), (0.0,), 0, steps=40, learning_rate=0.01)
    result = study.run(cell)
    held_out = training_set(cell).test
    for i in range(2):
        layers = [
            (np.asarray(layer.weight)[0, 0, i, 0], np.asarray(layer.bias)[0, 0, i, 0])
            for layer in kept[0].model.layers
        ]
        h = held_out.x
        for weight, bias in layers[:-1]:
            h = np.maximum(h @ weight + bias, 0)
        correct = np.argmax(h @ layers[-1][0] + layers[-1][1], axis=1) == held_out.y
        np.testing.assert_allclose(result["validation"][0, i], correct[:450].mean(), atol=3e-3)
        np.testing.assert_allclose(result["test"][0, i], correct[450:].mean(), atol=3e-3)
    assert result["test"][0, 0] > 0.6 > result["test"][0, 1] + 0.1  # flattened


@pytest.mark.slow
def test_decay_is_of_weights_and_not_of_biases():
    shapes = eqx.filter_eval_shape(lambda: eqx.filter(LeNet(key=jax.random.key(0)), eqx.is_array))
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    settings = {"decay": 0.5, "weight": 0.0}
    penalty = study.penalty_of(PENALTIES["baseline"])
    gradient = jax.grad(lambda p: penalty(SimpleNamespace(settings=settings, params=p)))(params)  # pyright: ignore
    for layer in (*gradient.convolutions, *gradient.layers):
        np.testing.assert_array_equal(layer.weight, 0.5)
        np.testing.assert_array_equal(layer.bias, 0)


def test_the_rate_is_divided_by_ten_at_a_half_and_at_three_quarters():
    """Adam's step on a constant gradient is the learning rate."""
    rule = study.optimizer(8)({"learning_rate": jnp.asarray(0.1)})
    state = rule.init(jnp.zeros(()))
    steps = []
    for _ in range(8):
        update, state = rule.update(jnp.ones(()), state)
        steps.append(-float(update))
    np.testing.assert_allclose(steps, [0.1] * 4 + [0.01] * 2 + [0.001] * 2, rtol=1e-5)


@pytest.mark.slow
def test_times_are_taken_of_every_rule_and_compared_within_rounds(monkeypatch):
    three = {rule: study.PENALTIES[rule] for rule in ("baseline", "SpectReg", "FrobReg")}
    monkeypatch.setattr(study, "PENALTIES", three)
    result = study.run(Timing("digits", rounds=2, repeat=1, batch_size=4, width=3))
    assert result["seconds"].shape == (3, 2)
    assert (result["seconds"] > 0).all()
    operations = dict(zip(result["rules"], result["operations"], strict=True))
    assert operations["FrobReg"] > 3 * operations["SpectReg"] > 3 * operations["baseline"]

    seconds = np.array([[1.0, 10.0, 1.0], [2.0, 20.0, 8.0], [6.0, 80.0, 8.0]])
    made_up = {
        "seconds": seconds,
        "operations": np.array([1.0, 2.0, 5.0]),
        "rules": ["baseline", "SpectReg", "FrobReg"],
    }
    swept = SimpleNamespace(results={Timing("mnist"): made_up})
    monkeypatch.setattr(mnist, "computed", lambda name, _: swept)
    times = mnist.measured_times(Conditions()).loc["LeNet-5"]
    assert times["time"].tolist() == [1, 2, 8]  # medians of (1,1,1), (2,2,8), (6,8,8)
    assert times["over SpectReg"].tolist() == [0.5, 1, 3]
