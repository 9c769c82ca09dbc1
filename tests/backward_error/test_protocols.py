"""Every call of the two protocols on every shipped method, with good and bad arguments."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import sympy
from sympy import Rational, Symbol

import igr
from igr.backward_error import NotAGradientError, methods, modified_equation
from igr.backward_error.protocols import (
    Equation,
    LinearResponse,
    Memory,
    Method,
    UnansweredError,
)

X, Y, H = sympy.symbols("x y h")
ONE = (X**2 * Y / 2 + X * Y**3, (X, Y))
BATCHES = ([X**2 + Y, X * Y**2], (X, Y))
PLAYERS = ((X * Y**2, X**2 * Y), ((X,), (Y,)))


def _memory_alone(m):
    return m


SHIPPED = {
    "gradient descent": (methods.gradient_descent(), ONE),
    "gradient descent, decay": (methods.gradient_descent(weight_decay=0.1), ONE),
    "heavy ball": (methods.heavy_ball(0.5), ONE),
    "heavy ball, decay": (methods.heavy_ball(0.5, weight_decay=0.1), ONE),
    "heavy ball, kept": (methods.heavy_ball(0.9, keep=("trace",)), ONE),
    "averaged momentum": (methods.ema_momentum(0.5), ONE),
    "averaged momentum, kept": (methods.ema_momentum(0.9, keep=("ema",)), ONE),
    "Nesterov": (methods.nesterov(0.5), ONE),
    "Nesterov, kept": (methods.nesterov(0.9, keep=("trace",)), ONE),
    "linear memory": (methods.linear_memory((1 + sympy.exp(-methods.z)) / 2), ONE),
    "Adam": (methods.adam(), ONE),
    "Adam, eliminated": (methods.adam(0.5, 0.8, 0.1, keep=()), ONE),
    "Adam, both kept": (methods.adam(keep=("mu", "nu")), ONE),
    "AdamW": (methods.adamw(), ONE),
    "NAdam": (methods.nadam(), ONE),
    "RMSProp": (methods.rmsprop(0.5, 0.1), ONE),
    "RMSProp, kept": (methods.rmsprop(keep=("nu",)), ONE),
    "sign descent": (methods.signsgd(0.1), ONE),
    "Lion": (methods.lion(0.5, 0.5, smoothing=0.1), ONE),
    "Lion, kept": (methods.lion(smoothing=0.1, keep=("mu",)), ONE),
    "rule": (methods.rule(_memory_alone, {"m": methods.ema(0.5)}, name="averages"), ONE),
    "elementwise": (methods.elementwise(methods.g / (1 + methods.g**2), {}), ONE),
    "Runge-Kutta": (methods.runge_kutta([[0, 0], [1, 0]], [Rational(1, 2)] * 2), ONE),
    "SAM": (methods.sam(2), ONE),
    "SAM, fixed": (methods.sam(0.1, "fixed"), ONE),
    "USAM": (methods.usam(2), ONE),
    "USAM, fixed": (methods.usam(0.1, "fixed"), ONE),
    "reshuffled SGD": (methods.reshuffled_sgd(2), BATCHES),
    "cyclic SGD": (methods.cyclic_sgd(2), BATCHES),
    "SGD with replacement": (methods.sgd_with_replacement(1), BATCHES),
    "players at once": (methods.simultaneous(), PLAYERS),
    "players in turns": (methods.alternating(), PLAYERS),
}
EQUATIONS: dict = {}


def equation(name):
    if name not in EQUATIONS:
        EQUATIONS[name] = modified_equation(SHIPPED[name][0], 1)
    return EQUATIONS[name]


everyone = pytest.mark.parametrize("name", SHIPPED)


def test_every_factory_stands_in_the_table():
    kinds = [getattr(methods, n) for n in methods.__all__ if n[0].isupper() and n != "Method"]
    for kind in kinds:
        assert any(isinstance(method, kind) for method, _ in SHIPPED.values()), kind


@everyone
def test_a_method_answers(name):
    method, _ = SHIPPED[name]
    assert isinstance(method, Method)
    assert method.name
    assert method.parameters == ()
    assert all(isinstance(y, str) for y in method.kept)
    memory = method.memory()
    assert isinstance(memory, Memory)
    assert 0 <= memory.fading < 1
    response = method.response()
    assert response is None or isinstance(response, LinearResponse)
    if response is not None:
        assert response.stability_limit() > 0
        assert response.convergence_radius() > 0
    assert hash(method) == hash(pickle.loads(pickle.dumps(method)))


@everyone
@pytest.mark.parametrize(
    ("order", "error", "says"),
    [
        (-1, ValueError, "order must be at least 0, the highest power of h kept; got -1"),
        ("1", TypeError, "order must be an integer, the highest power of h kept; got '1'"),
        (1.0, TypeError, "order must be an integer"),
        (None, TypeError, "order must be an integer"),
        (True, TypeError, "order must be an integer"),
    ],
)
def test_a_bad_order_is_refused_in_the_same_words(name, order, error, says):
    for derive in (SHIPPED[name][0].equation, lambda p: modified_equation(SHIPPED[name][0], p)):
        with pytest.raises(error, match=says.split(";")[0]) as raised:
            derive(order)
        assert says in str(raised.value)


@everyone
def test_an_equation_answers(name):
    method, _ = SHIPPED[name]
    eq = equation(name)
    assert eq.name.startswith(str(method.name).split(" (")[0])
    assert isinstance(eq, Equation)
    assert eq.order == 1
    assert eq.parameters == ()
    assert eq.kept == method.kept
    shorter = eq.truncate(0)
    assert shorter.order == 0
    assert type(shorter) is type(eq)
    assert type(eq.truncate(np.int64(1))) is type(eq)
    assert str(eq)
    assert str(eq) != str(shorter)
    assert eq.latex()
    assert eq._repr_latex_().startswith("$")
    assert method.name.split(" (")[0] in repr(eq)
    assert hash(eq) == hash(modified_equation(method, 1))
    assert str(pickle.loads(pickle.dumps(eq))) == str(eq)


@everyone
@pytest.mark.parametrize("order", [2, -1, "0", 0.5])
def test_an_order_beyond_that_of_the_equation_is_refused(name, order):
    eq = equation(name)
    with pytest.raises((TypeError, ValueError), match="order must be"):
        eq.truncate(order)
    with pytest.raises((TypeError, ValueError)) as raised:
        eq.modified_loss(order)
    if not isinstance(raised.value, NotAGradientError):
        assert "order must be" in str(raised.value)


@everyone
def test_a_loss_or_the_reason_why_none(name):
    eq = equation(name)
    refused = None
    try:
        modified = eq.modified_loss()
    except (NotAGradientError, UnansweredError) as error:
        refused = str(error)
    if refused is not None:
        assert len(refused) > 40
        assert str(SHIPPED[name][0].name).split(" (")[0] in refused
        return
    assert str(modified)
    assert modified.latex()


@everyone
def test_the_field_is_its_gradient_part_and_the_obstruction(name):
    _, (loss, params) = SHIPPED[name]
    eq = equation(name)
    try:
        parts = eq.gradient_part(), eq.obstruction()
        has_loss = eq.is_gradient()
    except UnansweredError as error:
        assert eq.name in str(error)  # noqa: PT017
        return
    # The parts of a stochastic equation are those of its drift, on the mean of the losses.
    mean = loss if type(parts[0]) is type(eq) else sum(loss) / len(loss)
    found = [eq.on(loss, params, H), *(part.on(mean, params, H) for part in parts)]
    whole, first, rest = (x[0] if isinstance(x, tuple) else x for x in found)
    at = {X: Rational(1, 3), Y: Rational(1, 2), methods.t: 1, H: Rational(1, 8)}
    for a, b, c in zip(whole, first, rest, strict=True):
        free = (a.free_symbols | b.free_symbols | c.free_symbols) - set(at)
        values = {**at, **{s: Rational(3, 7) for s in free}}
        assert abs(sympy.N((a - b - c).subs(values), 20)) < 1e-12
    assert has_loss == all(sympy.N(c.subs(at), 20) == 0 for c in rest)


@everyone
def test_the_closed_form(name):
    _, (loss, params) = SHIPPED[name]
    eq = equation(name)
    try:
        found = eq.on(loss, params, H)
    except UnansweredError as error:
        assert f"its field in closed form cannot be said for {eq.name}" in str(error)  # noqa: PT017
        assert name == "rule"
        return
    entries = found[0] if isinstance(found, tuple) else found
    assert entries.shape == (2, 1)
    numbered = eq.on(loss, params, np.float64(0.125))
    numbered = numbered[0] if isinstance(numbered, tuple) else numbered
    at = {X: Rational(1, 3), Y: Rational(1, 2), methods.t: 1, H: Rational(1, 8)}
    for a, b in zip(entries, numbered, strict=True):
        values = {s: Rational(3, 7) for s in a.free_symbols - set(at)}
        apart = sympy.N((a - b.xreplace({H: at[H]})).subs({**values, **at}), 20)
        assert abs(apart) < 1e-12


@everyone
@pytest.mark.parametrize("text", ["0.1", "print('x') or 1", "(_ for _ in ()).throw(Exception)"])
def test_no_text_is_taken_for_a_number_or_a_loss(name, text, capsys):
    _, (loss, params) = SHIPPED[name]
    eq = equation(name)
    with pytest.raises(TypeError, match="h must be a number or a sympy expression; got the text"):
        eq.on(loss, params, text)
    with pytest.raises(TypeError, match=r"loss(es|\[0\])? must be a number or a sympy expression"):
        eq.on([text] * 2 if isinstance(loss, list | tuple) else text, params, H)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "make",
    [
        lambda text: methods.heavy_ball(text),
        lambda text: methods.heavy_ball(0.9, weight_decay=text),
        lambda text: methods.adam(b1=text),
        lambda text: methods.adam(eps=text),
        lambda text: methods.adamw(weight_decay=text),
        lambda text: methods.rmsprop(text),
        lambda text: methods.signsgd(text),
        lambda text: methods.lion(smoothing=text),
        lambda text: methods.sam(text),
        lambda text: methods.usam(text),
        lambda text: methods.runge_kutta([[text]], [1]),
        lambda text: methods.runge_kutta([[0]], [text]),
        lambda text: methods.linear_memory(text),
        lambda text: methods.elementwise(text, {}),
        lambda text: methods.elementwise(Symbol("m"), {"m": (methods.g, text)}),
        lambda text: methods.elementwise(Symbol("m"), {"m": (text, 1)}),
        lambda text: methods.elementwise(Symbol("y"), {}, {"y": (methods.g, text)}),
        lambda text: methods.elementwise(
            methods.g * Symbol("r", positive=True), {}, rates={"r": text}
        ),
        lambda text: methods.reshuffled_sgd(text),
        lambda text: methods.cyclic_sgd(text),
        lambda text: methods.sgd_with_replacement(text),
        lambda text: methods.simultaneous((text, 1)),
        lambda text: modified_equation(methods.heavy_ball(Symbol("b")), 1).subs({"b": text}),
        lambda text: modified_equation(methods.signsgd(Symbol("b")), 1).subs({"b": text}),
    ],
)
def test_no_setting_is_read_from_text(make, capsys):
    with pytest.raises(TypeError, match="must be a number or a sympy expression; got the text"):
        make("print('x') or 0.5")
    with pytest.raises(TypeError, match="must be a number or a sympy expression; got the text"):
        make("0.5")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "number", [np.float64(0.5), np.float32(0.5), Rational(1, 2), np.array(0.5)]
)
def test_numbers_of_numpy_are_numbers(number):
    assert methods.adam(number).memory().fading == 0.5
    assert methods.heavy_ball(number).memory().fading == 0.5


def test_what_is_no_method_is_refused():
    for other in (None, 3, "adam", methods.adam):
        with pytest.raises(TypeError, match=r"method must be one of igr\.methods"):
            modified_equation(other, 1)


def test_few_places_ask_which_kind_they_hold():
    """What differs from kind to kind is behind the protocols and the registrations."""
    asked = re.compile(r"isinstance\(.*(Equation|Method|Player|Sampled|SharpnessAware)")
    files = Path(igr.__file__).parent.rglob("*.py")
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    assert sum(map(bool, map(asked.search, lines))) <= 8
