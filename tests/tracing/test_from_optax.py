"""What is read of an optax optimizer, and what is refused."""

import jax
import optax
import pytest
from optax import contrib
from sympy import Piecewise, Rational, exp

import igr
from igr.backward_error.methods import adam, heavy_ball, nesterov, z
from igr.tracing import UnreadableOptimizerError, read_optimizer


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
        found = igr.modified_equation(igr.from_optax(optax.adam, keep=keep), 1)
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
        lambda h: optax.adam(optax.cosine_decay_schedule(h, 400)),
    ],
    ids=["warm-up and cosine", "inject_hyperparams", "cosine"],
)
def test_what_people_configure_is_certified(make):
    igr.from_optax(make)


def wrong_shapes(h):
    return optax.GradientTransformation(
        lambda params: (),
        lambda g, state, params=None: (jax.tree.map(lambda x: x[..., None], g), ()),
    )


@pytest.mark.filterwarnings("ignore:.*seed.*is deprecated")
@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (optax.adam(0.1), TypeError, "function of the learning rate, such as lambda h"),
        (0.1, TypeError, "function of the learning rate"),
        (lambda h: 0.1, TypeError, "returns an optax.GradientTransformation, got float"),
        (optax.polyak_sgd, UnreadableOptimizerError, "asks for 'value' besides the gradient"),
        (optax.lbfgs, UnreadableOptimizerError, "value_fn.* besides the gradient"),
        (contrib.momo, UnreadableOptimizerError, "asks for 'value'"),
        (
            lambda h: optax.noisy_sgd(h, key=0),
            UnreadableOptimizerError,
            "draws at random",
        ),
        (
            lambda h: contrib.dpsgd(h, 1.0, 0.1, 0),
            UnreadableOptimizerError,
            "draws at random",
        ),
        (wrong_shapes, UnreadableOptimizerError, "other shapes than those of params"),
        (
            lambda h: optax.adam(h, b1=float("nan")),
            UnreadableOptimizerError,
            "a hyperparameter is not a finite number",
        ),
        (optax.lion, UnreadableOptimizerError, r"jump or a kink \(sign\).*smooth=1e-2"),
        (
            lambda h: optax.adamw(h, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)),
            UnreadableOptimizerError,
            "treats the leaves of params differently; params=",
        ),
        (
            lambda h: optax.MultiSteps(optax.adam(h), 4).gradient_transformation(),
            UnreadableOptimizerError,
            "mini_step",
        ),
    ],
)
def test_what_cannot_be_read_says_so(make, error, says):
    with pytest.raises(error, match=says):
        igr.from_optax(make)


def test_a_state_that_does_not_exist():
    with pytest.raises(ValueError, match="are mu, nu; got momentum"):
        igr.from_optax(optax.adam, keep=("momentum",))


@pytest.mark.parametrize("smooth", [0, -1.0, float("nan"), True, "much"])
def test_smooth_is_a_positive_number(smooth):
    with pytest.raises((TypeError, ValueError), match="smooth is a positive number"):
        igr.from_optax(optax.sign_sgd, smooth=smooth)


def test_a_wrong_reading_is_not_handed_out(monkeypatch):
    """A primitive that is read wrongly shows in the optimizer's own steps."""
    from igr.tracing import symbolic

    monkeypatch.setitem(
        symbolic.ELEMENTWISE, "integer_pow", lambda reader, leaf, parameters, a: 2 * a
    )
    with pytest.raises(UnreadableOptimizerError, match="does not take its steps"):
        igr.from_optax(lambda h: optax.rmsprop(h, eps=0.3))
