"""Transformations as users write them: odd states, and rules that a small check would not see."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr
from igr.tracing import UnreadableOptimizerError


def made(init, update):
    return optax.GradientTransformation(init, update)


def each(function, *trees):
    return jax.tree.map(function, *trees)


def stateless(rule):
    """`rule(d)` of a leaf of the gradient, times the rate."""
    return lambda h: made(lambda p: (), lambda g, s, p=None: (each(lambda d: -h * rule(d), g), s))


def counted(rule):
    """`rule(d, n)` of a leaf and of the steps done."""

    def make(h):
        start = lambda p: {"n": jnp.zeros((), int)}
        step = lambda g, s, p=None: (each(lambda d: -h * rule(d, s["n"]), g), {"n": s["n"] + 1})
        return made(start, step)

    return make


class Inner(NamedTuple):
    count: Any
    m: Any


class Outer(NamedTuple):
    first: Any
    extra: Any


def nested(h):
    """Named tuples in named tuples, a dictionary, and a number that is no array."""

    def init(p):
        zeros = each(jnp.zeros_like, p)
        return Outer(Inner(jnp.zeros([], jnp.int32), zeros), {"v": zeros, "k": 7})

    def update(g, s, p=None):
        m = each(lambda a, b: 0.8 * a + b, s.first.m, g)
        v = each(lambda a, b: 0.99 * a + 0.01 * b * b, s.extra["v"], g)
        state = Outer(Inner(s.first.count + 1, m), {"v": v, "k": 7})
        return each(lambda m, v: -h * m / jnp.sqrt(v + 1e-3), m, v), state

    return made(init, update)


def float_count(h):
    """An average whose bias correction counts in floats."""

    def init(p):
        return {"step": jnp.zeros(()), "mom": each(jnp.zeros_like, p)}

    def update(g, s, p=None):
        n, m = s["step"] + 1.0, each(lambda a, b: 0.9 * a + 0.1 * b, s["mom"], g)
        return each(lambda m: -h * m / (1 - 0.9**n), m), {"step": n, "mom": m}

    return made(init, update)


def per_leaf(h):
    """A dictionary for each leaf of params."""

    def init(p):
        return each(lambda x: {"m": jnp.zeros_like(x), "c": jnp.zeros([], jnp.int32)}, p)

    def update(g, s, p=None):
        flat, form = jax.tree.flatten(g)
        new = [
            {"m": 0.9 * a["m"] + b, "c": a["c"] + 1}
            for a, b in zip(form.flatten_up_to(s), flat, strict=True)
        ]
        return form.unflatten([-h * a["m"] for a in new]), form.unflatten(new)

    return made(init, update)


def average_of_params(h):
    """Kept beside the run, and read by nothing."""

    def update(g, s, p):
        average = each(lambda a, x, d: 0.99 * a + 0.01 * (x - h * d), s["average"], p, g)
        return each(lambda d: -h * d, g), {"average": average}

    return made(lambda p: {"average": p}, update)


def geometric(h):
    """An average of logarithms: no linear memory, and kept."""

    def update(g, s, p=None):
        new = each(lambda a, d: jnp.exp(0.9 * jnp.log(a) + 0.1 * jnp.log(d * d + 1e-6)), s, g)
        return each(lambda d, a: -h * d / jnp.sqrt(a), g, new), new

    return made(lambda p: each(jnp.ones_like, p), update)


def buffer(h):
    """The mean of the last three gradients."""

    def update(g, s, p=None):
        new = each(lambda b, d: jnp.concatenate([b[1:], d[None]]), s, g)
        return each(lambda b: -h * b.mean(0), new), new

    return made(lambda p: each(lambda x: jnp.zeros((3, *x.shape), x.dtype), p), update)


@pytest.mark.parametrize(
    ("make", "kept"),
    [
        pytest.param(nested, ("v",), marks=pytest.mark.slow),
        pytest.param(float_count, (), marks=pytest.mark.slow),
        pytest.param(per_leaf, (), marks=pytest.mark.slow),
        (average_of_params, ()),
        pytest.param(geometric, ("acc",), marks=pytest.mark.slow),
    ],
)
def test_odd_states_are_read(make, kept):
    """And certified, step by step against their own code."""
    assert len(igr.from_optax(make).kept) == len(kept)


def test_what_happens_later_stands_in_the_rule():
    """After a thousand steps a tenth of the rate: far beyond the steps that are certified."""
    method = igr.from_optax(counted(lambda d, n: jnp.where(n > 1000, 0.1 * d, d)))
    equation = igr.modified_equation(method, 0)
    field = jax.jit(igr.vector_field(equation, lambda x: x @ x / 2, 0.5))
    at = lambda n: float(field(n * 0.5, jnp.ones(1), None)[0])
    assert [at(n) for n in (0, 995, 1005, 5000)] == pytest.approx([-1, -1, -0.1, -0.1])


def test_what_large_gradients_do_stands_in_the_rule():
    """Clipped at a norm of 1000, where those that certify it are of size one."""
    clip = lambda h: optax.chain(optax.clip_by_global_norm(1e3), optax.sgd(h))
    equation = igr.modified_equation(igr.from_optax(clip), 0)
    field = jax.jit(igr.vector_field(equation, lambda x: x @ x / 2, 0.1))
    assert np.linalg.norm(field(0.0, np.full(4, 1e4), None)) == pytest.approx(1e3)


WRONG_ELSEWHERE = {
    "a kernel": stateless(lambda d: 3 * d if d.ndim == 4 else d),
    "a number": stateless(lambda d: 3 * d if d.ndim == 0 else d),
    "size": stateless(lambda d: 3 * d if d.size > 10**6 else d),
    "single precision": stateless(lambda d: 2 * d if d.dtype == jnp.float32 else d),
    "the precision's own number": stateless(lambda d: d / jnp.sqrt(d * d + jnp.finfo(d.dtype).eps)),
}


@pytest.mark.parametrize("what", WRONG_ELSEWHERE)
def test_a_rule_that_looks_at_what_it_is_given(what):
    """Right for a matrix and a vector in double precision, and for them alone."""
    with pytest.raises(UnreadableOptimizerError, match="does not do to a number and a kernel"):
        igr.from_optax(WRONG_ELSEWHERE[what])


@pytest.mark.slow
def test_on_its_own_params_such_a_rule_is_read():
    """As the rule of leaves that are told apart."""
    params = {"k": jnp.ones((2, 2, 1, 3)), "b": jnp.ones(3)}
    method = igr.from_optax(WRONG_ELSEWHERE["a kernel"], params=params)
    value_fn = lambda p: jnp.sum(p["k"] ** 2) / 2 + jnp.sum(p["b"] ** 2) / 2
    found = igr.vector_field(method.equation(0), value_fn, 0.1)(0.0, params, None)
    assert np.allclose(found["k"], -3)
    assert np.allclose(found["b"], -1)
    single = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    with pytest.raises(UnreadableOptimizerError, match="to params in single precision"):
        igr.from_optax(WRONG_ELSEWHERE["the precision's own number"], params=single)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (buffer, "holds what was seen in the last 3 steps.*igr.methods.linear_memory"),
        (counted(lambda d, n: jnp.where(n % 2 == 0, d, 2 * d)), "every so many steps"),
        (
            lambda h: optax.chain(optax.sgd(h), optax.keep_params_nonnegative()),
            "jump or a kink.*smooth=1e-2",
        ),
        (lambda h: optax.chain(optax.clip(10.0), optax.adam(h)), "jump or a kink.*smooth=1e-2"),
        (lambda h: optax.chain(optax.apply_every(4), optax.sgd(h)), "every so many steps"),
        (
            lambda h: optax.chain(optax.adam(h), optax.contrib.reduce_on_plateau()),
            "asks for 'value'",
        ),
        (lambda h: optax.chain(optax.add_noise(0.01, 0.55, 0), optax.sgd(h)), "at random"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*seed.*is deprecated")
def test_what_has_no_one_rule_is_refused(make, says):
    with pytest.raises(UnreadableOptimizerError, match=says):
        igr.from_optax(make)


LABELS = {"w": "matrix", "b": "rest"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda h: optax.chain(optax.centralize(), optax.sgd(h, 0.9)),
        lambda h: optax.chain(optax.adaptive_grad_clip(0.01), optax.sgd(h, 0.5)),
        lambda h: optax.chain(optax.clip_by_block_rms(1.0), optax.adam(h)),
        lambda h: optax.chain(
            optax.scale_by_adam(), optax.scale_by_trust_ratio(), optax.scale_by_learning_rate(h)
        ),
        lambda h: optax.chain(optax.zero_nans(), optax.adam(h)),
        lambda h: optax.inject_hyperparams(optax.adam)(h, b1=optax.linear_schedule(0.5, 0.9, 1000)),
        lambda h: optax.inject_hyperparams(optax.adamw)(
            h, weight_decay=optax.linear_schedule(0.1, 0.0, 1000)
        ),
        lambda h: optax.contrib.schedule_free_adamw(h, warmup_steps=100),
        lambda h: optax.contrib.split_real_and_imaginary(optax.adam(h)),
        lambda h: optax.adam(h, mu_dtype=jnp.bfloat16),
        lambda h: optax.chain(
            optax.trace(0.5),
            optax.ema(0.7, debias=True),
            optax.scale_by_rms(0.9),
            optax.add_decayed_weights(0.01),
            optax.scale_by_learning_rate(h),
        ),
        lambda h: optax.multi_transform(
            {"matrix": optax.contrib.muon(h), "rest": optax.set_to_zero()}, LABELS
        ),
        lambda h: (
            optax.freeze({"w": False, "b": True})
            if not hasattr(optax, "selective_transform")
            else optax.selective_transform(optax.adam(h), freeze_mask={"w": False, "b": True})
        ),
    ],
)
def test_unusual_chains_are_certified(make):
    params = {"w": jnp.array([[0.3, 0.2], [-0.1, 0.4], [0.2, -0.3]]), "b": jnp.array([0.1, 0.2])}
    igr.from_optax(make, params=params)
