"""What cannot be read of an optax optimizer, and what is said of it."""

import jax
import jax.numpy as jnp
import optax
import pytest
from optax import contrib

import igr
from igr.tracing import UnreadableOptimizerError


def wrong_shapes(h):
    return optax.GradientTransformation(
        lambda params: (),
        lambda g, state, params=None: (jax.tree.map(lambda x: x[..., None], g), ()),
    )


def reads_more(h):
    inner = optax.sgd(h)
    return optax.GradientTransformationExtraArgs(
        inner.init, lambda g, state, params=None, *, value, grad_fn: inner.update(g, state)
    )


def draws_by_count(h):
    key = jax.random.key(0)

    def update(g, n, params=None):
        drawn = jax.random.bernoulli(jax.random.fold_in(key, n))
        return jax.tree.map(lambda x: -h * drawn * x, g), n + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), int), update)


def calls_python(h):
    def update(g, state, params=None):
        called = lambda x: jax.pure_callback(lambda y: y, jax.ShapeDtypeStruct(x.shape, x.dtype), x)
        return jax.tree.map(lambda x: -h * called(x), g), state

    return optax.GradientTransformation(lambda params: (), update)


def changing_state(h):
    return optax.GradientTransformation(
        lambda params: (), lambda g, state, params=None: (jax.tree.map(lambda x: -h * x, g), (1,))
    )


@pytest.mark.filterwarnings("ignore:.*seed.*is deprecated")
@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        ("adam", TypeError, "function of the learning rate, .*got 'adam'"),
        (lambda h: (1, 2), TypeError, "must return an optax.GradientTransformation; got tuple"),
        (
            lambda h: optax.adam,
            TypeError,
            "must return an optax.GradientTransformation; got function",
        ),
        (
            lambda h, decay: optax.adamw(h, weight_decay=decay),
            TypeError,
            "of the learning rate alone.* missing a required argument: 'decay'",
        ),
        (lambda: optax.adam(0.1), TypeError, "learning rate alone.* too many positional"),
        (lambda h: optax.adam(0.1), UnreadableOptimizerError, "does not read the learning rate"),
        (
            lambda h: optax.sgd(h + 0.1),
            UnreadableOptimizerError,
            "does not go to zero with the learning rate",
        ),
        (reads_more, UnreadableOptimizerError, "asks for 'value' and 'grad_fn' besides"),
        (
            lambda h: optax.chain(optax.sgd(h), optax.scale_by_backtracking_linesearch(10)),
            UnreadableOptimizerError,
            "asks for .*'value_fn' besides",
        ),
        (draws_by_count, UnreadableOptimizerError, "draws at random"),
        (calls_python, UnreadableOptimizerError, "calls Python from its update .pure_callback"),
        (changing_state, UnreadableOptimizerError, "a state of another structure than init"),
        (
            lambda h: optax.sgd(lambda n: h * jnp.nan),
            UnreadableOptimizerError,
            "a hyperparameter is not a finite number",
        ),
        (
            lambda h: optax.sgd(h, 0.9j),
            UnreadableOptimizerError,
            "a hyperparameter is not a finite number",
        ),
        (lambda h: optax.sgd(h, 2.0), UnreadableOptimizerError, "grows by the factor 2"),
        (optax.adam(0.1), TypeError, "function of the learning rate, such as lambda h"),
        (0.1, TypeError, "function of the learning rate"),
        (lambda h: 0.1, TypeError, "must return an optax.GradientTransformation; got float"),
        (
            lambda h: optax.MultiSteps(optax.adam(h), 4),
            TypeError,
            "got MultiSteps, which wraps one and .* give the optimizer inside it",
        ),
        (
            lambda h: optax.lookahead(optax.sgd(h), 5, 0.5),
            UnreadableOptimizerError,
            "lookahead trains two copies of params.* Read the optimizer inside it",
        ),
        (
            lambda h: optax.multi_transform({"a": optax.sgd(h)}, {"w": "a"}),
            UnreadableOptimizerError,
            r"tells leaves apart \(masks, labels of multi_transform\).* give params=",
        ),
        (optax.polyak_sgd, UnreadableOptimizerError, "asks for 'value' besides the gradient"),
        (optax.lbfgs, UnreadableOptimizerError, "value_fn.* besides the gradient"),
        (contrib.momo, UnreadableOptimizerError, "asks for 'value'"),
        (
            lambda h: contrib.sam(optax.sgd(h), optax.sgd(0.05), opaque_mode=True),
            UnreadableOptimizerError,
            "asks for grad_fn besides the gradient",
        ),
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
        (
            lambda h: optax.chain(optax.clip_by_global_norm(float("nan")), optax.sgd(h)),
            UnreadableOptimizerError,
            "itself takes steps that are no finite numbers",
        ),
        (optax.lion, UnreadableOptimizerError, r"jump or a kink \(sign\).*smooth=1e-2"),
        (
            lambda h: optax.MultiSteps(optax.adam(h), 4).gradient_transformation(),
            UnreadableOptimizerError,
            "mini_step counts or chooses",
        ),
        (
            lambda h: contrib.sam(optax.sgd(h), optax.chain(contrib.normalize(), optax.sgd(0.05))),
            UnreadableOptimizerError,
            "steps_since_sync counts or chooses .* different steps in turn",
        ),
        (contrib.galore, UnreadableOptimizerError, "only every so many steps"),
        (
            lambda h: optax.chain(optax.clip_by_global_norm(1.0), optax.sign_sgd(h)),
            UnreadableOptimizerError,
            r"jumps \(sign\) and couples",
        ),
    ],
)
def test_what_cannot_be_read_says_so(make, error, says):
    with pytest.raises(error, match=says):
        igr.from_optax(make)


