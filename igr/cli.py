"""The `igr` command: `igr derive heavy_ball:0.9 --order 2`.

It imports the symbolic side alone, so that it answers without waiting for JAX.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

import sympy

from igr.backward_error import (
    ModifiedEquation,
    ModifiedLoss,
    NotAGradientError,
    methods,
    modified_equation,
)
from igr.backward_error.algebra.expressions import parse
from igr.backward_error.methods import Method
from igr.backward_error.trees.printing import plain

_WITH_BETA: dict[str, Callable[[Any], Method]] = {
    "heavy_ball": methods.heavy_ball,
    "ema_momentum": methods.ema_momentum,
    "nesterov": methods.nesterov,
}
_METHODS = ("gradient_descent", *_WITH_BETA, "linear_memory")
_HIGHEST = 14
_STEP = sympy.Symbol("h")

_EXAMPLES = """\
examples:
  igr derive gradient_descent --order 2
  igr derive heavy_ball:0.9 --order 2 --format latex
  igr derive nesterov --order 1 --loss "(y - a*b*x)^2/2" --params a,b
  igr derive linear_memory --transfer "(1 + exp(-z))/2" --order 3
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
      argv: the arguments; those of the process if not given.

    Returns:
      The exit status: 0, or 2 after one line on stderr that says what was wrong.

    >>> main(["derive", "gradient_descent", "--order", "1"])
    θ' = -g - h/2 H g + O(h²)
    modified loss: E + h/4 |g|² + O(h²)
    0
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = _parser().parse_args(_with_values(arguments))
        text = options.command(options)
        print(text, flush=True)
    except UnicodeEncodeError:
        return _fail("this terminal cannot show the result: use --format latex or sympy")
    except (_BadInput, ValueError, TypeError) as error:
        return _fail(str(error))
    except RecursionError:
        return _fail("an expression is nested too deeply")
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        return 130
    return 0


