"""Keyword arguments that several functions share, documented once in a `TypedDict`.

A function takes them as `**options: Unpack[SearchOptions]`. They are given one by one, or kept in a
dictionary and given as `**kept`; editors and type checkers know their names.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, Unpack, get_args, get_origin

_UNPACKED = re.compile(r"Unpack\[(\w+)\]")


def with_defaults(
    function: Callable[..., Any], given: Mapping[str, Any], **defaults: Any
) -> dict[str, Any]:
    """The options that were given and are not None, over the defaults, as a dictionary.

    Args:
        function: The function that took the options.
        given: The options that it was given.
        **defaults: The options' defaults, for those that have one.

    Raises:
        TypeError: If the function has no argument of a name that was given.
    """
    check_known(function, given)
    return defaults | {name: value for name, value in given.items() if value is not None}


def check_known(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """Raises `TypeError` for a name that a function does not take, and suggests the nearest.

    Args:
        function: The function that took the options.
        given: The options that it was given.

    >>> def solve(t1: float, *, rtol: float = 1e-5, **options): check_known(solve, options)
    >>> solve(1.0, tol=1e-3)
    Traceback (most recent call last):
      ...
    TypeError: solve has no argument 'tol'; the nearest it has is 'rtol'.
    """
    known = names_of(function)
    for name in given:
        if name not in known:
            [nearest] = difflib.get_close_matches(name, known, 1, cutoff=0)
            raise TypeError(
                f"{function.__name__} has no argument {name!r}; the nearest it has is {nearest!r}."
            )


def names_of(function: Callable[..., Any]) -> list[str]:
    """The names of a function's arguments, including those of its options, as a list.

    Args:
        function: A function, a class, a method, or a `functools.partial` of one.

    Raises:
        ValueError: If Python does not know its arguments, as for some written in C.
    """
    names = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is parameter.VAR_KEYWORD:
            names += getattr(_unpacked(parameter.annotation, function), "__annotations__", ())
        elif parameter.kind is not parameter.VAR_POSITIONAL:
            names.append(parameter.name)
    return names


def _unpacked(annotation: Any, function: Callable[..., Any]) -> Any:
    """The class in an annotation `Unpack[...]`, or None for another annotation."""
    if not isinstance(annotation, str):
        return get_args(annotation)[0] if get_origin(annotation) is Unpack else None
    found = _UNPACKED.fullmatch(annotation)
    return _globals(function).get(found[1]) if found else None


def _globals(function: Any) -> dict[str, Any]:
    """The namespace in which the annotations of a function are evaluated."""
    if isinstance(function, functools.partial):
        return _globals(function.func)
    if isinstance(function, type):
        function = function.__init__
    elif not hasattr(function, "__globals__") and not inspect.ismethod(function):
        function = type(function).__call__
    return getattr(inspect.unwrap(function), "__globals__", {})
