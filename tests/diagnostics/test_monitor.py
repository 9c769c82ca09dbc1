import csv
import io
import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree
from rich.console import Console

import igr
from igr.diagnostics import coherence
from igr.diagnostics.monitoring.named_measures import NAMED

# With this the gradient of an example is w - x.
pull = lambda w, x: jnp.sum((w - x) ** 2) / 2
points = jnp.array([[1.0, 2.0], [2.0, 1.0], [3.0, 3.0]])


def apply_fn(p, x):
    return jnp.tanh(x @ p["w"]) @ p["v"]


def example_loss_fn(p, example):
    return jnp.sum((apply_fn(p, example[0]) - example[1]) ** 2) / 2


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    params = {"w": jnp.asarray(rng.normal(size=(3, 4))), "v": jnp.asarray(rng.normal(size=(4, 2)))}
    batch = jnp.asarray(rng.normal(size=(5, 3))), jnp.asarray(rng.normal(size=(5, 2)))
    return params, batch


@pytest.fixture(scope="module")
def compiled():
    """Grows by one with every program the backend compiles, which tracing alone does not tell."""
    events = []

    def listen(event: str, duration_secs: float, **_: str | int) -> None:
        events.extend([event] * event.endswith("backend_compile_duration"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    return events


def test_every_named_measure_is_what_its_function_says(problem, compiled):
    params, batch = problem
    monitor = igr.Monitor(
        list(NAMED), example_loss_fn=example_loss_fn, apply_fn=apply_fn, learning_rate=1e-3
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        row = monitor(params, batch)
    flat, unravel = ravel_pytree(params)
    losses = lambda v: jax.vmap(example_loss_fn, (None, 0))(unravel(v), batch)
    outputs = lambda v: jax.vmap(apply_fn, (None, 0))(unravel(v), batch[0])
    loss, g, hessian, features, jacobians = jax.jit(
        lambda v: (
            jnp.mean(losses(v)),
            jax.jacrev(losses)(v),
            jax.hessian(lambda v: jnp.mean(losses(v)))(v),
            jax.jacrev(outputs)(v),
            jax.vmap(jax.jacrev(lambda x: apply_fn(unravel(v), x)))(batch[0]),
        )
    )(flat)
    square = np.sum(np.mean(g, 0) ** 2)
    alpha = square / np.mean(np.sum(g**2, 1))
    directions = g / np.linalg.norm(g, axis=1, keepdims=True)
    expected = {
        "loss": loss,
        "slope": np.sqrt(square),
        "regularizer": square / flat.size,
        "share": 1e-3 / 4 * square / (loss + 1e-3 / 4 * square),
        "coherence/alpha": alpha,
        "coherence/helped": 5 * alpha,
        "stiffness": (np.sum(directions @ directions.T) - 5) / 20,
        "sharpness/converged": True,
        "tangent_kernel_trace": np.sum(features**2),
        "geometric_complexity": np.sum(jacobians**2) / 5,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(row[name], value, rtol=1e-10, err_msg=name)
    np.testing.assert_allclose(row["sharpness"], np.linalg.eigvalsh(hessian)[-1], rtol=1e-2)
    np.testing.assert_allclose(row["h_sharpness"], 1e-3 * row["sharpness"], rtol=1e-10)
    assert list(row)[:3] == ["loss", "slope", "regularizer"]  # as they were asked for
    assert all(value.shape == () and isinstance(value, jax.Array) for value in row.values())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = len(compiled)
        again = monitor(params, batch)
    # the second search starts from the vector of the first, and compiles nothing for it
    assert monitor.compilations == 1
    assert 0 < before == len(compiled)
    np.testing.assert_allclose(again["sharpness"], row["sharpness"], rtol=1e-2)


def test_compiled_once_and_called_only_when_due(problem):
    params, batch = problem
    calls = []

    def seen(p, b):
        calls.append(1)  # runs while tracing alone, once each time it is due
        return jnp.sum(p["v"])

    monitor = igr.Monitor({"sum": seen, "slope": "slope"}, every=3, example_loss_fn=example_loss_fn)
    assert np.isnan(monitor.cost.share)
    rows = []
    for _ in range(10):
        rows.append(monitor(params, batch))
        params = jax.tree.map(lambda x: 0.9 * x, params)
    assert [bool(row) for row in rows] == [True, False, False] * 3 + [True]
    assert len(calls) == 4
    assert monitor.compilations == 1
    np.testing.assert_allclose(rows[9]["sum"], 0.9**9 * rows[0]["sum"])
    cost = monitor.cost
    assert 0 < cost.seconds < cost.run_seconds - cost.compile_seconds
    np.testing.assert_allclose(cost.share, cost.seconds / (cost.run_seconds - cost.compile_seconds))
    assert "to compile" in str(cost)


def test_steps_of_the_loop_and_keys():
    drawn = lambda p, b, key: {"a": jax.random.normal(key), "b": {"c": 1}}
    monitor = igr.Monitor({"x": drawn, "y": drawn}, every=2, key=jax.random.key(3))
    first, none, second = (monitor(points, points, step) for step in (4, 5, 6))
    assert not none
    assert list(first) == ["x/a", "x/b/c", "y/a", "y/b/c"]
    assert len({float(row[k]) for row in (first, second) for k in ("x/a", "y/a")}) == 4
    again = igr.Monitor({"x": drawn, "y": drawn}, key=jax.random.key(3))(points, points, 6)
    assert again == second  # a step draws the same whenever it is done
    assert monitor(points, points) == {}  # 7, counted on from the last that was given


def test_inside_a_scan(problem):
    monitor = igr.Monitor({"alpha": "coherence", "far": lambda w, x: w[0]}, example_loss_fn=pull)

    @jax.jit
    def run(w):
        def step(w, key):
            return w - 0.1 * jnp.mean(w - points, 0), monitor.measure(w, points, key)

        return jax.lax.scan(step, w, jax.random.split(jax.random.key(0), 3))

    _, rows = run(jnp.zeros(2))
    np.testing.assert_allclose(rows["far"], [0, 0.2, 0.38])
    np.testing.assert_allclose(rows["alpha/alpha"][0], coherence(pull, jnp.zeros(2), points).alpha)
    with pytest.raises(TypeError, match=r"called from Python.*inside jit or scan use monitor.mea"):
        jax.jit(lambda w: monitor(w, points))(jnp.zeros(2))


@pytest.mark.slow
def test_in_a_loop_of_nnx():
    model = nnx.Linear(2, 1, param_dtype=float, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.01), wrt=nnx.Param)
    graph, _ = nnx.split(model)
    loss = lambda state, x: jnp.sum(nnx.merge(graph, state)(x) ** 2)
    monitor = igr.Monitor(
        ["loss", "slope", "coherence", "tangent_kernel_trace"],
        every=2,
        example_loss_fn=loss,
        apply_fn=lambda state, x: nnx.merge(graph, state)(x),
    )

    @nnx.jit
    def train_step(model, optimizer):
        mean = lambda m: jnp.mean(jax.vmap(lambda x: jnp.sum(m(x) ** 2))(points))
        optimizer.update(model, nnx.grad(mean)(model))

    rows = []
    for _ in range(4):
        if row := monitor(nnx.state(model), points):
            rows.append(row)
        train_step(model, optimizer)
    assert len(rows) == 2
    assert rows[1]["loss"] < rows[0]["loss"]
    assert monitor.compilations == 1
    np.testing.assert_allclose(rows[0]["tangent_kernel_trace"], np.sum(points**2) + 3)
    whole = igr.Monitor({"sum": lambda model, x: jnp.sum(model(x))})(model, points)
    np.testing.assert_allclose(whole["sum"], jnp.sum(model(points)))


def test_some_examples_stand_for_a_large_batch_without_bias():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(100, 1)))
    monitor = igr.Monitor(
        {"k": "tangent_kernel_trace", "g": "geometric_complexity"},
        apply_fn=lambda w, x: jnp.sum(w * x**2),
    )
    keys = jax.random.split(jax.random.key(0), 300)
    found = jax.jit(jax.vmap(lambda key: monitor.measure(jnp.ones(1), x, key)))(keys)
    for name, expected in (("k", np.sum(x**4)), ("g", np.mean(4 * x**2))):
        assert 0 < np.std(found[name]) < 0.5 * expected
        assert abs(np.mean(found[name]) - expected) < 3 * np.std(found[name]) / 300**0.5


class Scale(eqx.Module):
    """A network with a static leaf that is a function."""

    w: Any
    activation: Any = jax.nn.relu
    count: Any = 3

    def __call__(self, x):
        return self.activation(self.w * x)


class Total(eqx.Module):
    """A measure that holds arrays, and has no hash."""

    weights: Any

    def __call__(self, params, batch):
        return self.weights @ params


def test_in_a_loop_of_equinox():
    model = Scale(jnp.array([1.0, 2.0]))
    monitor = igr.Monitor(
        ["slope"], every=2, example_loss_fn=lambda m, x: jnp.sum((m(x) - 1) ** 2) / 2
    )
    optimizer = optax.sgd(0.1)
    state = optimizer.init(eqx.filter(model, eqx.is_array))

    @eqx.filter_jit
    def step(model, state):
        gradient = eqx.filter_grad(
            lambda m: jnp.mean(jax.vmap(lambda x: jnp.sum((m(x) - 1) ** 2))(points)) / 2
        )(model)
        updates, state = optimizer.update(gradient, state)
        return eqx.apply_updates(model, updates), state

    slopes = []
    for _ in range(6):
        w = np.array(model.w)
        if row := monitor(model, points):
            slopes.append(float(row["slope"]))
            gradient = np.mean((w * points - 1) * points, axis=0)
            np.testing.assert_allclose(slopes[-1], np.linalg.norm(gradient))
        model, state = step(model, state)
    assert len(slopes) == 3
    assert monitor.compilations == 1
    by_a_module = igr.Monitor({"slope": "slope", "w": Total(jnp.ones(2))}, example_loss_fn=pull)
    assert by_a_module(jnp.ones(2), points)["w"] == 2


def test_csv_is_appended_and_resumed(tmp_path):
    path = tmp_path / "run.csv"
    measures = {"x": lambda w, b: w[0], "y, z": lambda w, b: jnp.float32(0.1)}

    def run(steps, **options):
        monitor = igr.Monitor(measures, every=2, csv=path, **options)
        for step in steps:
            monitor(jnp.full(2, step / 4), points, step)

    run(range(6))
    assert path.read_text() == 'step,x,"y, z"\n0,0.0,0.1\n2,0.5,0.1\n4,1.0,0.1\n'
    with pytest.raises(FileExistsError, match=r"run.csv exists already: give resume=True"):
        run(range(2))
    with open(path, "a") as file:
        file.write("6,1.")  # a run that was killed in the middle of a line
    run(range(4, 7), resume=True)  # from a checkpoint at step 4
    rows = list(csv.reader(io.StringIO(path.read_text())))
    assert [row[0] for row in rows] == ["step", "0", "2", "4", "6"]
    assert [p.name for p in tmp_path.iterdir()] == ["run.csv"]
    measures["w"] = measures["x"]
    with pytest.raises(ValueError, match=r"columns are step, x, y, z; those of this .* y, z, w"):
        run(range(4, 7), resume=True)
    with pytest.raises(ValueError, match=r"give step= to a monitor with resume=True"):
        igr.Monitor(measures, csv=path, resume=True)(points, points)


class Recorded:
    """A logger of the kind that has the method `name`."""

    def __init__(self, name):
        self.calls = []
        setattr(self, name, lambda *args, **kwargs: self.calls.append((*args, *kwargs.values())))


def test_loggers_and_the_table():
    loggers = {name: Recorded(name) for name in ("add_scalar", "scalar", "log", "write_scalars")}
    rows = []
    console = Console(file=io.StringIO(), width=80)
    with igr.Monitor(
        {"x": lambda w, b: w[0], "y": lambda w, b: 7},
        to=[*loggers.values(), lambda step, row: rows.append((step, row))],
        table=console,
    ) as monitor:
        for value in (2.0, 5.0):
            monitor(jnp.full(2, value), points)
    assert rows == [(0, {"x": 2.0, "y": 7.0}), (1, {"x": 5.0, "y": 7.0})]
    for name in ("add_scalar", "scalar"):
        assert loggers[name].calls == [("x", 2.0, 0), ("y", 7.0, 0), ("x", 5.0, 1), ("y", 7.0, 1)]
    assert loggers["log"].calls == [(row, step) for step, row in rows]
    assert loggers["write_scalars"].calls == rows
    shown = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "step 1" in shown
    assert ["x", "5", "2", "2", "5"] in [
        line.replace("│", " ").split() for line in shown.split("\n")
    ]


def test_warns_once_past_the_limit_of_the_method():
    measures = {"sharpness": lambda w, b: 3.0}
    rising = lambda step: 0.5 + 0.1 * step  # past 2/3 from step 2 on
    momentum = igr.methods.heavy_ball(0.5)  # stable to 3
    monitor = igr.Monitor(measures, learning_rate=rising)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(2):
            monitor(points, points, step)
        igr.Monitor(measures, learning_rate=0.99, method=momentum)(points, points)
    with pytest.warns(
        UserWarning, match=r"step 2: .* sharpness, 2.1, has passed 2, .*gradient des"
    ):
        monitor(points, points, 2)
    with pytest.warns(UserWarning, match=r"3.03, has passed 3, .*heavy ball"):
        igr.Monitor(measures, learning_rate=1.01, method=momentum)(points, points)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert monitor(points, points, 3)["h_sharpness"] > 2


def test_warns_where_the_search_fails():
    lost = {"sharpness": lambda w, b: {"": 1.0, "converged": w[0, 0] < 0}}
    with pytest.warns(UserWarning, match=r"step 0: the search for the sharpness did not converge"):
        igr.Monitor(lost)(points, points)


def test_warns_once_where_gradients_cancel():
    monitor = igr.Monitor(["coherence"], example_loss_fn=pull)
    with pytest.warns(UserWarning, match=r"step 0: coherence is under its orthogonal limit \(0 of"):
        monitor(jnp.array([1.0, 1.0]), jnp.array([[1.0, 2.0], [1.0, 0.0]]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monitor(jnp.array([1.0, 1.0]), jnp.array([[1.0, 3.0], [1.0, 0.0]]))


def test_errors(tmp_path):
    with pytest.raises(ValueError, match=r"must be among loss, slope, .*; got 'flatness'"):
        igr.Monitor(["flatness"])
    with pytest.raises(ValueError, match=r"at least one; the names are loss, slope"):
        igr.Monitor([])
    with pytest.raises(TypeError, match=r"list of names, or a mapping .*; got 'slope'"):
        igr.Monitor("slope")
    with pytest.raises(TypeError, match=r"Give functions in a mapping"):
        igr.Monitor([pull])  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match=r"measure 'x' must be a name or a function; got 3"):
        igr.Monitor({"x": 3})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"measures slope, coherence need example_loss_fn="):
        igr.Monitor(["slope", "coherence"])
    with pytest.raises(ValueError, match=r"measures tangent_kernel_trace need apply_fn="):
        igr.Monitor(["tangent_kernel_trace"])
    with pytest.raises(ValueError, match=r"measures share need learning_rate="):
        igr.Monitor(["share"], example_loss_fn=pull)
    with pytest.raises(TypeError, match=r"apply_fn must be a function; got 3"):
        igr.Monitor(["tangent_kernel_trace"], apply_fn=3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"every must be at least 1; got 0"):
        igr.Monitor(["slope"], 0, example_loss_fn=pull)
    with pytest.raises(ValueError, match=r"learning_rate must be positive and finite; got -1"):
        igr.Monitor(["slope"], example_loss_fn=pull, learning_rate=-1.0)
    with pytest.raises(TypeError, match=r"method must be one of igr\.methods, .*got 'adam'"):
        igr.Monitor(["slope"], example_loss_fn=pull, method="adam")  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere"):
        igr.Monitor(["slope"], example_loss_fn=pull, csv=tmp_path / "nowhere" / "a.csv")
    with pytest.raises(IsADirectoryError, match=r"csv must be a file"):
        igr.Monitor(["slope"], example_loss_fn=pull, csv=tmp_path)
    with pytest.raises(TypeError, match=r"to must be a function \(step, row\).*got 3"):
        igr.Monitor(["slope"], example_loss_fn=pull, to=3)
    with pytest.raises(ValueError, match=r"agree in their leading example axis; got 3 in"):
        igr.Monitor(["slope"], example_loss_fn=pull)(points[0], (points, points[:2]))
    with pytest.raises(ValueError, match=r"measure 'x' must return a scalar.*returned \(2,\)"):
        igr.Monitor({"x": lambda w, b: w})(points[0], points)
    with pytest.raises(ValueError, match=r"inputs must say what of a batch is the input"):
        igr.Monitor(["tangent_kernel_trace"], apply_fn=apply_fn)(points, {"x": points})


def test_a_batch_of_nan_is_forgotten():
    """H of the pull is the identity, times a factor."""
    monitor = igr.Monitor(["sharpness"], example_loss_fn=lambda w, x: x * pull(w, points[0]))
    w, good = jnp.zeros(2), jnp.array([1.0, 3.0])
    np.testing.assert_allclose(monitor(w, good)["sharpness"], 2, rtol=1e-2)
    with pytest.warns(UserWarning, match="did not converge"):
        row = monitor(w, jnp.array([1.0, jnp.nan]))
    assert not row["sharpness/converged"]
    for factor in (1.0, 2.0):
        row = monitor(w, factor * good)
        assert row["sharpness/converged"]
        np.testing.assert_allclose(row["sharpness"], 2 * factor, rtol=1e-2)
