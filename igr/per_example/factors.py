"""Per-example gradients of dense layers as the two vectors whose outer product they are."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.extend.core as jex
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.per_example.example_axis import differentiable, num_examples, with_zeros_for_constants


class Factors(NamedTuple):
    """The gradients g_i = left_i right_i' of one matrix, for all examples i.

    Attributes:
        left: One vector an example, along the rows of the matrix.
        right: One vector an example, along its columns.
    """

    left: Float[Array, "n a"]
    right: Float[Array, "n b"]

    def mean(self) -> Float[Array, "a b"]:
        """The mean gradient."""
        return jnp.tensordot(self.left, self.right, (0, 0)) / self.left.shape[0]


def per_example_factors(
    example_loss_fn: Callable[[PyTree, PyTree], Any], params: PyTree, batch: PyTree
) -> PyTree:
    """The gradient of every example, factored wherever a matrix enters as one product.

    Where the loss of an example contains a matrix W only in one product out = x W, with one x an
    example, its gradient is the outer product of the activation x and the cotangent of out. Both
    come from one pass over the batch that forms no gradient of W: the product is found in the
    traced program, whatever library wrote it, and the cotangent is the derivative with respect to
    a zero added to its output. Matrices that enter otherwise (several times, at several positions
    of one example, inside a scan) and all other leaves have their gradients kept one by one.

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading axis of n examples.

    Returns:
        A pytree as `per_example_gradients` returns, with a `Factors` in place of each leaf that
        can be factored (use `is_leaf=lambda leaf: isinstance(leaf, Factors)`).

    Raises:
        ValueError: As `per_example_gradients`.

    >>> import jax.numpy as jnp
    >>> loss = lambda w, x: jnp.sum(jnp.sin(x @ w))
    >>> per_example_factors(loss, jnp.zeros((2, 3)), jnp.array([[1.0, 2.0], [3.0, 4.0]])).left
    Array([[1., 2.], [3., 4.]], dtype=float64)
    """
    length = num_examples(batch)
    floating, loss_fn = differentiable(example_loss_fn, params)
    leaves, structure = jax.tree.flatten(floating)
    example = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)
    program = jax.make_jaxpr(lambda leaves, example: loss_fn(structure.unflatten(leaves), example))(
        leaves, example
    )
    products = _single_products(program.jaxpr, leaves)
    factored = {product.leaf for product in products.values()}

    def loss_and_activations(probes: dict, others: dict, example: PyTree) -> tuple[Array, dict]:
        values = [others.get(i, leaf) for i, leaf in enumerate(leaves)]
        activations: dict[int, Array] = {}
        run = _Run(products, probes, activations)
        (value,) = run(program.jaxpr, program.consts, [*values, *jax.tree.leaves(example)])
        return value, activations

    probes = {p.leaf: jnp.zeros(p.shape, p.dtype) for p in products.values()}
    others = {i: leaf for i, leaf in enumerate(leaves) if i not in factored}
    (cotangents, each), activations = jax.vmap(
        jax.grad(loss_and_activations, argnums=(0, 1), has_aux=True), (None, None, 0)
    )(probes, others, batch)
    gradients: list[Any] = [each.get(i) for i in range(len(leaves))]
    for product in products.values():
        i = product.leaf
        pair = activations[i].reshape(length, -1), cotangents[i].reshape(length, -1)
        gradients[i] = Factors(*pair) if product.contracts_rows else Factors(*pair[::-1])
    return with_zeros_for_constants(structure.unflatten(gradients), params, length)


@dataclass(frozen=True)
class _Product:
    """A product of a leaf with one vector: its output's shape, and which axis of the leaf is summed
    over."""

    leaf: int
    contracts_rows: bool
    operand: int  # the position of the leaf among the two operands
    shape: tuple[int, ...]
    dtype: Any


_Path = tuple[int, ...]  # where an equation stands: its index, in an equation of that index, ...


def _single_products(jaxpr: jex.Jaxpr, leaves: list[Array]) -> dict[_Path, _Product]:
    """The products through which, and through nothing else, a matrix among the leaves enters."""
    known = {var: (i, False) for i, var in enumerate(jaxpr.invars[: len(leaves)])}
    uses = list(_uses(jaxpr, known))
    count = {i: sum(leaf == i for _, leaf, _ in uses) for i in range(len(leaves))}
    return {
        path: product for path, leaf, product in uses if product is not None and count[leaf] == 1
    }


def _uses(
    jaxpr: jex.Jaxpr, known: dict[Any, tuple[int, bool]], path: _Path = ()
) -> Iterator[tuple[_Path, int, _Product | None]]:
    """Every use of a leaf, where it is, and as which product, if it is one.

    `known` says which variables are leaves, and whether transposed.
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
        elif name == "convert_element_type" and jnp.issubdtype(
            eqn.params["new_dtype"], jnp.floating
        ):
            known[eqn.outvars[0]] = found[0][1]
        elif name == "transpose" and tuple(eqn.params["permutation"]) == (1, 0):
            leaf, transposed = found[0][1]
            known[eqn.outvars[0]] = leaf, not transposed
        elif name == "dot_general" and len(found) == 1:
            operand, (leaf, transposed) = found[0]
            yield here, leaf, _as_product(eqn, operand, leaf, transposed)
        else:
            yield from ((here, leaf, None) for _, (leaf, _) in found)
    yield from (((*path, -1), known[v][0], None) for v in jaxpr.outvars if _is_in(v, known))


