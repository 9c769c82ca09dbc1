"""Traces an optax optimizer once: its `init` and `update` as lists of primitives."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import PyTree

from igr.checks import Number
from igr.pytrees import partition
from igr.tracing.program import Program, Variable, flatten
from igr.tracing.unreadable import UnreadableOptimizerError

Make = Callable[..., optax.GradientTransformation]

# A matrix and a vector, larger than any size (adafactor's 128) that rules tell by.
SHAPES = {"matrix": (130, 132), "vector": (131,)}
_PLAIN = 0.125  # a step that scales a float without rounding


@dataclass(frozen=True)
class Traced:
    """An optax optimizer as two traced programs, `init` and `update`.

    Attributes:
      make: the factory, a function of the learning rate.
      init: (h, *params) -> state.
      update: (h, *gradient, *params, *state) -> (*updates, *state).
      params: the shapes and dtypes of the leaves of params.
      structure: the structure of params.
      state: the structure of the state.
      names: the name of the state to which each leaf belongs, no two states of one name.
      fields: the name of the state's field in which each leaf is stored.
      leaves: for each leaf of the state, the index of the leaf of params it belongs to, or None.
      step: the learning rate if it had to be a number, or None if it is an argument of both.
    """

    make: Make
    init: Program
    update: Program
    params: tuple[jax.ShapeDtypeStruct, ...]
    structure: Any
    state: Any
    names: tuple[str, ...]
    fields: tuple[str, ...]
    leaves: tuple[int | None, ...]
    step: Number | None


def trace(
    make: Make,
    params: PyTree | None = None,
    step: Number | None = None,
    own_precision: bool = False,
) -> Traced:
    """The `init` and `update` of an optimizer, traced in float64.

    Args:
      make: `learning_rate -> optax.GradientTransformation`.
      params: the params to trace it on, of which only the shapes matter; a matrix and a vector if
        not given.
      step: a number for the learning rate; if None it is traced as an argument, unless the factory
        needs its value.
      own_precision: whether params, then given as shapes, keep their own dtypes.

    Raises:
      TypeError: if `make` is no function of the learning rate.
      UnreadableOptimizerError: if it cannot be traced.
    """
    _check_make(make)
    with jax.enable_x64(True):
        if params is None:
            shapes: Any = {
                name: jax.ShapeDtypeStruct(shape, jnp.float64) for name, shape in SHAPES.items()
            }
        elif own_precision:
            shapes = params
        else:
            shapes = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.float64), partition(params)[0]
            )
        given = params is not None
        try:
            return _traced(make, shapes, step, given)
        except jax.errors.ConcretizationTypeError:
            return _traced(make, shapes, _PLAIN, given)
        except jax.errors.TracerArrayConversionError:
            return _traced(make, shapes, _PLAIN, given)


def _traced(make: Make, shapes: PyTree, step: Number | None, given: bool) -> Traced:
    rate = jax.ShapeDtypeStruct((), jnp.result_type(jnp.float32, *jax.tree.leaves(shapes)))

    def transformation(h: Any) -> optax.GradientTransformation:
        return _transformation(make, h if step is None else step)

    def init(h: Any, params: PyTree) -> PyTree:
        state = transformation(h).init(params)
        if any(jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in _arrays(state)):
            raise UnreadableOptimizerError(_RANDOM)
        return state

    def update(h: Any, gradient: PyTree, params: PyTree, state: PyTree) -> Any:
        new, after = transformation(h).update(gradient, state, params)
        if jax.tree.structure(new) != jax.tree.structure(params) or any(
            x.shape != y.shape for x, y in zip(_arrays(new), _arrays(params), strict=True)
        ):
            raise UnreadableOptimizerError(
                "update returns other shapes than those of params: "
                f"{jax.tree.map(jnp.shape, new)} for {jax.tree.map(jnp.shape, params)}. An update "
                "has the structure and the shapes of the gradient"
            )
        if jax.tree.structure(after) != jax.tree.structure(state):
            raise UnreadableOptimizerError(
                "update returns a state of another structure than init: "
                f"{jax.tree.structure(after)}, not {jax.tree.structure(state)}. Make every part of "
                "the state in init"
            )
        return new, after

    structure = jax.tree.structure(shapes)
    try:
        init_program, state = jax.make_jaxpr(init, return_shape=True)(rate, shapes)
        update_program = jax.make_jaxpr(update)(rate, shapes, shapes, state)
    except (UnreadableOptimizerError, jax.errors.JAXTypeError, jax.errors.JAXIndexError):
        raise
    except (TypeError, ValueError) as error:
        missing = re.search(
            r"missing \d+ required (?:keyword-only|positional) arguments?: (.*)$", str(error)
        ) or re.match(r"(\w+) must be provided", str(error))
        if missing is None:
            raise _untraceable(error, given) from error
        raise UnreadableOptimizerError(
            f"update asks for {missing.group(1)} besides the gradient, the state and params: a "
            "step made from the value of the loss, or by a search along it, is no function of the "
            "gradients seen. What its iterates follow: igr.flows.modified_field_along(igr.run(..))"
        ) from error
    except Exception as error:
        raise _untraceable(error, given) from error
    leaves, fields, names = _state_leaves(state, shapes)
    traced = Traced(
        make,
        flatten(init_program),
        flatten(update_program),
        tuple(jax.tree.leaves(shapes)),
        structure,
        jax.tree.structure(state),
        names,
        fields,
        leaves,
        step,
    )
    _check_reads_rate(traced)
    return traced


_RANDOM = (
    "it draws at random: its step is no function of the gradients seen. Leave the noise out, or "
    "describe it as a stochastic equation: igr.flows.stochastic_field"
)


def _transformation(make: Make, h: Any) -> optax.GradientTransformation:
    made = make(h)
    if hasattr(made, "gradient_transformation"):
        raise TypeError(
            "make(learning_rate) must return an optax.GradientTransformation; got "
            f"{type(made).__name__}, which wraps one and updates only every so many steps: give "
            "the optimizer inside it, whose step is the one that is made."
        )
    if not isinstance(made, optax.GradientTransformation):
        raise TypeError(
            "make(learning_rate) must return an optax.GradientTransformation; got "
            f"{type(made).__name__}."
        )
    return made


def _check_make(make: Any) -> None:
    if isinstance(make, optax.GradientTransformation):
        raise TypeError(
            "the optimizer must be a function of the learning rate, such as "
            "lambda h: optax.adamw(h, weight_decay=0.1); got a transformation, whose step is fixed."
        )
    if not callable(make):
        raise TypeError(
            "the optimizer must be a function of the learning rate, such as "
            f"lambda h: optax.adamw(h); got {make!r}."
        )
    try:
        signature = inspect.signature(make)
    except (TypeError, ValueError):  # of some that are written in C
        return
    try:
        signature.bind(0.0)
    except TypeError as error:
        raise TypeError(
            "the optimizer must be a function of the learning rate alone, such as "
            f"lambda h: optax.adamw(h, weight_decay=0.1); called with it, {error}"
        ) from error


def _check_reads_rate(traced: Traced) -> None:
    """Raises unless `init` or `update` reads the learning rate that is an argument."""
    if traced.step is not None:
        return
    for program in (traced.init, traced.update):
        read = [*program.outputs, *(a for step in program.applications for a in step.inputs)]
        if any(a == program.inputs[0] for a in read if isinstance(a, Variable)):
            return
    raise UnreadableOptimizerError(
        "make does not read the learning rate it is given: its steps are of one size, and tell "
        "nothing of those of other sizes. Hand the rate on, as in lambda h: optax.adamw(h)"
    )


def _untraceable(error: Exception, given: bool) -> Exception:
    if isinstance(error, TypeError) and "make(learning_rate)" in str(error):
        return error
    said = f"{type(error).__name__}: {error}".rstrip(". ")
    if "LookaheadParams" in said or "attribute 'fast'" in said:
        return UnreadableOptimizerError(
            "lookahead trains two copies of params, of which only one has a gradient, and sets one "
            "to the other every so many steps: it takes different steps in turn, and there is no "
            "one rule to follow. Read the optimizer inside it, which the fast copy follows"
        )
    apart = "pytree structure" in said or isinstance(error, AttributeError | KeyError)
    if apart and not given:
        return UnreadableOptimizerError(
            "it does not take the params it was tried on, a dictionary of a matrix and a vector. "
            "Where it tells leaves apart (masks, labels of multi_transform) or wants params of its "
            f"own kind, give params=, what is to be trained. It raised {said}"
        )
    if given and (apart or "no corresponding transformation" in said):
        return UnreadableOptimizerError(
            "it does not take the params that were given: its masks or labels are of another "
            f"structure, or name what there is not. It raised {said}"
        )
    return UnreadableOptimizerError(
        f"it cannot be traced: {said}. The transformation must run under jax.jit on the gradient, "
        "its state and params alone"
    )


def _arrays(tree: PyTree) -> list[Any]:
    return [jnp.asarray(x) if not hasattr(x, "dtype") else x for x in jax.tree.leaves(tree)]


_TAKEN = re.compile(r"g|theta|t|z|h|clock|[LSX]\d+|(kappa|lambda)_.*")


def _state_leaves(
    state: PyTree, params: PyTree
) -> tuple[tuple[int | None, ...], tuple[str, ...], tuple[str, ...]]:
    """For each leaf of the state: the leaf of params it belongs to, its field, and its name."""
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    shapes = [x.shape for x in jax.tree.leaves(params)]
    leaves, fields, owners = [], [], []
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        like = None
        for i, (end, shape) in enumerate(zip(paths, shapes, strict=True)):
            tail = path[len(path) - len(end) :]
            if leaf.shape == shape and tail == end and len(path) >= len(end):
                like = i
                path = path[: len(path) - len(end)]
                break
        leaves.append(like)
        named = [i for i, k in enumerate(path) if isinstance(k, jax.tree_util.GetAttrKey)]
        if like is None and named and "hyperparams" not in str(path[named[-1]]):
            path = path[: named[-1] + 1]  # one state of the optimizer, however many leaves it has
        said = [str(getattr(k, "name", getattr(k, "key", ""))) for k in path]
        fields.append(re.sub(r"\W", "_", next((x for x in reversed(said) if x), "state")))
        owners.append(jax.tree_util.keystr(path))
    names: list[str] = []
    given: dict[str, str] = {}
    for field, owner in zip(fields, owners, strict=True):
        if owner not in given:
            name = f"{field}_state" if _TAKEN.fullmatch(field) else field
            taken = set(given.values())
            if name in taken:
                name = next(f"{name}_{i}" for i in range(2, 10**6) if f"{name}_{i}" not in taken)
            given[owner] = name
        names.append(given[owner])
    return tuple(leaves), tuple(fields), tuple(names)
