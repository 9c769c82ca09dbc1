"""Fields of rules by Taylor mode, against dense matrices, other kinds and real optax steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

import igr
from igr.backward_error import methods, modified_equation
from igr.flows import rules
from igr.flows.fields.rules import rule_field
from igr.flows.fields.terms import elementwise_field
from tests.quick import quick

BETA = 0.5
CLIP = rules.stateless(optax.clip_by_global_norm(0.3))
TRUST = rules.stateless(optax.scale_by_trust_ratio())
STEPS = (0.02, 0.014, 0.01, 0.007, 0.005)


def clipped_after():
    return methods.rule(
        lambda m, theta: CLIP(m, theta), {"m": methods.trace(BETA)}, name="trace, clip"
    )


def clipped_before():
    channel = (lambda g, theta: CLIP(g, theta), methods.trace(BETA))
    return methods.rule(lambda m: m, {"m": channel}, name="clip, trace")


def trust_ratio():
    return methods.rule(lambda m, theta: TRUST(m, theta), {"m": methods.ema(BETA)}, name="LAMB")


def novograd(b1=BETA, b2=0.25, eps=1e-6):
    """optax.novograd: each layer's gradient over its averaged length, then momentum."""

    def scaled(g, nu):
        return jax.tree.map(lambda x, n: x / (jnp.sqrt(n) + eps), g, nu)

    def squares(g):
        return jax.tree.map(lambda x: jnp.linalg.norm(x) ** 2, g)

    channels = {"m": (scaled, methods.trace(b1)), "nu": (squares, methods.ema(b2))}
    return methods.rule(lambda m: m, channels, name="NovoGrad")


def chained(*parts):
    return lambda h: optax.chain(*parts, optax.scale(-h))


CASES = {
    "clip after": (
        clipped_after,
        chained(optax.trace(BETA), optax.clip_by_global_norm(0.3)),
    ),
    "clip before": (
        clipped_before,
        chained(optax.clip_by_global_norm(0.3), optax.trace(BETA)),
    ),
    "trust ratio": (
        trust_ratio,
        chained(optax.ema(BETA, debias=False), optax.scale_by_trust_ratio()),
    ),
    "LARS": (
        lambda: methods.rule(
            lambda m: m,
            {"m": (lambda g, theta: TRUST(g, theta), methods.trace(BETA))},
            name="LARS",
        ),
        chained(optax.scale_by_trust_ratio(), optax.trace(BETA)),
    ),
    "NovoGrad": (novograd, lambda h: optax.novograd(h, b1=BETA, b2=0.25)),
    "Muon": (
        lambda: rules.muon(BETA, nesterov=False, adam_b1=BETA, adam_b2=0.9, eps=1e-4),
        lambda h, rates: optax.contrib.muon(
            h, beta=BETA, nesterov=False, adam_b1=BETA, adam_b2=1 - rates["nu"], eps=1e-4
        ),
    ),
}


def _first_correction(method, value_fn, params):
    """dF/dh at h = 0, the field's and of params."""
    eq = modified_equation(method, 1)

    def field(h):
        return ravel_pytree(rule_field(eq, value_fn, h)(0.0, params, None))[0]

    return jax.jit(lambda: jax.jvp(field, (0.0,), (1.0,)))()


