"""Per-example gradients of matrices as factors, the vectors of which they are outer products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.convolutions import differentiable_by_example
from igr.per_example.example_axis import differentiable, with_zeros_for_constants
from igr.per_example.matmuls import Path, Product, products_of_leaves
from igr.per_example.probed_program import ProbedProgram
from igr.pytrees import num_examples
from igr.shown import short, table


class Factors(NamedTuple):
    """The gradients g_i = left_i right_i' of one matrix for all examples i, as factors.

    Attributes:
        left: One vector for each example, along the rows of the matrix.
        right: One vector for each example, along its columns.
    """

    left: Float[Array, "n a"]
    right: Float[Array, "n b"]

    __repr__ = short
    _repr_html_ = table

    def mean(self) -> Float[Array, "a b"]:
        """The mean of the gradients over the examples, a matrix (a, b)."""
        return jnp.tensordot(self.left, self.right, (0, 0)) / self.left.shape[0]


class PositionFactors(NamedTuple):
    """The gradients g_i = sum_p left_ip right_ip' of a matrix that is used at several positions.

    Attributes:
        left: One vector for each position of an example, along the rows of the matrix (for a
            convolution, the patch under the kernel).
        right: One vector for each position of an example, along its columns.
    """

    left: Float[Array, "n p a"]
    right: Float[Array, "n p b"]

    __repr__ = short
    _repr_html_ = table


def per_example_factors(
    example_loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    batch: PyTree,
    *,
    positions: bool = False,
) -> PyTree:
    """The gradient of every example, as factors for matrices that enter only in products.

    Where the loss of an example contains a matrix W only in one product out = x W, with one vector
    x, its gradient is the outer product of the activation x and the cotangent of out. Both
    come from one pass over the batch that forms no gradient of W: the product is found in the
    traced program, whatever library wrote it, and the cotangent is the derivative with respect to
    a zero added to its output. Matrices that enter otherwise and all other leaves have their
    gradients kept one by one.

    With `positions` the same is done where W is used at several positions of one example: in one
    product of many rows, in several products (tied weights), at every step of a scan, as the kernel
    of a convolution. The gradient is then a sum of outer products over positions.

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading axis of n examples.
        positions: Whether to factor matrices used at several positions too.

    Returns:
        A pytree as `per_example_gradients` returns, with `Factors` in place of each leaf with one
        product at one position, and `PositionFactors` where there are several (use
        `is_leaf=lambda leaf: isinstance(leaf, Factors | PositionFactors)`). Those of a kernel (..,
        channels in, channels out), in whatever order, are for the matrix whose rows list offsets
        and channels in.

    Raises:
        ValueError: As `per_example_gradients`.

    >>> import jax.numpy as jnp
    >>> loss = lambda w, x: jnp.sum(jnp.sin(x @ w))
    >>> per_example_factors(loss, jnp.zeros((2, 3)), jnp.array([[1.0, 2.0], [3.0, 4.0]])).left
    Array([[1., 2.], [3., 4.]], dtype=float64)
    """
    length = num_examples(batch)
    trained, loss_fn = differentiable(example_loss_fn, params)
    leaves, structure = jax.tree.flatten(trained)
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)
    program = jax.make_jaxpr(lambda leaves, example: loss_fn(structure.unflatten(leaves), example))(
        leaves, example
    )
    known = products_of_leaves(program.jaxpr, len(leaves))
    factored = {leaf: found for leaf, found in known.items() if positions or _is_single(found)}
    products = {path: p for found in factored.values() for path, p in found.items()}

    def loss_and_activations(probes: dict, others: dict, example: PyTree) -> tuple[Array, dict]:
        values = [others.get(i, leaf) for i, leaf in enumerate(leaves)]
        run = ProbedProgram(products, probes)
        (value,) = run(program.jaxpr, program.consts, [*values, *jax.tree.leaves(example)])
        return value, run.noted

    probes = {path: jnp.zeros(p.shape, p.dtype) for path, p in products.items()}
    others = {i: leaf for i, leaf in enumerate(leaves) if i not in factored}
    run = differentiable_by_example(loss_and_activations, batch)
    (cotangents, each), activations = jax.vmap(
        jax.grad(run, argnums=(0, 1), has_aux=True), (None, None, 0)
    )(probes, others, batch)
    gradients: list[Any] = [each.get(i) for i in range(len(leaves))]
    for leaf, found in factored.items():
        gradients[leaf] = _factors(found, activations, cotangents)
    return with_zeros_for_constants(structure.unflatten(gradients), params, length)


def _is_single(products: dict[Path, Product]) -> bool:
    """Whether these are a single product of the matrix with a single vector."""
    return len(products) == 1 and all(
        p.positions == 1 and p.layout == "matrix" for p in products.values()
    )


def _factors(
    products: dict[Path, Product], activations: dict[Path, Any], cotangents: dict[Path, Any]
) -> Factors | PositionFactors:
    """The factors of a leaf's gradients, with the positions of all its products in one axis."""
    pairs = []
    for path, p in products.items():
        pair = p.activations(activations[path]), p.cotangents(cotangents[path])
        pairs.append(pair[::-1] if p.transposed else pair)
    if _is_single(products):
        ((left, right),) = pairs
        return Factors(left[:, 0], right[:, 0])
    left, right = (jnp.concatenate(side, axis=1) for side in zip(*pairs, strict=True))
    return PositionFactors(left, right)
