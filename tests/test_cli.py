"""The `igr` command, as a user types it."""

import time

import pytest
import sympy

from igr.cli import main

MODEL = "(y - a*b*x)^2 / 2"


@pytest.fixture
def igr(capsys):
    """Runs the command; returns the exit status, the lines on stdout and on stderr."""

    def run(*arguments):
        status = main(arguments)
        out, err = capsys.readouterr()
        return status, out.splitlines(), err.splitlines()

    return run


@pytest.fixture
def answer(igr):
    def run(*arguments):
        status, out, err = igr(*arguments)
        assert (status, err) == (0, [])
        return out

    return run


@pytest.fixture
def refusal(igr):
    """What one bad call says: exactly one line, exit status 2, nothing on stdout."""

    def run(*arguments):
        start = time.perf_counter()
        status, out, err = igr(*arguments)
        assert (status, out, len(err)) == (2, [], 1)
        assert time.perf_counter() - start < 2.0
        assert err[0].startswith("igr: ")
        return err[0]

    return run


def test_an_equation_with_a_loss(answer):
    assert answer("derive", "gradient_descent", "--order", "1") == [
        "θ' = -g - h/2 H g + O(h²)",
        "modified loss: E + h/4 |g|² + O(h²)",
    ]


def test_an_equation_without_a_loss(answer):
    assert answer("derive", "gradient_descent", "--order", "2") == [
        "θ' = -g - h/2 H g - h² (1/3 H² g + 1/12 ∇³E[g, g]) + O(h³)",
        "modified loss: E + h/4 |g|² + O(h²)",
        "from h² on there is no modified loss: the field is not a gradient",
    ]


def test_order_zero(answer):
    assert answer("derive", "gradient_descent", "--order", "0") == [
        "θ' = -g + O(h)",
        "modified loss: E + O(h)",
    ]


def test_beta_is_a_symbol_or_a_number(answer):
    symbolic, _ = answer("derive", "heavy_ball", "--order", "1")
    assert symbolic == "θ' = -1/(1 - β) g - h (β + 1)/(2 (1 - β)³) H g + O(h²)"
    numbers = [
        answer("derive", "heavy_ball:0.9", "--order", "1"),
        answer("derive", "heavy_ball", "--beta", "0.9", "--order", "1"),
        answer("derive", "heavy-ball", "--order=1", "--beta=9/10"),
    ]
    assert (
        numbers
        == [["θ' = -10 g - 950 h H g + O(h²)", "modified loss: 10 E + 475 h |g|² + O(h²)"]] * 3
    )
    other, _ = answer("derive", "heavy_ball:b", "--order", "0")
    assert other == "θ' = -1/(1 - b) g + O(h)"


@pytest.mark.parametrize("method", ["ema_momentum", "nesterov", "heavy_ball"])
def test_every_momentum_at_zero_is_gradient_descent(answer, method):
    plain = answer("derive", "gradient_descent", "--order", "3")
    assert answer("derive", f"{method}:0", "--order", "3") == plain


def test_a_transfer_function(answer):
    out = answer("derive", "linear_memory", "--transfer", "(1 + exp(-z))/2", "--order", "1")
    assert out == ["θ' = -g - h H g + O(h²)", "modified loss: E + h/2 |g|² + O(h²)"]
    always = answer(
        "derive", "linear_memory", "--transfer", "(exp(z) - 1)/(z*(1 - c*z))", "--order", "2"
    )
    assert always == [
        "θ' = -g + h c H g - h² (2 c² H² g + c² ∇³E[g, g]) + O(h³)",
        "modified loss: E - h c/2 |g|² + h² c² gᵀH g + O(h³)",
    ]
    assert answer("derive", "linear_memory", "--transfer", "-1", "--order", "0")[0] == (
        "θ' = g + O(h)"
    )


