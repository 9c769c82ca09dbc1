"""Figures 1a, 1b, A.1 and A.2: the study against formulas by hand, claims on numbers made up."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from analysis.scale import Conditions
from analysis.studies.igr.two_parameters import START_I, START_II, Cell, run, study
from analysis.sweep import CellResult, Study, Sweep
from paper_figures.igr import two_parameters as figures

X, Y = 1.0, 0.6
SHORT = replace(START_I, h_small=5e-3, h_medium=2e-2, h_euler=1e-3, time=1.0, euler_time=1.0)


def downhill(a, b, mu=0.0):
    """-grad (E + mu R), E (A.24) and R = (a^2 + b^2) x^2 E (A.25) differentiated by hand."""
    error = Y - a * b * X
    pull = X * error * (1 + mu * X**2 * (a**2 + b**2))
    push = mu * X**2 * error**2
    return np.array([b * pull - a * push, a * pull - b * push])


def descended(start, h, steps, mu=0.0):
    a, b = start.at
    for _ in range(steps):
        da, db = downhill(a, b, mu)
        a, b = float(a + h * da), float(b + h * db)
    return np.array([a, b])


def flowed(start, time, mu=0.0):
    solved = solve_ivp(
        lambda t, p: downhill(p[0], p[1], mu), (0, time), start.at, rtol=1e-9, atol=1e-12
    )
    return solved.y[:, -1]


def test_the_study_is_the_same_at_all_scales():
    assert study("quick").cells == study("medium").cells == study("full").cells


@pytest.mark.slow
def test_lines_and_numbers_of_figure_1a():
    """Ends against descent written out and against scipy's integrator (A.27, A.31, A.32)."""
    seen = run(Cell("1a", SHORT))
    h = SHORT.h_medium
    ends = {
        "gradient descent, small rate": descended(SHORT, SHORT.h_small, 200),
        "gradient descent, moderate rate": descended(SHORT, h, 50),
        "modified flow": flowed(SHORT, 1.0, h / 2),
        "EGR, flow": flowed(SHORT, 1.0, SHORT.mu),
        "EGR": descended(SHORT, SHORT.h_euler, 1000, SHORT.mu),
    }
    for line, end in ends.items():
        np.testing.assert_array_equal(seen[line][0], SHORT.at)
        np.testing.assert_allclose(seen[line][-1], end, rtol=1e-5, err_msg=line)
    off = [np.linalg.norm(descended(SHORT, h, 50) - flowed(SHORT, 1.0, mu)) for mu in (0, h / 2)]
    np.testing.assert_allclose(seen["distance"][:, -1], off, rtol=1e-3)

    a, b = SHORT.at
    hessian = [[b * b, 2 * a * b - Y], [2 * a * b - Y, a * a]]  # of E where x is 1
    np.testing.assert_allclose(seen["sharpness"], np.linalg.eigvalsh(hessian)[-1], rtol=1e-10)
    after = descended(SHORT, 2 * SHORT.mu, 3)
    np.testing.assert_allclose(seen["matching"][3], (Y - np.prod(after)) ** 2 / 2, rtol=1e-9)
    assert not np.isfinite(seen["matching"][-1])
    # Of the learning rates the first few converge in 4 time units, the last does not.
    np.testing.assert_allclose(seen["learning_rate"][[0, -1]], [h, SHORT.largest_h])
    assert np.isinf(seen["norm"][-1])
    converged = np.flatnonzero(np.isfinite(seen["norm"]))[0]
    end = descended(SHORT, seen["learning_rate"][converged], 200)
    np.testing.assert_allclose(seen["norm"][converged], np.linalg.norm(end), rtol=1e-10)


@pytest.mark.slow
def test_ends_of_figure_1b():
    seen = run(Cell("1b", START_I))
    # The gradient flow keeps a^2 - b^2, and ends where ab = y/x.
    a, b = START_I.at
    np.testing.assert_allclose(seen["original"], np.hypot(a**2 - b**2, 2 * Y / X) * X**2, rtol=1e-5)
    for i in (0, -1):
        h = seen["learning_rate"][i]
        assert h == pytest.approx((5e-4, START_I.h_medium)[i])
        np.testing.assert_allclose(
            seen["descent"][i], np.sum(descended(START_I, h, 4000 if i else 20_000) ** 2),
            rtol=1e-9,
        )  # fmt: skip
        np.testing.assert_allclose(
            seen["modified"][i], np.sum(flowed(START_I, START_I.time, h / 2) ** 2), rtol=1e-5
        )


@pytest.mark.slow
def test_figure_a1_draws_the_run_it_says(monkeypatch):
    cell = Cell("A.1", START_I)
    show(monkeypatch, {cell: run(cell)})
    drawing = figures.figure_a1(Conditions())
    path = drawing.table[drawing.table["line"] == "h_L"][["a", "b"]].to_numpy()
    a, b = 2.8, 3.5
    for point in path[:6]:
        np.testing.assert_allclose(point, (a, b), rtol=1e-9)
        error = 0.6 - a * b
        a, b = a + 0.18 * b * error, b + 0.18 * a * error
    assert [claim.holds for claim in drawing.claims] == [True, True, True]
    small = drawing.table[drawing.table["line"] == "h_S"][["a", "b"]].to_numpy()
    np.testing.assert_allclose(small[-1], descended(START_I, 1e-3, 10_000), rtol=1e-9)


