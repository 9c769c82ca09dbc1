"""Print as a reader of the papers knows it: pinned, in unicode and in LaTeX."""

import pytest
import sympy
from sympy.parsing.sympy_parser import (
    implicit_multiplication,
    parse_expr,
    standard_transformations,
)

from igr.backward_error import methods, modified_equation, trees
from igr.backward_error.trees import printing

beta, a, b, c = sympy.symbols("beta a b c")
z = methods.z
EULER = modified_equation(methods.gradient_descent(), 3)


def test_gradient_descent():
    assert str(EULER.truncate(0)) == "θ' = -g + O(h)"
    assert str(EULER) == (
        "θ' = -g - h/2 H g - h² (1/3 H² g + 1/12 ∇³E[g, g])"
        " - h³ (1/4 H³ g + 1/12 H ∇³E[g, g] + 1/12 ∇³E[g, H g]) + O(h⁴)"
    )
    assert EULER.truncate(2).latex() == (
        r"\dot\theta = -g - \frac{h}{2} H g"
        r" - h^{2} \left(\frac{1}{3} H^{2} g + \frac{1}{12} \nabla^{3} E[g, g]\right) + O(h^{3})"
    )
    assert repr(EULER.truncate(1)) == (
        "<modified equation of gradient descent, order 1: θ' = -g - h/2 H g + O(h²)>"
    )
    assert EULER.truncate(1)._repr_latex_() == (
        r"$\displaystyle \dot\theta = -g - \frac{h}{2} H g + O(h^{2})$"
    )


def test_loss_of_gradient_descent():
    """Barrett and Dherin (2021), Theorem 3.1."""
    loss = EULER.modified_loss(1)
    assert str(loss) == "E + h/4 |g|² + O(h²)"
    assert loss.latex() == r"E + \frac{h}{4} \lvert g\rvert^{2} + O(h^{2})"
    assert repr(loss) == "<modified loss of gradient descent, order 1: E + h/4 |g|² + O(h²)>"
    assert str(EULER.modified_loss(0)) == "E + O(h)"


def test_split_of_gradient_descent():
    part = EULER.truncate(2).gradient_part()
    assert str(part.modified_loss()) == "E + h/4 |g|² + h²/12 gᵀH g + O(h³)"
    assert part.modified_loss().latex() == (
        r"E + \frac{h}{4} \lvert g\rvert^{2} + \frac{h^{2}}{12} g^{\top}H g + O(h^{3})"
    )
    rest = EULER.truncate(2).obstruction()
    assert str(rest) == "θ' = -h²/6 H² g + O(h³)"
    assert rest.latex() == r"\dot\theta = -\frac{h^{2}}{6} H^{2} g + O(h^{3})"


def test_heavy_ball():
    eq = modified_equation(methods.heavy_ball(beta), 2)
    assert str(eq) == (
        "θ' = -1/(1 - β) g - h (β + 1)/(2 (1 - β)³) H g"
        " - h² ((β² + 4 β + 1)/(3 (1 - β)⁵) H² g + (β² + 10 β + 1)/(12 (1 - β)⁵) ∇³E[g, g])"
        " + O(h³)"
    )
    assert eq.truncate(1).latex() == (
        r"\dot\theta = -\frac{1}{1 - \beta} g"
        r" - \frac{h \left(\beta + 1\right)}{2 \left(1 - \beta\right)^{3}} H g + O(h^{2})"
    )
    assert str(eq.modified_loss(1)) == "1/(1 - β) E + h (β + 1)/(4 (1 - β)³) |g|² + O(h²)"


def test_letters_stand_before_sums():
    eq = modified_equation(methods.nesterov(beta), 3)
    assert str(eq).endswith("+ β² (β + 1)/(2 (1 - β)⁷) ∇⁴E[g, g, g]) + O(h⁴)")


