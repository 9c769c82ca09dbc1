"""The field recovered from a run, against fields known in closed form and derived ones."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import igr


def quadratic(p):
    return jnp.sum(jnp.array([1.0, 2.0]) * p["x"] ** 2) / 2


START = {"x": jnp.array([1.0, -1.0]), "n": jnp.array(3)}


@pytest.mark.parametrize("order", [0, 1, 2, 4])
def test_gradient_descent_on_a_quadratic(order):
    """theta' = log(1 - h l)/h theta on the run; the polynomial is off by O(h^(order + 1))."""
    h = 0.05
    along = igr.modified_field_along(
        igr.run(optax.sgd(h), quadratic, START, 12), order, learning_rate=h
    )
    x = h * np.array([1.0, 2.0])
    exact = np.log(1 - x) / h * np.asarray(along.params["x"])
    error = np.abs(along.field["x"] - exact) / np.abs(exact)
    assert error.max() < 1.3 * (2 * h) ** (order + 1)
    assert error.max() > 1e-3 * h ** (order + 1)  # it is a polynomial, not the answer
    np.testing.assert_array_equal(along.field["n"], 0)
    np.testing.assert_array_equal(along.step, np.arange(13))


@pytest.mark.slow
def test_any_optimizer_beside_its_derived_equation(tanh_network):
    """Its memory filled, optax.adam follows the field of order 1, more closely than that of 0."""
    value_fn, params = tanh_network
    h = 0.002
    method = igr.methods.adam(0.5, 0.7, eps=0.1, keep=())
    trajectory = igr.run(optax.adam(h, 0.5, 0.7, eps=0.1), value_fn, params, 90)
    along = igr.modified_field_along(trajectory, 3, learning_rate=h)
    late = jax.tree.map(lambda x: x[70], along.params)
    measured = jax.tree.map(lambda x: x[70], along.field)
    equation = igr.modified_equation(method, 1)
    errors = []
    for order in (0, 1):
        derived = igr.vector_field(equation.truncate(order), value_fn, h)(0.0, late, None)
        apart = optax.tree.norm(optax.tree.sub(derived, measured))
        errors.append(float(apart / optax.tree.norm(measured)))
    assert errors[0] < 0.05
    assert errors[1] < 0.2 * errors[0]


def test_a_unit_step_gives_the_displacement():
    run = igr.run(optax.sgd(0.1), quadratic, START, 5)
    per_step = igr.modified_field_along(run, 2).field["x"]
    per_time = igr.modified_field_along(run, 2, learning_rate=0.1).field["x"]
    np.testing.assert_allclose(per_step, 0.1 * per_time, rtol=1e-12)


def test_bad_input():
    run = igr.run(optax.sgd(0.1), quadratic, START, 6, record_every=2)
    with pytest.raises(ValueError, match=r"record_every=1; the trajectory has records at .* 0, 2"):
        igr.modified_field_along(run, 1)
    run = igr.run(optax.sgd(0.1), quadratic, START, 2)
    with pytest.raises(ValueError, match="order 2 takes 4 iterates, the trajectory has 3"):
        igr.modified_field_along(run, 2)
    with pytest.raises(ValueError, match="order must be at least 0"):
        igr.modified_field_along(run, -1)
    with pytest.raises(TypeError, match=r"what igr\.run returns; got dict"):
        igr.modified_field_along({}, 1)
