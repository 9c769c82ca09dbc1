"""What is read of an optax optimizer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib
from sympy import Piecewise, Rational, exp

import igr
from igr.backward_error.methods import adam, heavy_ball, nesterov, z
from igr.backward_error.rules.rule import RuleMethod
from igr.flows import optimizer_of
from igr.tracing import read_optimizer


@pytest.mark.parametrize(
    ("make", "shipped"),
    [
        (lambda h: optax.sgd(h, 0.9), heavy_ball(0.9)),
        (lambda h: optax.sgd(h, 0.8, nesterov=True), nesterov(0.8)),
    ],
)
def test_a_linear_memory_is_a_method_of_trees(make, shipped):
    found = igr.modified_equation(igr.from_optax(make), 2)
    right = igr.modified_equation(shipped, 2)
    for tree in (((),), ((), ()), (((),),)):
        assert found.coefficient(tree) == right.coefficient(tree)


def test_last_values_and_decay():
    method = igr.from_optax(optax.optimistic_gradient_descent)
    assert (method.transfer - (2 - exp(-z))).expand() == 0
    decayed = igr.from_optax(
        lambda h: optax.chain(
            optax.trace(0.5), optax.add_decayed_weights(0.1), optax.scale_by_learning_rate(h)
        )
    )
    assert decayed.weight_decay == Rational(1, 10)


def test_adam_is_the_shipped_one():
    """The same equation, states, rates and all, and the same when nothing is kept."""
    for keep in (None, (), ("mu", "nu")):
        method = igr.from_optax(optax.adam, keep=keep, certify=False)
        found = igr.modified_equation(method, 1)
        right = igr.modified_equation(adam(keep=("nu",) if keep is None else keep), 1)
        assert found.field == right.field
        assert found.rates == right.rates


def test_what_is_kept_says_why():
    reading = read_optimizer(lambda h: optax.adam(h, 0.99, 0.9))
    assert list(reading.why) == ["mu"]
    assert "0.01" in reading.why["mu"]
    assert reading.since == 372  # 0.9^372 = 1e-17


def test_a_schedule_in_pieces():
    """Warm-up and cosine, each a formula of its own in t, the cuts where optax has them."""
    reading = read_optimizer(
        lambda h: optax.sgd(optax.warmup_cosine_decay_schedule(0.0, h, 100, 1000))
    )
    (piecewise,) = reading.method.rule.atoms(Piecewise)
    assert [str(c) for _, c in piecewise.args[:-1]] == ["clock*t < 101", "clock*t < 1002"]


def chained(h):
    rate = optax.warmup_cosine_decay_schedule(0.0, h, 100, 1000)
    return optax.chain(optax.adamw(rate, weight_decay=0.01))


@pytest.mark.parametrize(
    "make",
    [
        chained,
        lambda h: optax.inject_hyperparams(optax.adam)(h),
        pytest.param(
            lambda h: optax.adam(optax.cosine_decay_schedule(h, 400)), marks=pytest.mark.slow
        ),
    ],
    ids=["warm-up and cosine", "inject_hyperparams", "cosine"],
)
def test_what_people_configure_is_certified(make):
    igr.from_optax(make)


def test_labels_on_the_params_they_are_for():
    params = {"w": jnp.ones(3), "b": jnp.ones(2)}
    inside = {"a": optax.sgd, "c": lambda h: optax.sgd(h / 2)}
    make = lambda h: optax.multi_transform(
        {k: f(h) for k, f in inside.items()}, {"w": "a", "b": "c"}
    )
    method = igr.from_optax(make, params=params)
    loss = lambda p: sum(jnp.sum(jnp.cosh(x)) for x in p.values())
    found = igr.vector_field(igr.modified_equation(method, 0), loss, 0.1)(0.0, params, None)
    assert np.allclose(found["w"], -jnp.sinh(1.0))
    assert np.allclose(found["b"], -jnp.sinh(1.0) / 2)


@pytest.mark.parametrize(
    ("make", "keep"),
    [
        (contrib.dog, None),
        pytest.param(optax.radam, ("mu", "nu"), marks=pytest.mark.slow),
        pytest.param(contrib.acprop, ("mu", "nu"), marks=pytest.mark.slow),
        (lambda h: optax.sgd(optax.piecewise_constant_schedule(h, {7: 0.1, 14: 0.1})), None),
    ],
    ids=["dog", "radam", "acprop", "pieces"],
)
def test_the_first_steps_are_those_of_the_optimizer(make, keep):
    """Where everything is kept, from the start: conditions on the first steps hold in them."""
    ours = optimizer_of(igr.from_optax(make, keep=keep, certify=False), 0.01)
    loss = lambda x: jnp.sum(jnp.cosh(x))
    start = jnp.array([0.3, -0.8])
    a, b = (igr.run(o, loss, start, 20).params for o in (ours, make(0.01)))
    assert np.linalg.norm(b[-1] - start) > 0
    assert np.allclose(a - start, b - start, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("make", "keep", "dtype"),
    [
        pytest.param(optax.adam, (), jnp.float64, marks=pytest.mark.slow),
        (contrib.simplified_ademamix, None, jnp.float64),
        pytest.param(contrib.madgrad, None, jnp.float32, marks=pytest.mark.slow),
        pytest.param(lambda h: optax.novograd(h), None, jnp.float32, marks=pytest.mark.slow),
        pytest.param(optax.adafactor, None, jnp.float32, marks=pytest.mark.slow),
    ],
    ids=["adam", "simplified ademamix", "madgrad", "novograd", "adafactor"],
)
def test_a_leaf_that_is_never_used_stands_still(make, keep, dtype):
    """Roots of averages that are exactly zero, at h^1."""
    params = {"used": jnp.array([0.5, -0.2], dtype), "not": jnp.array([2.0], dtype)}
    loss = lambda p: jnp.sum(jnp.cosh(p["used"]))
    method = igr.from_optax(make, keep=keep, params=params, certify=False)
    done = igr.run(optimizer_of(method, 0.01), loss, params, 9)
    last = jax.tree.map(lambda x: x[-1], done.params)
    kept = {y: optax.tree.get(done.state, y) for y in method.kept}
    field = jax.jit(igr.vector_field(method.equation(1), loss, 0.01))
    found = field(0.1, (last, kept) if kept else last, None)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(found))
    theta = found[0] if kept else found
    assert np.all(np.abs(theta["not"]) < 1e-5)
    assert np.all(theta["used"] != 0)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            lambda h: optax.chain(
                optax.clip_by_global_norm(1.0),
                optax.adamw(optax.warmup_cosine_decay_schedule(0.0, h, 100, 1000)),
            ),
            marks=pytest.mark.slow,
        ),
        lambda h: optax.adamw(h, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
        pytest.param(lambda h: optax.lars(h, momentum=0.5), marks=pytest.mark.slow),
    ],
    ids=["clipping, warm-up", "mask", "lars"],
)
def test_what_couples_elements_or_tells_leaves_apart_is_a_rule(make):
    """Certified against the optimizer's own steps, each leaf by its own treatment."""
    assert isinstance(igr.from_optax(make), RuleMethod)