def test_numbers():
    assert str(modified_equation(methods.heavy_ball(0.9), 1)) == "θ' = -10 g - 950 h H g + O(h²)"
    assert (
        str(modified_equation(methods.linear_memory(sympy.sqrt(2) * sympy.exp(-z)), 1))
        == "θ' = -sqrt(2) g - 3 h H g + O(h²)"
    )
    assert str(modified_equation(methods.linear_memory(-2), 1)) == "θ' = 2 g - 2 h H g + O(h²)"
    assert str(modified_equation(methods.linear_memory(z), 1)) == "θ' = 0 + O(h²)"


@pytest.mark.parametrize(
    ("transfer", "text"),
    [
        (1 - 3 * b, "θ' = -(1 - 3 b) g - h (1 - 3 b)²/2 H g + O(h²)"),
        (3 * b - 1, "θ' = (1 - 3 b) g - h (1 - 3 b)²/2 H g + O(h²)"),
        (a - b, "θ' = -(a - b) g - h (a - b)²/2 H g + O(h²)"),
        ((1 - a) * (a - b), "θ' = -(1 - a) (a - b) g - h (1 - a)² (a - b)²/2 H g + O(h²)"),
        (-b, "θ' = b g - h b²/2 H g + O(h²)"),
    ],
    ids=str,
)
def test_no_sign_is_lost(transfer, text):
    assert str(modified_equation(methods.linear_memory(transfer), 1)) == text


@pytest.mark.parametrize(
    ("transfer", "order"),
    [(1 - 3 * b, 2), (sympy.exp(a * z), 2), (a - b * sympy.exp(-z), 2), (c * z + 1, 3)],
    ids=str,
)
def test_what_is_printed_is_what_is_derived(transfer, order):
    """Read back by sympy: h from the print, the differentials as letters."""
    eq = modified_equation(methods.linear_memory(transfer), order)
    terms = {t: sympy.Symbol(f"D{i}") for i, t in enumerate(eq.coefficients)}
    h = sympy.Symbol("h")
    text = str(eq).removeprefix("θ' = ").rpartition(" + O(")[0]
    for t in sorted(terms, key=lambda t: -len(printing.differential(t))):
        name = printing.differential(t)
        text = text.replace(f" {name}", f"*{terms[t]}").replace(f"-{name}", f"-{terms[t]}")
    for raised, number in zip("²³⁴⁵", "2345", strict=True):
        text = text.replace(raised, f"**{number}")
    text = text.replace(" (", "*(").replace("-*", "-").replace("+*", "+")
    read = parse_expr(text, transformations=(*standard_transformations, implicit_multiplication))
    expected = sum(
        (-1) ** trees.order(t) * h ** (trees.order(t) - 1) * k * terms[t]
        for t, k in eq.coefficients.items()
    )
    assert sympy.expand(read - expected) == 0


@pytest.mark.parametrize(
    ("tree", "text", "latex"),
    [
        ((), "g", "g"),
        ((((),),), "H² g", "H^{2} g"),
        (((), ()), "∇³E[g, g]", r"\nabla^{3} E[g, g]"),
        ((((), ()),), "H ∇³E[g, g]", r"H \nabla^{3} E[g, g]"),
        (((), ((),)), "∇³E[g, H g]", r"\nabla^{3} E[g, H g]"),
        (((),) * 11, "∇¹²E[" + ", ".join("g" * 11) + "]", r"\nabla^{12} E["),
        (
            ((), ((), ((),))),
            "∇³E[g, ∇³E[g, H g]]",
            r"\nabla^{3} E[g, \nabla^{3} E[g, H g]]",
        ),
    ],
)
def test_differentials(tree, text, latex):
    assert printing.differential(tree) == text
    assert printing.differential(tree, latex=True).startswith(latex)


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ((), "E"),
        (((),), "|g|²"),
        (((), ()), "gᵀH g"),
        (((), ((),)), "gᵀH² g"),
        ((((),), ((),)), "gᵀH³ g"),
        (((), (), ()), "∇³E[g, g, g]"),
        (((), (), ((),)), "∇³E[g, g, H g]"),
    ],
)
def test_contractions(tree, text):
    assert printing.contraction(tree) == text
