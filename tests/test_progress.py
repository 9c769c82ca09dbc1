"""Progress bars: shown where a call takes long, and nothing else changes."""

import inspect
import re

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import pytest

import igr
from igr.flows.edge import march
from igr.options import names_of
from igr.progress import expected, late_bar
from igr.progress.expected import expected_seconds

START = jnp.array([2.0, 0.3])


def loss(w):
    return (w[0] * w[1] - 1) ** 2 / 2


def field(t, w, args):
    return -jax.grad(loss)(w)


def running(**options):
    return igr.run(optax.sgd(0.01), loss, START, 90, record_every=40, **options).params


def running_on(**options):
    return igr.run(optax.adam(0.01), loss, START, 90, record_every=1, **options).params


def together(**options):
    """Runs on batches, and the flow beside their mean."""
    batches = (jnp.array([0.5, 2.0]), jnp.array([1.0, -1.0]))
    of_batch = lambda w, b: loss(w) + b[0] * jnp.sum((w - b[1]) ** 2)
    seen = igr.compare(
        of_batch, START, 0.01, None, (0,), epochs=30, runs=2, batches=batches,
        key=jax.random.key(0), record_every=2, sharpness=False, **options,
    )  # fmt: skip
    return seen.discrete.params


def flowing(**options):
    return igr.flow(field, START, 1.0, ts=np.linspace(0, 1, 5), **options).ys


def certifying(**options):
    seen = igr.certify(
        igr.methods.gradient_descent(), lambda h: optax.sgd(h), loss, START, order=0, **options
    )
    return seen.observed[0].errors


def over_epochs(**options):
    of_batch = lambda w, b: loss(w) + jnp.sum((w - b) ** 2)
    orders = jnp.tile(jnp.array([0, 2, 1]), (40, 1))
    return igr.flows.run_epochs(
        optax.sgd(0.01), of_batch, START, jnp.array([1.0, -1.0, 0.5]), orders, **options
    )


SPECTRUM = 0.9 ** jnp.arange(150.0)


def searching(method="lanczos", **options):
    found = igr.curvature.top_eigenpairs(
        lambda v: SPECTRUM * v, SPECTRUM, 2, method=method, tol=1e-4, **options
    )
    return found.values


def by_powers(**options):
    return searching("subspace", **options)


def at_its_sharpest(**options):
    return igr.curvature.sharpness(lambda w: SPECTRUM @ w**2, SPECTRUM, tol=1e-6, **options).value


def of_all_eigenvalues(**options):
    return igr.curvature.spectral_density(
        lambda v: SPECTRUM * v, SPECTRUM, num_probes=3, num_products=20, **options
    ).nodes


def of_their_sum(**options):
    return igr.curvature.trace(
        lambda v: SPECTRUM * v, SPECTRUM, function=jnp.sqrt, num_products=20, **options
    ).value


def of_two_phases(**options):
    quartic = lambda x: jnp.sum(x**2 - 2 * x**4 / 4 + x**6 / 6)
    return igr.flows.two_phase_flow(
        igr.methods.gradient_descent(), quartic, jnp.array([0.1]), 1.05, 21.0, **options
    ).ys


def of_the_centre(**options):
    valley = lambda w: w[0] ** 2 * (1 + w[1] ** 2) / 2 + (w[1] - 3) ** 2 / 40
    start = jnp.array([0.0, 1.5])
    return igr.flows.central_flow(valley, start, 0.5, 10.0, directions=1, **options).ys


def bowl(w, example):
    return example * jnp.sum(w**4) / 2


DATA = jnp.linspace(0.5, 2.0, 40)


def of_a_minimum(**options):
    line = lambda w, example: jnp.sum(example * w**2) / 2
    data = SPECTRUM * DATA[:5, None]
    found = igr.curvature.sgd_stability(line, jnp.zeros(150), data, 0.1, 1, tol=1e-6, **options)
    return jnp.stack([found.growth, found.sharpness, found.non_uniformity])


def in_its_own_metric(**options):
    found = igr.diagnostics.preconditioned_sharpness(
        lambda w: SPECTRUM @ w**2, SPECTRUM, SPECTRUM, tol=1e-6, **options
    )
    return found.value


def of_the_diagonal(**options):
    cubic = lambda w: jnp.sum(w) ** 3
    return igr.diagnostics.root_diagonal_trace(cubic, START, probes=40, **options).value


def under_noise(**options):
    found = igr.diagnostics.noise_robustness(
        loss, START, [0.0, 0.5, 1.0], draws=13, chunk=2, **options
    )
    return found.values


