"""Adam and RMSProp of optax beside the flows of their derived equations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sympy

import igr


def _apart(a, b):
    return float(optax.tree.norm(optax.tree.sub(a, b)))


def _last(tree):
    return jax.tree.map(lambda x: x[-1], tree)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "optimizer"),
    [
        (
            igr.methods.adam(0.5, 0.7, eps=0, eps_root=0.01, keep=()),
            lambda h: optax.adam(h, 0.5, 0.7, eps=0, eps_root=0.01),
        ),
        pytest.param(
            igr.methods.rmsprop(0.5, 0.01),
            lambda h: optax.rmsprop(h, decay=0.5, eps=0.01, eps_in_sqrt=True),
            marks=pytest.mark.slow,
        ),
        pytest.param(
            igr.methods.nadam(0.5, 0.5, eps=0.1, keep=()),
            lambda h: optax.nadam(h, 0.5, 0.5, eps=0.1),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["adam", "rmsprop", "nadam"],
)
def test_global_order_of_the_eliminated_form(polynomial, method, optimizer):
    """At a fixed time the flow of order p is h^(p+1) from the real run, its memory filled."""
    value_fn, params = polynomial
    equation = igr.modified_equation(method, 1)
    hs = np.array([0.004, 0.002, 0.001])
    errors = {0: [], 1: []}
    for h in hs:
        n = round(0.2 / h)
        warm = igr.run(optimizer(h), value_fn, params, n, record_every=n)
        end = igr.run(optimizer(h), value_fn, warm.last, n, record_every=n, state=warm.state)
        for order in errors:
            field = igr.vector_field(equation.truncate(order), value_fn, h)
            errors[order].append(_apart(_last(igr.flow(field, warm.last, n * h).ys), end.last))
    for order, found in errors.items():
        slope = np.polyfit(np.log(hs), np.log(found), 1)[0]
        assert abs(slope - (order + 1)) < 0.1, (order, found)


@pytest.mark.slow
@pytest.mark.parametrize("done", [1, 50])
def test_adam_at_its_defaults_with_both_moments_kept(done):
    """300 steps at 1e-3 on 104 parameters, from the state after so many: no memory has to fill.

    Off at the end by 0.4 % of the way at h^0; at h^1 by 6e-4 of it from the first step on and 4e-5
    from the fiftieth.
    """
    keys = jax.random.split(jax.random.key(0), 4)
    params = {
        "hidden": (jax.random.normal(keys[0], (8, 8)) / 3, jnp.zeros(8)),
        "out": jax.random.normal(keys[1], (8, 4)) / 3,
    }
    inputs, targets = jax.random.normal(keys[2], (40, 8)), jax.random.normal(keys[3], (40, 4))

    def value_fn(p):
        weights, bias = p["hidden"]
        return jnp.mean((jnp.tanh(inputs @ weights + bias) @ p["out"] - targets) ** 2)

    h, steps = 1e-3, 300
    warm = igr.run(optax.adam(h), value_fn, params, done, record_every=done)
    end = igr.run(
        optax.adam(h), value_fn, warm.last, steps, record_every=steps, state=warm.state
    ).last
    travelled = _apart(warm.last, end)
    equation = igr.modified_equation(igr.methods.adam(keep=("mu", "nu")), 1)
    start = warm.last, {name: optax.tree.get(warm.state, name) for name in ("mu", "nu")}
    shares = []
    for order in (0, 1):
        field = igr.vector_field(equation.truncate(order), value_fn, h)
        reached = igr.flow(field, start, (done + steps) * h, t0=done * h, rtol=1e-7).ys[0]
        shares.append(_apart(_last(reached), end) / travelled)
    assert shares[0] <= 0.01
    assert shares[1] <= (0.002 if done == 1 else 2e-4)


def test_dtype_structure_and_jit():
    params = {"w": jnp.array([0.5, -1.0], jnp.float32), "n": jnp.array(3)}
    value_fn = lambda p: jnp.sum(jnp.cosh(p["w"]))
    equation = igr.modified_equation(igr.methods.rmsprop(0.5, 0.01), 1)
    got = jax.jit(igr.vector_field(equation, value_fn, 0.1))(0.0, params, None)
    assert got["w"].dtype == jnp.float32
    assert got["n"] == 0


def test_open_symbols_are_refused(polynomial):
    equation = igr.modified_equation(igr.methods.rmsprop(sympy.Symbol("beta")), 0)
    igr.vector_field(equation, polynomial.value_fn, 0.1)  # the average of g^2 at h^0 is g^2
    equation = igr.modified_equation(igr.methods.rmsprop(sympy.Symbol("beta")), 1)
    with pytest.raises(ValueError, match=r"open symbols \(beta\)"):
        igr.vector_field(equation, polynomial.value_fn, 0.1)


@pytest.mark.parametrize("dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.slow)])
def test_a_weight_that_is_never_used_stands_still(dtype):
    """Dead pixels: the gradient and its average of squares are exactly zero."""
    equation = igr.modified_equation(igr.methods.adam(), 1)
    field = igr.vector_field(equation, lambda p: jnp.sum(jnp.cosh(p[:1])), 1e-3)
    params, nu = jnp.array([0.5, 2.0], dtype), jnp.array([0.1, 0.0], dtype)
    theta, kept = jax.jit(field)(0.5, (params, {"nu": nu}), None)
    assert np.isfinite(theta).all()
    assert np.isfinite(kept["nu"]).all()
    assert theta[1] == 0
    assert abs(kept["nu"][1]) < 1e-12
    assert theta[0] < -0.1


def test_what_is_kept_belongs_to_the_state(polynomial):
    equation = igr.modified_equation(igr.methods.adam(), 1)
    field = igr.vector_field(equation, polynomial.value_fn, 0.1)
    for state in (polynomial.params, {"w": 1.0, "v": 2.0}, (polynomial.params, {})):
        with pytest.raises(
            TypeError, match=r"the state of this field must be \(params, \{'nu': \.\.\."
        ):
            field(0.0, state, None)