def test_decay_where_the_mask_says_so():
    """The h^0 field of AdamW with a mask on its own params: only the named leaf decays."""
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array([3.0])}

    def make(h):
        decay = optax.add_decayed_weights(0.25, mask={"a": True, "b": False})
        return optax.chain(decay, optax.scale_by_learning_rate(h))

    method = igr.from_optax(make, params=params)
    flat = igr.vector_field(method.equation(0), lambda p: jnp.sum(p["a"] * 0 + p["b"]), 0.1)
    found = flat(0.0, params, None)
    assert np.allclose(found["a"], -0.25 * params["a"])
    assert np.allclose(found["b"], -2.0)


def test_finite_updates_are_those_of_the_optimizer_inside():
    """The same flow; the optimizer's own steps are what it is certified by."""
    found = igr.from_optax(lambda h: optax.apply_if_finite(optax.rmsprop(h, 0.9, 0.1), 5))
    inside = igr.from_optax(lambda h: optax.rmsprop(h, 0.9, 0.1), certify=False)
    loss = lambda x: jnp.sum(jnp.cosh(x))
    at = jnp.array([0.3, -0.8])
    a, b = (igr.vector_field(m.equation(1), loss, 0.01)(0.0, at, None) for m in (found, inside))
    assert np.allclose(a, b, rtol=1e-12)


def test_the_equation_takes_the_optimizer_itself():
    assert str(igr.modified_equation(optax.adam, 0)).startswith("θ' = -g/(sqrt(ν/(1")


@pytest.mark.slow
def test_the_comparison_takes_the_optimizer_itself():
    """AdamW with its defaults beside its flows: no description, and each order comes closer."""
    loss = lambda p: jnp.sum(jnp.cosh(p["w"])) + p["b"] ** 2 * p["w"][0]
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
    found = igr.compare(
        loss, params, 1e-3, 100, (0, 1), optimizer=lambda h: optax.adamw(h), sharpness=False
    )
    assert found.distance[1][-1] < found.distance[0][-1] / 10
    assert found.distance[1][-1] < 1e-3 * found.travelled[-1]
