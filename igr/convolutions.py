"""Convolutions as sums of products, where XLA's derivatives with respect to kernels are wrong.

The derivative of a convolution with feature groups with respect to its kernel is a convolution with
batch groups; so is that of any convolution with a kernel of its own for every example. XLA's
partitioner silently gives wrong numbers for those where only some axes of a mesh, or parts of one,
hold different examples (jax 0.10 and 0.12, on CPUs; `jax.grad` of a loss
with a depthwise convolution likewise, on a mesh of data and model). Written as one product of a
slice of the input and a slice of the kernel for every offset, all derivatives are products again.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, PyTree

from igr.checks import is_traced


def differentiable_when_spread(fn: Callable[..., Any], *, each: bool = False) -> Callable[..., Any]:
    """The function, with right derivatives by convolution kernels on several devices.

    With one device, or without such a convolution, the function runs unchanged. Convolutions in the
    backward pass of a `jax.custom_vjp` are not replaced.

    Args:
        fn: A function of pytrees.
        each: Whether derivatives are taken example by example. If so, every convolution whose
          kernel
            depends on the arguments is replaced, otherwise those with feature groups.

    >>> differentiable_when_spread(lambda w, x: w * x)(2.0, 3.0)
    6.0
    """

    @functools.wraps(fn, assigned=("__name__", "__doc__"))
    def call(*args: Any) -> Any:
        if jax.device_count() == 1:
            return fn(*args)
        try:
            program, shapes, rest = eqx.filter_make_jaxpr(fn)(*args)
        except Exception:  # it has to know values, or fails: by itself it does, or says why
            return fn(*args)
        if not _has_kernels(program.jaxpr, each):
            return fn(*args)
        arrays = [x for x in jax.tree.leaves(args) if eqx.is_array(x)]
        found = _run(program.jaxpr, program.consts, arrays, each)
        return eqx.combine(jax.tree.unflatten(jax.tree.structure(shapes), found), rest)

    return call


def differentiable_by_example(fn: Callable[..., Any], batch: PyTree) -> Callable[..., Any]:
    """The same for a function of one example whose gradient is vectorized over a batch.

    Args:
        fn: A function of pytrees.
        batch: The examples. If they lie on one device, the function is returned unchanged.

    >>> differentiable_by_example(lambda w, x: w * x, jnp.ones(3))(2.0, 3.0)
    6.0
    """
    leaves = jax.tree.leaves(batch)
    traced = any(map(is_traced, leaves))
    if traced or any(isinstance(x, jax.Array) and len(x.sharding.device_set) > 1 for x in leaves):
        return differentiable_when_spread(fn, each=True)
    return fn


def windows(x: Array, kernel: list[int], params: dict[str, Any]) -> Iterator[tuple[Any, Array]]:
    """The input under each offset of a kernel, as (offset, array (..., positions, channels)) pairs.

    By slices: `lax.conv_general_dilated_patches` convolves with an identity, which costs more and
    rounds where a GPU convolves in TF32.

    Args:
        x: The input, (..., spatial axes, channels).
        kernel: The spatial extents of the kernel.
        params: The parameters of the convolution.
    """
    leading = x.ndim - len(kernel) - 1
    none = (0, 0, 0)
    lows_highs_gaps = [
        (low, high, dilation - 1)
        for (low, high), dilation in zip(params["padding"], params["lhs_dilation"], strict=True)
    ]
    x = lax.pad(x, jnp.zeros((), x.dtype), [*[none] * leading, *lows_highs_gaps, none])
    sizes = x.shape[leading:-1]
    for offset in itertools.product(*map(range, kernel)):
        index = [slice(None)] * leading
        for size, k, extent, stride, dilation in zip(
            sizes, offset, kernel, params["window_strides"], params["rhs_dilation"], strict=True
        ):
            first = k * dilation
            last = max(first, size - (extent - 1 - k) * dilation)  # there may be no position
            index.append(slice(first, last, stride))
        yield offset, x[tuple(index)]


def evaluated(jaxpr: jex.Jaxpr, eqn: jex.JaxprEqn, operands: list[Any]) -> list[Any]:
    """The outputs of one equation of a jaxpr, evaluated on these operands.

    Args:
        jaxpr: The program.
        eqn: The equation.
        operands: The values of its inputs.
    """
    arguments = {
        v: x for v, x in zip(eqn.invars, operands, strict=True) if not isinstance(v, jex.Literal)
    }
    alone = jaxpr.replace(
        constvars=[],
        invars=list(arguments),
        outvars=list(eqn.outvars),
        eqns=[eqn],
        effects=eqn.effects,
    )
    return jex.jaxpr_as_fun(jex.ClosedJaxpr(alone, []))(*arguments.values())


def _run(jaxpr: jex.Jaxpr, consts: Any, args: list[Any], each: bool) -> list[Any]:
    """The outputs of a program, with the convolutions that need it replaced by products."""
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    touched = set(jaxpr.invars)  # what depends on the arguments

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, jex.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        operands = [value(v) for v in eqn.invars]
        depends = [not isinstance(v, jex.Literal) and v in touched for v in eqn.invars]
        if any(depends):
            touched.update(eqn.outvars)
        if _is_meant(eqn, each) and depends[1]:
            outputs = [_as_products(operands[0], operands[1], eqn.params)]
        elif any(depends) and any(_has_kernels(inner, each) for inner in _programs(eqn)):
            outputs = evaluated(jaxpr, _with_products_inside(eqn, each), operands)
        else:
            outputs = evaluated(jaxpr, eqn, operands)
        values.update(zip(eqn.outvars, outputs, strict=True))
    return [value(v) for v in jaxpr.outvars]


def _with_products_inside(eqn: jex.JaxprEqn, each: bool) -> jex.JaxprEqn:
    """A loop, branch or call, with the convolutions of its inner programs replaced."""

    def changed(inner: Any) -> Any:
        if not _is_program(inner):
            return inner
        closed = inner if isinstance(inner, jex.ClosedJaxpr) else jex.ClosedJaxpr(inner, [])
        run = functools.partial(_run, closed.jaxpr, closed.consts, each=each)
        avals = [v.aval for v in closed.jaxpr.invars]
        found = jax.make_jaxpr(lambda *args: run(list(args)))(*avals)
        return found if isinstance(inner, jex.ClosedJaxpr) else found.jaxpr

    return eqn.replace(params=jax.tree.map(changed, eqn.params, is_leaf=_is_program))


def _as_products(x: Any, kernel: Any, params: dict[str, Any]) -> Array:
    """The value of a convolution, computed as a sum of products over the kernel's offsets."""
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    dtype = params["preferred_element_type"] or jnp.result_type(x, kernel)
    groups, wide = params["feature_group_count"], jnp.promote_types(dtype, jnp.float32)
    x = jnp.transpose(x, (lhs_spec[0], *lhs_spec[2:], lhs_spec[1]))
    kernel = jnp.transpose(kernel, (*rhs_spec[2:], rhs_spec[1], rhs_spec[0]))
    *extents, into, out = kernel.shape
    kernel = kernel.reshape(*extents, into, groups, out // groups)
    total: Any = 0
    for offset, seen in windows(x, extents, params):
        seen = seen.reshape(*seen.shape[:-1], groups, into)
        total = total + jnp.einsum(
            "...gi,igo->...go",
            seen,
            kernel[offset],
            precision=params["precision"],
            preferred_element_type=wide,
        )
    total = total.reshape(*total.shape[:-2], out).astype(dtype)
    order = (out_spec[0], *out_spec[2:], out_spec[1])
    return jnp.moveaxis(total, tuple(range(total.ndim)), order)


def _has_kernels(jaxpr: jex.Jaxpr, each: bool) -> bool:
    return any(
        _is_meant(eqn, each) or any(_has_kernels(inner, each) for inner in _programs(eqn))
        for eqn in jaxpr.eqns
    )


def _is_meant(eqn: jex.JaxprEqn, each: bool) -> bool:
    if eqn.primitive.name != "conv_general_dilated" or eqn.params["batch_group_count"] > 1:
        return False
    return each or eqn.params["feature_group_count"] > 1


def _programs(eqn: jex.JaxprEqn) -> Iterator[jex.Jaxpr]:
    for value in jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_program):
        if _is_program(value):
            yield value.jaxpr if isinstance(value, jex.ClosedJaxpr) else value


def _is_program(value: Any) -> bool:
    return isinstance(value, jex.ClosedJaxpr | jex.Jaxpr)
