"""A comparison as text, as a table, and as a file: of one made by hand."""

import dataclasses
import json
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr.flows.comparison import Comparison
from igr.flows.run import Trajectory


class Layer(NamedTuple):
    w: object
    activation: object


def by_hand(**changes):
    step = np.array([0, 10, 20])
    w = np.arange(6.0).reshape(3, 2)
    params = {"a": (w, [jnp.asarray(w, jnp.bfloat16)]), "l": Layer(w.astype(np.float32), np.tanh)}
    fields = {
        "method": "gradient <descent>",
        "learning_rate": 0.1,
        "step": step,
        "time": 0.1 * step,
        "discrete": Trajectory(step, params, w[:, 0], w[:, 1], {"opt": 1}),
        "flows": {0: params, "differences": params},
        "kept": {0: {}, "differences": {"nu": w}},
        "distance": {0: np.array([0, 0.2, 0.4]), "differences": np.array([0, 0.1, np.inf])},
        "travelled": np.array([0.0, 1, 2]),
        "correction": np.array([0.1, 0.2, 0.4]),
        "remainder": np.array([0.1, 0.6, 0.1]),
        "sharpness": np.array([1.0, 2, 30]),
        "stability_limit": 2.0,
        "convergence_radius": float("inf"),
        "floor": np.full(3, 1e-9),
        "start_up": "no memory to fill",
        "solver_error": {0: 1e-7, "differences": float("nan")},
        "standard_error": {0: np.array([0, 0.1, 0.3]), "differences": np.zeros(3)},
        "runs": 8,
        "eigenvalues": {"run": w},
        "notes": ("a note",),
    }
    return Comparison(**fields | changes)


def test_what_was_saved_comes_back(tmp_path):
    cmp = by_hand()
    cmp.save(tmp_path / "a.igr")
    again = Comparison.load(tmp_path / "a.igr")
    assert [p.name for p in tmp_path.iterdir()] == ["a.igr"]
    assert again.discrete.state is None
    assert list(again.flows) == [0, "differences"]
    for entry in dataclasses.fields(cmp):
        if entry.name in ("flows", "discrete"):
            continue
        a, b = getattr(cmp, entry.name), getattr(again, entry.name)
        np.testing.assert_equal(a, b)
    a, b = cmp.flows[0], again.flows[0]
    np.testing.assert_array_equal(a["a"][0], b["a"][0])
    assert isinstance(b["a"], tuple)
    assert b["a"][1][0].dtype == jnp.bfloat16
    np.testing.assert_array_equal(a["a"][1][0], b["a"][1][0])
    assert b["l"]["w"].dtype == np.float32
    assert b["l"]["activation"] is None  # a function is no data
    assert str(again) == str(cmp)
    np.testing.assert_array_equal(again.trusted, cmp.trusted)


def header(**changes):
    fields = {"format": "igr.Comparison", "version": 1, "fields": {}, **changes}
    return np.frombuffer(json.dumps(fields).encode(), np.uint8)


def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "x"
    with pytest.raises(FileNotFoundError, match="path must be a file that"):
        Comparison.load(path)
    for damage in (
        lambda file: file.write(b"no"),
        lambda file: None,
        lambda file: np.savez(file, a=np.ones(2)),
        lambda file: np.save(file, np.ones(2)),
        lambda file: np.savez(file, structure=header(format="other")),
        lambda file: np.savez(file, structure=header(fields={"discrete": None})),
        lambda file: np.savez(file, structure=header(fields={"discrete": {"dict": []}})),
    ):
        with path.open("wb") as file:
            damage(file)
        with pytest.raises(ValueError, match="is not a"):
            Comparison.load(path)
    by_hand().save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match="is not a file that"):
        Comparison.load(path)
    with pytest.raises(IsADirectoryError, match="path must be a file"):
        by_hand().save(tmp_path)
    with pytest.raises(FileNotFoundError, match="path must lie in a folder that exists"):
        by_hand().save(tmp_path / "none" / "x")


def test_a_save_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "a"
    by_hand().save(path)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="no space"):
        by_hand(method="other").save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_as_a_data_frame():
    frame = by_hand().to_frame()
    assert frame.index.name == "step"
    assert list(frame.index) == [0, 10, 20]
    assert list(frame["distance to order 0"]) == [0, 0.2, 0.4]
    assert list(frame["eigenvalue 2 of run"]) == [1, 3, 5]
    assert list(frame["trusted"]) == [True, False, False]


def test_in_words():
    cmp = by_hand()
    assert repr(cmp) == (
        "<Comparison of gradient <descent>, h = 0.1, 20 steps: order 0, differences; trusted at "
        "1 of 3 records>"
    )
    said = str(cmp)
    assert "mean of 8 runs" in said
    assert (
        "order 0: distance at the end 4.000e-01, 2.00e-01 of it  (standard error 3.0e-01, w" in said
    )
    assert "differences: the flow stopped after step 10" in said
    assert "not to be trusted at 2 of 3 recorded steps, the first at step 10" in said
    assert "(h|F1|/|F0| at 1, kinks at 1, edge of stability at 1" in said
    assert said.endswith("a note")
    shown = cmp._repr_html_()
    assert "<td>order 0</td><td>4.000e-01</td><td>2.00e-01</td><td>3.0e-01</td>" in shown
    assert "gradient &lt;descent&gt;" in shown
    assert isinstance(cmp, igr.Comparison)


def test_what_was_not_measured_is_not_vouched_for():
    unknown = by_hand(remainder=np.full(3, np.nan))
    assert not unknown.trusted.any()
    assert "(h|F1|/|F0| at 1, kinks not measured at 3, edge of stability at 1)" in str(unknown)
    still = by_hand(travelled=np.zeros(3), remainder=np.zeros(3))
    assert not still.trusted.any()
    assert "no motion at 3" in str(still)
    gone = by_hand(travelled=np.array([0, 1, np.nan]), correction=np.array([0.1, 0.2, np.nan]))
    assert gone.failed["run not finite"].tolist() == [False, False, True]
    assert "run not finite at 1" in str(gone)
    assert "h|F1|/|F0| up to 0.2," in str(gone)


@pytest.mark.slow
def test_a_schedule_that_ends_before_the_comparison_begins():
    """The steps in which Adam's memory fills outlast the schedule: the run then stands still."""
    loss = lambda w: jnp.sum(jnp.cosh(w))
    make = lambda h: optax.adamw(optax.cosine_decay_schedule(h, 50))
    with pytest.raises(ValueError, match=r"stands still after the burn-in of 60 .* burn_in = 20"):
        igr.compare(loss, jnp.array([1.0, 2.0]), 0.01, 5, (0,), optimizer=make, burn_in=60)
    with pytest.raises(ValueError, match=r"burn-in of 32\d steps, which is as long as its memory"):
        igr.compare(loss, jnp.array([1.0, 2.0]), 0.01, 5, (0,), optimizer=make)
