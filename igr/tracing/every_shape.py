"""Checks that what was read on a matrix and a vector in float64 holds for other leaves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sympy
from jaxtyping import PyTree

from igr.pytrees import partition
from igr.tracing.describe import Description
from igr.tracing.program import Constant, Program
from igr.tracing.trace import SHAPES, Traced, trace
from igr.tracing.unreadable import UnreadableOptimizerError

# Traced only, so that no number of them is ever made.
_OTHERS = {"number": (), "kernel": (3, 5, 1100, 1300)}
# What a shape or a precision makes of the same operations.
_FORM = {
    "broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "expand_dims", "transpose",
    "copy", "copy_p", "pow", "integer_pow",
}  # fmt: skip
_TOLERANCE = 1e-4  # of single precision, with what rounding a difference makes of it


def check_every_shape(
    traced: Traced,
    first: Description,
    params: PyTree | None,
    describe: Callable[[Traced], Description | None],
) -> None:
    """Raises if leaves of other shapes, or in single precision, are treated differently.

    Without params the other leaves are a scalar and a large kernel in float32; with params they are
    these params in float32.

    Args:
      traced: the optimizer as it was read.
      first: its description.
      params: the params it is to train, or None.
      describe: the description of another trace; None where that treats its leaves differently.

    Raises:
      UnreadableOptimizerError: if the two differ.
    """
    shapes = _others(traced) if params is None else _own(params)
    if shapes is None:
        return
    try:
        other = trace(traced.make, shapes, traced.step, own_precision=True)
    except (UnreadableOptimizerError, TypeError, ValueError):
        return  # it does not take such leaves, and says so itself to who has them
    if _done(other.update) == _done(traced.update):
        return
    try:
        found = describe(other)
    except UnreadableOptimizerError:
        found = None
    if found is not None and _alike(first, found):
        return
    whose = "a number and a kernel of four axes" if params is None else "params"
    raise UnreadableOptimizerError(
        f"it does not do to {whose} in single precision what it does to "
        f"{'a matrix and a vector' if params is None else 'them'} in double: its rule asks for the "
        "shape, the size or the precision of a leaf, as by jnp.finfo, and one description does not "
        "hold for all. Give params=, what is to be trained, and numbers of every precision as "
        "hyperparameters; or describe it by hand with igr.methods.rule"
    )


def _others(traced: Traced) -> PyTree | None:
    if len(traced.params) != len(SHAPES):
        return None
    return {n: jax.ShapeDtypeStruct(s, jnp.float32) for n, s in _OTHERS.items()}


def _own(params: PyTree) -> PyTree | None:
    """The shapes of params in float32; None where all are float64 and there is nothing to check."""
    leaves = partition(params)[0]
    if all(jnp.result_type(x) == jnp.float64 for x in jax.tree.leaves(leaves)):
        return None
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.float32), leaves)


def _done(program: Program) -> Any:
    """How often each operation is applied in a program, and each scalar constant read."""
    operations: Counter[str] = Counter()
    numbers: Counter[str] = Counter()

    def count(program: Program) -> None:
        for step in program.applications:
            name = step.primitive.name
            operations[name] += name not in _FORM
            for atom in step.inputs:
                if isinstance(atom, Constant) and np.size(atom.value) == 1:
                    numbers[f"{float(np.ravel(atom.value)[0]):.5g}"] += 1
            for branch in step.branches:
                count(branch)

    count(program)
    return +operations, numbers


def _alike(first: Description, other: Description) -> bool:
    """Whether two descriptions are those of one optimizer, up to rounding."""
    pairs = [(first.rule, other.rule)]
    if list(first.memories) != list(other.memories) or list(first.rates) != list(other.rates):
        return False
    for n, one in first.memories.items():
        two = other.memories[n]
        if (one.transfer is None, one.rate is None) != (two.transfer is None, two.rate is None):
            return False
        pairs.append((one.of, two.of))
        pairs += [(a, b) for a, b in ((one.transfer, two.transfer), (one.rate, two.rate)) if a]
    pairs += [(first.rates[n], other.rates[n]) for n in first.rates]
    return all(_same(sympy.sympify(a), sympy.sympify(b)) for a, b in pairs)


def _same(first: sympy.Expr, second: sympy.Expr) -> bool:
    """Whether two formulas agree, up to rounding, at random points of all magnitudes."""
    symbols = sorted(first.free_symbols | second.free_symbols, key=str)
    random = np.random.default_rng(0)
    points = 10.0 ** random.uniform(-9, 0, (16, len(symbols)))
    points[:, [s.name in ("t", "clock") for s in symbols]] = 1e3
    values = []
    for formula in (first, second):
        at = sympy.lambdify(symbols, formula, "numpy")
        with np.errstate(all="ignore"):
            values.append([complex(at(*point)) for point in points])
    return bool(np.allclose(*values, rtol=_TOLERANCE, atol=0, equal_nan=True))
