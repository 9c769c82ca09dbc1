"""Equations of elementwise methods in print, pinned, and with numbers for their symbols."""

import pytest
import sympy

from igr.backward_error import NotAGradientError, methods, modified_equation

beta, epsilon, c = sympy.symbols("beta epsilon c")


def test_a_rule_with_a_root():
    equation = modified_equation(methods.rmsprop(beta, epsilon), 1)
    assert str(equation.truncate(0)) == "θ' = -g/sqrt(ε + g²) + O(h)"
    assert str(equation).startswith("θ' = -g/sqrt(ε + g²) + h (H[s₁] (")
    assert str(equation).endswith(" + O(h²), with s₁ = g/sqrt(ε + g²)")
    assert equation.truncate(0).latex() == (
        r"\dot\theta = - \frac{g}{\sqrt{\epsilon + g^{2}}} + O(h)"
    )
    assert r"\text{with } s_{1} = \frac{g}{\sqrt{\epsilon + g^{2}}}" in equation.latex()
    assert equation._repr_latex_() == f"$\\displaystyle {equation.latex()}$"


def test_kept_states_have_a_line_each():
    equation = modified_equation(methods.adam(0.9, 0.99, eps=0.1, keep=("mu", "nu")), 0)
    assert str(equation).splitlines() == [
        "θ' = -μ/((1 - exp(-λ_μ t)) (sqrt(ν/(1 - exp(-λ_ν t))) + 1/10)) + O(h)",
        "μ' = κ_μ g - κ_μ μ + O(h)",
        "ν' = κ_ν (g² - ν) + O(h), with h κ_μ = 1/10, h κ_ν = 1/100, "
        "h λ_μ = -log(9/10), h λ_ν = -log(99/100)",
    ]
    assert equation.latex().count(r"\\") == 3


def test_linear_rules_look_as_those_of_trees():
    rule = methods.elementwise(
        sympy.Symbol("m"), {"m": (methods.g, methods.trace(beta))}, parameters=[beta]
    )
    terms = modified_equation(rule, 1)
    assert str(terms) == str(modified_equation(methods.heavy_ball(beta), 1))
    assert terms.latex() == modified_equation(methods.heavy_ball(beta), 1).latex()


def test_the_length_of_the_gradient():
    rho = sympy.Symbol("rho")
    equation = modified_equation(methods.sam(rho), 2)
    assert str(equation.truncate(1)) == "θ' = -g - h (2 ρ + |g|)/(2 |g|) H g + O(h²)"
    assert "(gᵀH g) ρ/(2 |g|³) H g" in str(equation)
    assert r"{\lvert g\rvert}" in equation.latex()


def test_no_sign_is_lost_before_several_terms():
    equation = modified_equation(methods.heavy_ball(0.5, keep="trace", weight_decay=2), 0)
    assert str(equation).splitlines()[0] in (
        "θ' = -(trace + 2 θ) + O(h)",
        "θ' = -(2 θ + trace) + O(h)",
    )
    assert str(equation).splitlines()[1].startswith("trace' = 2 κ_trace g - κ_trace trace + O(h)")


def test_numbers_for_symbols():
    open_ = modified_equation(methods.rmsprop(beta, epsilon), 1)
    assert open_.parameters == (beta, epsilon)
    closed = open_.subs({"beta": 0.5, epsilon: 0.1})
    direct = modified_equation(methods.rmsprop(0.5, 0.1), 1)
    x, y, h = sympy.symbols("x y h")
    loss = x**2 * y + y**3 - x
    at = {x: 0.3, y: 0.7, h: 0.1}
    for a, b in zip(closed.on(loss, (x, y), h), direct.on(loss, (x, y), h), strict=True):
        assert abs((a - b).subs(at)) < 1e-14
    assert closed.parameters == ()
    assert closed.name == direct.name == "RMSProp (decay = 1/2)"
    with pytest.raises(ValueError, match="no symbol 'b3': it has beta, epsilon"):
        open_.subs({"b3": 1})
    with pytest.raises(ValueError, match="not finite at"):
        open_.subs({"beta": 1, "epsilon": 1})


@pytest.mark.parametrize(
    ("method", "values", "name"),
    [
        (methods.heavy_ball(beta), {"beta": 0.9}, "heavy ball (beta = 9/10)"),
        (methods.nesterov(beta), {beta: 0.5}, "Nesterov (beta = 1/2)"),
        (methods.usam(c), {"c": 2}, "USAM (rho/h = 2)"),
        (methods.sam(c), {"c": 2}, "SAM (rho/h = 2)"),
        (methods.signsgd(c), {"c": 0.5}, "smoothed sign descent (smoothing = 1/2)"),
        (
            methods.adamw(beta, 0.99, weight_decay=c, keep=("mu", "nu")),
            {"beta": 0.9, "c": 0.1},
            "Adam (b1 = 9/10, b2 = 99/100, weight decay = 1/10)",
        ),
        (methods.simultaneous((c, 1)), {"c": 3}, "simultaneous descent (ratios = (3, 1))"),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_the_name_follows_the_numbers(method, values, name):
    assert modified_equation(method, 1).subs(values).name == name


def test_parts_keep_their_names():
    part = modified_equation(methods.heavy_ball(beta), 2).obstruction()
    assert part.subs({"beta": 0.5}).name == "heavy ball (beta = 1/2), obstruction"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (methods.adam(keep=("mu", "nu")), "is no factor of the gradient g"),
        (methods.alternating(), "each player has a loss of its own"),
    ],
    ids=lambda x: getattr(x, "name", None),
)
def test_no_loss_is_handed_out(method, message):
    equation = modified_equation(method, 0)
    assert hash(equation) == hash(modified_equation(method, 0))
    with pytest.raises(NotAGradientError, match=message):
        equation.modified_loss()


def test_latex_as_one_would_write_it():
    """Adam at its defaults, and sign descent, which sympy writes as the root of a square."""
    adam = modified_equation(methods.adam(), 0).latex()
    assert r"+ 10^{-8}} + O(h)" in adam
    assert "100000000" not in adam
    sign = modified_equation(methods.adam(eps=0, keep=()), 0).latex()
    assert sign == r"\dot\theta = - \frac{g}{\left|{g}\right|} + O(h)"
