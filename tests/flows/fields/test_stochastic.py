"""SGD with replacement against its stochastic equation, with nothing drawn at random but once.

The expectation of a function after n steps, as a function of the start, is the mean over all
batches of the expectation after n - 1 steps where the batch leads: every sequence of batches is
enumerated, one step at a time. Of the process it is exp(t G) phi, G the generator made of the
library's own drift and diffusion. Both act on polynomials through 40 Chebyshev nodes in [-1, 1],
which the losses chosen map into itself and at whose ends the noise vanishes.
"""

from itertools import product

import diffrax
import jax
import jax.numpy as jnp
import lineax
import numpy as np
import pytest
import scipy.linalg
import sympy

import igr
from igr.backward_error import modified_equation
from igr.flows import SmallNoiseHeun, flow, moments_field, stochastic_field, stochastic_flow
from tests.flows.chebyshev import NODES, differentiation, interpolation, slope

EXAMPLES = np.array([-0.8, 0.1, 0.5])
BATCH_SIZE = 2
TIME = 1.0
HS = TIME / np.array([16, 32, 64, 128])

FUNCTIONS = np.stack([NODES, NODES**2, np.cos(2 * NODES)], axis=1)


def loss(x, a):
    return x**4 / 8 + x**2 / 2 - 0.4 * x + a * (x - x**3 / 3)


def gradient(x, a):
    return x**3 / 2 + x - 0.4 + a * (1 - x**2)


def after_sgd(h):
    """E phi after TIME / h steps, from every node."""
    batches = list(product(EXAMPLES, repeat=BATCH_SIZE))
    step = np.mean(
        [interpolation(NODES - h * np.mean([gradient(NODES, a) for a in b], axis=0))
         for b in batches],
        axis=0,
    )  # fmt: skip
    return np.linalg.matrix_power(step, round(TIME / h)) @ FUNCTIONS


@pytest.fixture(scope="module")
def compiled():
    """order -> drift and variance a unit of time at the nodes, from the library, as h varies."""

    def at_nodes(order):
        equation = modified_equation(igr.methods.sgd_with_replacement(BATCH_SIZE), order)

        @jax.jit
        def parts(h):
            field = stochastic_field(equation, loss, h, jnp.array(EXAMPLES))
            drift = jax.vmap(lambda x: field.drift(0.0, x, None))(jnp.array(NODES))
            rows = jax.vmap(
                lambda x: jax.vmap(field.diffusion(0.0, x, None).mv)(jnp.eye(len(EXAMPLES)))
            )(jnp.array(NODES))
            return drift, jnp.sum(rows**2, axis=1)

        return parts

    return {order: at_nodes(order) for order in (0, 1)}


def after_process(parts, h):
    drift, variance = (np.array(part) for part in parts(h))
    first = differentiation()
    generator = drift[:, None] * first + variance[:, None] / 2 * (first @ first)
    return scipy.linalg.expm(TIME * generator) @ FUNCTIONS


def test_the_recursion_is_the_enumeration_of_all_sequences():
    h, start = TIME / 4, NODES[[13]]
    ends = [start]
    for _ in range(4):
        ends = [
            x - h * np.mean([gradient(x, a) for a in b], axis=0)
            for x in ends
            for b in product(EXAMPLES, repeat=BATCH_SIZE)
        ]
    ends = np.concatenate(ends)
    assert len(ends) == 9**4
    expected = [ends.mean(), (ends**2).mean(), np.cos(2 * ends).mean()]
    np.testing.assert_allclose(after_sgd(h)[13], expected, rtol=1e-11)


@pytest.mark.parametrize("order", [0, 1])
def test_weak_order(compiled, order):
    errors = [np.abs(after_process(compiled[order], h) - after_sgd(h)).max(axis=0) for h in HS]
    for errors_of_one in np.transpose(errors):
        assert slope(HS, errors_of_one) == pytest.approx(order + 1, abs=0.1)


