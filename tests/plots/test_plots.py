"""What is drawn: the data of lines, bands and shades, and the words beside them."""

import subprocess
import sys
from types import SimpleNamespace

import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")
import matplotlib.pyplot as plt

import igr
from igr import plots
from igr.curvature import Eigenpairs, SpectralDensity
from igr.diagnostics import KernelSpectrum, sgd_region


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def compared():
    loss = lambda x: jnp.sum(jnp.cosh(x))
    return igr.compare(loss, jnp.array([1.0, 2.0]), 0.05, steps=20, orders=(0, 1), sharpness=False)


def _by_label(ax):
    handles, labels = ax.get_legend_handles_labels()
    return dict(zip(labels, handles, strict=True))


def test_comparison_draws_its_distances(compared):
    figure, given = plt.subplots()
    ax = plots.comparison(compared, given)
    assert ax is given
    lines = _by_label(ax)
    for order in (0, 1):
        line = lines[f"order {order}"]
        np.testing.assert_array_equal(line.get_xdata(), compared.step)
        drawn, known = line.get_ydata()[1:], compared.distance[order][1:]
        np.testing.assert_array_equal(drawn, known)
        assert np.isnan(line.get_ydata()[0])  # zero has no logarithm
    np.testing.assert_array_equal(lines["travelled"].get_ydata()[1:], compared.travelled[1:])
    assert len({line.get_color() for line in ax.lines[:2]}) == 2
    assert (ax.get_xlabel(), ax.get_yscale()) == ("step", "log")
    assert "not to be trusted" not in lines
    assert figure.axes == [ax]


def test_results_draw_themselves(compared):
    ax = compared.plot()
    np.testing.assert_array_equal(ax.lines[0].get_ydata()[1:], compared.distance[0][1:])
    loss = lambda w, x: 2 * jnp.sum((w - x) ** 2)
    monitor = igr.Monitor(["loss", "sharpness"], example_loss_fn=loss, learning_rate=0.4)
    with pytest.raises(ValueError, match="nothing yet"):
        monitor.plot()
    w, batch = jnp.zeros(2), jnp.array([[1.0, 2.0], [2.0, 1.0]])
    for _ in range(2):
        monitor(w, batch)
    ax = monitor.plot()
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 1.6], [1, 1.6]])
    assert ax.get_legend_handles_labels()[1] == ["limit 2"]
    np.testing.assert_allclose(monitor.plot("loss").lines[0].get_ydata(), [10.0, 10.0])


def test_comparison_shades_what_is_not_trusted_and_bands_errors():
    step = np.array([0, 10, 20, 30])
    made = SimpleNamespace(
        method="SGD",
        learning_rate=0.1,
        step=step,
        distance={1: np.array([0.1, 0.2, 0.3, 0.4]), "central": np.array([0.1, np.inf, 0.3, 0.4])},
        travelled=np.ones(4),
        trusted=np.array([True, False, False, True]),
        standard_error={1: np.array([0.05, 0.05, 0.5, 0.05])},
    )
    ax = plots.comparison(made)
    lines = _by_label(ax)
    assert list(lines)[:2] == ["order 1", "central"]
    assert np.isnan(lines["central"].get_ydata()[1])
    shade = lines["not to be trusted"]
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (5.0, 25.0)
    (band,) = ax.collections
    heights = np.concatenate([path.vertices[:, 1] for path in band.get_paths()])
    np.testing.assert_allclose([np.max(heights), np.min(heights)], [0.8, 3e-4])


def test_a_plane_of_what_is_no_loss():
    with pytest.raises(ValueError, match=r"must return a scalar; got shape \(2,\)"):
        plots.loss_plane(lambda w: w, jnp.zeros(2), *jnp.eye(2), points=3)


def test_a_run_that_did_not_move_is_drawn():
    """With nothing for a logarithmic axis to show; the picture is made, not only the Axes."""
    nothing = np.zeros(4)
    made = SimpleNamespace(
        method="Adam", learning_rate=0.1, step=np.arange(4), distance={0: nothing},
        travelled=nothing, trusted=np.zeros(4, bool), standard_error={0: np.full(4, 0.01)},
    )  # fmt: skip
    ax = plots.comparison(made)
    ax.figure.canvas.draw()
    assert ax.get_yscale() == "linear"


def test_a_band_that_reaches_zero_does_not_stretch_the_axis():
    step = np.arange(1, 5)
    made = SimpleNamespace(
        method="SGD", learning_rate=0.1, step=step, distance={0: np.full(4, 0.2)},
        travelled=np.ones(4), trusted=np.ones(4, bool), standard_error={0: np.full(4, 0.3)},
    )  # fmt: skip
    low, high = plots.comparison(made).get_ylim()
    assert 0.02 < low < 0.2
    assert high > 0.5


def test_certificate_draws_errors_and_slopes():
    class Slope(float):
        hs = np.array([0.01, 0.02])
        errors = np.array([1e-6, 8e-6])

    made = SimpleNamespace(method="GD", observed={1: Slope(3.0)}, holds=True)
    ax = plots.certificate(made)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), Slope.errors)
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [1e-6, 8e-6])
    assert ax.lines[0].get_label() == "order 1: slope 3.00, expected 3"
    assert ax.get_title() == "GD: certified"


