"""Checks of arguments before long work starts, with uniform error messages.

Every message names the argument, says what is allowed and then what was given: `"tol must be
positive and finite; got -1."`. Values that are not known yet, inside jit, vmap or grad, pass. The
symbolic side of the library checks its arguments here too, so this file does not import JAX.
"""

from __future__ import annotations

import math
import numbers
import operator
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, SupportsFloat, SupportsIndex, TypeAlias, cast

if TYPE_CHECKING:
    Number: TypeAlias = float
    Count: TypeAlias = int
else:  # what the checks take: numbers of Python, numpy, JAX and sympy, and no text
    Number: TypeAlias = SupportsFloat
    Count: TypeAlias = SupportsIndex


def is_traced(value: Any) -> bool:
    """Whether a value is a tracer, without a known number, inside jit, vmap or grad.

    >>> is_traced(1.0)
    False
    """
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(value, jax.core.Tracer)


def check_number(
    name: str,
    value: Any,
    *,
    above: Number | None = None,
    at_least: Number | None = None,
    at_most: Number | None = None,
) -> Any:
    """Returns a value, checked to be one finite real number in range.

    Numbers of any kind are allowed: Python's, numpy's and JAX's scalars and arrays without axes, in
    any dtype, fractions, sympy's numbers. Text and bools are refused. A fraction or a sympy number
    is returned as a float, any other number unchanged.

    Args:
        name: The argument, for the message.
        value: What was given; of a tracer only the shape and the dtype are checked.
        above: A number that it must exceed.
        at_least: The smallest allowed number.
        at_most: The largest allowed number.

    Raises:
        TypeError: If the value is no number.
        ValueError: If it is not finite or out of range.

    >>> check_number("tol", 0.1, above=0)
    0.1
    >>> check_number("tol", "0.1", above=0)
    Traceback (most recent call last):
      ...
    TypeError: tol must be a number; got '0.1'.
    """
    number = as_float(name, value)
    if number is None:
        return value
    allowed = "finite"
    if at_most is not None:
        allowed = f"between {at_least:g} and {at_most:g}"
    elif above is not None:
        allowed = "positive and finite" if above == 0 else f"above {above:g} and finite"
    elif at_least is not None:
        allowed = "finite and not negative" if at_least == 0 else f"finite, {at_least:g} or more"
    good = math.isfinite(number)
    good = good and (above is None or number > above)
    good = good and (at_least is None or number >= at_least)
    if not (good and (at_most is None or number <= at_most)):
        raise ValueError(f"{name} must be {allowed}; got {shown(value)}.")
    return value if hasattr(value, "dtype") or isinstance(value, int | float) else number


def check_step(name: str, h: Any) -> Any:
    """Returns a step size, time or tolerance, checked to be a positive and finite number.

    Args:
        name: The argument, for the message.
        h: What was given.

    Raises:
        TypeError: If it is no number.
        ValueError: If it is not positive and finite.

    >>> check_step("h", 0.0)
    Traceback (most recent call last):
      ...
    ValueError: h must be positive and finite; got 0.0.
    """
    return check_number(name, h, above=0)


def check_numbers(name: str, value: Any) -> Any:
    """Returns a value, checked to hold real numbers: one, or an array or list of them.

    Args:
        name: The argument, for the message.
        value: What was given; fractions and sympy numbers are returned as floats.

    Raises:
        TypeError: If it does not hold real numbers.

    >>> check_numbers("sharpness", [1.0, 2.0])
    [1.0, 2.0]
    >>> check_numbers("sharpness", "1.0")
    Traceback (most recent call last):
      ...
    TypeError: sharpness must hold real numbers; got '1.0'.
    """
    if isinstance(value, list | tuple):
        return [check_numbers(name, x) for x in value]
    dtype = getattr(value, "dtype", None)
    if dtype is not None and _is_real(dtype):
        return value
    try:
        number = as_float(name, value)
    except TypeError:
        raise TypeError(f"{name} must hold real numbers; got {shown(value)}.") from None
    return value if isinstance(value, int | float) else number


