"""Progress bars: shown where a call takes long, and nothing else changes."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr.flows.solving import expected, late_bar
from igr.flows.solving.expected import expected_seconds

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


@pytest.mark.parametrize("call", [running, running_on, flowing, certifying])
def test_bars_change_nothing(call, compilations, capfd, monkeypatch):
    plain = call(progress=False)
    np.testing.assert_array_equal(call(), plain)
    assert capfd.readouterr().err == ""  # a short call
    np.testing.assert_array_equal(call(progress=True), plain)
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
        (flowing, "flow"),
        pytest.param(together, "runs", marks=pytest.mark.slow),
    ],
)
def test_a_long_call_shows_one_by_itself(call, name, capfd, monkeypatch):
    plain = call(progress=False)
    every = lambda progress: {"disable": progress is False, "mininterval": 0.0}
    monkeypatch.setattr(late_bar, "bar_options", every)
    monkeypatch.setattr(expected, "REPORT_EVERY", 0.0)  # as where each step takes long
    np.testing.assert_array_equal(call(), plain)
    jax.effects_barrier()
    told = capfd.readouterr().err
    shares = [int(x) for x in re.findall(rf"{name} (\d+)%\|", told)]
    assert shares == sorted(shares)
    assert len(set(shares)) > 3
    assert re.search(r"\d\d:\d\d<\d\d:\d\d", told)  # the time that passed, and that left


def test_there_is_none_under_a_transformation(capfd):
    """Nor does one stand in the way of a derivative."""
    end = lambda w: igr.run(optax.sgd(0.1), loss, w, 3, progress=True).last.sum()
    by_hand = lambda w: [w := w - 0.1 * jax.grad(loss)(w) for _ in range(3)][-1].sum()
    np.testing.assert_allclose(jax.grad(end)(START), jax.grad(by_hand)(START), rtol=1e-12)
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