@pytest.mark.parametrize(
    ("solver", "expected"), [(SmallNoiseHeun(), 2), (diffrax.Euler(), 1)], ids=["Heun", "Euler"]
)
def test_weak_order_of_the_solver(solver, expected):
    """With steps of h, each exact in the mean over its normal increment by Gauss and Hermite."""
    equation = modified_equation(igr.methods.sgd_with_replacement(BATCH_SIZE), 1)
    abscissae, weights = np.polynomial.hermite_e.hermegauss(9)

    @jax.jit
    def reached(h):
        field = stochastic_field(equation, loss, h, jnp.array(EXAMPLES))

        def from_node(x, normal):
            # In one dimension n increments act as one, along the row of the diffusion.
            row = jax.vmap(field.diffusion(0.0, x, None).mv)(jnp.eye(len(EXAMPLES)))
            length = jnp.sqrt(jnp.sum(row**2))
            increments = normal * jnp.sqrt(h) * row / jnp.where(length > 0, length, 1)
            control = diffrax.ControlTerm(field.diffusion, lambda t0, t1: increments)
            terms = diffrax.MultiTerm(diffrax.ODETerm(field.drift), control)
            return solver.step(terms, 0.0, h, x, None, None, False)[0]

        return jax.vmap(lambda z: jax.vmap(lambda x: from_node(x, z))(jnp.array(NODES)))(
            jnp.array(abscissae)
        )

    errors = []
    for h in HS:
        ends = np.array(reached(h))
        step = np.einsum("a,aij->ij", weights / weights.sum(), [interpolation(e) for e in ends])
        after = np.linalg.matrix_power(step, round(TIME / h)) @ FUNCTIONS
        errors.append(np.abs(after - after_sgd(h)).max(axis=0))
    for errors_of_one in np.transpose(errors):
        assert slope(HS, errors_of_one) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("order", [0, 1])
def test_without_noise_the_second_order_is_lost(compiled, order):
    """What the noise adds to E x^2 is of order h: without it no drift has weak order 2."""
    parts = lambda h: (compiled[order](h)[0], np.zeros(40))
    errors = [np.abs(after_process(parts, h) - after_sgd(h))[:, 1].max() for h in HS]
    assert slope(HS, errors) == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_mean_and_covariance():
    """Closed in two moments both have errors of order h^2, and the mean of order h at order 0."""
    start = 13
    errors = {}
    for order in (0, 1):
        equation = modified_equation(igr.methods.sgd_with_replacement(BATCH_SIZE), order)

        @jax.jit
        def moments(h, equation=equation):
            field = moments_field(equation, loss, h, jnp.array(EXAMPLES))
            state = jnp.array(NODES[start]), jnp.zeros((1, 1))
            mean, covariance = flow(field, state, TIME).ys
            return mean[0], covariance[0, 0, 0]

        found = np.array([moments(h) for h in HS])
        exact = np.array([after_sgd(h)[start, :2] for h in HS])
        exact[:, 1] -= exact[:, 0] ** 2
        errors[order] = np.abs(found - exact).T
    assert slope(HS, errors[0][0]) == pytest.approx(1, abs=0.15)
    assert slope(HS, errors[1][0]) == pytest.approx(2, abs=0.15)
    assert slope(HS, errors[1][1]) == pytest.approx(2, abs=0.15)


# Several parameters

INPUTS = np.array([[1.0, 0.5], [-0.5, 1.5], [0.25, -1.0], [2.0, 0.0]])
TARGETS = np.array([1.0, -0.5, 2.0, 0.5])


def linear_loss(params, example):
    x, y = example
    return (x[0] * params["a"] + x[1] * params["b"][0] - y) ** 2 / 2


LINEAR_PARAMS = {"a": jnp.array(0.7), "b": jnp.array([-1.1])}


def sigma_by_hand(params):
    residuals = INPUTS @ params - TARGETS
    apart = residuals[:, None] * INPUTS
    apart = apart - apart.mean(axis=0)
    return apart.T @ apart / 4


def test_the_diffusion_is_a_root_of_the_covariance():
    """Dense, it has h Sigma/B as its square; and as a lineax operator it can be transposed."""
    equation = modified_equation(igr.methods.sgd_with_replacement(3), 1)
    field = stochastic_field(equation, linear_loss, 0.1, (INPUTS, TARGETS))
    operator = field.diffusion(0.0, LINEAR_PARAMS, None)

    @jax.jit
    def both_ways(p):
        operator = field.diffusion(0.0, p, None)
        back = operator.transpose().mv({"a": jnp.array(1.0), "b": jnp.zeros(1)})
        return jax.vmap(operator.mv)(jnp.eye(4)), back

    columns, back = both_ways(LINEAR_PARAMS)
    dense = np.stack([columns["a"], columns["b"][:, 0]])
    np.testing.assert_allclose(
        dense @ dense.T, 0.1 / 3 * sigma_by_hand(np.array([0.7, -1.1])), rtol=1e-12
    )
    assert isinstance(operator, lineax.AbstractLinearOperator)
    np.testing.assert_allclose(back, dense[0], rtol=1e-12)


