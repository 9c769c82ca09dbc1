"""The model of the IGR paper's section 5 against the paper's formulas, written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sympy

import igr
from analysis.models import two_parameters as model

POINTS = jnp.array([[2.8, 3.5], [0.3, -1.2], [-2.0, 0.7]])


@pytest.mark.parametrize("point", POINTS)
def test_regularizer_over_loss_is_that_of_the_gradient(point):
    """R = |grad E|^2 / m with m = 2 (equation 4), against the closed form (A.25)."""
    gradient = jax.grad(model.loss)(point)
    regularizer = jnp.sum(gradient**2) / 2
    np.testing.assert_allclose(
        model.regularizer_over_loss(point), regularizer / model.loss(point), rtol=1e-12
    )


def test_the_modified_loss_is_the_paper_s():
    """E (1 + lambda (a^2 + b^2) x^2) with lambda = h/2, equation A.27."""
    a, b, x, y, h = sympy.symbols("a b x y h")
    loss = (y - a * b * x) ** 2 / 2
    derived = igr.modified_equation(igr.methods.gradient_descent(), order=1).modified_loss()
    assert (
        sympy.expand(derived.on(loss, (a, b), h) - loss * (1 + h / 2 * (a**2 + b**2) * x**2)) == 0
    )


@pytest.mark.parametrize("point", POINTS)
def test_the_modified_field_is_the_paper_s(point):
    """Equation A.28, written out by hand."""
    (a, b), x, y, lam = point, model.X, model.Y, 0.01
    error, e = y - a * b * x, model.loss(point)
    pull = 1 + lam * (a**2 + b**2) * x**2
    by_hand = jnp.stack(
        [
            b * x * error * pull - lam * 2 * a * x**2 * e,
            a * x * error * pull - lam * 2 * b * x**2 * e,
        ]
    )
    field = model.modified_field(2 * lam)
    np.testing.assert_allclose(field(0.0, point, None), by_hand, rtol=1e-12)


@pytest.mark.parametrize("point", POINTS)
def test_egr_takes_the_paper_s_step(point):
    """A.32: one step down the gradient of E (1 + mu (a^2 + b^2) x^2), by central differences."""
    h, mu, eps = 1e-3, 0.5, 1e-6
    a, b, x, y = *map(float, point), model.X, model.Y

    def regularized(a, b):
        return (y - a * b * x) ** 2 / 2 * (1 + mu * (a**2 + b**2) * x**2)

    slope = [
        (regularized(a + eps, b) - regularized(a - eps, b)) / (2 * eps),
        (regularized(a, b + eps) - regularized(a, b - eps)) / (2 * eps),
    ]
    stepped = igr.run(model.egr(h, mu), model.loss, point, 1).last
    np.testing.assert_allclose(stepped, np.array([a, b]) - h * np.array(slope), rtol=1e-8)
    np.testing.assert_allclose(model.regularized_field(mu)(0.0, point, None), -np.array(slope),
                               rtol=1e-6, atol=1e-6)  # fmt: skip


@pytest.mark.slow
def test_sharpness_is_the_largest_eigenvalue():
    # At a minimum the Hessian of E is x^2 (b, a)(b, a)', with a^2 + b^2 as its eigenvalue.
    minimum = jnp.array([2.0, 0.3])
    np.testing.assert_allclose(model.sharpness(model.loss, minimum), 4.09, rtol=1e-12)
