"""What of a training run is seen and kept: samples, stops, the models; what is refused; devices."""

import json
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from analysis.data import TrainTest, real_or_random
from analysis.models import Dense
from analysis.training import MaxTestAccuracy, Options, PhysicalTime, Runs, Steps, train
from analysis.training.stopping import sample_points
from analysis.training.threads import in_threads
from igr.per_example import per_example_gradients
from tests.analysis.small_training import classes, leaves, run, sgd, start_of, two_classes


@pytest.fixture(scope="module")
def data():
    return two_classes()


@pytest.mark.slow
def test_metrics_see_the_network_and_large_sets_in_chunks(data):
    def slope(at):
        return optax.tree.norm(jax.grad(at.value_fn)(at.params))

    def test_loss(at):
        return at.test_value_fn(at.params)

    metrics = {"slope": slope, "again": test_loss, "outputs": lambda at: at.apply_fn(
        at.params, at.x[0]), "rate": lambda at: at.settings["learning_rate"] * at.step}  # fmt: skip
    whole = run(data, metrics=metrics, chunk=5)
    np.testing.assert_allclose(whole["train_loss"], run(data)["train_loss"], rtol=1e-10)
    # One step of 0.3 moves the parameters by 0.3 times the slope.
    once = run(data, stop=Steps(1), samples=1)
    moved = zip(leaves(once.model_of(0, 0)), leaves(start_of(0)), strict=True)
    square = sum(float(jnp.sum((a - b) ** 2)) for a, b in moved)
    assert whole["slope"][0, 0, 0] == pytest.approx(square**0.5 / 0.3)
    np.testing.assert_allclose(whole["again"], whole["test_loss"], rtol=1e-12)
    assert whole["outputs"].shape == (1, 1, 2, 2)
    np.testing.assert_allclose(whole["rate"][0, 0], [0.0, 0.6])
    model = whole.model_of(0, 0)
    np.testing.assert_allclose(model(data.train.x[0]), whole["outputs"][0, 0, -1], rtol=1e-10)
    assert whole["test_accuracy"][0, 0, -1] == pytest.approx(
        np.mean([np.argmax(model(x)) == y for x, y in zip(data.test.x, data.test.y, strict=True)])
    )
    with pytest.raises(KeyError, match="'slop'; recorded were again, outputs"):
        whole["slop"]


@pytest.mark.slow
def test_numbers_do_not_depend_on_company(data):
    options = {"batch_size": 5, "stop": Steps(9), "samples": [0, 4, 7]}
    many = run(data, grid={"learning_rate": (0.1, 0.3)}, seeds=(3, 4, 5), **options)
    again = run(data, grid={"learning_rate": (0.1, 0.3)}, seeds=(3, 4, 5), **options)
    alone = run(data, seeds=(4,), **options)
    singly = run(data, grid={"learning_rate": (0.1, 0.3)}, seeds=(3, 4, 5), together=1, **options)
    for name in many.metrics:
        np.testing.assert_array_equal(many[name], again[name])
        np.testing.assert_allclose(many[name][1, 1], alone[name][0, 0], rtol=1e-10)
        np.testing.assert_allclose(many[name], singly[name], rtol=1e-10)
    start = many["train_loss"][..., 0]
    np.testing.assert_array_equal(start[0], start[1])  # a seed starts alike with all settings


@pytest.mark.slow
def test_physical_time_gives_each_rate_its_steps(data):
    rates = {"learning_rate": (0.1, 0.3)}
    runs = run(data, grid=rates, stop=PhysicalTime(0.6), samples=2)
    assert runs.step.tolist() == [[0, 3, 6], [0, 1, 2]]
    assert runs["train_loss"][1, 0, -1] == pytest.approx(run(data)["train_loss"][0, 0, -1])


