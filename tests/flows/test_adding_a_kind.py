"""The page on adding a kind, run as it stands: derived, printed, followed and certified."""

import re
from pathlib import Path

import numpy as np
import optax
import pytest
import sympy

import igr
from igr.backward_error import protocols

PAGE = Path(__file__).parents[2] / "docs" / "adding_a_kind.md"


@pytest.fixture(scope="module")
def page():
    names = {"__name__": "adding_a_kind"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 5
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def test_a_method_from_outside_is_derived_and_printed(page):
    assert isinstance(page["lazy"], protocols.Method)
    assert isinstance(page["eq"], protocols.Equation)
    assert str(page["eq"]) == "θ' = -r g - h r**2/2 H g"
    x, h = sympy.symbols("x h")
    half = igr.modified_equation(page["lazy"], 1)
    plain = igr.modified_equation(igr.methods.gradient_descent(), 1)
    loss = sympy.cosh(x) + x**3
    expected = plain.on(loss, (x,), h / 2)[0] / 2
    assert sympy.simplify(half.on(loss, (x,), h)[0] - expected) == 0


def test_it_is_followed_and_compared(page):
    comparison = page["comparison"]
    assert comparison.distance[1][-1] < comparison.distance[0][-1] / 5
    assert comparison.stability_limit == 4
    np.testing.assert_allclose(page["end"][-1], comparison.discrete.params[-1], atol=1e-3)


def test_it_is_certified_and_a_wrong_one_is_not(page):
    assert page["certificate"].holds
    wrong = igr.certify(
        page["LazyDescent"](sympy.Rational(1, 3)), lambda h: optax.sgd(h / 2), page["loss"],
        page["start"], order=0,
    )  # fmt: skip
    assert not wrong.holds


def test_what_a_kind_does_not_register_is_refused_by_name(page):
    with pytest.raises(TypeError, match="lazy descent has no modified loss to compile"):
        igr.modified_value_fn(page["lazy"].equation(1), page["loss"], 0.1)
    with pytest.raises(protocols.UnansweredError, match="worked out to h; got order 2"):
        igr.modified_equation(page["lazy"], 2)