def of_batches(**options):
    return igr.diagnostics.batch_sharpness(bowl, START, DATA, 2, **options).value


def of_a_path(**options):
    path = START * jnp.linspace(0.5, 1.0, 40)[:, None]
    return igr.diagnostics.path_complexity(lambda w, x: x * w @ w, path, DATA[:3], **options)


def of_a_path_known_before(**options):
    path = START * jnp.linspace(0.5, 1.0, 40)[:, None]
    return igr.diagnostics.rademacher_bound_of_path(
        lambda w, x: x * w @ w, path, DATA[:3], np.ones(40), **options
    )


def by_chance(**options):
    equation = igr.modified_equation(igr.methods.sgd_with_replacement(1), 0)
    drawn = igr.flows.stochastic_field(equation, bowl, 0.01, DATA[:3])
    return igr.flows.stochastic_flow(drawn, START, 0.4, key=jax.random.key(0), **options).ys


def on_a_plane(**options):
    ax = igr.plots.loss_plane(loss, START, *jnp.eye(2), points=7, **options)
    heights = ax.collections[0].get_array()
    plt.close(ax.figure)
    return heights


def two_players(**options):
    losses = (lambda z: z[0] * z[1] + z[0] ** 2, lambda z: -z[0] * z[1] + z[1] ** 2)
    seen = igr.compare(
        losses, (jnp.ones(()), jnp.ones(())), 0.01, 30, (0,), record_every=1,
        method=igr.methods.simultaneous(), **options,
    )  # fmt: skip
    return seen.remainder


def of_the_run_at_its_edge(**options):
    valley = lambda w: w[0] ** 2 * (1 + w[1] ** 2) / 2 + (w[1] - 3) ** 2 / 40
    seen = igr.compare(
        valley, jnp.array([0.1, 1.5]), 0.5, 30, ("central",), directions=1, record_every=1,
        sharpness=False, **options,
    )  # fmt: skip
    return seen.eigenvalues["run"]


SEARCHES = [
    pytest.param(searching, "eigenpairs", marks=pytest.mark.slow),
    pytest.param(by_powers, "eigenpairs", marks=pytest.mark.slow),
    pytest.param(at_its_sharpest, "eigenpairs", marks=pytest.mark.slow),
    pytest.param(of_all_eigenvalues, "spectral density", marks=pytest.mark.slow),
    pytest.param(of_their_sum, "trace", marks=pytest.mark.slow),
]
REPEATED = [
    pytest.param(of_a_minimum, "eigenpairs", marks=pytest.mark.slow),
    pytest.param(in_its_own_metric, "eigenpairs", marks=pytest.mark.slow),
    (of_the_diagonal, "diagonal"),
    pytest.param(under_noise, "noise", marks=pytest.mark.slow),
    pytest.param(of_batches, "batches", marks=pytest.mark.slow),
    pytest.param(of_a_path, "path", marks=pytest.mark.slow),
    pytest.param(of_a_path_known_before, "path", marks=pytest.mark.slow),
    pytest.param(by_chance, "path", marks=pytest.mark.slow),
    pytest.param(on_a_plane, "plane", marks=pytest.mark.slow),
]
BESIDE_RUNS = [
    pytest.param(together, "runs", marks=pytest.mark.slow),
    pytest.param(together, "validity", marks=pytest.mark.slow),
    pytest.param(two_players, "validity", marks=pytest.mark.slow),
    pytest.param(of_the_run_at_its_edge, "eigenvalues", marks=pytest.mark.slow),
]
FLOWS = [
    pytest.param(of_two_phases, "two-phase flow", marks=pytest.mark.slow),
    pytest.param(of_the_centre, "central flow", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(
    "call",
    [
        running,
        running_on,
        pytest.param(flowing, marks=pytest.mark.slow),
        pytest.param(certifying, marks=pytest.mark.slow),
        over_epochs,
        *(pytest.param(p.values[0], marks=p.marks) if hasattr(p, "marks") else p[0]
          for p in SEARCHES + FLOWS + REPEATED),
    ],
)  # fmt: skip
def test_bars_change_nothing(call, compilations, capfd, monkeypatch):
    plain = call(progress=False)
    np.testing.assert_array_equal(call(), plain)
    assert capfd.readouterr().err == ""  # a short call
    np.testing.assert_allclose(call(progress=True), plain, rtol=1e-14 * (call is by_powers))
    jax.effects_barrier()
    assert re.search(r"[1-9]\d*%\|", capfd.readouterr().err)
    for progress in (False, None, True):
        assert compilations(lambda p=progress: call(progress=p)) == 0
    assert not late_bar._SHOWN


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (running, "run"),
        (running_on, "run"),
        pytest.param(flowing, "flow", marks=pytest.mark.slow),
        (over_epochs, "epochs"),
        *SEARCHES,
        *FLOWS,
        *REPEATED,
        *BESIDE_RUNS,
    ],
)
def test_a_long_call_shows_one_by_itself(call, name, capfd, monkeypatch):
    plain = call(progress=False)
    every = lambda progress: {"disable": progress is False, "mininterval": 0.0}
    monkeypatch.setattr(late_bar, "bar_options", every)
    monkeypatch.setattr(march, "bar_options", every)
    monkeypatch.setattr(expected, "REPORT_EVERY", 0.0)  # as where each step takes long
    monkeypatch.setattr(expected, "WORTH", 0.0)
    np.testing.assert_allclose(call(), plain, rtol=1e-14 * (call is by_powers))
    jax.effects_barrier()
    told = capfd.readouterr().err
    shares = [int(x) for x in re.findall(rf"{name}:? +(\d+)%\|", told)]
    falls = [i for i in range(1, len(shares)) if shares[i] < shares[i - 1]]
    assert [shares[i] for i in falls] == [0] * 2 * (call is of_a_minimum)  # three bars of that name
    assert len(set(shares)) > 3
    assert re.search(r"\d\d:\d\d<\d\d:\d\d", told)  # the time that passed, and that left


