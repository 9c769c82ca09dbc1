"""What is read of an optax optimizer, and what is refused."""

import jax
import jax.numpy as jnp
import optax
import pytest
from optax import contrib
from sympy import Piecewise, Rational, exp

import igr
from igr.backward_error.methods import adam, heavy_ball, nesterov, z
from igr.backward_error.rules.rule import RuleMethod
from igr.flows import optimizer_of
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


def test_labels_on_the_params_they_are_for():
    params = {"w": jnp.ones(3), "b": jnp.ones(2)}
    inside = {"a": optax.sgd, "c": lambda h: optax.sgd(h / 2)}
    make = lambda h: optax.multi_transform(
        {k: f(h) for k, f in inside.items()}, {"w": "a", "b": "c"}
    )
    method = igr.from_optax(make, params=params)
    loss = lambda p: sum(jnp.sum(jnp.cosh(x)) for x in p.values())
    found = igr.vector_field(igr.modified_equation(method, 0), loss, 0.1)(0.0, params, None)
    assert jnp.allclose(found["w"], -jnp.sinh(1.0))
    assert jnp.allclose(found["b"], -jnp.sinh(1.0) / 2)


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


@pytest.mark.parametrize(
    ("make", "keep"),
    [
        (contrib.dog, None),
        (optax.radam, ("mu", "nu")),
        (contrib.acprop, ("mu", "nu")),
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
    assert jnp.linalg.norm(b[-1] - start) > 0
    assert jnp.allclose(a - start, b - start, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("make", "keep", "dtype"),
    [
        (optax.adam, (), jnp.float64),
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
    field = igr.vector_field(method.equation(1), loss, 0.01)
    found = field(0.1, (last, kept) if kept else last, None)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(found))
    theta = found[0] if kept else found
    assert jnp.all(jnp.abs(theta["not"]) < 1e-5)
    assert jnp.all(theta["used"] != 0)


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
        lambda h: optax.lars(h, momentum=0.5),
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
    assert jnp.allclose(found["a"], -0.25 * params["a"])
    assert jnp.allclose(found["b"], -2.0)


def test_finite_updates_are_those_of_the_optimizer_inside():
    """The same flow; the optimizer's own steps are what it is certified by."""
    found = igr.from_optax(lambda h: optax.apply_if_finite(optax.rmsprop(h, 0.9, 0.1), 5))
    inside = igr.from_optax(lambda h: optax.rmsprop(h, 0.9, 0.1))
    loss = lambda x: jnp.sum(jnp.cosh(x))
    at = jnp.array([0.3, -0.8])
    a, b = (igr.vector_field(m.equation(1), loss, 0.01)(0.0, at, None) for m in (found, inside))
    assert jnp.allclose(a, b, rtol=1e-12)


def test_the_equation_and_the_comparison_take_the_optimizer_itself():
    """AdamW with its defaults beside its flows: no description, and each order comes closer."""
    assert str(igr.modified_equation(optax.adam, 0)).startswith("θ' = -g/(sqrt(ν/(1")
    loss = lambda p: jnp.sum(jnp.cosh(p["w"])) + p["b"] ** 2 * p["w"][0]
    params = {"w": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}
    found = igr.compare(
        loss, params, 1e-3, 100, (0, 1), optimizer=lambda h: optax.adamw(h), sharpness=False
    )
    assert found.distance[1][-1] < found.distance[0][-1] / 10
    assert found.distance[1][-1] < 1e-3 * found.travelled[-1]
