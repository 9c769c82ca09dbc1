"""A field by differences: against sums by hand, and where an equation says too little."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sympy import Symbol, exp

import igr

M = igr.methods
H = 0.1
START = {"w": jnp.array([0.4, -1.2]), "n": 3}


def kinked(p):
    return jnp.sum(jnp.abs(p["w"]) ** 1.5) + jax.nn.relu(p["w"][0] + p["w"][1] + 0.75)


def gradient(w):
    return 1.5 * np.sign(w) * np.abs(w) ** 0.5 + (w.sum() > -0.75)


def at(method, given=None, order=1):
    field = igr.vector_field(
        igr.modified_equation(method, order), kinked, H, derivatives="differences", method=given
    )
    return field(0.0, START, None)


@pytest.mark.parametrize("given", [False, True])
def test_of_gradient_descent(given):
    """-g - (g(w) - g(w - h g))/2, with or without a word on the method; the step crosses a kink."""
    gd = M.gradient_descent()
    found = at(gd, gd if given else None)
    w = np.array(START["w"])
    g, after = gradient(w), gradient(w - H * gradient(w))
    assert (w.sum() > -0.75) != ((w - H * g).sum() > -0.75)
    np.testing.assert_allclose(found["w"], -g - (g - after) / 2, rtol=1e-12)
    assert found["n"] == 3  # what is not floating passes through


def test_of_steps_twice_as_long():
    found = at(M.linear_memory(2))["w"]
    w = np.array(START["w"])
    g, after = gradient(w), gradient(w - 2 * H * gradient(w))
    np.testing.assert_allclose(found, -2 * g - (g - after), rtol=1e-12)


def test_of_a_memory_of_two():
    """Weights 1 and 1/2: F = (3/2) d(w) - (1/2) d(w + h M), d over w and where it was before."""
    two = M.linear_memory(1 + exp(-M.z) / 2)
    w = np.array(START["w"])
    motion = -1.5 * gradient(w)
    d = lambda x: -gradient(x) - gradient(x - H * motion) / 2
    expected = 1.5 * d(w) - d(w + H * motion) / 2
    np.testing.assert_allclose(at(two, two)["w"], expected, rtol=1e-12)


def test_of_stages():
    """Heun's step, from two of its own: log(1 + Delta) to the second difference."""
    heun = M.runge_kutta([[0, 0], [1, 0]], [0.5, 0.5])
    step = lambda w: w - H / 2 * (gradient(w) + gradient(w - H * gradient(w)))
    w = np.array(START["w"])
    one, two = step(w), step(step(w))
    expected = ((one - w) - (two - 2 * one + w) / 2) / H
    np.testing.assert_allclose(at(heun, heun)["w"], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": M.heavy_ball(0.5)}, r"needs the method of heavy ball .* give method="),
        ({"method": M.sam(0.1)}, "needs the method of SAM"),
        ({"method": M.gradient_descent(), "order": 2}, "equation of order 1: .*; got order 2"),
        ({"method": M.gradient_descent(), "order": 0}, "equation of order 1: .*; got order 0"),
        ({"method": M.gradient_descent(), "given": M.heavy_ball(0.5)}, "must be that of the eq"),
        ({"method": M.adam(), "given": M.adam()}, "differences are known for methods without"),
        ({"method": M.heavy_ball(Symbol("b"))}, "open symbols"),
    ],
)
def test_what_it_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        at(**options)


def test_bad_input():
    eq = igr.modified_equation(M.gradient_descent(), 1)
    with pytest.raises(ValueError, match="derivatives must be 'automatic' or 'differences'"):
        igr.vector_field(eq, kinked, H, derivatives="exact")
    with pytest.raises(ValueError, match="method is for derivatives = 'differences'"):
        igr.vector_field(eq, kinked, H, method=M.gradient_descent())
    with pytest.raises(ValueError, match="batches is for SGD in epochs"):
        igr.vector_field(eq, kinked, H, jnp.ones(3), derivatives="differences")
