"""Methods by the names and settings typed in a shell; nothing typed is evaluated."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import sympy

from igr.backward_error import methods
from igr.backward_error.algebra.expressions import nfkc, parse
from igr.cli.refusal import BadInput

NAMES = (
    *("gradient_descent", "heavy_ball", "ema_momentum", "nesterov", "linear_memory"),
    *("runge_kutta", "adam", "adamw", "nadam", "rmsprop", "signsgd", "lion", "elementwise"),
    *("sam", "usam", "reshuffled_sgd", "cyclic_sgd", "sgd_with_replacement"),
    *("simultaneous", "alternating"),
)
ALIASES = {
    **{"gd": "gradient_descent", "sgd": "gradient_descent", "momentum": "heavy_ball"},
    **{"polyak": "heavy_ball", "ema": "ema_momentum", "nag": "nesterov", "sign_sgd": "signsgd"},
    **{"rk": "runge_kutta", "shuffled_sgd": "reshuffled_sgd"},
}
_MOMENTA = ("heavy_ball", "ema_momentum", "nesterov")
# Where name:value says which setting is meant.
_ONE_SETTING = (
    *_MOMENTA,
    *("rmsprop", "signsgd", "sam", "usam"),
    *("reshuffled_sgd", "cyclic_sgd", "sgd_with_replacement"),
)
# Of the settings without a default, the symbol that stands for one not given.
_SYMBOLS = {"num_batches": "m", "batches": "m", "smoothing": "s"}
OPTAX = (
    *("adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw"),
    *("adan", "amsgrad", "fromage", "lamb", "lars", "lion", "nadam", "nadamw", "novograd"),
    *("optimistic_adam", "optimistic_adam_v2", "optimistic_gradient_descent", "radam", "rmsprop"),
    *("rprop", "sgd", "sign_sgd", "signum", "sm3", "yogi"),
    *("acprop", "ademamix", "adopt", "madgrad", "muon", "schedule_free_adamw"),
    *("schedule_free_sgd", "simplified_ademamix"),
)


def method_named(
    text: str, settings: Sequence[str], beta: str | None = None, transfer: str | None = None
) -> Any:
    """The method of this name, or of `name:value` with the first of its settings.

    Args:
      text: the name.
      settings: each `name=value`.
      beta: the momentum, where it is given on its own.
      transfer: W(z), for linear_memory.

    Raises:
      BadInput: for a name or a setting that is not known, or given twice.

    >>> method_named("momentum:0.9", []).name
    'heavy ball (beta = 9/10)'
    """
    typed, colon, after = text.partition(":")
    name = nfkc(typed).replace("-", "_")
    name = ALIASES.get(name, name)
    if name not in NAMES:
        raise BadInput(f"METHOD must be one of {', '.join(NAMES)}; got {typed!r}.{_nearest(typed)}")
    given = _given(settings)
    if transfer is not None and name != "linear_memory":
        raise BadInput(f"--transfer goes with linear_memory alone, not with {name}")
    if beta is not None and name not in _MOMENTA:
        raise BadInput(f"{name} has no beta; got {beta!r}: {', '.join(_MOMENTA)} have one.")
    wanted = _settings(name)
    first = next(iter(wanted), None)
    if colon and name not in _ONE_SETTING:
        raise BadInput(f"{name} has no beta; got {after!r}: its settings are {_said(wanted)}.")
    for argument, value in ((first, after if colon else None), ("beta", beta),
                            ("transfer", transfer)):  # fmt: skip
        if value is None or argument is None:
            continue
        if argument in given:
            raise BadInput(f"{argument} is given twice: {value} and {given[argument]}")
        given[argument] = value
    for argument in given:
        if argument not in wanted:
            near = difflib.get_close_matches(argument, wanted, 1)
            raise BadInput(
                f"--set: {name} has no setting {argument!r}; it has {_said(wanted)}"
                + (f". Did you mean {near[0]}?" if near else "")
            )
    if name == "linear_memory" and "transfer" not in given:
        raise BadInput('linear_memory wants --transfer, such as --transfer "(1 + exp(-z))/2"')
    read = {argument: _read(name, argument, value) for argument, value in given.items()}
    for argument, parameter in wanted.items():
        if parameter.default is inspect.Parameter.empty and argument not in read:
            if argument in ("A", "b", "rule", "channels"):
                if argument != "channels":
                    raise BadInput(f"{name} wants --set {argument}=, such as {_EXAMPLES[argument]}")
                continue
            read[argument] = sympy.Symbol(_SYMBOLS.get(argument, argument))
        elif argument == "eps" and parameter.default and argument not in read:
            read[argument] = sympy.Symbol("epsilon", positive=True)  # a number where one is given
    if name == "elementwise":
        own = {methods.g, methods.theta, methods.t}
        free = read["rule"].free_symbols - own
        return methods.elementwise(read["rule"], {}, parameters=free)
    return getattr(methods, name)(**read)


def optax_method(name: str, settings: Sequence[str]) -> Any:
    """The method of an optax optimizer given by name, read by `igr.from_optax`.

    Args:
      name: one of `OPTAX`.
      settings: each `name=value`, a number, true or false.

    Raises:
      BadInput: for a name or a setting that is not known.
    """
    name = nfkc(name).replace("-", "_")
    if name not in OPTAX:
        near = difflib.get_close_matches(name, OPTAX, 1)
        raise BadInput(
            f"--optax must be one of {', '.join(OPTAX)}; got {name!r}"
            + (f". Did you mean {near[0]}?" if near else "")
        )
    import optax  # only here: to derive a method that is known takes no JAX

    import igr

    make = getattr(optax, name, None) or getattr(optax.contrib, name)
    wanted = [p for p in inspect.signature(make).parameters if p != "learning_rate"]
    given = _given(settings)
    for argument in given:
        if argument not in wanted:
            near = difflib.get_close_matches(argument, wanted, 1)
            raise BadInput(
                f"--set: optax.{name} has no setting {argument!r}; it has {', '.join(wanted)}"
                + (f". Did you mean {near[0]}?" if near else "")
            )
    numbers = {argument: _number(argument, value) for argument, value in given.items()}
    return igr.from_optax(lambda h: make(h, **numbers))


def listed() -> str:
    """The list of methods with their settings, one to a line, and the aliases, as text."""
    lines = [f"{name:<22}{_said(_settings(name))}".rstrip() for name in NAMES]
    also = ", ".join(f"{alias} = {name}" for alias, name in ALIASES.items())
    return "\n".join([*lines, "", f"aliases: {also}"])


_EXAMPLES = {
    "A": '--set "A=0,0;1,0"',
    "b": '--set "b=1/2,1/2"',
    "rule": '--set "rule=g/sqrt(g^2 + s)"',
}


def _settings(name: str) -> dict[str, inspect.Parameter]:
    left_out = {"name", "kept", "rates", "parameters", "channels"}
    factory: Callable[..., Any] = getattr(methods, name)
    found = inspect.signature(factory).parameters
    return {n: p for n, p in found.items() if n not in left_out}


def _said(wanted: dict[str, inspect.Parameter]) -> str:
    return ", ".join(wanted) or "none"


def _nearest(typed: str) -> str:
    near = difflib.get_close_matches(typed, (*NAMES, *ALIASES), 1)
    return f" Did you mean {near[0]}?" if near else ""


def _given(settings: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        name = nfkc(name.strip()).replace("-", "_")
        if not equals or not name:
            raise BadInput(f"--set must be NAME=VALUE, such as b1=0.9; got {setting!r}.")
        if name in found:
            raise BadInput(f"{name} is given twice: {found[name]} and {value}")
        found[name] = value
    return found


def _read(method: str, name: str, text: str) -> Any:
    """The value of a method's setting: a formula, or of the type that the setting takes."""
    if name == "keep":
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if name == "scale":
        return text
    if name in ("eps_in_sqrt", "nesterov"):
        return _truth(name, text)
    if name == "A":
        return [[parse(entry) for entry in row.split(",")] for row in text.split(";")]
    if name in ("b", "ratios"):
        return [parse(entry) for entry in text.split(",")]
    if name == "steps" or (name == "batches" and "," in text):
        return [_count(name, entry) for entry in text.split(",")]
    if name == "transfer":
        return parse(text, {"z": methods.z})
    if name == "rule":
        return parse(text, {"g": methods.g, "theta": methods.theta, "t": methods.t})
    return parse(text)


def _count(name: str, text: str) -> int:
    value = parse(text)
    if not value.is_Integer:
        raise BadInput(f"{name} must be made of integers; got {text!r}.")
    return int(value)


def _truth(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise BadInput(f"{name} must be true or false; got {text!r}.")
    return text.lower() == "true"


def _number(name: str, text: str) -> Any:
    """A number, true, false or none, from the text of a setting of optax."""
    if text.lower() in ("true", "false"):
        return _truth(name, text)
    if text.lower() == "none":
        return None
    value = parse(text)
    if not value.is_number:
        raise BadInput(f"{name} must be a number, true, false or none; got {text!r}.")
    return int(value) if value.is_Integer else float(value)
