"""The field of SGD in epochs: sums over batches as scans, one batch's derivatives at a time.

In a fixed order a tree whose marked batches come one before the other is a chain of prefix sums:
one pass over the batches carries the sum of every marked subtree so far, and a whole order of h
costs a few passes however many batches there are. In random order the prefix sums have become
means of products such as H_k g_k, one pass as well; but <T[g_k, g_k]> and <H_k H g_k>, at h^2,
take a derivative of the whole loss for each batch, and the cost of h^2 is that of m gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from igr.backward_error import ModifiedEquation, trees
from igr.backward_error.trees.batches import FREE, MARKED, Batches
from igr.checks import Number
from igr.flows import kinds
from igr.flows.fields.differentials import Differentials, add, directional
from igr.flows.fields.trees import central_edge, field_coefficients, field_over, value_fn_over
from igr.flows.kinds import Field, ValueFn
from igr.forward_mode import jvp
from igr.pytrees import combine, inner_product, like_params, num_examples, partition

Gradient = Callable[[PyTree], PyTree]
Combination = Mapping[int, float | Array]  # tree -> coefficient

_AT_HAND = 2  # the colour of a root whose batch is at hand


@field_over.register
def _(
    over: Batches, eq: ModifiedEquation, value_fn: Any, h: Number | Array, batches: PyTree | None
) -> Field:
    batches = _in_order(over, eq, value_fn, batches)
    m = int(over.num_batches)
    # Coefficients are over means; the sums over batches are those of m F.
    wanted = {
        t: float(c / m ** over.means(t)) * h ** (trees.size(t) - 1)
        for t, c in field_coefficients(eq).get(0, {}).items()
    }

    def field(t: Any, params: PyTree, args: Any = None) -> PyTree:
        del t, args
        dynamic, static = partition(params)

        def gradient_of(batch: PyTree) -> Gradient:
            return jax.grad(lambda p: value_fn(combine(p, static), batch))

        sums = (_Ordered if over.ordered else _Shared)(gradient_of, batches, dynamic)
        return like_params(sums.combination(wanted), params)

    return field


@value_fn_over.register
def _(
    over: Batches, eq: ModifiedEquation, value_fn: Any, h: Number | Array, batches: PyTree | None
) -> ValueFn:
    """The modified loss: at h^1 and in random order E + h/(4 m) sum_k |grad E_k|^2."""
    modified = eq.modified_loss()
    batches = _in_order(over, eq, value_fn, batches)
    m = int(over.num_batches)
    whole, marked = [], []  # what is of the whole loss, and what of each batch
    for tree, c in modified.coefficients.items():
        t = trees.intern(tree)
        term = float(c / m ** over.means(t)) * h ** (trees.size(t) - 1), central_edge(t)
        (marked if MARKED in trees.colours(t) or term[1] is None else whole).append(term)

    def modified_value(params: PyTree) -> Array:
        dynamic, static = partition(params)

        def loss(p: PyTree, batch: PyTree) -> Array:
            return value_fn(combine(p, static), batch)

        def gradient_of(batch: PyTree) -> Gradient:
            return jax.grad(lambda p: loss(p, batch))

        sums = _Shared(gradient_of, batches, dynamic)
        free = any(FREE in trees.colours(t) for _, halves in marked for t in halves or ())
        g = {trees.index((), FREE): sums.whole(dynamic)} if free else {}

        def summed(terms: Any, value: Array, at: Differentials) -> Array:
            total = jnp.zeros_like(value)
            for c, halves in terms:
                if halves is not None:
                    value_of_term = inner_product(*map(at.tree, halves))
                else:
                    value_of_term = value
                total = total + (c * value_of_term).astype(total.dtype)
            return total

        def add_batch(total: Array, batch: PyTree) -> tuple[Array, None]:
            at = Differentials({FREE: sums.whole, MARKED: gradient_of(batch)}, dynamic, g)
            return total + summed(marked, loss(dynamic, batch), at), None

        first = jax.tree.map(lambda x: x[0], batches)
        zero = jnp.zeros_like(value_fn(params, first))
        total, _ = jax.lax.scan(add_batch, zero, batches)
        return total + summed(whole, zero, Differentials({FREE: sums.whole}, dynamic))

    return modified_value


def _in_order(over: Batches, eq: ModifiedEquation, value_fn: Any, batches: PyTree | None) -> PyTree:
    """The batches in the order in which an epoch takes them, after checks."""
    if batches is None:
        raise ValueError(
            f"{eq.name} needs batches, a pytree of arrays with a leading axis of "
            f"{over.num_batches} batches, and a value_fn of (params, batch)"
        )
    kinds.check_value_fn(eq, value_fn)
    over.check_number(num_examples(batches), "batches", eq.name)
    if over.batches is None:
        return batches
    return jax.tree.map(lambda x: jnp.asarray(x)[jnp.array(over.batches)], batches)


class _OverBatches:
    """Sums of elementary differentials at one point, with a gradient for each batch."""

    def __init__(self, gradient_of: Callable[[PyTree], Gradient], batches: PyTree, at: PyTree):
        self._gradient_of, self._batches, self._at = gradient_of, batches, at

    def whole(self, p: PyTree) -> PyTree:
        """The sum of the gradients of all batches."""
        zeros = jax.tree.map(jnp.zeros_like, p)
        return jax.lax.scan(
            lambda total, batch: (add(total, self._gradient_of(batch)(p)), None),
            zeros,
            self._batches,
        )[0]

    def _zeros(self) -> PyTree:
        return jax.tree.map(jnp.zeros_like, self._at)


class _Ordered(_OverBatches):
    """Sums over trees in which the batch of a marked vertex comes before that of its parent."""

    def combination(self, wanted: Combination) -> PyTree:
        """The sum of wanted[t] F(t) in one pass over the batches, besides those for free edges."""
        # Under a free edge at the root all that hangs there is one direction, summed beforehand.
        hanging, rest = _hanging(wanted, lambda t: trees.colour(trees.children(t)[0]) == FREE)
        direction = self.combination(hanging) if hanging else None
        whole = {u: self.combination({u: 1.0}) for u in _distinct(rest, _free_edges)}
        carried = _distinct(rest, _marked_edges)

        def visit(carry: tuple[PyTree, dict[int, PyTree]], batch: PyTree):
            total, before = carry
            gradient = self._gradient_of(batch)
            # Of this batch are the roots alone: what hangs on them has been summed.
            here = Differentials({_AT_HAND: gradient}, self._at, {**whole, **before})
            total = add(total, here.combination({_at_hand(t): c for t, c in rest.items()}))
            if direction is not None:
                total = add(total, directional(gradient, direction)(self._at))
            return (total, {u: add(x, here.tree(_at_hand(u))) for u, x in before.items()}), None

        start = self._zeros(), {u: self._zeros() for u in carried}
        return jax.lax.scan(visit, start, self._batches)[0][0]


class _Shared(_OverBatches):
    """Sums over trees in which all marked vertices have the same batch."""

    def combination(self, wanted: Combination) -> PyTree:
        """The sum of wanted[t] F(t) in one pass over the batches, with whole sums inside."""
        # The sum of all gradients is a sum over the shared batch like any other.
        own_leaf, leaf = trees.index((), MARKED), trees.index((), FREE)
        wanted = {own_leaf if t == leaf else t: c for t, c in wanted.items()}
        # A free vertex with one child is the whole loss's Hessian, taken once of the sum.
        hanging, rest = _hanging(wanted, lambda t: trees.colour(t) == FREE)
        # No other tree is without a mark: without noise the flow of the mean loss is exact.
        needs_whole = any(FREE in trees.colours(t) for t in rest)
        g = {leaf: self.whole(self._at)} if needs_whole else {}
        product, square = (trees.index((own_leaf,) * n, FREE) for n in (1, 2))  # H g_k, T[g_k, g_k]

        def visit(total: PyTree, batch: PyTree) -> tuple[PyTree, None]:
            own, known = self._gradient_of(batch), g
            if square in rest:
                # T[g_k, g_k] of the whole loss passes by H g_k.
                along = directional(self.whole, own(self._at))
                slope = jvp(along, (self._at,), (own(self._at),))
                known = g | {product: slope[0], square: slope[1]}
            here = Differentials({FREE: self.whole, MARKED: own}, self._at, known)
            return add(total, here.combination(rest)), None

        total = jax.lax.scan(visit, self._zeros(), self._batches)[0] if rest else self._zeros()
        if hanging:
            total = add(total, directional(self.whole, self.combination(hanging))(self._at))
        return total


def _hanging(
    wanted: Combination, on: Callable[[int], bool]
) -> tuple[dict[int, float | Array], dict[int, float | Array]]:
    """The only children of roots that satisfy `on`, with coefficients, and the remaining trees."""
    alone = {t for t in wanted if len(trees.children(t)) == 1 and on(t)}
    hanging = {trees.children(t)[0]: c for t, c in wanted.items() if t in alone}
    return hanging, {t: c for t, c in wanted.items() if t not in alone}


def _at_hand(t: int) -> int:
    return trees.index(trees.children(t), _AT_HAND)


def _distinct(wanted: Combination, edges: Callable[[int], list[int]]) -> list[int]:
    return list(dict.fromkeys(u for t in wanted for u in edges(t)))


def _free_edges(t: int) -> list[int]:
    """The first subtrees on free edges on each way up from the root."""
    found = []
    for child in trees.children(t):
        found += [child] if trees.colour(child) == FREE else _free_edges(child)
    return found


def _marked_edges(t: int) -> list[int]:
    """The subtrees that are joined to the root by marked edges alone."""
    found = []
    for child in trees.children(t):
        if trees.colour(child) == MARKED:
            found += [child, *_marked_edges(child)]
    return found
