"""Figures of the learning rules on numbers made up so that what they must say is known."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analysis.scale import Conditions
from analysis.studies.metric.rules import Cell
from paper_figures.metric import curves, runs
from paper_figures.metric import eigenvalues as metric_eigenvalues
from paper_figures.metric import readings as metric_readings
from paper_figures.metric.curves import claims, claims_of_vectors, figure_curves
from paper_figures.metric.looks import LOOKS
from paper_figures.metric.runs import distances, nearer, printed

# Ends that bear out what is said of every task: training, test, norm; and the means on the way.
ENDS = {
    "SGD small": (0.99, 0.97, 2.0),
    "SGD large": (0.97, 0.70, 10.0),
    "Metric small": (0.96, 0.90, 1.9),
    "Metric large": (0.72, 0.60, 9.5),
    "L2": (0.96, 0.93, 4.0),
    "Selective L2": (0.98, 0.96, 5.0),
    "L2 Stopped": (0.98, 0.94, 6.0),
    "L2 Stopped Selective": (0.98, 0.96, 4.8),
}


def made_up(ends, task, small_first, start=10.0):
    """Two seeds of each rule that go from a beginning to their ends, slowly or at once."""
    sign, offset = (1.0, 0.0) if task in ("xor", "mnist", "cifar10") else (-1.0, 1.0)
    rows = []
    for rule, (train, test, norm) in ends.items():
        early = 0.9 if rule.endswith("small") == small_first else 0.3
        for seed in (0, 1):
            small = 1 + 1e-4 * seed
            for step, train_now, norm_now in ((0, 0.1, start), (5, early, norm), (10, train, norm)):
                rows.append(
                    {"rule": rule, "seed": seed, "step": step, "norm": norm_now * small,
                     "train": offset + sign * train_now * small,
                     "test": offset + sign * test * small, "data": "made up"}
                )  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("task", "activation", "small_first"),
    [("xor", "relu", True), ("mnist", "tanh", True), ("mnist", "relu", False),
     ("synthetic", "tanh", False), ("xord", "tanh", False)],
)  # fmt: skip
def test_what_is_said_of_training_and_tests(task, activation, small_first):
    learned = {rule: (max(train, 0.96), *rest) for rule, (train, *rest) in ENDS.items()}
    ends = learned if (task, activation) in (("xor", "relu"), ("mnist", "relu")) else ENDS
    table = made_up(ends, task, small_first)
    assert all(claim.holds for claim in claims(table, task, activation, "train"))
    other = made_up(ends, task, not small_first)
    assert not claims(other, task, activation, "train")[0].holds
    if task != "xor":
        assert all(claim.holds for claim in claims(table, task, activation, "test"))
        turned = {rule: (a, 1 - b, c) for rule, (a, b, c) in ends.items()}
        assert not any(c.holds for c in claims(made_up(turned, task, small_first), task,
                                               activation, "test"))  # fmt: skip


def test_what_is_said_of_training_fails_where_it_must():
    even = dict.fromkeys(ENDS, (0.9, 0.9, 5.0))
    for task, activation in (("xor", "tanh"), ("mnist", "tanh"), ("synthetic", "relu")):
        found = claims(made_up(even, task, True), task, activation, "train")
        assert not found[1].holds, found[1]
    assert not claims(made_up(even, "xord", False), "xord", "relu", "train")[1].holds


def test_what_is_said_of_norms():
    assert all(c.holds for c in claims(made_up(ENDS, "xor", True), "xor", "tanh", "norm"))
    wrong = {rule: (a, b, 12.0 - c) for rule, (a, b, c) in ENDS.items()}
    wrong["Selective L2"] = (1, 1, 30.0)
    found = claims(made_up(wrong, "xor", True), "xor", "tanh", "norm")
    assert not any(claim.holds for claim in found)


def test_what_is_said_of_cifar10():
    ends = {rule: (1.0, test, norm) for rule, (_, test, norm) in ENDS.items()}
    ends |= {"SGD small": (1.0, 0.97, 6.5), "Metric large": (1.0, 0.60, 9.9)}
    table = made_up(ends, "cifar10", False)
    for what in ("train", "test", "norm"):
        assert all(claim.holds for claim in claims(table, "cifar10", "relu", what)), what
    wrong = {rule: (0.9, 1 - test, 12 - norm) for rule, (_, test, norm) in ends.items()}
    wrong["Selective L2"] = (0.9, 0.1, 20.0)
    table = made_up(wrong, "cifar10", True, start=5.0)
    for what in ("train", "test", "norm"):
        assert not any(claim.holds for claim in claims(table, "cifar10", "relu", what)), what
    rows = [
        {"rule": rule, "seed": seed, "rank": rank,
         "eigenvalue": (2 + ("L2" in rule)) * (1 + spread[rule] * seed) / rank}
        for spread in [dict.fromkeys(LOOKS, 0.01) | {"Metric large": 0.5}]
        for rule in LOOKS for seed in range(3) for rank in (1, 2)
    ]  # fmt: skip
    found = metric_eigenvalues.claims(pd.DataFrame(rows), "cifar10")
    assert [claim.holds for claim in found] == [True, True]
    even = pd.DataFrame(rows).assign(eigenvalue=lambda t: (1 + t["seed"]) / t["rank"])
    assert not any(claim.holds for claim in metric_eigenvalues.claims(even, "cifar10"))


def test_significant_vectors_are_counted():
    rng = np.random.default_rng(0)

    def table(share):
        rows = []
        for rule, few in share.items():
            for seed in (0, 1, 2):
                long = np.arange(20) < 20 * few
                angle = rng.uniform(0, 2 * np.pi, 20)
                length = np.where(long, 1.0, 0.1)
                rows.append(pd.DataFrame({"rule": rule, "seed": seed, "unit": range(20),
                                          "w1": length * np.cos(angle),
                                          "w2": length * np.sin(angle)}))  # fmt: skip
        return pd.concat(rows)

    said = {rule: 0.1 if "Selective" in rule or "small" in rule else 0.8 for rule in LOOKS}
    assert all(claim.holds for claim in claims_of_vectors(table(said)))
    assert "SGD large 80 %" in claims_of_vectors(table(said))[0].measured
    assert not any(claim.holds for claim in claims_of_vectors(table(dict.fromkeys(LOOKS, 0.5))))


def eigenvalues(top, second=0.1, spread=0.01):
    rows = []
    for rule, value in top.items():
        wide = 10 * spread if rule == "Metric large" else spread
        for seed, sign in ((0, -1), (1, 1), (2, 0)):
            first = value * (1 + wide * sign)
            for rank, value_now in ((1, first), (2, second * first)):
                rows.append({"rule": rule, "seed": seed, "rank": rank, "eigenvalue": value_now})
    return pd.DataFrame(rows)


def test_what_is_said_of_eigenvalues():
    top = dict.fromkeys(LOOKS, 2.0) | {"SGD small": 1.0, "Metric small": 1.0}
    check = metric_eigenvalues.claims
    assert all(
        c.holds for c in check(eigenvalues(top | {"SGD large": 9.0, "Metric large": 8.0}), "xor")
    )
    mnist = top | {"Selective L2": 9.0, "Metric large": 8.0}
    assert all(c.holds for c in check(eigenvalues(mnist), "mnist"))
    assert [c.holds for c in check(eigenvalues(mnist), "xor")] == [True, False]
    turned = top | {"SGD small": 3.0, "L2": 5.0}
    assert not any(c.holds for c in check(eigenvalues(turned), "mnist"))
    same = dict.fromkeys(LOOKS, 2.0)
    assert all(c.holds for c in check(eigenvalues(same), "synthetic"))
    apart = eigenvalues(same | {"SGD large": 4.0}, second=0.9, spread=0.0)
    assert not any(c.holds for c in check(apart, "synthetic"))


def test_norms_against_performance():
    rows = [
        {"set": of, "activation": activation, "rule": str(i), "norm": i / 8,
         "performance": 1 - (i if of != "mnist" or i > 1 else 1 - i) / 8}
        for of in ("xord", "mnist", "synthetic") for activation in ("tanh", "relu")
        for i in range(8)
    ]  # fmt: skip
    first, second = metric_eigenvalues.claims_of_norms(pd.DataFrame(rows))
    assert first.holds
    assert second.holds
    turned = pd.DataFrame(rows).assign(norm=lambda t: -t["norm"])
    assert not metric_eigenvalues.claims_of_norms(turned)[0].holds
    assert not metric_eigenvalues.claims_of_norms(turned)[1].holds


def ends_near(reading_that_fits):
    """Both readings of every rule that has two, one exactly as printed and one far from it."""
    rows = []
    for activation in ("tanh", "relu"):
        for row in printed(activation).itertuples():
            if row.set == "synthetic":
                continue
            family = row.rule.removesuffix(" small").removesuffix(" large").lower()
            for reading in ("a step", "a learning rate"):
                off = 0.0 if reading == reading_that_fits else 0.3
                far = 0.0 if family in ("sgd", "l2", "l2 stopped") else off
                rows.append({"set": row.set, "activation": activation, "rule": row.rule,
                             "family": family, "reading": reading, "seed": 0,
                             "train": row.train + far, "test": row.test + far,
                             "norm": row.norm * 10**far})  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("reading", ["a step", "a learning rate"])
def test_the_reading_nearer_to_the_tables_is_taken(reading):
    table = distances(ends_near(reading))
    fits = table[table["reading"] == reading]["distance"]
    assert fits.max() < 1e-12
    assert table[table["reading"] != reading]["distance"].min() > 0.05
    assert nearer(table) == dict.fromkeys(
        ("metric", "selective l2", "l2 stopped selective"), reading
    )
    found = metric_readings.claims(table)
    assert [claim.holds for claim in found] == [reading == "a step"] * 3


def test_a_run_that_diverged_is_one_apart():
    rows = ends_near("a step")
    lost = (
        (rows["rule"] == "Selective L2") & (rows["reading"] == "a step") & (rows["set"] == "mnist")
    )
    rows.loc[lost, ["train", "test", "norm"]] = np.nan
    found = distances(rows).set_index(["set", "rule", "reading"])["distance"]
    assert (found.loc[("mnist", "Selective L2", "a step")] == 1).all()


def test_curves_are_drawn_in_the_nearer_reading(monkeypatch):
    """Of XORD, whose errors are sums; the reading further off leaves no line."""
    results = {}
    rules = ("sgd", "metric", "l2", "selective l2", "l2 stopped", "l2 stopped selective")
    theirs = printed("tanh").set_index(["set", "rule"])
    for rule in rules:
        for regime in ("small", "large") if rule in ("sgd", "metric") else ("large",):
            printed_row = theirs.loc[("xord", runs.name(rule, regime))]
            for reading in ("a step", "a learning rate"):
                if rule not in runs.READ_TWICE and reading != "a step":
                    continue
                far = 1.0 if reading == "a step" or rule not in runs.READ_TWICE else 50.0
                cell = Cell("xord", "tanh", rule, regime, 4, reading, seeds=(0, 1))
                loss = np.array([[3.0, 2.0, far * printed_row["train"] / 12]] * 2)
                results[cell] = {
                    "train_loss": loss,
                    "test_loss": far * np.full((2, 3), printed_row["test"] / 10),
                    "norm": np.full((2, 3), printed_row["norm"]),
                    "step": np.array([0, 5, 10]),
                    "train_number": 12,
                    "test_number": 10,
                    "source": "made up",
                    "first_layer": np.ones((2, 2, 4)),
                }
    monkeypatch.setattr(runs, "computed", lambda name, _: SimpleNamespace(results=results))
    drawing = figure_curves(Conditions(), "xord", "tanh", "train")
    end = drawing.table[drawing.table["step"] == 10].groupby("rule")["train"].first()
    for rule in LOOKS:
        assert end[rule] == pytest.approx(theirs.loc[("xord", rule), "train"])
    assert len(drawing.picture.axes[0].lines) == len(LOOKS)
    vectors = curves.figure_first_layer(Conditions(), "xord", "tanh").table
    assert len(vectors) == len(LOOKS) * 2 * 4
