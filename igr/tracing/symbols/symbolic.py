"""Reads a traced program in sympy: one expression for all elements of a leaf of params."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy

from igr.tracing.program import Application, Atom, Constant, Program, Variable
from igr.tracing.symbols.elementwise import ELEMENTWISE, chosen_by_step, is_condition, truth_of
from igr.tracing.symbols.reader import Reader
from igr.tracing.symbols.values import STEPS, Mixed, Value, constant, fading_power, symbols_of
from igr.tracing.unreadable import KinkError, UnreadableOptimizerError

RANDOM = {"random_bits", "random_seed", "random_wrap", "random_unwrap", "random_split",
          "random_fold_in", "threefry2x32", "rng_bit_generator", "rng_uniform"}  # fmt: skip
OPAQUE = {"pure_callback", "io_callback"}


def read(
    program: Program,
    arguments: Sequence[Value | Mixed | None],
    reader: Reader,
    renamed: Mapping[Variable, Callable[[Value | Mixed], Value | Mixed]] | None = None,
    wanted: Sequence[int] | None = None,
) -> list[Any]:
    """Evaluates a program on symbolic values and returns those of the wanted outputs as a list.

    Args:
      program: the traced program.
      arguments: a value for each of its inputs; None where the wanted outputs do not read it.
      reader: how signs, maxima and conditions on elements are read.
      renamed: variable -> a function that is applied to its value as soon as it is known.
      wanted: the indices of the outputs; all if not given.
    """
    renamed = renamed or {}
    outputs = [
        program.outputs[i] for i in (range(len(program.outputs)) if wanted is None else wanted)
    ]
    values: dict[Variable, Value | Mixed | None] = {}

    def put(variable: Variable, value: Value | Mixed | None) -> None:
        values[variable] = renamed[variable](value) if variable in renamed else value  # pyright: ignore[reportArgumentType]

    def known(atom: Atom) -> Any:
        return constant(atom.value) if isinstance(atom, Constant) else values[atom]

    for variable, argument in zip(program.inputs, arguments, strict=True):
        put(variable, argument)
    for step in program.before(outputs):
        reader.at = step.outputs[0] if step.outputs else None
        read_here = [known(a) for a in step.inputs]
        try:
            made = _apply(step, read_here, reader, program)
        except KinkError as error:
            made = [Mixed(str(error), symbols_of(read_here), error)] * len(step.outputs)
        if step.primitive.name == "select_n" and isinstance(read_here[0], Value):
            truth = truth_of(read_here[0].expression)
            if truth is not None:
                reader.chosen[step.outputs[0]] = step.inputs[1 + truth]
        for variable, value in zip(step.outputs, made, strict=True):
            if isinstance(value, Value) and not reader.within and fading_power(value.expression):
                reader.powers[variable] = value.expression
            put(variable, value)
    return [known(a) for a in outputs]


def _apply(
    step: Application, read_: list[Value | Mixed], reader: Reader, program: Program
) -> list[Value | Mixed]:
    name = step.primitive.name
    if name in RANDOM:
        raise UnreadableOptimizerError(RANDOM_REASON)
    if name in OPAQUE:
        raise UnreadableOptimizerError(
            f"it calls Python from its update ({name}), which cannot be read and has no "
            "derivative. Write it in operations of JAX"
        )
    mixed = _mixed(name, read_)
    if name == "is_finite":
        return [Value(True)]  # a run that is not is stopped by other means
    if name == "cond":
        return _condition(step, read_, reader)
    if mixed is not None and not _decided(name, read_):
        return [mixed] * len(step.outputs)
    if name == "select_n":
        return [_select(read_, reader)]
    leaf = next((x.leaf for x in read_ if isinstance(x, Value) and x.leaf is not None), None)
    expressions = [x.expression for x in read_ if isinstance(x, Value)]
    if name in _SHAPE:
        before = program.shapes[step.inputs[0]] if isinstance(step.inputs[0], Variable) else None
        same = before is not None and before.shape == program.shapes[step.outputs[0]].shape
        if leaf is None or same:
            return [Value(expressions[0], leaf)]
        return [Mixed(name, symbols_of(read_))]
    if name == "concatenate" and leaf is None and all(x == expressions[0] for x in expressions):
        return [Value(expressions[0])]
    if name in ("reduce_and", "reduce_or", "reduce_max", "reduce_min") and leaf is None:
        return [Value(expressions[0])]
    if name in ELEMENTWISE:
        found = ELEMENTWISE[name](reader, leaf, step.parameters, *expressions)
        fixed = isinstance(found, bool) or found.is_number is True
        return [Value(found, None if fixed else leaf)]
    return [Mixed(name, symbols_of(read_))] * len(step.outputs)


RANDOM_REASON = (
    "it draws at random: its step is no function of the gradients seen. Leave the noise out, or "
    "describe it as a stochastic equation: igr.flows.stochastic_field"
)
_SHAPE = {
    "broadcast_in_dim",
    "reshape",
    "squeeze",
    "expand_dims",
    "transpose",
    "sharding_constraint",
}


def _mixed(name: str, read_: Sequence[Value | Mixed]) -> Mixed | None:
    """The `Mixed` value of a primitive that reads mixed elements or two leaves, otherwise None."""
    leaves = {x.leaf for x in read_ if isinstance(x, Value) and x.leaf is not None}
    parts = [x for x in read_ if isinstance(x, Mixed)]
    if not parts and len(leaves) <= 1:
        return None
    coupled = [x for x in parts if x.kink is None]
    if not coupled and parts and len(leaves) <= 1:
        if name in ELEMENTWISE or name in ("select_n", "cond", *_SHAPE):
            return Mixed(parts[0].why, symbols_of(read_), parts[0].kink)
        return Mixed(name, symbols_of(read_))
    why = coupled[0].why if coupled else f"{name} of two leaves"
    return Mixed(why, symbols_of(read_))


def _decided(name: str, read_: Sequence[Value | Mixed]) -> bool:
    """Whether a choice is decided, so that the cases it does not select do not matter."""
    return (
        name == "select_n"
        and isinstance(read_[0], Value)
        and truth_of(read_[0].expression) is not None
    )


def _condition(
    step: Application, read_: list[Value | Mixed], reader: Reader
) -> list[Value | Mixed]:
    index, arguments = read_[0], read_[1:]
    if isinstance(index, Value):
        chosen = truth_of(index.expression)
        if chosen is not None:
            branch = step.branches[min(max(chosen, 0), len(step.branches) - 1)]
            return _within(branch, arguments, reader)
    results = [_within(branch, arguments, reader) for branch in step.branches]
    return [_select([index, *cases], reader) for cases in zip(*results, strict=True)]


def _within(
    branch: Program, arguments: Sequence[Value | Mixed], reader: Reader
) -> list[Value | Mixed]:
    """The values of a branch of a condition, read as a program of its own."""
    reader.within += 1
    try:
        return read(branch, arguments, reader)
    finally:
        reader.within -= 1


def _select(read_: Sequence[Value | Mixed], reader: Reader) -> Value | Mixed:
    which, cases = read_[0], list(read_[1:])
    mixed = _mixed("select_n", read_)
    if isinstance(which, Value):
        chosen = truth_of(which.expression)
        if chosen is not None:
            return cases[chosen]
    if mixed is not None:
        return mixed
    assert isinstance(which, Value)
    leaf = next((x.leaf for x in read_ if isinstance(x, Value) and x.leaf is not None), None)
    first = cases[0]
    if all(x == first for x in cases):
        return first
    if len(cases) != 2:
        return Mixed("select_n of many", symbols_of(read_))
    otherwise, then = (x.expression for x in cases)  # pyright: ignore[reportAttributeAccessIssue]
    condition = which.expression
    if not is_condition(condition):
        condition = sympy.Ne(condition, 0)
    if is_condition(then):
        joined = sympy.Or(sympy.And(condition, then), sympy.And(sympy.Not(condition), otherwise))
        return Value(joined, leaf)
    if condition.free_symbols <= {STEPS}:
        return Value(chosen_by_step(reader.settle(condition), then, otherwise), leaf)
    share = (1 + reader.sign(_margin(condition), "a condition on the gradient or a state")) / 2
    return Value(otherwise + (then - otherwise) * share, leaf)


def _margin(condition: Any) -> sympy.Expr:
    """An expression that is positive where the condition holds and negative where it does not."""
    if isinstance(condition, sympy.Gt | sympy.Ge):
        return condition.lhs - condition.rhs
    if isinstance(condition, sympy.Lt | sympy.Le):
        return condition.rhs - condition.lhs
    raise UnreadableOptimizerError(
        f"it chooses by a condition that is no single comparison: {condition}. "
        "igr.methods.rule takes a step that is no formula"
    )