def test_monitor_draws_runs_of_files_and_arrays(tmp_path):
    path = tmp_path / "run.csv"
    path.write_text("step,loss,h_sharpness,sharpness/converged\n0,1.0,1.5,True\n5,0.5,2.5,False\n")
    other = {"step": [0, 5], "h_sharpness": [1.0, 1.1]}
    ax = plots.monitor({"a": path, "b": other}, limit=2.0)
    lines = _by_label(ax)
    np.testing.assert_array_equal(lines["a"].get_xydata(), [[0, 1.5], [5, 2.5]])
    np.testing.assert_array_equal(lines["b"].get_ydata(), [1.0, 1.1])
    np.testing.assert_array_equal(lines["limit 2"].get_ydata(), [2.0, 2.0])
    shade = ax.patches[0]
    assert (shade.get_y(), shade.get_y() + shade.get_height()) == (2.0, 2.5)
    one = plots.monitor(str(path), "loss", log=True)
    assert (one.get_ylabel(), one.get_yscale(), one.get_legend()) == ("loss", "log", None)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("time,loss\n1,2\n", "does not begin with step"),
        ("step,loss\n", "no rows"),
        ("step,loss\n0,high\n", "not a monitor's CSV file"),
        ("step,loss\n0,1\n2\n", "not a monitor's CSV file"),
    ],
)
def test_files_that_are_no_records(tmp_path, text, match):
    path = tmp_path / "run.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=match):
        plots.monitor(path)


def test_unknown_columns_and_paths(tmp_path):
    with pytest.raises(ValueError, match="column must be among loss; got 'lost'"):
        plots.monitor({"step": [0], "loss": [1.0]}, "lost")
    with pytest.raises(FileNotFoundError, match="no file"):
        plots.monitor(tmp_path / "none.csv")
    with pytest.raises(TypeError, match="records must be a record"):
        plots.monitor([1, 2])


def test_spectrum_has_a_line_and_a_band():
    grid = np.linspace(-1, 2, 4)
    density = SpectralDensity(
        grid, np.array([0.1, 1.0, 0.2, 0.0]), np.full(4, 0.05), 0.1, None, None
    )
    ax = plots.spectrum(density)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), density.density)
    assert len(ax.collections) == 1
    assert ax.get_ylim()[0] == pytest.approx(1e-6)


def test_eigenpairs_by_layer():
    vectors = {"a": np.array([[0.6], [1.0]]), "b": np.array([[0.8, 0.0], [0.0, 0.0]])}
    pairs = Eigenpairs(np.array([5.0, -2.0]), vectors, None, None, None, None)
    ax = plots.eigenpairs(pairs)
    np.testing.assert_allclose(ax.collections[0].get_array(), [[0.36, 1.0], [0.64, 0.0]])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["5", "-2"]


def test_kernel_spectrum_leaves_out_what_is_rounding():
    ax = plots.kernel_spectrum(KernelSpectrum(np.array([4.0, 1.0, 0.0]), 2, 1.65, 1.5))
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 4], [2, 1]])
    assert ax.lines[1].get_label() == "effective rank 1.65"


def test_sgd_region_has_its_boundary_and_minima():
    region = sgd_region(0.5, 2, 10)
    ax = plots.sgd_region(region, [1.0, 3.0], [0.1, 0.2])
    lines = _by_label(ax)
    a, s = lines["growth 1"].get_xydata().T
    middle = slice(5, -5)
    np.testing.assert_allclose(region.growth(a, s)[middle], 1.0, rtol=1e-6)
    np.testing.assert_array_equal(lines["minima"].get_xdata(), [1.0, 3.0])
    with pytest.raises(ValueError, match="both or none"):
        plots.sgd_region(region, [1.0])


def test_loss_plane_has_the_levels_of_the_loss():
    loss = lambda p: jnp.sum(p["w"] ** 2) + 3 * p["b"] ** 2
    params = {"w": jnp.zeros(2), "b": jnp.array(1.0)}
    first = {"w": jnp.array([2.0, 0.0]), "b": jnp.array(0.0)}
    second = {"w": jnp.array([1.0, 0.0]), "b": jnp.array(1.0)}
    ax = plots.loss_plane(loss, params, first, second, points=21, reach=0.5)
    contours = ax.collections[0]
    for level, path in zip(contours.levels, contours.get_paths(), strict=True):
        x, y = path.vertices.T
        np.testing.assert_allclose(x**2 + 3 * (1 + y) ** 2, level, atol=0.01)
    with pytest.raises(ValueError, match="two directions"):
        plots.loss_plane(loss, params, first, first)
    with pytest.raises(ValueError, match="first must be like params"):
        plots.loss_plane(loss, params, {"w": jnp.zeros(2)}, second)


@pytest.mark.parametrize(
    "draw",
    [
        plots.comparison,
        plots.certificate,
        plots.spectrum,
        plots.eigenpairs,
        plots.kernel_spectrum,
        plots.sgd_region,
    ],
)
def test_what_is_not_the_thing_is_refused(draw):
    with pytest.raises(TypeError, match="got int"):
        draw(3)


def test_without_matplotlib_the_error_says_what_to_install():
    program = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "try: import igr.plots\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "pip install 'igr[figures]'" in done.stdout
