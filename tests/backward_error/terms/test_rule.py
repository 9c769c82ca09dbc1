"""Rules as descriptions: what they print, what they refuse."""

import pickle

import pytest
import sympy

from igr.backward_error import NotAGradientError, methods, modified_equation
from igr.backward_error.protocols import Equation, Method, UnansweredError

BETA = sympy.Symbol("beta")


def _direction(m):
    return m


def _one_channel(transfer):
    return methods.rule(_direction, {"m": transfer}, name="one channel")


def test_speaks_both_protocols():
    method = _one_channel(methods.ema(0.9))
    assert isinstance(method, Method)
    assert isinstance(method.equation(1), Equation)
    assert pickle.loads(pickle.dumps(method)) == method
    assert hash(method.equation(1)) == hash(_one_channel(methods.ema(0.9)).equation(1))


@pytest.mark.parametrize(
    ("transfer", "coefficient"),
    [
        (methods.ema(0.9), "19/2"),  # w0 = 1, w1 = -b/(1-b)
        (methods.trace(0.5), "3"),  # w0 = 1/(1-b), w1 = -b/(1-b)^2
        (sympy.exp(-methods.z), "3/2"),  # the last gradient: w0 = 1, w1 = -1
    ],
)
def test_prints_the_coefficient_of_one_channel(transfer, coefficient):
    text = str(_one_channel(transfer).equation(1))
    assert text.partition("F₁ = ")[2] == f"{coefficient} J_Ψ H F₀"


def test_prints_in_words():
    decayed = methods.rule(
        lambda m, theta: m, {"m": (lambda g: g, methods.ema(0.5))}, name="with decay"
    )
    assert str(modified_equation(decayed, 1)) == (
        "θ' = F₀ + h F₁ + O(h²), with F₀ = -Ψ(m, θ), m = φ_m, "
        "and F₁ = 3/2 J_m φ_m'[F₀] + 1/2 J_θ F₀"
    )
    assert str(modified_equation(decayed, 0)) == "θ' = F₀ + O(h), with F₀ = -Ψ(m, θ), and m = φ_m"
    memoryless = methods.rule(lambda g: g)
    assert str(modified_equation(memoryless, 2)) == (
        "θ' = F₀ + h F₁ + h² F₂ + O(h³), with F₀ = -Ψ(g), and F₁ = 1/2 J_Ψ H F₀; F₂ by Taylor mode"
    )
    assert r"\frac{3}{2} J_{\Psi} H F_{0}" in _one_channel(methods.ema(0.5)).equation(1).latex()


def test_refuses_what_needs_terms():
    eq = modified_equation(_one_channel(methods.ema(0.9)), 1)
    x = sympy.Symbol("x")
    for ask in (eq.is_gradient, eq.gradient_part, eq.obstruction, lambda: eq.on(x**2, (x,), 0.1)):
        with pytest.raises(UnansweredError, match="one channel: its rule is a function"):
            ask()
    with pytest.raises(NotAGradientError, match="no modified loss is certified for one channel"):
        eq.modified_loss()


def test_symbols_get_numbers():
    eq = modified_equation(_one_channel(methods.ema(BETA)), 2)
    assert eq.parameters == (BETA,)
    with pytest.raises(ValueError, match="open symbols beta"):
        eq.method.memory()
    filled = eq.subs({"beta": 0.75})
    assert filled.parameters == ()
    assert filled.truncate(1).method.memory() == (0.75, 1)
    with pytest.raises(ValueError, match="no symbol 'gamma'"):
        eq.subs({"gamma": 1})
    with pytest.raises(ValueError, match="order must be at most 2"):
        eq.truncate(3)


def test_remembers_as_its_slowest_channel():
    method = methods.rule(
        lambda a, b: a, {"a": methods.ema(0.5), "b": methods.trace(0.9)}, name="two"
    )
    assert method.memory().fading == pytest.approx(0.9)
    assert method.response() is None


def test_orders_what_reads_one_another():
    method = methods.rule(
        lambda m: m,
        {"m": (lambda g, scale: g, methods.trace(0.9))},
        {"scale": (lambda g, scale: scale, 0.25)},
    )
    assert method.sequence == ("scale", "m")
    assert method.kept == ("scale",)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3,), TypeError, "psi must be a function; got 3"),
        ((lambda x: x,), ValueError, "psi reads x, which there is not.*g, theta, t, h, value_fn"),
        ((lambda *a: a,), TypeError, "psi takes parameters by position"),
        ((lambda g: g, {"m": methods.ema(0.9)}), ValueError, "nothing reads m: psi reads g"),
        ((lambda m: m, {"m": 1 / methods.z}), ValueError, "z"),
        ((lambda theta: theta, {"theta": methods.ema(0.9)}), ValueError, "names of their own"),
        ((lambda m: m, {"m": (lambda m: m, 1)}), ValueError, "channel m reads m, which there is"),
        (
            (lambda y: y, {}, {"y": (lambda g: g, 2)}),
            ValueError,
            r"rate of y must be a number in \(0",
        ),
        ((lambda y: y, {}, {"y": lambda g: g}), TypeError, r"must be \(phi, rate\) or"),
        ((lambda y: y, {}, {"y": (lambda g: g, 1, 0)}), TypeError, "start of y must be a function"),
        (
            (lambda a: a, {"a": (lambda b: b, 1), "b": (lambda a: a, 1)}),
            ValueError,
            "a, b read each other",
        ),
    ],
)
def test_bad_descriptions_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        methods.rule(*arguments)