def test_a_loss_in_closed_form(answer):
    """The two-parameter model of Barrett and Dherin (2021), A.27 and A.28."""
    out = answer("derive", "gradient_descent", "--order", "1", "--loss", MODEL, "--params", "a,b")
    assert out == [
        "θ' = -g - h/2 H g + O(h²)",
        "a' = -b x (a b x - y) - h x² (a b x - y) (2 a² b x - a y + b³ x)/2 + O(h²)",
        "b' = -a x (a b x - y) - h x² (a b x - y) (a³ x + 2 a b² x - b y)/2 + O(h²)",
        "modified loss: E + h/4 |g|² + O(h²)",
        "  = (a b x - y)²/2 + h x² (a² + b²) (a b x - y)²/4 + O(h²)",
    ]


def test_a_loss_that_begins_with_a_minus(answer):
    out = answer("derive", "gradient_descent", "--order", "1", "--loss", "-x^2", "--params", "x")
    assert out[1] == "x' = 2 x - 2 h x + O(h²)"


def test_latex(answer):
    assert answer("derive", "gradient_descent", "--order", "2", "--format", "latex") == [
        r"\dot\theta = -g - \frac{h}{2} H g"
        r" - h^{2} \left(\frac{1}{3} H^{2} g + \frac{1}{12} \nabla^{3} E[g, g]\right) + O(h^{3})",
        r"\tilde{E} = E + \frac{h}{4} \lvert g\rvert^{2} + O(h^{2})",
        "% from h² on there is no modified loss: the field is not a gradient",
    ]
    out = answer(
        "derive", "gradient_descent", "--order", "1", "--format", "latex",
        "--loss", "theta^2/2", "--params", "theta",
    )  # fmt: skip
    assert out[1] == r"\dot{\theta} = - \theta - \frac{h \theta}{2} + O(h^{2})"
    assert out[3] == r"\tilde{E} = \frac{\theta^{2}}{2} + \frac{h \theta^{2}}{4} + O(h^{2})"


def test_sympy_reads_its_format(answer):
    out = answer("derive", "nesterov", "--order", "2", "--format", "sympy")
    coefficients, loss = (sympy.sympify(line) for line in out[:2])
    beta = sympy.Symbol("beta")
    # F(((),)) over f = -g is +H g.
    assert (
        sympy.simplify(coefficients[((),)] + (1 - beta + 2 * beta**2) / (2 * (1 - beta) ** 3)) == 0
    )
    assert set(coefficients) == {(), ((),), (((),),), ((), ())}
    assert set(loss) == {(), ((),)}
    assert out[2].startswith("# from h² on there is no modified loss")
    out = answer(
        "derive", "gradient_descent", "--order", "1", "--format", "sympy",
        "--loss", MODEL, "--params", "a, b",
    )  # fmt: skip
    field, loss = (sympy.sympify(line) for line in out)
    a, b = sympy.symbols("a b")
    assert [sympy.expand(f + sympy.diff(loss, p)) for f, p in zip(field, (a, b), strict=True)] == [
        0,
        0,
    ]


# Bad input: one line, status 2, at once.

