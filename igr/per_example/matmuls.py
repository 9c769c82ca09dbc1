"""Finds the products through which a matrix enters a traced program."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax.extend.core as jex
import jax.numpy as jnp
from jaxtyping import Array, Float

from igr.convolutions import windows

Path = tuple[int, ...]  # where an equation stands: its index, in an equation of that index, ...


@dataclass(frozen=True)
class Product:
    """A product of a leaf, read as a matrix, with an activation at one or more positions.

    The leaf is read as a matrix. The gradient of an example is the sum over positions of an
    activation times a cotangent, transposed where the product sums over the matrix's columns.

    Attributes:
        leaf: The number of the leaf.
        operand: The position of the leaf among the two operands.
        shape: The shape of the output, with a leading axis for every scan around it.
        dtype: The dtype of the output.
        layout: How the matrix is read off the leaf: products of one layout can be added.
        transposed: Whether the product sums over the matrix's columns.
        positions: The number of positions.
        activations: A function from the other operand, with a leading example axis, to an array
            (n, positions, a).
        cotangents: A function from the output's cotangent, likewise, to (n, positions, b).
    """

    leaf: int
    operand: int
    shape: tuple[int, ...]
    dtype: Any
    layout: Hashable
    transposed: bool
    positions: int
    activations: Callable[[Any], Float[Array, "n p a"]]
    cotangents: Callable[[Array], Float[Array, "n p b"]]


def products_of_leaves(jaxpr: jex.Jaxpr, leaves: int) -> dict[int, dict[Path, Product]]:
    """The products of every leaf that enters the program only through products.

    Args:
        jaxpr: The program; its first arguments are the leaves.
        leaves: The number of leaves.

    Returns:
        leaf -> path of an equation -> its `Product`, all of one layout for a leaf.
    """
    known = {var: (i, False) for i, var in enumerate(jaxpr.invars[:leaves])}
    uses: dict[int, dict[Path, Product]] = {}
    otherwise = set()
    for path, leaf, product in _uses(jaxpr, known):
        if product is None:
            otherwise.add(leaf)
        else:
            uses.setdefault(leaf, {})[path] = product
    return {
        leaf: found
        for leaf, found in uses.items()
        if leaf not in otherwise and len({product.layout for product in found.values()}) == 1
    }


def _uses(
    jaxpr: jex.Jaxpr, known: dict[Any, tuple[int, bool]], path: Path = ()
) -> Iterator[tuple[Path, int, Product | None]]:
    """Every use of a leaf: its path, the leaf's number, and its `Product`, or None if it is none.

    `known` maps variables that are leaves to their numbers, and whether they are transposed.
    """
    known = dict(known)
    for index, eqn in enumerate(jaxpr.eqns):
        here = (*path, index)
        found = [(k, known[v]) for k, v in enumerate(eqn.invars) if _is_in(v, known)]
        if not found:
            continue
        name = eqn.primitive.name
        if name == "jit":
            inner = eqn.params["jaxpr"].jaxpr
            yield from _uses(inner, {inner.invars[k]: leaf for k, leaf in found}, here)
        elif name == "scan" and all(k < scan_arguments(eqn)[0] for k, _ in found):
            inner, length = eqn.params["jaxpr"].jaxpr, eqn.params["length"]
            for place, leaf, product in _uses(
                inner, {inner.invars[k]: leaf for k, leaf in found}, here
            ):
                yield place, leaf, product and _repeated(product, length)
        elif name == "convert_element_type" and jnp.issubdtype(
            eqn.params["new_dtype"], jnp.floating
        ):
            known[eqn.outvars[0]] = found[0][1]
        elif name == "transpose" and tuple(eqn.params["permutation"]) == (1, 0):
            leaf, transposed = found[0][1]
            known[eqn.outvars[0]] = leaf, not transposed
        elif name in _PRODUCTS and len(found) == 1:
            operand, (leaf, transposed) = found[0]
            yield here, leaf, _of_real_numbers(eqn, operand, leaf, transposed)
        else:
            yield from ((here, leaf, None) for _, (leaf, _) in found)
    yield from (((*path, -1), known[v][0], None) for v in jaxpr.outvars if _is_in(v, known))


def _of_real_numbers(
    eqn: jex.JaxprEqn, operand: int, leaf: int, transposed: bool
) -> Product | None:
    """The product, or None if it is one of complex numbers, for which factors are not formed."""
    other, out = _shaped(eqn.invars[1 - operand]), _shaped(eqn.outvars[0])
    if any(jnp.issubdtype(x.dtype, jnp.complexfloating) for x in (other, out)):
        return None
    product = _PRODUCTS[eqn.primitive.name](eqn, operand, leaf, transposed)
    if product is None or jnp.issubdtype(other.dtype, jnp.floating):
        return product
    activations = product.activations  # of integers
    return replace(product, activations=lambda x: activations(x).astype(out.dtype))


def scan_arguments(eqn: jex.JaxprEqn) -> tuple[int, int]:
    """The number of constants, and of carries, that a scan takes before its scanned inputs.

    Read off the shapes, since versions of JAX note it in different ways: what is scanned over, and
    stacked up, has an axis more outside.
    """
    inner = eqn.params["jaxpr"].jaxpr

    def same(outside: Any, inside: Any) -> int:
        return sum(_shaped(a).ndim == _shaped(b).ndim for a, b in zip(outside, inside, strict=True))

    carries = same(eqn.outvars, inner.outvars)
    return same(eqn.invars, inner.invars) - carries, carries


def _matrix_product(eqn: jex.JaxprEqn, operand: int, leaf: int, transposed: bool) -> Product | None:
    contracting, batched = eqn.params["dimension_numbers"]
    matrix, other = (_shaped(eqn.invars[k]) for k in (operand, 1 - operand))
    if matrix.ndim != 2 or any(map(len, batched)) or len(contracting[operand]) != 1:
        return None
    summed, met = int(contracting[operand][0]), int(contracting[1 - operand][0])

    def activations(x: Any) -> Array:
        x = jnp.moveaxis(x, met - other.ndim, -1)
        return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1])

    def cotangents(d: Array) -> Array:
        out = d.ndim - other.ndim  # free axes of the left operand come first
        d = jnp.moveaxis(d, out, -1) if operand == 0 else d
        return d.reshape(d.shape[0], math.prod(d.shape[1:-1]), d.shape[-1])

    out = _shaped(eqn.outvars[0])
    return Product(
        leaf,
        operand,
        out.shape,
        out.dtype,
        "matrix",
        (summed == 1) != transposed,
        other.size // max(1, matrix.shape[summed]),
        activations,
        cotangents,
    )


def _convolution(eqn: jex.JaxprEqn, operand: int, leaf: int, transposed: bool) -> Product | None:
    params, out = eqn.params, _shaped(eqn.outvars[0])
    groups = params["feature_group_count"], params["batch_group_count"]
    if operand != 1 or transposed or groups != (1, 1):
        return None
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    kernel = [_shaped(eqn.invars[1]).shape[axis] for axis in rhs_spec[2:]]

    def activations(x: Any) -> Array:
        n, leading = x.shape[0], x.ndim - len(lhs_spec)
        x = x.reshape(math.prod(x.shape[:leading]), *x.shape[leading:])
        x = x.transpose(0, *(1 + axis for axis in (lhs_spec[0], *lhs_spec[2:], lhs_spec[1])))
        return _positions_together(n, _patches(x, kernel, params))

    def cotangents(d: Array) -> Array:
        n, leading = d.shape[0], d.ndim - len(out_spec)
        d = d.reshape(math.prod(d.shape[:leading]), *d.shape[leading:])
        d = d.transpose(0, *(1 + axis for axis in (out_spec[0], *out_spec[2:], out_spec[1])))
        return _positions_together(n, d)

    positions = out.size // max(1, out.shape[out_spec[1]])
    layout = "kernel", rhs_spec
    return Product(
        leaf, operand, out.shape, out.dtype, layout, False, positions, activations, cotangents
    )


def _positions_together(n: int, x: Any) -> Float[Array, "n p k"]:
    """The array with all axes between the first and the last merged; any may be of length 0."""
    return x.reshape(n, math.prod(x.shape[:-1]) // n, x.shape[-1])


def _patches(x: Any, kernel: list[int], params: dict[str, Any]) -> Array:
    """The patches under a kernel at each position: (..., positions, offsets times channels)."""
    patches = jnp.stack([seen for _, seen in windows(x, kernel, params)], axis=-2)
    return patches.reshape(*patches.shape[:-2], math.prod(patches.shape[-2:]))


def _repeated(product: Product, length: int) -> Product:
    """The product in a scan of this length, with a position for each step."""
    return replace(product, shape=(length, *product.shape), positions=length * product.positions)


_PRODUCTS = {"dot_general": _matrix_product, "conv_general_dilated": _convolution}


def _is_in(atom: Any, known: dict[Any, Any]) -> bool:
    return not isinstance(atom, jex.Literal) and atom in known


def _shaped(atom: Any) -> Any:
    """The shape and dtype of a variable."""
    return atom.aval
