"""The `igr` command: `igr derive heavy_ball:0.9 --order 2`.

It imports the symbolic side alone, so that it answers without waiting for JAX.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import sympy

import igr
from igr.backward_error import NotAGradientError, modified_equation
from igr.backward_error.algebra.expressions import nfkc, parse
from igr.backward_error.protocols import UnansweredError
from igr.backward_error.trees.printing import plain
from igr.cli.decoded import decoded
from igr.cli.named_methods import listed, method_named, optax_method
from igr.cli.plotted import add_plot
from igr.cli.printed import FORMATS, STEP
from igr.cli.refusal import BadInput

_HIGHEST = 14
_VALUES = ("--loss", "--beta", "--transfer", "--order", "--set", "--limit", "--learning-rate")

_EXAMPLES = """\
examples:
  igr derive gradient_descent --order 2
  igr derive heavy_ball:0.9 --order 2 --format latex
  igr derive adam --set b1=0.9 --set keep=nu
  igr derive --optax adamw --set weight_decay=0.1
  igr derive nesterov --order 1 --loss "(y - a*b*x)^2/2" --params a,b
  igr derive linear_memory --transfer "(1 + exp(-z))/2" --order 3
  igr plot run.csv --column sharpness --learning-rate 0.1
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the `igr` command and returns its exit status.

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
    options = None
    try:
        try:
            options = _read(arguments)
        except SystemExit:  # --help and --version have printed, and leave the rest to the end
            sys.stdout.flush()
            raise
        text = options.command(options)
        print(text, flush=True)
    except UnicodeEncodeError:
        instead = "--format latex, or " if getattr(options, "format", "") == "unicode" else ""
        return _fail(f"this terminal cannot show the result: use {instead}PYTHONIOENCODING=utf-8")
    except (BadInput, ValueError, TypeError) as error:
        return _fail(str(error))
    except RecursionError:
        return _fail("an expression is nested too deeply")
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        # Python flushes standard output once more as it ends, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("igr: interrupted", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="igr",
        description="The implicit regularization of optimizers.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"igr {igr.__version__}")
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
        "method",
        metavar="METHOD",
        nargs="?",
        help="one of those that `igr methods` lists; heavy_ball:0.9 sets beta",
    )
    derive.add_argument(
        "--order",
        default="1",
        metavar="N",
        help=f"the highest power of the step h, from 0 to {_HIGHEST}; 1 if not given",
    )
    derive.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the method, such as b1=0.9 or keep=mu,nu; again for more",
    )
    derive.add_argument(
        "--optax",
        metavar="NAME",
        help="instead of METHOD, the name of an optimizer of optax: it is read off its own code",
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
        choices=tuple(FORMATS),
        default="unicode",
        help="how to print; sympy: by tree t, the coefficient of h^(|t|-1) F(t) over f = -grad E",
    )
    derive.set_defaults(command=_derive)
    known = commands.add_parser(
        "methods",
        help="the methods that derive knows, with their settings",
        description="Lists the methods that derive knows, with their settings.",
        allow_abbrev=False,
    )
    known.set_defaults(command=_methods)
    add_plot(commands)
    return parser


def _derive(options: argparse.Namespace) -> str:
    """The output of `igr derive`, as text."""
    order = _order(options.order)
    method = _method(options)
    loss, params = _loss(options.loss, options.params, method)
    equation = modified_equation(method, order)
    modified, note = _modified_loss(equation)
    lines = list(FORMATS[options.format](equation, modified, loss, params))
    if note:
        lines.append({"unicode": "", "latex": "% ", "sympy": "# "}[options.format] + note)
    return "\n".join(lines)


def _modified_loss(equation: Any) -> tuple[Any, str]:
    """The modified loss of the highest order there is, and a remark on higher ones."""
    note = ""
    for order in range(equation.order, -1, -1):
        power = plain(STEP**order)
        try:
            return equation.modified_loss(order), note
        except NotAGradientError as error:
            power = plain(STEP**error.order)
            note = f"from {power} on there is no modified loss: the field is not a gradient"
            if error.order == 0:
                return None, "there is no modified loss: the field is not a gradient"
        except UnansweredError:
            note = f"from {power} on no modified loss is certified"
    return None, note


def _method(options: argparse.Namespace) -> Any:
    if options.optax is not None:
        if options.method is not None:
            raise BadInput(
                f"METHOD and --optax are one too many: {options.method}, {options.optax}"
            )
        return optax_method(options.optax, options.set)
    if options.method is None:
        raise BadInput("derive wants METHOD, such as heavy_ball:0.9, or --optax NAME")
    return method_named(options.method, options.set, options.beta, options.transfer)


def _methods(options: argparse.Namespace) -> str:
    """The output of `igr methods`, as text."""
    return listed()


def _order(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(text) < 10):
        raise BadInput(f"--order must be an integer from 0 to {_HIGHEST}; got {text!r}.")
    order = int(text)
    if not 0 <= order <= _HIGHEST:
        raise BadInput(
            f"--order must be an integer from 0 to {_HIGHEST}; got {order}"
            + ("; igr.modified_equation goes further" if order > 0 else "")
        )
    return order


def _loss(
    text: str | None, names: str | None, method: Any
) -> tuple[sympy.Expr | None, list[sympy.Symbol]]:
    """The loss and its parameters as sympy expressions, or (None, []) if no loss is given."""
    if text is None:
        if names is not None:
            raise BadInput("--params goes with --loss: the loss they are parameters of")
        return None, []
    # As Python's own names are: the micro sign of a keyboard is the letter mu.
    given = [] if names is None else [name.strip() for name in nfkc(names).split(",")]
    params = [sympy.Symbol(name) for name in given]
    loss = parse(text, {p.name: p for p in params})
    found = sorted(map(str, loss.free_symbols))
    if not given:
        raise BadInput(f"--loss wants --params: which of {', '.join(found) or 'its names'}")
    for name in given:
        if name not in found:
            raise BadInput(
                f"--params: {name!r} does not stand in the loss, which has {', '.join(found)}"
            )
        if given.count(name) > 1:
            raise BadInput(f"--params: {name!r} stands more than once")
    for symbol in sorted((STEP, *method.parameters), key=str):
        if symbol.name in found:
            raise BadInput(
                f"--loss: {symbol} is "
                + ("the step" if symbol == STEP else "a symbol of the method")
                + ", choose another name"
            )
    return loss, params


def _read(arguments: list[str]) -> argparse.Namespace:
    """The parsed command-line options, as a namespace."""
    options = _parser().parse_args(_with_values(arguments))
    for name, value in vars(options).items():
        if name not in ("runs", "out"):
            setattr(options, name, decoded(value))
    return options


def _with_values(arguments: list[str]) -> list[str]:
    """The arguments with values such as "-x^2" joined to their options by "="."""
    tied: list[str] = []
    for argument in arguments:
        before = tied[-1] if tied else ""
        if before in _VALUES and argument[:1] == "-":
            tied[-1] = f"{before}={argument}"
        else:
            tied.append(argument)
    return tied


def _fail(message: str) -> int:
    print(f"igr: {' '.join(message.split())}", file=sys.stderr)
    return 2