AGAIN_AND_AGAIN = {
    "steps", "epochs", "orders", "t1", "path", "draws", "probes", "num_probes", "points",
    "max_products", "tol", "hs",
}  # fmt: skip
IN_ONE_PASS = {
    "coherence", "geometric_complexity", "tangent_kernel_trace", "tangent_kernel_trace_estimate",
}  # fmt: skip


def test_every_function_that_repeats_has_one():
    """By what their arguments say: how often, how long, or until what is found."""
    parts = igr, igr.flows, igr.curvature, igr.diagnostics, igr.plots
    found = {name: getattr(part, name) for part in parts for name in part.__all__}
    without = {
        name
        for name, function in found.items()
        if inspect.isfunction(function)
        and AGAIN_AND_AGAIN & set(names := names_of(function))
        and "progress" not in names
    }
    assert without == IN_ONE_PASS | {"read_record"}


@pytest.mark.slow
def test_there_is_none_under_a_transformation(capfd):
    """Nor does one stand in the way of a derivative."""
    end = lambda w: igr.run(optax.sgd(0.1), loss, w, 3, progress=True).last.sum()
    by_hand = lambda w: [w := w - 0.1 * jax.grad(loss)(w) for _ in range(3)][-1].sum()
    np.testing.assert_allclose(jax.grad(end)(START), jax.grad(by_hand)(START), rtol=1e-12)
    value = jax.jit(lambda: searching(progress=True))()
    np.testing.assert_allclose(value, SPECTRUM[:2], rtol=1e-4)
    ends = jax.vmap(lambda w: igr.flow(field, w, 0.5, progress=True).ys)(jnp.stack([START, START]))
    assert ends.shape == (2, 1, 2)
    jax.effects_barrier()
    assert capfd.readouterr().err == ""


def test_what_a_program_is_expected_to_take():
    seconds = lambda f, *args: expected_seconds(jax.make_jaxpr(f)(*args).jaxpr)
    a = jnp.ones((30, 40))
    product = seconds(jnp.dot, a, a.T)
    assert product == pytest.approx(2 * 30 * 40 * 30 * 5e-10, rel=0.02)
    convolved = lambda x, w: jax.lax.conv(x, w, (1, 1), "SAME")
    x, w = jnp.ones((2, 3, 8, 8)), jnp.ones((5, 3, 3, 3))
    by_hand = 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3) * 5e-10
    assert seconds(convolved, x, w) == pytest.approx(by_hand, rel=0.02)
    chain = lambda a: jax.lax.scan(lambda c, _: (c @ a.T @ a, None), a, length=10)[0]
    assert seconds(chain, a) == pytest.approx(20 * product, rel=0.05)
    either = lambda a: jax.lax.cond(a[0, 0] > 0, lambda: (a @ a.T @ a).sum(), lambda: 0.0)
    assert seconds(either, a) == pytest.approx(2 * product, rel=0.05)
