"""What counts as a number, a count, a name: in one dialect, for every public function."""

import re
from fractions import Fraction

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import sympy

import igr
from igr.checks import check_callable, check_choice, check_count, check_number, check_step

NUMBERS = [
    0.125,
    1,
    Fraction(1, 8),
    sympy.Rational(1, 8),
    np.float32(0.125),
    np.int8(3),
    np.array(0.125),
    np.array(3),
    ml_dtypes.bfloat16(0.125),
    jnp.array(0.125),
    jnp.bfloat16(0.125),
    jnp.array(2),
]
NO_NUMBERS = ["0.1", b"0.1", np.str_("0.1"), np.array("0.1"), None, True, np.array(True), 1j]
NO_NUMBERS += [[0.1], np.ones(1), jnp.ones(2), jnp.array(1j), jax.random.key(0), sympy.Symbol("h")]


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
def test_numbers_of_every_kind(number):
    check_step("h", number)
    check_number("h", number, at_least=0, at_most=3)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"h must be a number; got "):
        check_step("h", value)


@pytest.mark.parametrize(
    ("value", "limits", "message"),
    [
        (0, {"above": 0}, "tol must be positive and finite; got 0."),
        (np.float32(-1), {"above": 0}, "tol must be positive and finite; got -1.0."),
        (jnp.inf, {"above": 0}, "tol must be positive and finite; got inf."),
        (np.nan, {}, "tol must be finite; got nan."),
        (10**400, {}, "tol must be finite; got 1000"),
        (-1, {"at_least": 0}, "tol must be finite and not negative; got -1."),
        (51, {"at_least": 0, "at_most": 50}, "tol must be between 0 and 50; got 51."),
        (0, {"at_least": 1}, "tol must be finite, 1 or more; got 0."),
        (1, {"above": 1}, "tol must be above 1 and finite; got 1."),
    ],
)
def test_numbers_out_of_range(value, limits, message):
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        check_number("tol", value, **limits)


def test_traced_numbers_pass_and_traced_arrays_do_not():
    jax.jit(lambda h: check_step("h", h))(-1.0)
    with pytest.raises(TypeError, match="h must be a number; got"):
        jax.jit(lambda h: check_step("h", h) or h)(jnp.ones(2))


def test_counts():
    for value in (3, np.int8(3), np.array(3), jnp.array(3)):
        found = check_count("steps", value, 1)
        assert found == 3
        assert type(found) is int
    for value in (
        True,
        np.bool_(True),
        2.0,
        np.float64(2),
        "2",
        None,
        Fraction(2),
        np.ones(1, int),
    ):
        with pytest.raises(TypeError, match=r"steps must be an integer; got "):
            check_count("steps", value, 1)
    with pytest.raises(ValueError, match=r"steps must be at least 1; got 0\."):
        check_count("steps", 0, 1)
    with pytest.raises(ValueError, match=r"k must be between 1 and 5, the number of rows; got 6\."):
        check_count("k", 6, 1, 5, ", the number of rows")
    with pytest.raises(TypeError, match=r"fixes the compiled program.*static_args=\('k',\)"):
        jax.jit(lambda k: check_count("k", k, 1))(3)


def test_names_and_functions():
    check_choice("method", "exact", ("exact", "random_signs"))
    with pytest.raises(ValueError, match="method must be 'exact' or 'random_signs'; got 'random s"):
        check_choice("method", "random signs", ("exact", "random_signs"))
    with pytest.raises(ValueError, match=r"kind must be 'a', 'b' or 'c'; got \['a'\]"):
        check_choice("kind", ["a"], ("a", "b", "c"))
    with pytest.raises(TypeError, match="value_fn must be a function params -> scalar; got 3"):
        check_callable("value_fn", 3, "params -> scalar")


@pytest.mark.parametrize("h", [np.array(0.125), ml_dtypes.bfloat16(0.125), jnp.bfloat16(0.125)])
def test_the_transformations_take_numbers_of_every_kind(h):
    params, loss = jnp.ones(2), lambda w: jnp.sum(w**2) / 2
    optimizer = igr.transforms.egr(h, h)
    step = jax.jit(lambda p: optimizer.update(p, optimizer.init(p), p, value_fn=loss)[0])
    updates = step(params)
    np.testing.assert_allclose(updates, -0.125 * (1 + 2 * 0.125), rtol=1e-6)


def test_text_is_no_step_size():
    loss = lambda w: jnp.sum(w**2)
    eq = igr.modified_equation(igr.methods.gradient_descent(), order=1)
    for call in (
        lambda: igr.vector_field(eq, loss, "0.1"),
        lambda: igr.transforms.egr("0.1", 0.1),
        lambda: igr.transforms.decay_until("0.1", 3),
        lambda: igr.curvature.sharpness(loss, jnp.ones(2), tol="0.1"),
        lambda: igr.diagnostics.sgd_region("0.1", 1, 10),
        lambda: igr.diagnostics.modified_loss_share(loss, jnp.ones(2), "0.1"),
        lambda: igr.transforms.cancel_implicit(igr.methods.gradient_descent(), "0.1"),
    ):
        with pytest.raises(TypeError, match=r"must be a number; got '0\.1'"):
            call()
