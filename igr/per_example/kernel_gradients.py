"""Gradients of the kernels of convolutions, example by example, where the examples are spread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from igr.checks import is_traced
from igr.per_example.matmuls import Path, Product, products_of_leaves
from igr.per_example.probed_program import ProbedProgram


def gradient_of_example(
    loss_fn: Callable[[PyTree, PyTree], Array], batch: PyTree
) -> Callable[[PyTree, PyTree], PyTree]:
    """`jax.grad(loss_fn)`, to be vectorized over examples that may be spread over devices.

    Vectorized, the derivative by the kernel of a convolution is a convolution with a group for
    every example. Where these lie on several devices, the compiler's partitioner gives other
    numbers for it, without a word (jax 0.10 and 0.12, on CPUs; for `jax.vmap(jax.grad(loss_fn))`
    likewise). There such a gradient is the product of what the kernel sees and the cotangents of
    its output, in the memory of the inputs times the size of the kernel.

    Args:
        loss_fn: `(trained, example) -> scalar`.
        batch: The examples.
    """
    if not _may_be_spread(batch):
        return jax.grad(loss_fn)

    def gradient(trained: PyTree, example: PyTree) -> PyTree:
        leaves, structure = jax.tree.flatten(trained)
        program = jax.make_jaxpr(lambda leaves, e: loss_fn(structure.unflatten(leaves), e))(
            leaves, example
        )
        kernels = kernels_to_form(products_of_leaves(program.jaxpr, len(leaves)), batch)
        if not kernels:
            return jax.grad(loss_fn)(trained, example)
        products = {path: p for found in kernels.values() for path, p in found.items()}

        def loss_and_activations(probes: dict, others: dict) -> tuple[Array, dict]:
            values = [others.get(i, leaf) for i, leaf in enumerate(leaves)]
            run = ProbedProgram(products, probes)
            (value,) = run(program.jaxpr, program.consts, [*values, *jax.tree.leaves(example)])
            return value, run.noted

        probes = {path: jnp.zeros(p.shape, p.dtype) for path, p in products.items()}
        others = {i: leaf for i, leaf in enumerate(leaves) if i not in kernels}
        (cotangents, found), activations = jax.grad(loss_and_activations, (0, 1), has_aux=True)(
            probes, others
        )
        for leaf, of_kernel in kernels.items():
            found[leaf] = kernel_gradient(leaves[leaf], of_kernel, activations, cotangents)
        return structure.unflatten([found[i] for i in range(len(leaves))])

    return gradient


def kernels_to_form(
    products: dict[int, dict[Path, Product]], batch: PyTree
) -> dict[int, dict[Path, Product]]:
    """Of the products of leaves those of kernels, where the examples may be spread; else none."""
    if not _may_be_spread(batch):
        return {}
    return {
        leaf: found
        for leaf, found in products.items()
        if all(p.layout != "matrix" for p in found.values())
    }


def kernel_gradient(
    kernel: Array,
    products: dict[Path, Product],
    activations: dict[Path, Any],
    cotangents: dict[Path, Any],
) -> Array:
    """The gradient of one example by a kernel, in its layout.

    Args:
        kernel: The leaf.
        products: Where it enters.
        activations: What it meets there, and at other places.
        cotangents: Those of the outputs.
    """
    total: Any = 0
    for path, p in products.items():
        seen, d = p.activations(activations[path][None])[0], p.cotangents(cotangents[path][None])[0]
        wide = jnp.promote_types(kernel.dtype, jnp.float32)
        total = total + jnp.matmul(seen.T, d, preferred_element_type=wide)
    layout: Any = next(iter(products.values())).layout  # "kernel", and its axes; of all the same
    out, into, *spatial = layout[1]
    order = (*spatial, into, out)  # that of rows and columns: the axes of the kernel
    total = total.reshape([kernel.shape[axis] for axis in order])
    return jnp.moveaxis(total, tuple(range(kernel.ndim)), order).astype(kernel.dtype)


def _may_be_spread(batch: PyTree) -> bool:
    """Whether arrays lie on several devices; of those that are traced, whether they could."""
    leaves = jax.tree.leaves(batch)
    if any(map(is_traced, leaves)):
        return jax.device_count() > 1
    return any(isinstance(x, jax.Array) and len(x.sharding.device_set) > 1 for x in leaves)