def test_maximum_test_accuracy_keeps_that_model_and_stops(data):
    runs = run(data, stop=MaxTestAccuracy(40, patience=3), samples=20, seeds=(0, 1))
    accuracy = runs["test_accuracy"][0]
    for seed, seen in enumerate(accuracy):
        best = int(np.nanargmax(seen))
        assert runs.kept[0, seed] == best
        assert np.isnan(seen).sum() == max(0, 20 - best - 3)
        model = runs.model_of(0, seed)
        right = [np.argmax(model(x)) == y for x, y in zip(data.test.x, data.test.y, strict=True)]
        assert np.mean(right) == pytest.approx(seen[best])
    np.testing.assert_array_equal(runs.at_max("test_accuracy"), runs.kept)
    np.testing.assert_allclose(runs.at("test_accuracy", runs.kept)[0], np.nanmax(accuracy, axis=1))


def test_reading_runs():
    values = np.array([[[3.0, 1.0, 2.0], [5.0, 4.0, np.nan]]])
    runs = Runs(
        {"learning_rate": (0.1,)}, (0, 1), np.array([[0, 1, 2]]),
        {"loss": values, "pair": np.stack([values, -values], axis=-1)},
        np.zeros((1, 2), int), None, None, "",
    )  # fmt: skip
    assert runs.at_max("loss").tolist() == [[0, 0]]
    assert runs.first_below("loss", 2.0).tolist() == [[1, -1]]
    np.testing.assert_array_equal(runs.at("loss", runs.first_below("loss", 2.0)), [[1.0, np.nan]])
    np.testing.assert_array_equal(runs.at("pair", np.array([[2, 1]])), [[[2.0, -2.0], [4.0, -4.0]]])
    np.testing.assert_array_equal(runs.last_mean("loss", 2), [[1.5, np.nan]])
    assert set(runs.arrays()) == {"step", "kept", "loss", "pair"}
    with pytest.raises(ValueError, match="samples must be from 1 to 3; got 4"):
        runs.last_mean("loss", 4)


@pytest.mark.parametrize(
    ("samples", "says"),
    [([3, 2], "in order"), ([-1, 2], "in order"), ([0, 11], "from 0 to 10"), ([], "in order"),
     (0, "samples must be an integer of at least 1; got 0")],
)  # fmt: skip
def test_bad_samples(samples, says):
    with pytest.raises(ValueError, match=says):
        sample_points(samples, 10)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"grid": {"mu": (1.0,)}}, r"grid must have \"learning_rate\"; got \['mu'\]"),
        ({"grid": {"learning_rate": ()}}, "must hold finite numbers, at least one"),
        ({"grid": {"learning_rate": (0.1, -1)}}, "must be positive"),
        ({"grid": {"learning_rate": (0.1,), "mu": (float("nan"),)}}, r"grid\['mu'\] must hold"),
        ({"seeds": (1, 1)}, "seeds must be different integers"),
        ({"seeds": ()}, "seeds must be different integers"),
        ({"batch_size": 13}, "batch_size must be from 1 to 12; got 13"),
        ({"chunk": 0}, "chunk must be at least 1; got 0"),
        ({"together": 0}, "together must be at least 1; got 0"),
        ({"label_noise": 1.1}, r"label_noise must be in \[0, 1\]; got 1.1"),
        ({"gradient": per_example_gradients, "penalty": lambda at: 0}, "either gradient or"),
        ({"devices": jax.devices() * 5}, "must divide the batch of 12 examples evenly; got 5"),
        ({"make_model": lambda key: {"n": 1}}, "a model without floating arrays"),
    ],
)
def test_bad_input(data, changed, says):
    with pytest.raises(ValueError, match=says):
        run(data, **changed)