GD = ("derive", "gradient_descent")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "required: COMMAND"),
        (("follow",), "invalid choice: 'follow'"),
        (("derive",), "derive wants METHOD, such as heavy_ball:0.9, or --optax NAME"),
        ((*GD, "--order", "1", "--ord", "2"), "unrecognized arguments: --ord 2"),
        ((*GD, "--order", "-1"), "--order must be an integer from 0 to 14; got -1"),
        ((*GD, "--order", "1.5"), "--order must be an integer from 0 to 14; got '1.5'"),
        ((*GD, "--order", "two"), "--order must be an integer from 0 to 14; got 'two'"),
        ((*GD, "--order", "²"), "--order must be an integer from 0 to 14; got '²'"),
        ((*GD, "--order", ""), "--order must be an integer from 0 to 14; got ''"),
        ((*GD, "--order", "100"), "got 100; igr.modified_equation goes further"),
        ((*GD, "--order", "9" * 5000), "--order must be an integer from 0 to 14"),
        ((*GD, "--order", "1", "--format", "word"), "--format: invalid choice: 'word'"),
        (("derive", "addam", "--order", "1"), "METHOD must be one of gradient_descent, heavy_ball"),
        (("derive", "addam"), "got 'addam'. Did you mean adam?"),
        (("derive", "adam", "--set", "bb1=0.5"), "adam has no setting 'bb1'; it has b1, b2"),
        (("derive", "adam", "--set", "b1"), "--set must be NAME=VALUE, such as b1=0.9; got 'b1'"),
        (("derive", "adam", "--set", "b1=0", "--set", "b1=1"), "b1 is given twice: 0 and 1"),
        (("derive", "adam", "--set", "b1=1.5"), "b1 must be a number in [0, 1)"),
        (("derive", "adam", "--set", "keep=rho"), "keep must name states of Adam"),
        (("derive", "adam:0.5"), "adam has no beta; got '0.5': its settings are b1"),
        (("derive", "rmsprop", "--set", "eps_in_sqrt=1"), "eps_in_sqrt must be true or false"),
        (("derive", "runge_kutta"), "runge_kutta wants --set A=, such as"),
        (("derive", "alternating", "--set", "steps=1,x"), "steps must be made of integers"),
        (("derive", "--optax", "adamm"), "got 'adamm'. Did you mean adam?"),
        (("derive", "adam", "--optax", "adam"), "one too many: adam, adam"),
        (
            ("derive", "simultaneous", "--loss", "x^2", "--params", "x"),
            "loss must be the pair of their losses",
        ),
        (("derive", "adam", "--format", "sympy"), "--format sympy wants --loss"),
        (("derive", "", "--order", "1"), "METHOD must be one of"),
        (("derive", "gradient_descent:0.9", "--order", "1"), "gradient_descent has no beta"),
        ((*GD, "--beta", "0.9", "--order", "1"), "gradient_descent has no beta; got '0.9'"),
        ((*GD, "--transfer", "1", "--order", "1"), "--transfer goes with linear_memory alone"),
        (("derive", "linear_memory", "--order", "1"), "linear_memory wants --transfer, such as"),
        (
            ("derive", "linear_memory:0.5", "--transfer", "1", "--order", "1"),
            "linear_memory has no beta",
        ),
        (
            ("derive", "linear_memory", "--transfer", "1/z", "--order", "1"),
            "the transfer function 1/z is not analytic at z = 0",
        ),
        (("derive", "heavy_ball:0.9", "--beta", "0.8", "--order", "1"), "beta is given twice"),
        (("derive", "heavy_ball:", "--order", "1"), "it is not a formula"),
        (("derive", "heavy_ball:1.5", "--order", "1"), "beta must be a number in [0, 1)"),
        (
            ("derive", "heavy_ball", "--beta", "-0.1", "--order", "1"),
            "beta must be a number in [0, 1)",
        ),
        (("derive", "heavy_ball:abc(", "--order", "1"), "it is not a formula"),
        ((*GD, "--order", "1", "--loss", "x^2"), "--loss wants --params: which of x"),
        ((*GD, "--order", "1", "--params", "x"), "--params goes with --loss"),
        (
            (*GD, "--order", "1", "--loss", "x^2*y", "--params", "x,z"),
            "--params: 'z' does not stand in the loss, which has x, y",
        ),
        ((*GD, "--order", "1", "--loss", "x^2", "--params", "x,x"), "'x' stands more than once"),
        ((*GD, "--order", "1", "--loss", "x^2", "--params", ""), "'' does not stand in the loss"),
        ((*GD, "--order", "1", "--loss", "h*x^2", "--params", "x"), "h is the step"),
        (
            ("derive", "nesterov", "--order", "1", "--loss", "beta*x^2", "--params", "x"),
            "beta is a symbol of the method",
        ),
        ((*GD, "--order", "1", "--loss", "x < 1", "--params", "x"), "Compare is not allowed"),
    ],
)
def test_bad_input(refusal, arguments, says):
    assert says in refusal(*arguments)