def check_count(name: str, value: Any, least: int, most: int | None = None, of: str = "") -> int:
    """Returns a count as a Python int, checked to be an integer in range.

    Args:
        name: The argument, for the message.
        value: What was given: Python's, numpy's and JAX's integers, and arrays of one without axes.
        least: The smallest allowed integer.
        most: The largest allowed integer, if there is one.
        of: A remark on the largest for the message, such as ", the number of examples".

    Raises:
        TypeError: If it is no integer, or one that is known only when the program runs.
        ValueError: If it is out of range.

    >>> check_count("steps", 0, 1)
    Traceback (most recent call last):
      ...
    ValueError: steps must be at least 1; got 0.
    """
    if is_traced(value):
        raise TypeError(
            f"{name} must be a Python integer, for it fixes the compiled program; got a traced "
            f"value. Under jit make it a static argument, under optax.inject_hyperparams declare "
            f"static_args=({name!r},)."
        )
    try:
        count = operator.index(value)
        if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool":
            raise TypeError
    except TypeError:
        raise TypeError(f"{name} must be an integer; got {shown(value)}.") from None
    if most is not None and not least <= count <= most:
        raise ValueError(f"{name} must be between {least} and {most}{of}; got {count}.")
    if count < least:
        raise ValueError(f"{name} must be at least {least}; got {count}.")
    return count


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raises `ValueError` unless a value is one of a few names.

    Args:
        name: The argument, for the message.
        value: What was given.
        allowed: The names.

    Raises:
        ValueError: If it is none of them.

    >>> check_choice("method", "fast", ("exact", "random_signs"))
    Traceback (most recent call last):
      ...
    ValueError: method must be 'exact' or 'random_signs'; got 'fast'.
    """
    if not isinstance(value, str) or value not in allowed:
        *others, last = map(repr, allowed)
        names = f"{', '.join(others)} or {last}" if others else last
        raise ValueError(f"{name} must be {names}; got {value!r}.")


def check_callable(name: str, value: Any, signature: str = "") -> None:
    """Raises `TypeError` unless a value is callable.

    Args:
        name: The argument, for the message.
        value: What was given.
        signature: Its signature for the message, such as "params -> scalar".

    >>> check_callable("value_fn", 3.0, "params -> scalar")
    Traceback (most recent call last):
      ...
    TypeError: value_fn must be a function params -> scalar; got 3.0.
    """
    if not callable(value):
        raise TypeError(f"{name} must be a function{signature and ' ' + signature}; got {value!r}.")


def check_value_fn(value_fn: Any) -> None:
    """Raises `TypeError` unless the loss is callable.

    Args:
        value_fn: What was given.
    """
    check_callable("value_fn", value_fn, "of params that returns a scalar")


def as_float(name: str, value: Any) -> float | None:
    """The float of one real number of any kind; None for a tracer.

    Args:
        name: The argument, for the message.
        value: What was given.

    Raises:
        TypeError: If it is no real number: text, a bool, a complex number, an array with axes.
    """
    shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
    real = shape == () and (dtype is None or _is_real(dtype))
    if dtype is None:
        real = real and not isinstance(value, bool | str | bytes | bytearray)
        real = real and (isinstance(value, numbers.Real) or hasattr(value, "__float__"))
    if real and is_traced(value):
        return None
    try:
        if not real:
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number; got {shown(value)}.") from None
    except OverflowError:
        return math.inf if cast(Any, value) > 0 else -math.inf


def shown(value: Any) -> str:
    """The text of a value in an error message: scalars as in Python, arrays by their shape."""
    shape = getattr(value, "shape", None)
    if shape is None or is_traced(value):
        return repr(value)
    if shape == ():
        return repr(value.item() if _is_real(value.dtype) else value)
    return f"an array of shape {shape}, {value.dtype}"


def _is_real(dtype: Any) -> bool:
    """Whether a dtype is one of integers or real numbers; bfloat16 and similar dtypes count."""
    kind = getattr(dtype, "kind", "O")
    return kind in "iuf" or (kind == "V" and "float" in str(dtype) and str(dtype) != "float0")
