"""Claims of the two circles on numbers made up; the study's numbers worked out by hand in numpy."""

from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from analysis.data import two_circles
from analysis.models import MLP
from analysis.scale import Conditions
from analysis.studies.mgs import two_circles as study
from analysis.studies.mgs.two_circles import FACTORS, RIDGE, Cell, run
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.mgs import two_circles as figure
from paper_figures.mgs.two_circles import (
    LOOKS,
    best_radius,
    claims,
    claims_of_boundaries,
    figure_2,
    figure_a1,
)
from tests.quick import quick


def ends(sign):
    """Four seeds of each method, ever further from "none": as the paper says, or (-1) contrary."""
    rng = np.random.default_rng(0)
    rows = []
    for place, method in enumerate(LOOKS):
        for seed in range(4):
            noise = 0.01 * rng.uniform(size=5)
            rows.append(
                {
                    "method": method,
                    "seed": seed,
                    "first log trace": 3.0,
                    "log trace": 3.0 + sign * (0.8 - 0.1 * place) + noise[0],
                    "first logdet": -400.0,
                    "logdet": -400 + sign * (300 - 30.0 * place) + noise[1],
                    "off": 0.3 - 0.03 * place + noise[2],
                    "train_accuracy": 0.9 + 0.1 * sign,
                    "test_accuracy": 0.83 + 0.01 * place + 0.1 * noise[3],
                    "test_loss": 0.6 + 0.3 * sign,
                    "least test loss": 0.3,
                    "from none": 0.0 if method == "none" else 0.2 + noise[4],
                    "from MGS trace": 0.0 if method == "MGS trace" else 0.2 - sign * 0.1,
                }
            )
    return pd.DataFrame(rows).set_index(["method", "seed"])


def test_claims_hold_where_the_numbers_say_so_and_fail_where_they_say_the_contrary():
    assert [claim.holds for claim in claims(ends(1))] == [True] * 14
    contrary = claims(ends(-1))
    alike = "trace and determinant behave similarly"  # also where both are worse
    assert [claim.claim for claim in contrary if claim.holds] == [alike]
    opposed = claims(ends(1).assign(logdet=lambda rows: -rows["logdet"]))
    assert [claim.holds for claim in opposed if claim.claim == alike] == [False]


def test_claims_of_boundaries():
    assert [claim.holds for claim in claims_of_boundaries(ends(1))] == [True] * 7
    worse = ends(1).assign(off=lambda rows: -rows["off"])
    assert [claim.holds for claim in claims_of_boundaries(worse)] == [False] * 6 + [True]


def test_the_best_classifier_is_where_both_densities_meet():
    radius, noise = best_radius(0.2, 0.5), 0.2
    angles = np.linspace(0, 2 * np.pi, 2000, endpoint=False)

    def density(of):
        x, y = of * np.cos(angles), of * np.sin(angles)
        return np.exp(-((x - radius) ** 2 + y**2) / (2 * noise**2)).mean()

    np.testing.assert_allclose(density(0.5), density(1.0), rtol=1e-8)
    assert 0.5 < radius < 1


@pytest.mark.parametrize("method", quick(list(study._PENALTIES), "loss gradient, parameters"))
def test_penalties_of_a_linear_network(method):
    rng = np.random.default_rng(1)
    w, x, y = rng.normal(size=(2, 2)), rng.normal(size=(5, 2)), np.array([0, 1, 1, 0, 1])
    logits = x @ w
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = p - np.eye(2)[y]
    kernel = np.kron(x @ x.T, np.eye(2))  # of w x for each of two outputs
    by_hand = {
        "weight": (w**2).sum() / 2,
        "loss gradient, inputs": np.linalg.norm(error @ w.T, axis=1).mean(),
        "loss gradient, parameters": np.linalg.norm(x.T @ error / 5),
        "MGS trace": np.trace(kernel),
        "MGS determinant": np.linalg.slogdet(kernel + RIDGE * np.eye(10))[1],
    }
    at: Any = SimpleNamespace(
        params=jnp.asarray(w),
        x=jnp.asarray(x),
        y=jnp.asarray(y),
        settings={"factor": 0.3},
        apply_fn=lambda w, x: x @ w,
        example_loss_fn=lambda w, e: -jax.nn.log_softmax(e[0] @ w)[e[1]],
    )
    np.testing.assert_allclose(study._PENALTIES[method](at), 0.3 * by_hand[method], rtol=1e-9)


