"""Whether what was read on a matrix and a vector in double precision holds for other leaves."""

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
    """Raises where leaves of another shape, or in another precision, are treated otherwise.

    Without params these are a number and a large kernel in single precision; with params, those
    params.

    Args:
      traced: as the optimizer was read.
      first: what was read of it.
      params: what is to be trained, or None.
      describe: reads another trace; None where its leaves are told apart.
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
    """Params in single precision, None where they are double throughout."""
    leaves = partition(params)[0]
    if all(jnp.result_type(x) == jnp.float64 for x in jax.tree.leaves(leaves)):
        return None
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.float32), leaves)


def _done(program: Program) -> Any:
    """Which operations are applied how often, and the numbers that stand in them."""
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
    """Whether two descriptions are of one optimizer, but for rounding."""
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
    """Whether two formulas agree at points of all sizes."""
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