def test_the_closed_form_is_what_is_compiled():
    a, b, h = sympy.symbols("a b h")
    rows = [[sympy.Rational(v) for v in row] for row in np.column_stack([INPUTS, TARGETS])]
    losses = [(x * a + y * b - t) ** 2 / 2 for x, y, t in rows]
    equation = modified_equation(igr.methods.sgd_with_replacement(3), 1)
    at = {a: 0.7, b: -1.1, h: 0.1}
    drift, covariance = (np.array(e.subs(at), float) for e in equation.on(losses, (a, b), h))
    np.testing.assert_allclose(
        covariance, 0.1 / 3 * sigma_by_hand(np.array([0.7, -1.1])), rtol=1e-12
    )
    field = stochastic_field(equation, linear_loss, 0.1, (INPUTS, TARGETS))
    found = jax.jit(field.drift)(0.0, LINEAR_PARAMS, None)
    np.testing.assert_allclose([found["a"], found["b"][0]], drift[:, 0], rtol=1e-12)


def moments_of_the_scheme(h, steps, dt):
    """Mean and second moment under the solver's own steps: on a linear problem they are closed."""
    hessian, pull = INPUTS.T @ INPUTS / 4, INPUTS.T @ TARGETS / 4
    factor = np.eye(2) + h / 2 * hessian
    rate, constant = factor @ hessian, factor @ pull  # the drift is constant - rate theta
    noisy = np.eye(2) - dt / 2 * rate
    forward, shift = np.eye(2) - dt * noisy @ rate, dt * noisy @ constant
    mean, second = np.array([0.7, -1.1]), np.outer([0.7, -1.1], [0.7, -1.1])
    for _ in range(steps):
        noise = np.zeros((2, 2))
        for i, x in enumerate(INPUTS):
            # g_i - g = M theta - v, so that E (..)(..)' is in the two moments
            m, v = np.outer(x, x) - hessian, TARGETS[i] * x - pull
            mv = np.outer(m @ mean, v)
            noise += (m @ second @ m.T - mv - mv.T + np.outer(v, v)) / 4
        cross = np.outer(forward @ mean, shift)
        second = forward @ second @ forward.T + cross + cross.T + np.outer(shift, shift)
        second = second + dt * h / 3 * noisy @ noise @ noisy.T
        mean = forward @ mean + shift
    return mean, second - np.outer(mean, mean)


@pytest.mark.slow
def test_paths_of_diffrax_have_the_moments_of_the_scheme():
    """4000 paths, one key: mean and covariance within four standard errors of what is exact."""
    h, steps = 0.4, 8
    dt = h
    equation = modified_equation(igr.methods.sgd_with_replacement(3), 1)
    field = stochastic_field(equation, linear_loss, h, (INPUTS, TARGETS))

    @jax.jit
    @jax.vmap
    def path(key):
        return stochastic_flow(field, {**LINEAR_PARAMS, "step": 7}, steps * dt, key=key).ys

    ends = path(jax.random.split(jax.random.key(0), 4000))
    assert np.all(np.asarray(ends["step"]) == 7)
    ends = np.column_stack([ends["a"].ravel(), ends["b"].ravel()])
    mean, covariance = moments_of_the_scheme(h, steps, dt)
    standard = np.sqrt(np.diag(covariance) / 4000)
    assert np.all(np.abs(ends.mean(axis=0) - mean) < 4 * standard)
    apart = ends - mean
    products = apart[:, :, None] * apart[:, None, :]
    errors = products.std(axis=0) / np.sqrt(4000)
    assert np.all(np.abs(products.mean(axis=0) - covariance) < 4 * errors)
    assert np.all(errors < 0.1 * np.sqrt(np.outer(np.diag(covariance), np.diag(covariance))))


@pytest.mark.slow
def test_terms_go_into_diffeqsolve_and_integer_leaves_pass():
    equation = modified_equation(igr.methods.sgd_with_replacement(1), 0)
    key = jax.random.key(5)
    field = stochastic_field(equation, linear_loss, 0.1, (INPUTS, TARGETS))
    by_hand = diffrax.diffeqsolve(
        field.terms(0.0, 0.5, key, tol=0.025), SmallNoiseHeun(), 0.0, 0.5, 0.05, LINEAR_PARAMS
    )
    with_step = {**LINEAR_PARAMS, "step": jnp.array(7)}
    found = stochastic_flow(field, with_step, 0.5, key=key, dt0=0.05).ys
    np.testing.assert_allclose(found["b"], by_hand.ys["b"], rtol=1e-12)
    assert int(found["step"]) == 7


