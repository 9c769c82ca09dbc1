"""The steps that are drawn, against the metrics by finite differences and by hand."""

from collections import defaultdict
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.scale import Conditions
from analysis.studies.metric.vectors import INPUTS, TEACHER, Cell, regularizing_step, run
from paper_figures.metric import vectors as figure
from paper_figures.metric.vectors import FISHER, HESSIAN, L2, claims

AT = np.array([0.8, -1.3])


def outputs(a, b):
    return np.tanh(b * np.tanh(a * INPUTS))


def loss(at):
    return np.mean((outputs(*at) - outputs(*TEACHER)) ** 2) / 2


def test_steps():
    e = 1e-4 * np.eye(2)
    jacobian = np.stack([outputs(*AT + d) - outputs(*AT - d) for d in e], axis=1) / 2e-4
    fisher = jacobian.T @ jacobian / len(INPUTS)
    hessian = np.array(
        [
            [loss(AT + p + q) - loss(AT + p - q) - loss(AT - p + q) + loss(AT - p - q) for p in e]
            for q in e
        ]
    )
    hessian /= 4e-8
    expected = {FISHER: -fisher @ AT, HESSIAN: -hessian @ AT, L2: -AT}
    for name, step in expected.items():
        np.testing.assert_allclose(jax.jit(regularizing_step(name))(jnp.array(AT)), step, rtol=1e-5)


@pytest.mark.slow
def test_what_the_study_keeps_and_the_figure_shows(monkeypatch):
    cell = Cell(reach=2.0, arrows=6, decay=0.05, steps=3)
    found = run(cell)
    at, steps = found["at"], dict(zip(found["rules"], found["steps"], strict=True))
    assert len(at) == 36
    np.testing.assert_allclose(at[:3], [[-2, -2], [-2, -1.2], [-2, -0.4]])
    np.testing.assert_allclose(found["loss"], [loss(p) for p in at])
    e = 1e-5 * np.eye(2)
    slopes = [[(loss(p + d) - loss(p - d)) / 2e-5 for d in e] for p in at]
    np.testing.assert_allclose(found["slopes"], slopes, atol=1e-9)
    moved = [[np.abs(outputs(*(p + d)) - outputs(*(p - d))).mean() / 2e-5 for d in e] for p in at]
    np.testing.assert_allclose(found["effects"], moved, rtol=1e-6)
    np.testing.assert_allclose(steps[L2], -at)
    np.testing.assert_allclose(found["ends"][found["rules"].index(L2)], 0.95**3 * at)
    for vectors, arrows, tips in zip(found["steps"], found["arrows"], found["tips"], strict=True):
        length, drawn = (np.linalg.norm(v, axis=1) for v in (vectors, arrows))
        np.testing.assert_allclose(drawn**2 / drawn.max() ** 2, length / length.max())
        np.testing.assert_allclose(arrows / drawn[:, None], vectors / length[:, None])
        np.testing.assert_allclose(tips, [loss(p) for p in at + arrows])
    for name, number in (("coarse", 40), ("fine", 80)):
        assert found[name].shape == (number, number, 3)
        np.testing.assert_allclose(found[name][3, 5, 2], loss(found[name][3, 5, :2]))

    swept = SimpleNamespace(results={cell: SimpleNamespace(values=found)})
    monkeypatch.setattr(figure, "computed", lambda name, _: swept)
    drawing = figure.figure_1_1(Conditions())
    shown = drawing.table[drawing.table["rule"] == FISHER]
    np.testing.assert_array_equal(shown[["step_1", "step_2"]], steps[FISHER])
    assert [axes.get_title() for axes in drawing.picture.axes[:5:2]] == [FISHER, HESSIAN, L2]


def test_claims_on_steps_made_up():
    """A metric that pulls the smaller parameter alone, and one that is L2.

    At two of the points, corners, the parameters are as large as each other; there the first metric
    pulls the one with the lesser effect.
    """
    at = np.array([[3.0, 3.0], [3.0, -3.0], [3.0, 0.5], [-0.5, 3.0]])
    sparse = -at * [[1, 0], [0, 1], [0, 1], [1, 0]] - 1e-3 * at
    found = {
        "at": at,
        "rules": [FISHER, HESSIAN, L2],
        "steps": np.stack([sparse, -at, -at]),
        "slopes": sparse,
        "effects": np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 1.0], [1.0, 1.0]]),
        "ends": np.stack([at * [[1, 0]] + 1e-3, at / 2, 1e-3 * at]),
    }
    held = defaultdict(list)
    for claim in claims(Cell(), found):
        held[claim.claim.split(":")[0]].append(claim.holds)
    assert held["L2 regularization always points towards the origin"] == [True]
    assert not any(held[HESSIAN])
    assert held[FISHER] == [True] * 5
    exchanged = claims(Cell(), found | {"effects": found["effects"][:, ::-1]})
    assert [claim.holds for claim in exchanged].count(True) == 5  # L2's and 4 of the metric's
