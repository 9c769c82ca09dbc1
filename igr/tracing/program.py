"""A traced function as a flat list of JAX primitives, which can be replayed or read."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

# Primitives that call another function, which is written out in their place.
_CALLS = {
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "remat",
    "remat2",
    "checkpoint",
    "custom_lin",
}
# Primitives whose output is their input.
_SAME = {"copy", "copy_p", "stop_gradient", "optimization_barrier", "device_put", "mul_by_one"}


class Variable(NamedTuple):
    """An input or intermediate value of a program, identified by its number."""

    number: int


class Constant(NamedTuple):
    """A constant that is read in a program."""

    value: Any


Atom = Variable | Constant


class Application(NamedTuple):
    """The application of one primitive.

    Attributes:
      primitive: the JAX primitive.
      parameters: its static parameters.
      inputs: the variables and constants it reads.
      outputs: the variables it makes.
      branches: the branches of a `cond`, each as a program of its own.
    """

    primitive: Any
    parameters: Mapping[str, Any]
    inputs: tuple[Atom, ...]
    outputs: tuple[Variable, ...]
    branches: tuple[Program, ...] = ()


@dataclass(frozen=True)
class Program:
    """A program as a list of applied primitives, with all calls inlined.

    Attributes:
      inputs: the arguments.
      applications: the applied primitives, in order.
      outputs: the results.
      shapes: the shape and dtype of each variable.
    """

    inputs: tuple[Variable, ...]
    applications: tuple[Application, ...]
    outputs: tuple[Atom, ...]
    shapes: Mapping[Variable, jax.ShapeDtypeStruct]

    def before(self, outputs: Sequence[Atom]) -> list[Application]:
        """The applications on which these outputs depend, in the order they are applied."""
        wanted = {a for a in outputs if isinstance(a, Variable)}
        found = []
        for step in reversed(self.applications):
            if wanted.intersection(step.outputs):
                found.append(step)
                wanted.update(a for a in step.inputs if isinstance(a, Variable))
        return found[::-1]

    def replay(
        self,
        arguments: Sequence[Any],
        *,
        instead: Mapping[Variable, Instead] | None = None,
        changed: Mapping[Variable, Callable[[Any], Any]] | None = None,
        wanted: Sequence[int] | None = None,
    ) -> list[Any]:
        """Runs the program on new arguments and returns the wanted results as a list.

        Args:
          arguments: arrays of the shapes it was traced with.
          instead: first output of an application -> the function that is called instead of it.
          changed: variable -> a function that is applied to its value as soon as it is made.
          wanted: the indices of the results; all if not given. Nothing else is computed.
        """
        outputs = self.outputs if wanted is None else [self.outputs[i] for i in wanted]
        applications = self.applications if wanted is None else self.before(outputs)
        instead, changed = instead or {}, changed or {}
        values: dict[Variable, Any] = {}

        def put(variable: Variable, value: Any) -> None:
            values[variable] = changed[variable](value) if variable in changed else value

        def value(atom: Atom) -> Any:
            return atom.value if isinstance(atom, Constant) else values[atom]

        for variable, argument in zip(self.inputs, arguments, strict=True):
            put(variable, argument)
        for step in applications:
            if step.outputs and step.outputs[0] in instead:
                made = instead[step.outputs[0]](step, value)
            elif step.primitive.name in _ROOTS:
                made = _ROOTS[step.primitive.name](value(step.inputs[0]))
            elif step.branches:
                which, *read = map(value, step.inputs)
                cases = [lambda *x, branch=branch: branch.replay(x) for branch in step.branches]
                if isinstance(which, Tracer):
                    made = jax.lax.switch(which, cases, *read)
                else:
                    made = cases[min(max(int(which), 0), len(cases) - 1)](*read)
            elif (exponent := _steep(step)) is not None:
                made = power(value(step.inputs[0]), exponent)
            else:
                made = step.primitive.bind(*map(value, step.inputs), **step.parameters)
            if not step.primitive.multiple_results:
                made = [made]
            for variable, x in zip(step.outputs, made, strict=True):
                put(variable, x)
        return [value(a) for a in outputs]


@jax.custom_jvp
def root(x: Any) -> Any:
    """The square root, with derivative 0 where x and its tangent are both 0.

    So that a weight that is never used, whose average of squares stays at 0, gives no nan.
    """
    return jnp.sqrt(x)


@root.defjvp
def _(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    ((x,), (along,)) = primals, tangents
    found = root(x)
    still = (x == 0) & (along == 0)
    slope = along / jnp.where(still, 1, 2 * found)
    return found, jnp.where(still, jnp.zeros_like(slope), slope)


@jax.custom_jvp
def inverse_root(x: Any) -> Any:
    """One over the square root, with derivative 0 where the tangent of x is 0."""
    return jax.lax.rsqrt(x)


@inverse_root.defjvp
def _(primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    ((x,), (along,)) = primals, tangents
    found = inverse_root(x)
    still = along == 0
    # In this order: x^(-3/2) overflows where x^(-1/2) is far from it.
    slope = -found * (along / jnp.where(still, 1, 2 * x))
    return found, jnp.where(still, jnp.zeros_like(slope), slope)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def power(x: Any, exponent: float) -> Any:
    """The power x^exponent, exponent < 1, with derivative 0 where the tangent of x is 0."""
    return x**exponent


@power.defjvp
def _(exponent: float, primals: tuple[Any], tangents: tuple[Any]) -> tuple[Any, Any]:
    ((x,), (along,)) = primals, tangents
    found = power(x, exponent)
    still = along == 0
    slope = exponent * found * (along / jnp.where(still, 1, x))
    return found, jnp.where(still, jnp.zeros_like(slope), slope)


def _steep(step: Application) -> float | None:
    """The exponent of an application of `pow` if it is one number below 1, otherwise None.

    The derivative of such a power is unbounded at 0.
    """
    if step.primitive.name != "pow" or not isinstance(step.inputs[1], Constant):
        return None
    exponent = np.asarray(step.inputs[1].value)
    return float(exponent) if exponent.size == 1 and exponent.item() < 1 else None


_ROOTS = {"sqrt": root, "rsqrt": inverse_root}

Instead = Callable[[Application, Callable[[Atom], Any]], Any]


def flatten(closed: ClosedJaxpr) -> Program:
    """A traced function as a flat `Program`, with all calls inlined.

    >>> import jax.numpy as jnp
    >>> program = flatten(jax.make_jaxpr(jax.jit(lambda x: jnp.sin(2 * x)))(1.0))
    >>> [step.primitive.name for step in program.applications]
    ['mul', 'sin']
    """
    numbers = itertools.count()
    applications: list[Application] = []
    shapes: dict[Variable, jax.ShapeDtypeStruct] = {}

    def new(aval: Any) -> Variable:
        variable = Variable(next(numbers))
        shapes[variable] = jax.ShapeDtypeStruct(aval.shape, aval.dtype)
        return variable

    def inline(jaxpr: Jaxpr, constants: Sequence[Any], arguments: Sequence[Atom]) -> list[Atom]:
        known: dict[Any, Atom] = dict(zip(jaxpr.invars, arguments, strict=True))
        known |= {v: Constant(c) for v, c in zip(jaxpr.constvars, constants, strict=True)}

        def atom(v: Any) -> Atom:
            return Constant(v.val) if isinstance(v, Literal) else known[v]

        for equation in jaxpr.eqns:
            name, read = equation.primitive.name, [atom(v) for v in equation.invars]
            if name in _CALLS:
                inner = _called(equation.params)
                if isinstance(inner, ClosedJaxpr):
                    made: Sequence[Atom] = inline(inner.jaxpr, inner.consts, read)
                else:
                    made = inline(inner, (), read)
            elif name in _SAME or _keeps_dtype(equation):
                made = read
            else:
                made = tuple(new(v.aval) for v in equation.outvars)
                branches = (
                    tuple(map(flatten, equation.params["branches"])) if name == "cond" else ()
                )
                applications.append(
                    Application(
                        equation.primitive, equation.params, tuple(read), tuple(made), branches
                    )
                )
            known.update(zip(equation.outvars, made, strict=True))
        return [atom(v) for v in jaxpr.outvars]

    inputs = tuple(new(v.aval) for v in closed.jaxpr.invars)
    outputs = inline(closed.jaxpr, closed.consts, inputs)
    return Program(inputs, tuple(applications), tuple(outputs), shapes)


def _called(parameters: Mapping[str, Any]) -> Any:
    for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        if key in parameters:
            return parameters[key]
    raise KeyError(f"a call without a function: {sorted(parameters)}")


def _keeps_dtype(equation: Any) -> bool:
    """Whether an equation of a jaxpr converts a value to the dtype it already has."""
    if equation.primitive.name != "convert_element_type":
        return False
    return np.dtype(equation.invars[0].aval.dtype) == np.dtype(equation.params["new_dtype"])