@pytest.mark.parametrize("option", ["--loss", "--beta", "--transfer"])
@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('x')",
        "().__class__",
        "lambda: 1",
        "[x for x in y]",
        "9**9**9",
        "(((9**64)**64)**64)**64",
        "((x + 1)**64)**64",
        "1e999999999",
        "(" * 1_000 + ")" * 1_000,
        "-" * 1_990 + "x",
        "x" * 1_000_000,
        "＿＿import＿＿('os')",
        "x\u202ey",
        "x²",
        "0·9",
        "",
    ],
    ids=lambda text: text[:20],
)
def test_attacks_run_nothing_and_are_refused_at_once(refusal, option, text):
    method = {
        "--loss": ("gradient_descent", "--params", "x"),
        "--beta": ("heavy_ball",),
        "--transfer": ("linear_memory",),
    }[option]
    said = refusal("derive", *method, "--order", "1", option, text)
    assert "Allowed are numbers, names, + - * / **" in said or "at most 2000 characters" in said
    assert len(said) < 600


def test_params_are_names_alone(refusal, tmp_path):
    trap = tmp_path / "ran"
    text = f"open({str(trap)!r}).read()"
    said = refusal(*GD, "--order", "1", "--loss", "x^2", "--params", text)
    assert "does not stand in the loss" in said
    assert not trap.exists()


def test_every_method_that_is_listed_is_derived(capsys):
    assert main(["methods"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.split("\n\n")[0].splitlines()]
    assert len(names) == 20
    extra = {
        "linear_memory": ["--transfer", "1"],
        "runge_kutta": ["--set", "A=0,0;1,0", "--set", "b=1/2,1/2"],
        "elementwise": ["--set", "rule=g/sqrt(g^2 + s)"],
    }
    for name in names:
        assert main(["derive", name, *extra.get(name, [])]) == 0
        out = capsys.readouterr().out
        assert "'" in out or "dW" in out
        assert "modified loss" in out


def test_settings_and_aliases(answer):
    assert answer("derive", "momentum:0.9") == answer("derive", "heavy_ball", "--beta", "0.9")
    assert answer("derive", "gd") == answer("derive", "gradient_descent", "--order", "1")
    (out,) = answer("derive", "rmsprop", "--order", "0", "--set", "decay=0", "--set", "eps=1")[:1]
    assert out == "θ' = -g/sqrt(g² + 1) + O(h)"
    turns = answer("derive", "alternating", "--set", "steps=2,1", "--set", "ratios=1,2")
    assert len(turns) == 3


def test_a_micro_sign_is_the_letter_mu(answer):
    out = answer("derive", "gd", "--order", "0", "--loss", "\u00b5^2*\u03f5", "--params", "\u03bc")
    assert out[1] == "μ' = -2 ε μ + O(h)"


def test_signs_of_typesetting_are_those_of_a_keyboard(answer):
    options = ("derive", "gd", "--order", "1", "--params", "x", "--loss")
    expected = answer(*options, "-3*(x - 1)^2/2")
    for minus in "\u2212\u2010\u2011\u2013\ufe63\uff0d":
        assert answer(*options, f"{minus}3*(x {minus} 1)^2/2") == expected
    for times in "\u22c5\u00d7\u2217\u2219":
        assert answer(*options, f"-3{times}(x - 1)^2/2") == expected
    for over in "\u2215\u2044":
        assert answer(*options, f"-3*(x - 1)^2{over}2") == expected


def test_letters_that_look_like_another_are_that_one(answer):
    for letter, other in ("\u03d1\u03b8", "\u03d5\u03c6", "\u2126\u03a9", "\U0001d6fd\u03b2"):
        for a, b in ((letter, other), (other, letter), (letter, letter)):
            out = answer("derive", "gd", "--order", "0", "--loss", f"{a}^2", "--params", b)
            assert out[1] == f"{other}' = -2 {other} + O(h)"


@pytest.mark.slow
def test_an_optimizer_of_optax_by_name(answer):
    out = answer("derive", "--optax", "sgd", "--set", "momentum=0.5")
    assert out[0] == answer("derive", "heavy_ball:0.5")[0]


def test_help(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["derive", "--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert "--transfer EXPR" in out
    assert "igr derive heavy_ball:0.9 --order 2" in out


def test_epsilon_is_a_symbol_until_it_is_given(answer):
    assert "ε + sqrt(" in answer("derive", "adam", "--order", "0")[0]
    assert "+ 10⁻⁸" in answer("derive", "adam", "--order", "0", "--set", "eps=1e-8")[0]