@pytest.mark.slow
def test_one_step_on_a_linear_network(monkeypatch):
    """The factor comes from other points than it is shown on; the decay is that of its factor."""
    size = {"points": 20, "steps": 1, "depth": 0, "batch_size": 20, "samples": 1, "side": 3}
    cells = [
        Cell("weight", (0.0, 0.0), (0, 3), (0,), **size),  # as many: one program for both
        Cell("weight", (2.0, 0.5), (0, 3), (0,), **size),
    ]
    asked = []
    monkeypatch.setattr(study, "two_circles", lambda s, **k: asked.append(s) or two_circles(s, **k))
    results = [run(cell) for cell in cells]
    assert asked == [1000, 0, 3] * 2
    plain, decayed = results
    assert decayed["factor"] == decayed["tried"][np.argmin(decayed["tuning_loss"])]
    points = two_circles(3, train=20, noise=0.2, factor=0.5).train.x
    np.testing.assert_allclose(plain["train_x"][1], points)
    # f = x W + b: the gradients of an output are (x, 1), and of the other output zero.
    kernel = np.kron(points @ points.T + 1, np.eye(2))
    np.testing.assert_allclose(plain["trace"][1], np.trace(kernel))
    shifted = np.linalg.slogdet(kernel + RIDGE * np.eye(40))[1]
    np.testing.assert_allclose(plain["logdet"][1], shifted)

    weights = MLP(2, 2, 1, 0, key=jax.random.split(jax.random.key(3))[0]).layers[0].weight
    corner = plain["grid"][[0, -1]]  # x smallest, y largest
    lost = 0.1 * decayed["factor"] * corner @ (weights[:, 1] - weights[:, 0])
    np.testing.assert_allclose((plain["margin"] - decayed["margin"])[1, -1, 0], lost, rtol=1e-5)


@pytest.mark.slow
def test_the_figure_counts_where_boundaries_differ(monkeypatch):
    """Every network decides by a circle: how far it is off is an area."""
    radii = dict(zip(LOOKS, (1.3, 1.1, 1.0, 0.95, 0.9, 0.8, 0.82), strict=True))
    grid = np.linspace(-1.8, 1.8, 201)
    x, y = np.meshgrid(grid, grid)
    cells = [Cell(m, f, (0, 1), (0,), 20, samples=6) for m, f in FACTORS.items()]
    points = two_circles(0, train=20).train

    def made_up(cell):
        falling = np.linspace(1.0, 0.5, 7) * np.array([[1.0], [1.1]]) * radii[cell.method]
        return CellResult(
            {name: falling for name in figure._METRICS}
            | {"step": np.arange(7), "factor": cell.factors[0], "grid": grid}
            | {"margin": np.stack([radii[cell.method] - np.hypot(x, y)] * 2)}
            | {"train_x": points.x[None], "train_y": points.y[None]}
        )

    results = {cell: made_up(cell) for cell in cells}
    monkeypatch.setattr(
        figure, "computed", lambda name, _: Sweep(Study(name, run, tuple(cells)), results)
    )
    drawing = figure_2(Conditions())
    assert len(drawing.table) == 7 * 2 * 7
    last = drawing.table.groupby("method")[["off", "from none"]].last()
    best = best_radius(0.2, 0.5)
    for method, radius in radii.items():
        area = np.pi * abs(radius**2 - best**2) / 3.6**2
        assert last.loc[method, "off"] == pytest.approx(area, abs=0.005)
        area = np.pi * abs(radius**2 - radii["none"] ** 2) / 3.6**2
        assert last.loc[method, "from none"] == pytest.approx(area, abs=0.005)
    alone = figure_a1(Conditions())
    assert len(alone.table) == 7 * 2
    off = alone.table.groupby("method")["off"].mean()
    assert off["none"] == pytest.approx(last.loc["none", "off"])
    assert len(alone.claims) == 7
