"""Flows against scipy: adjoints, events, save points, dtypes, solvers, pytrees, time and vmap."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pytest
import scipy.integrate
import scipy.linalg

import igr

pytestmark = pytest.mark.slow
A = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 0.4]])
START = np.array([1.0, -2.0, 0.5])
H = 0.2


def loss(p):
    """Two leaves, a cubic term beside the quadratic one."""
    w = jnp.concatenate([p["a"], p["b"][None]])
    return w @ jnp.asarray(A, w.dtype) @ w / 2 + jnp.sum(w**4) / 20


def gradient(w):
    return A @ w + w**3 / 5


def hessian(w):
    return A + np.diag(3 * w**2 / 5)


def modified(t, w):
    """-(I + h/2 H) grad E by hand, order 1 of gradient descent."""
    del t
    return -gradient(w) - H / 2 * hessian(w) @ gradient(w)


def params(dtype=jnp.float64):
    return {"a": jnp.asarray(START[:2], dtype), "b": jnp.asarray(START[2], dtype)}


def field(value_fn=loss):
    return igr.vector_field(igr.modified_equation(igr.methods.gradient_descent(), 1), value_fn, H)


def flat(ys):
    return np.concatenate([ys["a"], ys["b"][:, None]], axis=1)


def by_scipy(fn, ts, start=START):
    found = scipy.integrate.solve_ivp(
        fn, (0, ts[-1]), start, t_eval=ts, method="DOP853", rtol=1e-12, atol=1e-13
    )
    return found.y.T


SOLVERS = {
    "Euler": (diffrax.Euler(), 1e-3, 3e-3),
    "Heun": (diffrax.Heun(), 1e-2, 1e-3),
    "Tsit5": (diffrax.Tsit5(), None, 1e-7),
    "Dopri5": (diffrax.Dopri5(), None, 1e-7),
    "Dopri8": (diffrax.Dopri8(), None, 1e-7),
    "Bosh3": (diffrax.Bosh3(), None, 1e-6),
    "Kvaerno5": (diffrax.Kvaerno5(), None, 1e-6),
}


@pytest.mark.parametrize("name", SOLVERS)
def test_solvers(name):
    solver, dt, near = SOLVERS[name]
    ts = np.linspace(0.5, 2, 4)
    options = {"rtol": 1e-8}
    if dt is not None:
        options = {"dt0": dt, "stepsize_controller": diffrax.ConstantStepSize()}
    found = igr.flow(field(), params(), 2.0, ts=jnp.asarray(ts), solver=solver, **options)
    np.testing.assert_allclose(flat(found.ys), by_scipy(modified, ts), atol=near)
    assert found.result == diffrax.RESULTS.successful


@pytest.mark.parametrize(
    ("dtype", "near"), [(jnp.float64, 1e-8), (jnp.float32, 1e-4), (jnp.bfloat16, 5e-2)]
)
def test_dtypes_are_kept(dtype, near):
    ts = np.array([0.5, 1.0])
    found = igr.flow(field(), params(dtype), 1.0, ts=jnp.asarray(ts))
    assert {leaf.dtype for leaf in jax.tree.leaves(found.ys)} == {jnp.dtype(dtype)}
    ys = jax.tree.map(lambda x: np.asarray(x, float), found.ys)
    np.testing.assert_allclose(flat(ys), by_scipy(modified, ts), atol=near)


def test_save_points_of_every_kind():
    exact = lambda ts: by_scipy(modified, np.asarray(ts))
    run = lambda **options: igr.flow(field(), params(), 2.0, **options)
    np.testing.assert_allclose(flat(run().ys), exact([2.0]), atol=1e-8)
    np.testing.assert_allclose(
        flat(run(saveat=diffrax.SaveAt(t0=True, t1=True)).ys),
        np.stack([START, exact([2.0])[0]]),
        atol=1e-8,
    )
    dense = run(saveat=diffrax.SaveAt(dense=True))
    for t in (0.3, 1.7):
        at = dense.evaluate(t)
        np.testing.assert_allclose(np.append(at["a"], at["b"]), exact([t])[0], atol=1e-5)
    steps = run(saveat=diffrax.SaveAt(steps=True), max_steps=512)
    taken = int(steps.stats["num_accepted_steps"])
    np.testing.assert_allclose(flat(steps.ys)[:taken], exact(steps.ts[:taken]), atol=1e-8)
    norms = run(saveat=diffrax.SaveAt(ts=jnp.array([1.0]), fn=lambda t, y, args: jnp.sum(y["a"])))
    np.testing.assert_allclose(norms.ys, exact([1.0])[:, :2].sum(1), atol=1e-8)


def test_a_start_at_another_time_and_a_field_that_knows_it():
    def slowing(t, y, args):
        return jax.tree.map(lambda x: -args * x / (1 + t), y)

    found = igr.flow(slowing, {"x": jnp.ones(2)}, 3.0, t0=1.0, args=2.0)
    np.testing.assert_allclose(found.ys["x"], np.full((1, 2), (2 / 4) ** 2), rtol=1e-8)


def test_events_stop_where_scipy_stops():
    def low(t, y, args, **options):
        del t, args, options
        return loss(y) - 0.5

    event = diffrax.Event(low, optimistix.Newton(1e-9, 1e-9))
    found = igr.flow(field(), params(), 10.0, event=event, saveat=diffrax.SaveAt(t1=True))

    def reached(t, w):
        del t
        return w @ A @ w / 2 + np.sum(w**4) / 20 - 0.5

    reached.terminal = True
    theirs = scipy.integrate.solve_ivp(
        modified, (0, 10), START, events=reached, method="DOP853", rtol=1e-11, atol=1e-12
    )
    np.testing.assert_allclose(found.ts[-1], theirs.t_events[0][0], rtol=1e-6)
    np.testing.assert_allclose(flat(found.ys)[-1], theirs.y_events[0][0], atol=1e-6)


ADJOINTS = {
    "checkpointed": {},
    "direct": {"adjoint": diffrax.DirectAdjoint(), "max_steps": 256},
    "backsolve": {"adjoint": diffrax.BacksolveAdjoint(solver=diffrax.Dopri8())},
    "forward": {"adjoint": diffrax.ForwardMode()},
}


@pytest.mark.parametrize("name", ADJOINTS)
def test_adjoints(name):
    """Of a linear flow the derivative of the end by the start is the exponential itself."""
    matrix = A + H / 2 * A @ A
    quadratic = lambda p: p @ jnp.asarray(A) @ p / 2

    def end(start):
        return igr.flow(field(quadratic), start, 1.0, rtol=1e-9, **ADJOINTS[name]).ys[-1]

    differentiate = jax.jacfwd if name in ("forward", "direct") else jax.jacrev
    found = jax.jit(differentiate(end))(jnp.asarray(START))
    np.testing.assert_allclose(found, scipy.linalg.expm(-matrix), atol=1e-7)


def test_vmap_over_starts_and_rates():
    rates = jnp.array([0.05, 0.1, 0.4])
    starts = jnp.stack([jnp.asarray(START) * k for k in (1.0, 2.0, -1.0)])

    def end(h, start):
        equation = igr.modified_equation(igr.methods.gradient_descent(), 1)
        quadratic = lambda p: p @ jnp.asarray(A) @ p / 2
        return igr.flow(igr.vector_field(equation, quadratic, h), start, 1.0).ys[-1]

    found = jax.jit(jax.vmap(end))(rates, starts)
    for h, start, got in zip(rates, starts, found, strict=True):
        exact = scipy.linalg.expm(-(A + float(h) / 2 * A @ A)) @ np.asarray(start)
        np.testing.assert_allclose(got, exact, atol=1e-8)


def test_stiff_flows():
    """Eigenvalues of 1 and 10,000: an implicit solver takes few steps."""
    stiff = lambda p: (p[0] ** 2 + 1e4 * p[1] ** 2) / 2
    equation = igr.modified_equation(igr.methods.gradient_descent(), 0)
    flow = lambda solver: igr.flow(
        igr.vector_field(equation, stiff, 1e-5), jnp.ones(2), 1.0, rtol=1e-6, solver=solver
    )
    implicit, explicit = flow(diffrax.Kvaerno5()), flow(diffrax.Tsit5())
    for found in (implicit, explicit):
        np.testing.assert_allclose(found.ys[-1], [np.exp(-1), 0], atol=1e-5)
    assert implicit.stats["num_steps"] < explicit.stats["num_steps"] / 5


TIMES = jnp.linspace(0.0, 2.0, 201)
CONTROLLERS = {
    "proportional and integral": diffrax.PIDController(
        rtol=1e-9, atol=1e-11, pcoeff=0.3, icoeff=0.4
    ),
    "bounded": diffrax.PIDController(rtol=1e-9, atol=1e-11, dtmin=1e-6, dtmax=0.05),
    "by the largest error": diffrax.PIDController(
        rtol=1e-9, atol=1e-11, norm=lambda y: jnp.max(jnp.abs(jnp.stack(
            [jnp.max(jnp.abs(x)) for x in jax.tree.leaves(y)])))
    ),
    "constant": diffrax.ConstantStepSize(),
    "given times": diffrax.StepTo(TIMES),
    "through given times": diffrax.ClipStepSizeController(
        diffrax.PIDController(rtol=1e-9, atol=1e-11), step_ts=jnp.array([0.3, 1.1])
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONTROLLERS)
def test_controllers(name):
    dt0 = {"constant": 0.01, "given times": None}.get(name)
    found = igr.flow(
        field(), params(), 2.0, dt0=dt0, stepsize_controller=CONTROLLERS[name],
        saveat=diffrax.SaveAt(t1=True),
    )  # fmt: skip
    np.testing.assert_allclose(flat(found.ys), by_scipy(modified, [2.0]), atol=1e-8)


EVENTS = {
    "condition": (diffrax.Event(lambda t, y, args, **k: y["b"] < 0.3), 0.01),
    "one of two": (
        diffrax.Event(
            [lambda t, y, args, **k: y["b"] - 0.3, lambda t, y, args, **k: y["b"] + 1],
            optimistix.Newton(1e-9, 1e-9),
        ),
        1e-6,
    ),
    "downwards alone": (
        diffrax.Event(
            lambda t, y, args, **k: y["b"] - 0.3, optimistix.Newton(1e-9, 1e-9), direction=False
        ),
        1e-6,
    ),
}


@pytest.mark.parametrize("save", ["end", "dense", "times"])
@pytest.mark.parametrize("name", EVENTS)
def test_events_of_every_kind_with_saves_of_every_kind(name, save):
    """Where b reaches 0.3, a condition a step late."""
    event, near = EVENTS[name]
    saves = {
        "end": {"saveat": diffrax.SaveAt(t1=True)},
        "dense": {"saveat": diffrax.SaveAt(t1=True, dense=True)},
        "times": {"ts": jnp.array([0.1, 9.0])},
    }
    found = igr.flow(
        field(), params(), 10.0, event=event, max_steps=4096,
        stepsize_controller=diffrax.PIDController(rtol=1e-9, atol=1e-11, dtmax=0.01), **saves[save],
    )  # fmt: skip
    assert found.result == diffrax.RESULTS.event_occurred

    def reached(t, w):
        del t
        return w[2] - 0.3

    reached.terminal = True
    theirs = scipy.integrate.solve_ivp(
        modified, (0, 10), START, events=reached, method="DOP853", rtol=1e-11, atol=1e-12
    )
    (time,) = theirs.t_events[0]
    if save == "times":
        np.testing.assert_allclose(flat(found.ys)[0], by_scipy(modified, [0.1])[0], atol=1e-8)
        assert np.isinf(flat(found.ys)[1]).all()
        return
    np.testing.assert_allclose(found.ts[-1], time, atol=near)
    np.testing.assert_allclose(flat(found.ys)[-1], theirs.y_events[0][0], atol=2 * near)
    if save == "dense":
        at = found.evaluate(time / 2)
        exact = by_scipy(modified, [time / 2])[0]
        np.testing.assert_allclose(np.append(at["a"], at["b"]), exact, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in ADJOINTS if name != "backsolve"])
def test_derivatives_through_an_event(name):
    """dx/dt = -x from x0 until 0.3: the time is log(x0 / 0.3), whose derivative is 1 / x0."""
    event = diffrax.Event(lambda t, y, args, **k: y[0] - 0.3, optimistix.Newton(1e-10, 1e-10))

    def time(start):
        found = igr.flow(
            lambda t, y, args: -y, start, 9.0, event=event, saveat=diffrax.SaveAt(t1=True),
            rtol=1e-9, **({"max_steps": 256} | ADJOINTS[name]),
        )  # fmt: skip
        return found.ts[-1]

    differentiate = jax.jacfwd if name in ("forward", "direct") else jax.jacrev
    found = jax.jit(differentiate(time))(jnp.array([0.8]))
    np.testing.assert_allclose(found, [1 / 0.8], rtol=1e-6)


def test_bad_ends_and_failures_that_are_raised():
    with pytest.raises(ValueError, match="t0 < t1"):
        igr.flow(field(), params(), -1.0)
    with pytest.raises(Exception, match="maximum number of solver steps"):
        igr.flow(field(), params(), 2.0, max_steps=3, throw=True)
    with pytest.raises(TypeError, match="no_such_option"):
        igr.flow(field(), params(), 2.0, no_such_option=1)
