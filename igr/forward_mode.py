"""Directional derivatives, also of functions with a `jax.custom_vjp`, which has no forward rule.

A function with a `jax.custom_vjp` in it (a fused attention, a clipped gradient, a kernel written by
hand) can be differentiated in reverse mode alone. Its derivative along v is then found by reverse
mode twice: u -> J'u is linear, and the gradient of <J'u, v> in u is Jv. The compiler removes the
unused parts, so that it costs little more than the forward derivative would.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun
from jaxtyping import PyTree

Linear = Callable[[PyTree], PyTree]


def jvp(fn: Callable[..., PyTree], at: tuple[Any, ...], along: tuple[Any, ...]) -> tuple[Any, Any]:
    """The value and the directional derivative, as `jax.jvp`; by reverse mode if needed.

    Args:
        fn: A function of pytrees of floating arrays.
        at: The tuple of its arguments.
        along: The tuple of their directions.

    >>> @jax.custom_vjp
    ... def square(x):
    ...     return x**2
    >>> square.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))
    >>> print(*jvp(square, (3.0,), (1.0,)))
    9.0 6.0
    """
    try:
        return _run(lambda at, along: jax.jvp(fn, at, along), at, along)
    except _REFUSALS as refused:
        at, along = jax.tree.map(jnp.asarray, (at, along))
        value, jvp_fn, _ = _in_reverse(lambda at: fn(*at), at, refused, has_aux=False)
        return value, jvp_fn(along)


def linearize(
    fn: Callable[[PyTree], Any], at: PyTree, *, has_aux: bool = False
) -> tuple[Any, Linear, Linear, Any]:
    """The value, the maps v -> Jv and u -> J'u, and the auxiliary output, from one linearization.

    The residuals of the maps are computed once, in this call; reverse mode alone is used if needed.
    The maps are pytrees, as that of `jax.linearize`.

    Args:
        fn: A function of one pytree of floating arrays.
        at: The point.
        has_aux: Whether `fn` returns a pair (value, aux); without it the auxiliary output is None.

    >>> product = lambda x: jnp.stack([x[0] * x[1], x[0]])
    >>> value, jvp_fn, vjp_fn, _ = linearize(product, jnp.array([2.0, 3.0]))
    >>> print(value, jvp_fn(jnp.array([1.0, 0])), vjp_fn(jnp.array([1.0, 0])))
    [6. 2.] [3. 1.] [3. 2.]
    """
    try:
        value, jvp_fn, *aux = jax.linearize(fn, at, has_aux=has_aux)
        _require_rules(jax.make_jaxpr(jvp_fn)(at).jaxpr)
    except _REFUSALS as refused:
        value, jvp_fn, (vjp_fn, aux) = _in_reverse(fn, at, refused, has_aux)
        return value, jvp_fn, vjp_fn, aux
    vjp_fn = jax.tree_util.Partial(_transposed, jvp_fn, at)
    return value, jvp_fn, vjp_fn, aux[0] if has_aux else None


def jacobian(fn: Callable[[Any], Any], *, forward: bool) -> Callable[[Any], Any]:
    """`jax.jacfwd(fn)` where `forward` is wanted and possible, otherwise `jax.jacrev(fn)`.

    Args:
        fn: A function of one pytree of floating arrays.
        forward: Whether a pass an input is cheaper than one an output.
    """

    def matrix(x: Any) -> Any:
        if forward:
            try:
                return _run(jax.jacfwd(fn), x)
            except _REFUSALS as refused:
                return _or_raise(refused, lambda: jax.jacrev(fn)(x))
        return jax.jacrev(fn)(x)

    return matrix


# What JAX and the libraries around it raise where a rule is missing. An error of any other cause
# comes up in reverse mode again, and the first one is then raised.
_REFUSALS = (TypeError, ValueError, NotImplementedError, RuntimeError)


def _run(fn: Callable[..., Any], *args: Any) -> Any:
    """The value fn(*args); raises here, and not at compile time, if a forward rule is missing."""
    try:
        program, out = jax.make_jaxpr(fn, return_shape=True)(*args)
    except jax.errors.ConcretizationTypeError:  # its branches depend on values: they are known
        return fn(*args)
    _require_rules(program.jaxpr)
    found = jaxpr_as_fun(program)(*jax.tree.leaves(args))
    return jax.tree.unflatten(jax.tree.structure(out), found)


def _require_rules(jaxpr: Any) -> None:
    """Raises `NotImplementedError` if a program has a linear map without a forward rule."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "custom_lin":
            raise NotImplementedError("no forward-mode derivative of a function with a custom_vjp")
        for inner in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_program):
            if _is_program(inner):
                _require_rules(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)


def _is_program(value: Any) -> bool:
    return isinstance(value, ClosedJaxpr | Jaxpr)


def _or_raise(refused: Exception, otherwise: Callable[[], Any]) -> Any:
    try:
        return otherwise()
    except Exception as error:
        raise refused from error  # the first says what is missing, the other why


def _in_reverse(
    fn: Callable[[PyTree], Any], at: PyTree, refused: Exception, has_aux: bool
) -> tuple[Any, Linear, tuple[Linear, Any]]:
    """The value, v -> Jv, and the pair of u -> J'u and the auxiliary output, by reverse mode."""

    def both() -> Any:
        value, back, *aux = jax.vjp(fn, at, has_aux=has_aux)
        zero = jax.tree.map(jnp.zeros_like, value)
        _, jvp_fn = jax.vjp(lambda u: back(u)[0], zero)
        maps = jax.tree_util.Partial(_only, jvp_fn), jax.tree_util.Partial(_only, back)
        _require_rules(jax.make_jaxpr(maps[0])(at).jaxpr)
        return value, maps[0], (maps[1], aux[0] if has_aux else None)

    return _or_raise(refused, both)


def _only(pulled: Callable[[PyTree], tuple[PyTree]], u: PyTree) -> PyTree:
    return pulled(u)[0]


def _transposed(jvp_fn: Linear, at: PyTree, u: PyTree) -> PyTree:
    return jax.linear_transpose(jvp_fn, at)(u)[0]