def test_lookahead_on_its_own_params():
    both = optax.LookaheadParams.init_synced({"w": jnp.ones(3)})
    with pytest.raises(UnreadableOptimizerError, match="lookahead trains two copies of params"):
        igr.from_optax(lambda h: optax.lookahead(optax.sgd(h), 5, 0.5), params=both)


def test_a_state_that_does_not_exist():
    with pytest.raises(ValueError, match="are mu, nu; got momentum"):
        igr.from_optax(optax.adam, keep=("momentum",))
    with pytest.raises(ValueError, match="are mu, nu; got trace"):
        igr.from_optax(optax.lamb, keep=("nu", "trace"))
    with pytest.raises(TypeError, match=r"keep must be the names of states.*got 5"):
        igr.from_optax(optax.adam, keep=5)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("params", "says"),
    [
        ({}, "params must hold at least one floating array"),
        ({"w": jnp.arange(3)}, "params must hold at least one floating array"),
        ({"w": 1j * jnp.ones(3)}, "complex leaves are not supported: params..w.. is complex"),
        ({"v": jnp.ones(3), "b": jnp.ones(2)}, "does not take the params that were given"),
        ({"w": jnp.ones(3), "b": jnp.ones(2)}, "given.* name what there is not"),
    ],
)
def test_params_that_are_not_its_own(params, says):
    make = lambda h: optax.multi_transform({"a": optax.sgd(h)}, {"w": "a", "b": "c"})
    with pytest.raises(ValueError, match=says):
        igr.from_optax(make, params=params)


@pytest.mark.parametrize("smooth", [0, -1.0, float("nan"), True, "much"])
def test_smooth_is_a_positive_number(smooth):
    with pytest.raises((TypeError, ValueError), match="smooth must be a positive number"):
        igr.from_optax(optax.sign_sgd, smooth=smooth)


def test_a_wrong_reading_is_not_handed_out(monkeypatch):
    """A primitive that is read wrongly shows in the optimizer's own steps."""
    from igr.tracing.symbols import symbolic

    monkeypatch.setitem(
        symbolic.ELEMENTWISE, "integer_pow", lambda reader, leaf, parameters, a: 2 * a
    )
    with pytest.raises(UnreadableOptimizerError, match="does not take its steps"):
        igr.from_optax(lambda h: optax.rmsprop(h, eps=0.3))


def test_a_description_that_stands_still_is_not_handed_out(monkeypatch):
    """Seen on one side of a maximum alone, DoG's distance so far starts at 0 and stays there."""
    from igr.tracing import replayed

    monkeypatch.setattr(replayed, "_SIZES", (1.0,))
    with pytest.raises(
        UnreadableOptimizerError, match=r"goes 0\.0e.00 in its first 20 steps, where"
    ):
        igr.from_optax(contrib.dog)


def test_an_optimizer_that_stands_still_is_not_certified():
    with pytest.raises(UnreadableOptimizerError, match="itself does not move"):
        igr.from_optax(lambda h: optax.chain(optax.sgd(h), optax.scale(0.0)))