def test_bad_stops(data):
    for make, says in (
        (lambda: Steps(0), "steps must be an integer of at least 1; got 0"),
        (lambda: PhysicalTime(-1.0), "time must be positive and finite; got -1.0"),
        (lambda: MaxTestAccuracy(5, patience=0), "patience must be an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=says):
            make()
    six = real_or_random("real")
    with pytest.raises(ValueError, match="targets have no accuracy"):
        train(
            lambda k: Dense(6, 1, k), sgd, six, grid={"learning_rate": (0.1,)}, seeds=(0,),
            stop=MaxTestAccuracy(3), options=Options(batch_size=None),
        )  # fmt: skip
    with pytest.raises(ValueError, match="label_noise needs classes"):
        train(
            lambda k: Dense(6, 1, k), sgd, six, grid={"learning_rate": (0.1,)}, seeds=(0,),
            stop=Steps(3), options=Options(batch_size=None, label_noise=0.1),
        )  # fmt: skip


# Several devices: their number is fixed when JAX starts, so this file runs itself once more.


@pytest.fixture(scope="module")
def on_four(on_four_devices):
    return on_four_devices("-m", "tests.analysis.test_training_runs")


@pytest.mark.slow
def test_four_devices_give_the_numbers_of_one(on_four):
    assert on_four["devices"] == 4
    assert on_four["split"]
    assert on_four["difference"] < 1e-12
    assert on_four["moved"] > 1e-2


def main():
    jax.config.update("jax_enable_x64", True)
    data = TrainTest(classes(24), classes(8, 1), "random")
    options = {"batch_size": 8, "stop": Steps(7), "seeds": (0, 1)}
    layouts = []

    def look(at):  # a penalty is shown the batch
        jax.debug.inspect_array_sharding(at.x, callback=layouts.append)
        return 0.0

    four = run(data, penalty=look, **options)
    split = len(layouts) > 0 and not any(layout.is_fully_replicated for layout in layouts)
    one = run(data, penalty=look, devices=jax.devices()[:1], **options)
    pairs = list(zip(leaves(four.model), leaves(one.model), strict=True))
    print(
        json.dumps(
            {
                "devices": len(jax.devices()),
                "split": split,
                "difference": max(
                    *(float(abs(np.asarray(a) - np.asarray(b)).max()) for a, b in pairs),
                    float(abs(four["test_loss"] - one["test_loss"]).max()),
                ),
                "moved": float(abs(np.diff(one["train_loss"], axis=-1)).max()),
            }
        )
    )


if __name__ == "__main__":
    main()


def volume(at):
    """A penalty that LAPACK works on: the log-determinant of the batch's inner products."""
    rows = at.x * at.params.layers[0].weight[:, 0]
    return 0.01 * jnp.linalg.slogdet(rows @ rows.T + jnp.eye(len(rows)))[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "threads"),
    [({}, True), ({"penalty": volume}, False), ({"metrics": {"volume": volume}}, False)],
)
def test_programs_that_wait_for_xlas_threads_are_not_run_at_once(
    data, monkeypatch, options, threads
):
    module = sys.modules["analysis.training.train"]
    used = []

    def noted(work, jobs, threads):
        used.append(min(threads, len(jobs)))
        return in_threads(work, jobs, threads)

    monkeypatch.setattr(module, "in_threads", noted)
    monkeypatch.setattr(module, "cores_allowed", lambda: 2)
    runs = run(data, seeds=(0, 1, 2, 3), **options)
    assert used == [2 if threads else 1]
    alone = run(data, seeds=(2,), **options)
    np.testing.assert_allclose(runs["train_loss"][0, 2], alone["train_loss"][0, 0], rtol=1e-10)


@pytest.mark.slow
def test_many_runs_with_lapack_come_to_an_end():
    """Five or more of these side by side in each of two threads hang with jaxlib 0.10."""
    code = """
        import optax
        from analysis.data import two_circles
        from analysis.models import MLP
        from analysis.training import Options, Steps, train
        from igr.penalties import gradient_similarity_logdet

        train(
            lambda key: MLP(2, 2, 50, 3, key=key),
            lambda settings: optax.sgd(settings["learning_rate"]),
            two_circles(0), grid={"learning_rate": (0.1,)}, seeds=range(10), stop=Steps(20),
            options=Options(
                batch_size=20, samples=1,
                penalty=lambda at: 1e-3 * gradient_similarity_logdet(
                    at.apply_fn, at.params, at.x, ridge=0.01),
            ),
        )
    """
    environment = os.environ | {"JAX_ENABLE_X64": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", textwrap.dedent(code)]
    subprocess.run(command, check=True, timeout=120, env=environment)