@pytest.mark.slow
def test_errors_of_figure_a2():
    seen = run(Cell("A.2", START_I))
    for i, mu in ((0, 0.0), (-1, START_I.mu)):
        assert seen["mu"][i] == pytest.approx(mu)
        for j in range(3):
            a, b = descended(START_I, 1e-4, round(seen["time"][j] / 1e-4), mu)
            error = (0.6 - a * b * 0.5) ** 2 / 2
            np.testing.assert_allclose(seen["test_error"][i, j], error, rtol=1e-8)
    # Descent with a small step ends nearly where the gradient flow does.
    a, b = START_I.at
    np.testing.assert_allclose(seen["square_norm"][0], np.hypot(a**2 - b**2, 1.2), rtol=1e-3)
    np.testing.assert_allclose(seen["test_error"][:, -1], 0.3**2 / 2, rtol=1e-6)


def show(monkeypatch, values):
    """Lets the figures read these results, by cell."""

    def computed(name, conditions, only):
        results = {cell: CellResult(value) for cell, value in values.items() if only(cell)}
        return Sweep(Study(name, run, tuple(results)), results)

    monkeypatch.setattr(figures, "computed", computed)


def paths_made_up(start, *, as_printed):
    """From a start: the claims of figure 1a all hold, or none."""
    line = np.linspace(start.at, (0.6, 1.0), 5)
    further = line / line[-1] * (0.7, 6 / 7)  # ends at a smaller norm
    h = np.geomspace(start.h_medium, start.largest_h, 5)
    return {
        "x": X,
        "y": Y,
        "gradient descent, small rate": line,
        "gradient descent, moderate rate": line,
        "modified flow": line,
        "EGR, flow": further if as_printed else 2 * further,
        "EGR": further if as_printed else 4 * further,
        "distance": np.array([[0.0, 0.2], [0.0, 0.1]])[:: 1 if as_printed else -1],
        "learning_rate": h,
        "norm": np.array([1.3, 1.2, 1.2, 1.15, np.inf]),
        "matching": np.array([1.0, 10, 1e6, 1e20, np.inf if as_printed else 1e200]),
        "sharpness": 1 / h[2],
        "regularized_sharpness": 1.0,
    }


@pytest.mark.parametrize("as_printed", [True, False])
def test_claims_of_figure_1a_follow_the_numbers(as_printed, monkeypatch):
    show(monkeypatch, {
        Cell("1a", start): paths_made_up(start, as_printed=as_printed)
        for start in (START_I, START_II)
    })  # fmt: skip
    drawing = figures.figure_1a(Conditions())
    assert [claim.holds for claim in drawing.claims] == [as_printed] * 10
    assert "4 converge" in drawing.claims[2].measured
    lines = drawing.table.groupby(["start", "line"])
    assert lines.ngroups == 2 * 5
    assert (lines[["a", "b"]].first().loc["I"] > 2).all().all()


def test_only_learning_rates_in_reach_of_the_analysis_count():
    """The flattest minimum of gradient descent is beyond h times sharpness 1."""
    result = paths_made_up(START_I, as_printed=True)
    result["norm"][3] = 1.0
    claims = figures.claims_of_regularizing(START_I, result)
    assert [claim.holds for claim in claims] == [True, False, True, True]
    result["norm"][1] = 1.0
    assert not figures.claims_of_regularizing(START_I, result)[0].holds


@pytest.mark.parametrize("falling", [True, False])
def test_claims_of_figure_1b_follow_the_numbers(falling, monkeypatch):
    h = np.linspace(0.001, 0.02, 8)
    ratio = 4.6 - (20 if falling else -20) * h
    show(monkeypatch, {
        Cell("1b", START_I): {
            "learning_rate": h, "descent": ratio, "original": 4.6, "modified": 4.6 - 16 * h,
        }
    })  # fmt: skip
    drawing = figures.figure_1b(Conditions())
    assert [claim.holds for claim in drawing.claims] == [falling, falling]
    np.testing.assert_array_equal(drawing.table["lambda"], h / 2)
    np.testing.assert_array_equal(drawing.table["gradient descent"], ratio)


def test_claims_of_figure_a1_fail_where_nothing_is_jumped_over():
    a = np.linspace(2.0, 1.0, 5)
    result = {
        "x": X, "y": Y, "large": np.stack([a, a], axis=1), "learning_rate": 0.18,
        "loss": 0.08, "sharpness": 20.0,
    }  # fmt: skip
    assert not any(claim.holds for claim in figures.claims_of_large_rate(result))


@pytest.mark.parametrize("falling", [True, False])
def test_claims_of_figure_a2_follow_the_numbers(falling, monkeypatch):
    mu = np.linspace(0, 0.5, 6)
    values = 3 - mu if falling else 3 + mu
    show(monkeypatch, {
        Cell("A.2", START_I): {
            "x": X, "y": Y, "mu": mu, "time": np.array([0.1, 0.2, 0.5, 20.0]),
            "test_error": np.outer(values, [1, 2, 3, 4]), "square_norm": values,
        }
    })  # fmt: skip
    drawing = figures.figure_a2(Conditions())
    assert [claim.holds for claim in drawing.claims] == [falling] * 3
    np.testing.assert_array_equal(drawing.table["test error, t = 0.2"], 2 * values)
    np.testing.assert_array_equal(drawing.table["a^2 + b^2, t = 20"], values)