@pytest.mark.slow
def test_single_precision_stays():
    low = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), (LINEAR_PARAMS, INPUTS, TARGETS))
    equation = modified_equation(igr.methods.sgd_with_replacement(1), 1)
    field = stochastic_field(equation, linear_loss, 0.1, low[1:])
    path = lambda p: stochastic_flow(field, p, 0.2, key=jax.random.key(0)).ys
    closed = moments_field(equation, linear_loss, 0.1, low[1:])
    moments = lambda p: closed(0.0, (p, jnp.zeros((2, 2), jnp.float32)), None)
    for found in (jax.eval_shape(path, low[0]), jax.eval_shape(moments, low[0])):
        assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype("float32")}


@pytest.mark.slow
def test_the_covariance_of_a_quadratic_settles():
    """Where H C + C H = h Sigma/B, by scipy."""
    h = 0.1
    equation = modified_equation(igr.methods.sgd_with_replacement(3), 1)
    field = moments_field(equation, linear_loss, h, (INPUTS, TARGETS))
    state = LINEAR_PARAMS, jnp.zeros((2, 2))
    mean, covariance = jax.jit(lambda s: flow(field, s, 40.0).ys)(state)
    hessian = INPUTS.T @ INPUTS / 4
    minimum = np.linalg.solve(hessian, INPUTS.T @ TARGETS / 4)
    np.testing.assert_allclose([mean["a"][0], mean["b"][0, 0]], minimum, rtol=1e-8)
    expected = scipy.linalg.solve_continuous_lyapunov(hessian, h / 3 * sigma_by_hand(minimum))
    np.testing.assert_allclose(covariance[0], expected, rtol=1e-8)


def test_print_and_loss():
    equation = modified_equation(igr.methods.sgd_with_replacement(1), 1)
    assert str(equation) == "dθ = (-g - h/2 H g) dt + √(h Σ) dW, weak order 2"
    assert r"\sqrt{h \Sigma}\, dW" in equation.latex()
    assert str(equation.modified_loss()) == "E + h/4 |g|² + O(h²)"
    assert equation.truncate(0).weak_order == 1
    assert equation.drift.coefficients == (
        modified_equation(igr.methods.gradient_descent(), 1).coefficients
    )


def test_bad_input():
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        igr.methods.sgd_with_replacement(0)
    with pytest.raises(ValueError, match="weak order 1 or 2"):
        modified_equation(igr.methods.sgd_with_replacement(4), 2)
    symbolic = modified_equation(igr.methods.sgd_with_replacement(sympy.Symbol("B")), 1)
    with pytest.raises(ValueError, match="open symbol B"):
        stochastic_field(symbolic, linear_loss, 0.1, (INPUTS, TARGETS))
    equation = modified_equation(igr.methods.sgd_with_replacement(4), 1)
    with pytest.raises(ValueError, match="h must be positive"):
        stochastic_field(equation, linear_loss, 0.0, (INPUTS, TARGETS))
    with pytest.raises(ValueError, match="leaves of batch must agree"):
        stochastic_field(equation, linear_loss, 0.1, (INPUTS, TARGETS[:3]))
    plain = modified_equation(igr.methods.gradient_descent(), 1)
    with pytest.raises(TypeError, match="sgd_with_replacement"):
        moments_field(plain, linear_loss, 0.1, (INPUTS, TARGETS))
    with pytest.raises(TypeError, match="stochastic_field"):
        igr.vector_field(equation, lambda p: 0.0, 0.1)
    field = stochastic_field(equation, linear_loss, 0.1, (INPUTS, TARGETS))
    with pytest.raises(ValueError, match="t1 must be after t0"):
        stochastic_flow(field, LINEAR_PARAMS, -1.0, key=jax.random.key(0))
    closed = moments_field(equation, linear_loss, 0.1, (INPUTS, TARGETS))
    with pytest.raises(ValueError, match="2 x 2; got shape"):
        closed(0.0, (LINEAR_PARAMS, jnp.zeros((3, 3))), None)
