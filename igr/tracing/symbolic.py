"""A traced program read in sympy: one expression for the elements of one leaf of params."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanAtom, BooleanFunction

from igr.backward_error.algebra.taylor import exact
from igr.tracing.program import Application, Atom, Constant, Program, Variable
from igr.tracing.unreadable import KinkError, UnreadableOptimizerError

STEPS = sympy.Symbol("n", integer=True, nonnegative=True)  # the steps done before this one
RATE = sympy.Symbol("h", positive=True)  # the learning rate

RANDOM = {"random_bits", "random_seed", "random_wrap", "random_unwrap", "random_split",
          "random_fold_in", "threefry2x32", "rng_bit_generator", "rng_uniform"}  # fmt: skip


class Value(NamedTuple):
    """What a variable holds.

    Attributes:
      expression: of one element; `True` or a condition for a boolean.
      leaf: the leaf of params whose elements it runs over, None if it is the same number for all.
    """

    expression: Any
    leaf: Any = None


class Mixed(NamedTuple):
    """What is no function of one element alone.

    Attributes:
      why: the primitive that mixes elements, or the leaves that meet.
      reads: the symbols it depends on.
      kink: the error of a kink, where that is all that stands in the way.
    """

    why: str
    reads: frozenset[sympy.Symbol]
    kink: KinkError | None = None


class Reader:
    """How a program is read: what is known of symbols, and what is done at a kink.

    Args:
      smooth: x/sqrt(x^2 + smooth) is taken for the sign of x, from which maxima and conditions are
        made; None if there is to be no such thing.
      nonnegative: symbols known not to be negative, as averages of squares are.
    """

    def __init__(self, smooth: Any | None, nonnegative: Iterable[sympy.Symbol] = ()):
        self.smooth = None if smooth is None else exact(smooth, "smooth")
        self.smoothed: set[str] = set()
        self.smoothed_at: set[Variable] = set()  # the applications that were
        self.at: Variable | None = None
        self.chosen: dict[Variable, Atom] = {}  # what a decided choice is the same as
        self.settled = 0  # the step from which conditions on the first steps no longer hold
        nonnegative = frozenset(nonnegative)
        self._real: dict[sympy.Symbol, sympy.Dummy] = {}
        self._nonnegative = nonnegative

    def assumed(self, x: sympy.Expr) -> sympy.Expr:
        """The expression in symbols that are real, or not negative."""
        for s in x.free_symbols - set(self._real):
            known = {"nonnegative": True} if s in self._nonnegative else {"real": True}
            self._real[s] = sympy.Dummy(s.name, **(s._assumptions_orig or known))
        return x.xreplace({s: self._real[s] for s in x.free_symbols})

    def sign(self, x: sympy.Expr, what: str) -> sympy.Expr:
        """The sign of x, or what is taken for it."""
        known = self.assumed(x)
        if known.is_nonnegative:
            return sympy.Integer(1)  # zero only at single points
        if known.is_nonpositive:
            return sympy.Integer(-1)
        if self.smooth is None:
            raise KinkError(
                f"its rule has a jump or a kink ({what}), where no expansion holds. Ask for it to "
                "be smoothed: from_optax(..., smooth=1e-2) reads x/sqrt(x² + smooth) for the sign "
                "of x, and follows the optimizer so changed"
            )
        self.smoothed.add(what)
        if self.at is not None:
            self.smoothed_at.add(self.at)
        return x / sympy.sqrt(x**2 + self.smooth)

    def absolute(self, x: sympy.Expr, what: str = "abs") -> sympy.Expr:
        """|x|, or the root that is taken for it."""
        sign = self.sign(x, what)
        return sign * x if sign.is_number else sympy.sqrt(x**2 + self.smooth)

    def settle(self, condition: Any) -> Any:
        """A condition on the step, decided where it holds, or fails, for the first few alone."""
        found = settled(condition)
        if found is None:
            return condition
        truth, since = found
        if since > EARLY:
            return condition
        self.settled = max(self.settled, since)
        return truth


EARLY = 20  # steps: a condition that changes later is part of a schedule


def settled(condition: Any) -> tuple[bool, int] | None:
    """How a condition on the step ends, and from which step on; None if it goes on changing."""
    found = changes(condition)
    if found is None:
        return None
    since = found[-1] if found else 0
    return bool(_at_steps(condition)(np.array([float(since)]))[0]), since


def changes(condition: Any) -> list[int] | None:
    """The steps at which a condition on the step begins or ceases to hold; None if too many."""
    grid = np.unique(np.concatenate([np.arange(4096), np.geomspace(4096, 1e8, 4000).astype(int)]))
    function = _at_steps(condition)
    values = function(grid.astype(float))
    turns = np.flatnonzero(values[1:] != values[:-1])
    if turns.size > 8:
        return None
    found = []
    for i in turns:
        low, high = int(grid[i]), int(grid[i + 1])
        while high - low > 1:
            middle = (low + high) // 2
            same = function(np.array([float(middle)]))[0] == values[i]
            low, high = (middle, high) if same else (low, middle)
        found.append(high)
    return found


def _at_steps(condition: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A condition on the step as a function of an array of steps."""
    function = sympy.lambdify(STEPS, condition, "numpy")

    def at(steps: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            return np.broadcast_to(np.asarray(function(steps), bool), steps.shape)

    return at


def read(
    program: Program,
    arguments: Sequence[Value | Mixed | None],
    reader: Reader,
    renamed: Mapping[Variable, Callable[[Value | Mixed], Value | Mixed]] | None = None,
    wanted: Sequence[int] | None = None,
) -> list[Any]:
    """Interprets a program on symbols.

    Args:
      program: what was traced.
      arguments: a value for each of its inputs; None where the wanted outputs do not read it.
      reader: how signs, maxima and conditions on elements are read.
      renamed: by variable, what becomes of its value as soon as it is known.
      wanted: which outputs; all if not given.

    Returns:
      The values of the wanted outputs.
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
            made = [Mixed(str(error), _symbols(read_here), error)] * len(step.outputs)
        if step.primitive.name == "select_n" and isinstance(read_here[0], Value):
            truth = _truth(read_here[0].expression)
            if truth is not None:
                reader.chosen[step.outputs[0]] = step.inputs[1 + truth]
        for variable, value in zip(step.outputs, made, strict=True):
            put(variable, value)
    return [known(a) for a in outputs]


def constant(value: Any) -> Value | Mixed:
    """A number, or an array of one number."""
    array = np.asarray(value)
    if array.size == 0:
        return Mixed("an empty array", frozenset())
    first = array.reshape(-1)[0]
    same = array == first
    if array.size > 1 and not (same.all() or (array != array).all()):
        return Mixed("constants that differ from element to element", frozenset())
    return Value(number(first))


def number(value: Any) -> Any:
    """A scalar exactly, a float as the decimal it is written as."""
    scalar: Any = np.asarray(value)
    if scalar.dtype == bool:
        return bool(scalar)
    if np.issubdtype(scalar.dtype, np.integer):
        return sympy.Integer(int(scalar))
    if np.issubdtype(scalar.dtype, np.complexfloating):
        return sympy.nan if scalar.imag else number(scalar.real)
    if np.isnan(scalar):
        return sympy.nan
    if np.isinf(scalar):
        return sympy.oo if scalar > 0 else -sympy.oo
    if scalar.dtype == np.float64:
        return _decimal(float(scalar))
    return sympy.Rational(str(scalar.astype(scalar.dtype)))  # the shortest that rounds to it


def _decimal(x: float) -> sympy.Rational:
    """The decimal a float was written as, or was computed from as 1 - 0.9999 is."""
    for digits in range(1, 16):
        text = f"{x:.{digits}g}"
        apart = abs(float(text) - x)
        if apart <= 1.2e-16 and apart <= 1e-11 * abs(x):
            return sympy.Rational(text)
    return sympy.Rational(f"{x:.15g}")


def _apply(
    step: Application, read_: list[Value | Mixed], reader: Reader, program: Program
) -> list[Value | Mixed]:
    name = step.primitive.name
    if name in RANDOM:
        raise UnreadableOptimizerError(RANDOM_REASON)
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
        return [Mixed(name, _symbols(read_))]
    if name == "concatenate" and leaf is None and all(x == expressions[0] for x in expressions):
        return [Value(expressions[0])]
    if name in ("reduce_and", "reduce_or", "reduce_max", "reduce_min") and leaf is None:
        return [Value(expressions[0])]
    if name in ELEMENTWISE:
        found = ELEMENTWISE[name](reader, leaf, step.parameters, *expressions)
        fixed = isinstance(found, bool) or found.is_number is True
        return [Value(found, None if fixed else leaf)]
    return [Mixed(name, _symbols(read_))] * len(step.outputs)


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


def _symbols(values: Sequence[Value | Mixed]) -> frozenset[sympy.Symbol]:
    found: frozenset[sympy.Symbol] = frozenset()
    for x in values:
        if isinstance(x, Mixed):
            found |= x.reads
        elif isinstance(x.expression, sympy.Basic):
            found |= x.expression.free_symbols
    return found


def _mixed(name: str, read_: Sequence[Value | Mixed]) -> Mixed | None:
    """What becomes of a primitive that reads mixed elements, or those of two leaves."""
    leaves = {x.leaf for x in read_ if isinstance(x, Value) and x.leaf is not None}
    parts = [x for x in read_ if isinstance(x, Mixed)]
    if not parts and len(leaves) <= 1:
        return None
    coupled = [x for x in parts if x.kink is None]
    if not coupled and parts and len(leaves) <= 1:
        if name in ELEMENTWISE or name in ("select_n", "cond", *_SHAPE):
            return Mixed(parts[0].why, _symbols(read_), parts[0].kink)
        return Mixed(name, _symbols(read_))
    why = coupled[0].why if coupled else f"{name} of two leaves"
    return Mixed(why, _symbols(read_))


def _decided(name: str, read_: Sequence[Value | Mixed]) -> bool:
    """Whether a condition is decided, so that it does not matter what it does not choose."""
    return (
        name == "select_n"
        and isinstance(read_[0], Value)
        and _truth(read_[0].expression) is not None
    )


def _is_condition(x: Any) -> bool:
    """Whether it is true or false, and no number. To sympy a symbol may be either."""
    return isinstance(x, bool | np.bool_ | BooleanAtom | BooleanFunction | Relational)


def _truth(condition: Any) -> int | None:
    """The case a condition chooses, or None where it is open."""
    if isinstance(condition, bool | np.bool_):
        return int(condition)
    if isinstance(condition, BooleanAtom):
        return int(bool(condition))
    if isinstance(condition, sympy.Integer):
        return int(condition)
    return None


def _condition(
    step: Application, read_: list[Value | Mixed], reader: Reader
) -> list[Value | Mixed]:
    index, arguments = read_[0], read_[1:]
    if isinstance(index, Value):
        chosen = _truth(index.expression)
        if chosen is not None:
            branch = step.branches[min(max(chosen, 0), len(step.branches) - 1)]
            return read(branch, arguments, reader)
    results = [read(branch, arguments, reader) for branch in step.branches]
    return [_select([index, *cases], reader) for cases in zip(*results, strict=True)]


def _select(read_: Sequence[Value | Mixed], reader: Reader) -> Value | Mixed:
    which, cases = read_[0], list(read_[1:])
    mixed = _mixed("select_n", read_)
    if isinstance(which, Value):
        chosen = _truth(which.expression)
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
        return Mixed("select_n of many", _symbols(read_))
    otherwise, then = (x.expression for x in cases)  # pyright: ignore[reportAttributeAccessIssue]
    condition = which.expression
    if not _is_condition(condition):
        condition = sympy.Ne(condition, 0)
    if _is_condition(then):
        joined = sympy.Or(sympy.And(condition, then), sympy.And(sympy.Not(condition), otherwise))
        return Value(joined, leaf)
    if condition.free_symbols <= {STEPS}:
        return Value(chosen_by_step(reader.settle(condition), then, otherwise), leaf)
    share = (1 + reader.sign(_margin(condition), "a condition on the gradient or a state")) / 2
    return Value(otherwise + (then - otherwise) * share, leaf)


def chosen_by_step(condition: Any, then: sympy.Expr, otherwise: sympy.Expr) -> sympy.Expr:
    """One expression or the other, by a condition on the step."""
    chosen = _truth(condition)
    if chosen is not None:
        return then if chosen else otherwise
    return sympy.Piecewise((then, condition), (otherwise, True), evaluate=False)


def _margin(condition: Any) -> sympy.Expr:
    """An expression that is positive where the condition holds."""
    if isinstance(condition, sympy.Gt | sympy.Ge):
        return condition.lhs - condition.rhs
    if isinstance(condition, sympy.Lt | sympy.Le):
        return condition.rhs - condition.lhs
    raise UnreadableOptimizerError(
        f"it chooses by a condition that is no single comparison: {condition}. "
        "igr.methods.rule takes a step that is no formula"
    )


def _compare(kind: type[Relational]) -> Callable[..., Any]:
    def compare(reader: Reader, leaf: Any, parameters: Any, a: Any, b: Any) -> Any:
        del parameters
        if _is_condition(a) or _is_condition(b):
            a, b = (sympy.Integer(int(bool(x))) if _truth(x) is not None else x for x in (a, b))
        if sympy.nan in (a, b):
            return kind is sympy.Ne
        # Counts stop at the largest integer, which no run reaches.
        if b == 2**31 - 1 and kind in (sympy.Lt, sympy.Le):
            return True
        difference = a - b
        if leaf is not None:
            if difference == 0:
                return kind in (sympy.Eq, sympy.Le, sympy.Ge)
            # At a point like any other two quantities are not equal, and squares are not zero.
            if kind in (sympy.Eq, sympy.Ne):
                return kind is sympy.Ne
            known = reader.assumed(difference)
            if known.is_nonnegative:
                return kind in (sympy.Gt, sympy.Ge)
            if known.is_nonpositive:
                return kind in (sympy.Lt, sympy.Le)
        found = kind(a, b)
        if _truth(found) is not None:
            return bool(found)
        return reader.settle(found) if found.free_symbols == {STEPS} else found

    return compare


def _extreme(larger: bool) -> Callable[..., Any]:
    def extreme(reader: Reader, leaf: Any, parameters: Any, a: Any, b: Any) -> Any:
        del parameters
        if _is_condition(a):
            return sympy.Or(a, b) if larger else sympy.And(a, b)
        known = sympy.Max(a, b) if larger else sympy.Min(a, b)
        if known in (a, b):
            return known
        if leaf is None and (known.free_symbols <= {STEPS}):
            first = sympy.Ge(a, b) if larger else sympy.Le(a, b)
            return chosen_by_step(reader.settle(first), a, b)
        if leaf is None:
            return known
        if sympy.oo in (a, b) or -sympy.oo in (a, b):
            return known
        turn = reader.absolute(a - b, "max" if larger else "min")
        return (a + b + (turn if larger else -turn)) / 2

    return extreme


def _sign(reader: Reader, leaf: Any, parameters: Any, x: Any) -> Any:
    del parameters
    if leaf is not None:
        return reader.sign(x, "sign")
    found = sympy.sign(x)
    if found.has(sympy.sign) and x.free_symbols <= {STEPS}:
        zero = sympy.Piecewise((0, sympy.Eq(x, 0)), (-1, True), evaluate=False)
        return sympy.Piecewise((1, sympy.Gt(x, 0)), (zero, True), evaluate=False)
    return found


def _power(reader: Reader, leaf: Any, parameters: Any, a: Any, b: Any) -> Any:
    del reader, leaf, parameters
    return a**b


def _converted(reader: Reader, leaf: Any, parameters: Any, x: Any) -> Any:
    del reader, leaf
    if np.issubdtype(parameters["new_dtype"], np.bool_):
        return x if _is_condition(x) else sympy.Ne(x, 0)
    if isinstance(x, bool):
        return sympy.Integer(int(x))
    if _is_condition(x):
        chosen = _truth(x)
        if chosen is not None:
            return sympy.Integer(chosen)
        return sympy.Piecewise((1, x), (0, True), evaluate=False)
    if np.issubdtype(parameters["new_dtype"], np.integer) and not x.is_integer:
        return sympy.floor(x)
    return x


def _of(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda reader, leaf, parameters, *x: function(*x)


def _truth_table(function: Callable[..., Any]) -> Callable[..., Any]:
    def apply(reader: Reader, leaf: Any, parameters: Any, *x: Any) -> Any:
        found = function(*x)
        return bool(found) if _truth(found) is not None else found

    return apply


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": _of(lambda a, b: a + b),
    "add_any": _of(lambda a, b: a + b),
    "sub": _of(lambda a, b: a - b),
    "mul": _of(lambda a, b: a * b),
    "div": _of(lambda a, b: a / b),
    "neg": _of(lambda a: -a),
    "square": _of(lambda a: a**2),
    "integer_pow": lambda reader, leaf, parameters, a: a ** parameters["y"],
    "pow": _power,
    "sqrt": _of(sympy.sqrt),
    "rsqrt": _of(lambda a: 1 / sympy.sqrt(a)),
    "cbrt": _of(lambda a: a ** sympy.Rational(1, 3)),
    "exp": _of(sympy.exp),
    "exp2": _of(lambda a: 2**a),
    "expm1": _of(lambda a: sympy.exp(a) - 1),
    "log": _of(sympy.log),
    "log1p": _of(lambda a: sympy.log(1 + a)),
    "sin": _of(sympy.sin),
    "cos": _of(sympy.cos),
    "tanh": _of(sympy.tanh),
    "logistic": _of(lambda a: 1 / (1 + sympy.exp(-a))),
    "abs": lambda reader, leaf, parameters, a: sympy.Abs(a) if leaf is None else reader.absolute(a),
    "sign": _sign,
    "max": _extreme(True),
    "min": _extreme(False),
    "clamp": lambda reader, leaf, parameters, low, x, high: _extreme(False)(
        reader, leaf, parameters, _extreme(True)(reader, leaf, parameters, x, low), high
    ),
    "floor": _of(sympy.floor),
    "ceil": _of(sympy.ceiling),
    "convert_element_type": _converted,
    "reduce_precision": _of(lambda a: a),
    "real": _of(lambda a: a),
    "conj": _of(lambda a: a),
    "imag": _of(lambda a: sympy.Integer(0)),
    "is_finite": _of(lambda a: True),
    "nextafter": _of(lambda a, b: a),
    "lt": _compare(sympy.Lt),
    "le": _compare(sympy.Le),
    "gt": _compare(sympy.Gt),
    "ge": _compare(sympy.Ge),
    "eq": _compare(sympy.Eq),
    "ne": _compare(sympy.Ne),
    "and": _truth_table(sympy.And),
    "or": _truth_table(sympy.Or),
    "not": _truth_table(sympy.Not),
}