def _is_in(atom: Any, known: dict[Any, Any]) -> bool:
    return _is_var(atom) and atom in known


def _as_product(eqn: jex.JaxprEqn, operand: int, leaf: int, transposed: bool) -> _Product | None:
    contracting, batched = eqn.params["dimension_numbers"]
    matrix, other = (_shaped(eqn.invars[k]) for k in (operand, 1 - operand))
    if matrix.ndim != 2 or any(map(len, batched)) or len(contracting[operand]) != 1:
        return None
    summed = int(contracting[operand][0])
    if other.size != matrix.shape[summed]:  # one vector, not one a position
        return None
    out = _shaped(eqn.outvars[0])
    return _Product(leaf, (summed == 0) != transposed, operand, out.shape, out.dtype)


class _Run:
    """The program once more, with zeros added to the products, and their activations noted."""

    def __init__(
        self, products: dict[_Path, _Product], probes: dict[int, Array], noted: dict[int, Array]
    ) -> None:
        self.products, self.probes, self.noted = products, probes, noted

    def __call__(
        self, jaxpr: jex.Jaxpr, consts: Any, args: list[Array], path: _Path = ()
    ) -> list[Array]:
        values: dict[Any, Array] = dict(zip(jaxpr.constvars, consts, strict=True))
        values.update(zip(jaxpr.invars, args, strict=True))

        def value(var: Any) -> Any:
            return values[var] if _is_var(var) else var.val

        for index, eqn in enumerate(jaxpr.eqns):
            here = (*path, index)
            outputs = self._evaluate(jaxpr, eqn, [value(v) for v in eqn.invars], here)
            values.update(zip(eqn.outvars, outputs, strict=True))
        return [value(v) for v in jaxpr.outvars]

    def _evaluate(
        self, jaxpr: jex.Jaxpr, eqn: jex.JaxprEqn, operands: list[Array], here: _Path
    ) -> list[Array]:
        if any(path[: len(here)] == here and path != here for path in self.products):
            inner = eqn.params["jaxpr"]
            return self(inner.jaxpr, inner.consts, operands, here)
        outputs = _evaluated(jaxpr, eqn, operands)
        product = self.products.get(here)
        if product is None:
            return outputs
        self.noted[product.leaf] = operands[1 - product.operand]
        return [outputs[0] + self.probes[product.leaf]]


def _evaluated(jaxpr: jex.Jaxpr, eqn: jex.JaxprEqn, operands: list[Array]) -> list[Array]:
    """One equation, as a program of its own (how a primitive is bound differs among versions)."""
    arguments = {v: x for v, x in zip(eqn.invars, operands, strict=True) if _is_var(v)}
    alone = jaxpr.replace(
        constvars=[],
        invars=list(arguments),
        outvars=list(eqn.outvars),
        eqns=[eqn],
        effects=eqn.effects,
    )
    return jex.jaxpr_as_fun(jex.ClosedJaxpr(alone, []))(*arguments.values())


def _shaped(atom: Any) -> Any:
    """The shape and dtype of a variable."""
    return atom.aval


def _is_var(atom: Any) -> bool:
    return not isinstance(atom, jex.Literal)