class _BadInput(Exception):
    """What the user typed cannot be meant; the text says why."""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and leaves the usage to --help."""

    def error(self, message: str) -> NoReturn:
        raise _BadInput(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="igr",
        description="The implicit regularization of optimizers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    derive = commands.add_parser(
        "derive",
        help="the equation that an optimizer follows, and its loss where there is one",
        description="Derives the modified equation of an optimizer, exactly, and its modified "
        "loss as far as there is one.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    derive.add_argument(
        "method", metavar="METHOD", help=f"{', '.join(_METHODS)}; heavy_ball:0.9 sets beta"
    )
    derive.add_argument(
        "--order",
        required=True,
        metavar="N",
        help=f"the highest power of the step h, from 0 to {_HIGHEST}",
    )
    derive.add_argument("--beta", metavar="B", help="the momentum: a number, or a symbol (default)")
    derive.add_argument(
        "--transfer",
        metavar="EXPR",
        help="for linear_memory: W(z) = sum_k w_k exp(-k z), w_k the weight of the gradient of k "
        "steps ago",
    )
    derive.add_argument("--loss", metavar="EXPR", help="give the closed form on this loss too")
    derive.add_argument(
        "--params", metavar="A,B", help="the parameters among the names in the loss"
    )
    derive.add_argument(
        "--format",
        choices=tuple(_FORMATS),
        default="unicode",
        help="how to print; sympy: by tree t, the coefficient of h^(|t|-1) F(t) over f = -grad E",
    )
    derive.set_defaults(command=_derive)
    return parser


def _derive(options: argparse.Namespace) -> str:
    """The text that `igr derive` prints."""
    order = _order(options.order)
    method = _method(options.method, options.beta, options.transfer)
    loss, params = _loss(options.loss, options.params, method)
    equation = modified_equation(method, order)
    try:
        modified, missing = equation.modified_loss(), None
    except NotAGradientError as error:
        modified, missing = equation.modified_loss(error.order - 1), error.order
    lines = list(_FORMATS[options.format](equation, modified, loss, params))
    if missing is not None:
        mark = {"unicode": "", "latex": "% ", "sympy": "# "}[options.format]
        power = plain(_STEP**missing)
        lines.append(
            f"{mark}from {power} on there is no modified loss: the field is not a gradient"
        )
    return "\n".join(lines)


_Loss = sympy.Expr | None
_Symbols = Sequence[sympy.Symbol]


def _unicode(
    equation: ModifiedEquation, modified: ModifiedLoss, loss: _Loss, params: _Symbols
) -> Iterator[str]:
    yield str(equation)
    if loss is not None:
        yield from _components("{}' = {} + O({})", plain, equation, loss, params)
    yield f"modified loss: {modified}"
    if loss is not None:
        closed = _ascending(modified.on(loss, params, _STEP), plain)
        yield f"  = {closed} + O({plain(_STEP ** (modified.order + 1))})"


def _latex(
    equation: ModifiedEquation, modified: ModifiedLoss, loss: _Loss, params: _Symbols
) -> Iterator[str]:
    yield equation.latex()
    if loss is not None:
        line = r"\dot{{{}}} = {} + O({})"
        yield from _components(line, sympy.latex, equation, loss, params)
    yield rf"\tilde{{E}} = {modified.latex()}"
    if loss is not None:
        closed = _ascending(modified.on(loss, params, _STEP), sympy.latex)
        yield rf"\tilde{{E}} = {closed} + O({sympy.latex(_STEP ** (modified.order + 1))})"


def _sympy(
    equation: ModifiedEquation, modified: ModifiedLoss, loss: _Loss, params: _Symbols
) -> Iterator[str]:
    """What `sympy.sympify` reads: coefficients by tree, or with a loss the closed forms.

    Spelled out by `srepr`, since sympy would read the name beta as its function of that name.
    """
    if loss is None:
        yield sympy.srepr(equation.coefficients)
        yield sympy.srepr(modified.coefficients)
    else:
        yield sympy.srepr(equation.on(loss, params, _STEP))
        yield sympy.srepr(modified.on(loss, params, _STEP))


def _components(
    line: str,
    show: Callable[[sympy.Basic], str],
    equation: ModifiedEquation,
    loss: sympy.Expr,
    params: _Symbols,
) -> Iterator[str]:
    rest = show(_STEP ** (equation.order + 1))
    for p, component in zip(params, equation.on(loss, params, _STEP), strict=True):
        yield line.format(show(p), _ascending(component, show), rest)


def _ascending(expression: sympy.Expr, show: Callable[[sympy.Basic], str]) -> str:
    """A sum by rising powers of the step, which sympy would sort by name."""
    terms = sorted(
        sympy.Add.make_args(expression), key=lambda term: term.as_coeff_exponent(_STEP)[1]
    )
    first, *rest = map(show, terms)
    return first + "".join(
        f" - {term[1:].lstrip()}" if term.startswith("-") else f" + {term}" for term in rest
    )


_FORMATS = {"unicode": _unicode, "latex": _latex, "sympy": _sympy}


def _order(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(text) < 10):
        raise _BadInput(f"--order is an integer from 0 to {_HIGHEST}, got {text!r}")
    order = int(text)
    if not 0 <= order <= _HIGHEST:
        raise _BadInput(
            f"--order is an integer from 0 to {_HIGHEST}, got {order}"
            + ("; igr.modified_equation goes further" if order > 0 else "")
        )
    return order


def _method(text: str, beta: str | None, transfer: str | None) -> Method:
    name, colon, after = text.partition(":")
    name = name.replace("-", "_")
    if name not in _METHODS:
        raise _BadInput(f"METHOD is one of {', '.join(_METHODS)}; got {name!r}")
    if colon and beta is not None:
        raise _BadInput(f"beta is given twice: {text} and --beta {beta}")
    beta = after if colon else beta
    if name not in _WITH_BETA and beta is not None:
        raise _BadInput(f"{name} has no beta, got {beta!r}; {', '.join(_WITH_BETA)} have one")
    if name != "linear_memory":
        if transfer is not None:
            raise _BadInput(f"--transfer goes with linear_memory alone, not with {name}")
        if name not in _WITH_BETA:
            return methods.gradient_descent()
        return _WITH_BETA[name](sympy.Symbol("beta") if beta is None else parse(beta))
    if transfer is None:
        raise _BadInput('linear_memory wants --transfer, such as --transfer "(1 + exp(-z))/2"')
    return methods.linear_memory(parse(transfer, {"z": methods.z}))


def _loss(text: str | None, names: str | None, method: Method) -> tuple[_Loss, list[sympy.Symbol]]:
    """The loss and its parameters, or (None, [])."""
    if text is None:
        if names is not None:
            raise _BadInput("--params goes with --loss: the loss they are parameters of")
        return None, []
    given = [] if names is None else [name.strip() for name in names.split(",")]
    params = [sympy.Symbol(name) for name in given]
    loss = parse(text, {p.name: p for p in params})
    found = sorted(map(str, loss.free_symbols))
    if not given:
        raise _BadInput(f"--loss wants --params: which of {', '.join(found) or 'its names'}")
    for name in given:
        if name not in found:
            raise _BadInput(
                f"--params: {name!r} does not stand in the loss, which has {', '.join(found)}"
            )
        if given.count(name) > 1:
            raise _BadInput(f"--params: {name!r} stands more than once")
    for symbol in sorted((_STEP, *method.parameters), key=str):
        if symbol.name in found:
            raise _BadInput(
                f"--loss: {symbol} is "
                + ("the step" if symbol == _STEP else "a symbol of the method")
                + ", choose another name"
            )
    return loss, params


def _with_values(arguments: list[str]) -> list[str]:
    """Ties a value that begins with a minus, such as --loss "-x^2", to its option."""
    tied: list[str] = []
    for argument in arguments:
        before = tied[-1] if tied else ""
        if before in ("--loss", "--beta", "--transfer", "--order") and argument[:1] == "-":
            tied[-1] = f"{before}={argument}"
        else:
            tied.append(argument)
    return tied


def _fail(message: str) -> int:
    print(f"igr: {' '.join(message.split())}", file=sys.stderr)
    return 2