@pytest.mark.parametrize(
    "which", ["clip after", pytest.param("trust ratio", marks=pytest.mark.slow)]
)
def test_first_correction_against_dense_matrices(tanh_network, which):
    # F1 = (w0/2 - w1) J_a H F0 + (1/2) J_theta F0, with J and H written out.
    value_fn, params = tanh_network
    flat, unravel = ravel_pytree(params)
    method = CASES[which][0]()
    w0, w1 = (2.0, -2.0) if which == "clip after" else (1.0, -1.0)

    def loss(p):
        return value_fn(unravel(p))

    def psi(a, theta):
        return ravel_pytree(method.psi.function(m=unravel(a), theta=unravel(theta)))[0]

    @jax.jit
    def dense(flat):
        g, H = jax.grad(loss)(flat), jax.hessian(loss)(flat)
        F0 = -psi(w0 * g, flat)
        Ja, Jt = jax.jacobian(psi, (0, 1))(w0 * g, flat)
        return F0, (w0 / 2 - w1) * Ja @ H @ F0 + Jt @ F0 / 2

    F0, expected = dense(flat)
    found0, found1 = _first_correction(method, value_fn, params)
    np.testing.assert_allclose(found0, F0, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(found1, expected, rtol=1e-9, atol=1e-12)


def test_muon_by_finite_differences(tanh_network):
    # F1 = -(1 + b)/(2 (1 - b)) J H Psi(g), J and H by central differences of code of its own.
    value_fn, params = tanh_network
    matrices = {"hidden": params["hidden"][0], "out": params["out"]}
    bias = params["hidden"][1]

    def loss(p):
        return value_fn({"hidden": (p["hidden"], bias), "out": p["out"]})

    def orthogonal(x):
        x = np.asarray(x)
        wide = x if x.shape[0] <= x.shape[1] else x.T
        wide = wide / (np.linalg.norm(wide) + 1e-8)
        for _ in range(5):
            a = wide @ wide.T
            wide = 3.4445 * wide + (-4.7750 * a + 2.0315 * a @ a) @ wide
        turned = wide if x.shape[0] <= x.shape[1] else wide.T
        return turned * np.sqrt(max(1, x.shape[1] / x.shape[0]))

    flat, unravel = ravel_pytree(matrices)
    gradient = jax.jit(jax.grad(lambda p: loss(unravel(p))))

    def psi(g):
        return ravel_pytree(jax.tree.map(orthogonal, unravel(g)))[0]

    b, step = 0.9, 1e-5
    g = gradient(flat)
    direction = psi(g)
    product = (gradient(flat + step * direction) - gradient(flat - step * direction)) / (2 * step)
    bent = (psi(g + step * product) - psi(g - step * product)) / (2 * step)
    method = rules.muon(b, nesterov=False, keep=())
    found0, found1 = _first_correction(method, loss, matrices)
    np.testing.assert_allclose(found0, -direction, rtol=1e-9)
    expected = -(1 + b) / (2 * (1 - b)) * bent
    np.testing.assert_allclose(found1, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_linear_rules_follow_the_trees(polynomial, order):
    # The same method by rooted trees: the difference is beyond the order that is kept.
    value_fn, params = polynomial
    described = methods.heavy_ball(BETA, weight_decay=0.3)
    method = methods.rule(
        lambda m, theta: jax.tree.map(lambda a, x: a + 0.3 * x, m, theta),
        {"m": methods.trace(BETA)},
    )

    @jax.jit
    def apart(h):
        by_trees = igr.vector_field(modified_equation(described, order), value_fn, h)
        by_rule = igr.vector_field(modified_equation(method, order), value_fn, h)
        return optax.tree.norm(
            optax.tree.sub(by_rule(0.0, params, None), by_trees(0.0, params, None))
        )

    large, small = (float(apart(h)) for h in (2e-3, 1e-3))
    assert large < 1e-12 or large / small == pytest.approx(2 ** (order + 1), rel=0.1)
    assert small < 1e3 * 1e-3 ** (order + 1)


def test_kept_states_follow_the_term_algebra(polynomial):
    # Adam with its second moment kept and its bias correction, described in both kinds.
    value_fn, params = polynomial
    b2, eps, at = 0.9, 0.1, 0.01
    described = modified_equation(methods.adam(BETA, b2, eps), 1)

    def psi(m, nu, t, rate):
        left = 1 - jnp.exp(-rate * t)
        return jax.tree.map(lambda a, n: a / (jnp.sqrt(n / left) + eps), m, nu)

    method = methods.rule(
        psi,
        {"m": methods.ema(BETA)},
        {"nu": (lambda g: jax.tree.map(jnp.square, g), 1 - b2)},
        {"rate": -np.log(b2)},
    )
    state = params, {"nu": {"x": jnp.array(0.4), "y": jnp.array(0.9)}}

    @jax.jit
    def apart(h):
        by_terms = elementwise_field(described, value_fn, h, rates_at=at)
        by_rule = rule_field(modified_equation(method, 1), value_fn, h, rates_at=at)
        return optax.tree.norm(
            optax.tree.sub(by_rule(0.05, state, None), by_terms(0.05, state, None))
        )

    large, small = float(apart(1e-4)), float(apart(5e-5))
    assert large / small == pytest.approx(4, rel=0.05)


@pytest.mark.slow
def test_sharpness_aware_minimization_is_a_special_case(tanh_network):
    value_fn, params = tanh_network
    rho = 0.05

    def uphill(g, theta, value_fn):
        far = rho / optax.tree.norm(g)
        return jax.grad(value_fn)(jax.tree.map(lambda x, y: x + far * y, theta, g))

    fixed = methods.rule(lambda a: a, {"a": (uphill, 1)}, name="SAM")
    shipped = methods.sam(rho, "fixed")
    fields = [
        jax.jit(igr.vector_field(modified_equation(m, 1), value_fn, 0.1))(0.0, params)
        for m in (fixed, shipped)
    ]
    for a, b in zip(*map(jax.tree.leaves, fields), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)
    steps = [igr.run(igr.flows.optimizer_of(m, 0.1), value_fn, params, 3) for m in (fixed, shipped)]
    np.testing.assert_allclose(steps[0].value, steps[1].value, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("which", CASES)
def test_slopes_against_real_optax_steps(tanh_network, which, order):
    describe, optimizer = CASES[which]
    hs = tuple(h / 32 for h in STEPS) if which == "Muon" else STEPS
    slope = igr.observed_order(
        describe(), tanh_network.value_fn, tanh_network.params, order, hs, optimizer=optimizer
    )
    assert slope == pytest.approx(order + 2, abs=0.1), slope.errors


@pytest.mark.slow
@pytest.mark.parametrize("which", ["clip after", "clip before", "trust ratio", "NovoGrad"])
def test_second_order_against_real_optax_steps(tanh_network, which):
    describe, optimizer = CASES[which]
    hs = tuple(h / 2 for h in STEPS) if which == "NovoGrad" else STEPS
    slope = igr.observed_order(
        describe(), tanh_network.value_fn, tanh_network.params, 2, hs, optimizer=optimizer
    )
    assert slope == pytest.approx(4, abs=0.1), slope.errors


@pytest.mark.parametrize("which", quick(["clip before", "NovoGrad"], "NovoGrad"))
def test_its_own_step_is_the_real_one(tanh_network, which):
    # From the same start, once optax's first step, which NovoGrad takes otherwise, is forgotten.
    describe, optimizer = CASES[which]
    own = igr.flows.optimizer_of(describe(), 0.01)
    value_fn, params = tanh_network
    real = optimizer(0.01)

    @jax.jit
    def last(params):
        gradient = jax.grad(value_fn)(params)
        found = []
        for tx in (own, real):
            # The point stands still, so that both memories fill alike.
            step = lambda state, _, tx=tx: tx.update(gradient, state, params)[::-1]
            updates = jax.lax.scan(step, tx.init(params), length=60)[1]
            found.append(jax.tree.map(lambda x: x[-1], updates))
        return found

    updates = last(params)
    for a, b in zip(*map(jax.tree.leaves, updates), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_a_rule_of_other_shapes_is_refused(tanh_network):
    value_fn, params = tanh_network
    method = methods.rule(lambda g: g["out"], name="half of it")
    field = igr.vector_field(modified_equation(method, 0), value_fn, 0.1)
    with pytest.raises(
        ValueError, match="the rule of half of it must return a direction for params"
    ):
        field(0.0, params, None)
    step = igr.flows.optimizer_of(method, 0.1)
    with pytest.raises(ValueError, match="the rule of half of it must return"):
        step.update(params, step.init(params), params)


def test_a_step_says_what_it_needs(tanh_network):
    step = igr.flows.optimizer_of(clipped_after(), 0.1)
    params = tanh_network.params
    with pytest.raises(ValueError, match="trace, clip reads params: update needs them"):
        step.update(params, step.init(params))
    with pytest.raises(ValueError, match="the transformation has a memory"):
        rules.stateless(optax.trace(0.9))(params, params)


@pytest.mark.slow
def test_relu_in_single_precision():
    keys = jax.random.split(jax.random.key(3), 4)
    inputs = jax.random.normal(keys[0], (16, 5), jnp.float32)
    targets = jax.random.normal(keys[1], (16, 2), jnp.float32)
    params = {
        "in": jax.random.normal(keys[2], (5, 8), jnp.float32),
        "out": 0.5 * jax.random.normal(keys[3], (8, 2), jnp.float32),
    }

    def value_fn(p):
        return jnp.mean((jax.nn.relu(inputs @ p["in"]) @ p["out"] - targets) ** 2)

    found = igr.compare(value_fn, params, 0.05, 40, (0, 1), clipped_after(), rtol=1e-4)
    assert found.flows[1]["in"].dtype == jnp.float32
    assert found.distance[1][-1] < 0.3 * found.distance[0][-1]
