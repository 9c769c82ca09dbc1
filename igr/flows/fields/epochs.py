"""The field of SGD in epochs: sums over batches as scans, one batch's derivatives at a time.

In a fixed order a tree whose marked batches come one before the other is a chain of prefix sums:
one pass over the batches carries the sum of every marked subtree so far, and a whole order of h
costs a few passes however many batches there are. In random order the prefix sums have become
means of products such as H_k g_k, one pass as well; but <T[g_k, g_k]> and <H_k H g_k>, at h^2,
take a derivative of the whole loss for each batch, and the cost of h^2 is that of m gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, PyTree

from igr.backward_error.trees.batches import FREE, LEAF, MARKED, BatchTree, marks, order
from igr.backward_error.trees.epoch import EpochEquation
from igr.backward_error.trees.epoch_loss import require_batches
from igr.backward_error.trees.sampled import StochasticEquation
from igr.flows import kinds
from igr.flows.fields.differentials import add, directional, scale
from igr.per_example.example_axis import num_examples
from igr.pytrees import combine, floating, like_params

BatchValueFn = Callable[[PyTree, PyTree], Array]
Gradient = Callable[[PyTree], PyTree]
Combination = Mapping[BatchTree, float | Array]  # tree -> coefficient

_PRODUCT: BatchTree = (FREE, (MARKED,))  # H g_k
_SQUARE: BatchTree = (FREE, (MARKED,), (MARKED,))  # T[g_k, g_k]


@kinds.field_of.register
def _(
    eq: EpochEquation,
    value_fn: BatchValueFn,
    h: float | Array,
    *,
    batches: PyTree | None = None,
    rates_at: float | None = None,
) -> Callable[[Any, PyTree, Any], PyTree]:
    _check(eq, value_fn, batches)
    return epoch_field(eq, value_fn, h, batches)


@kinds.value_fn_of.register
def _(
    eq: EpochEquation,
    value_fn: BatchValueFn,
    h: float | Array,
    *,
    batches: PyTree | None = None,
) -> Callable[[PyTree], Array]:
    _check(eq, value_fn, batches)
    return epoch_value_fn(eq, value_fn, h, batches)


def _check(eq: EpochEquation, value_fn: BatchValueFn, batches: PyTree | None) -> None:
    if batches is None:
        raise ValueError(
            f"{eq.name} needs batches, a pytree of arrays with a leading axis of {eq.num_batches} "
            "batches, and a value_fn of (params, batch)"
        )
    kinds.check_value_fn(eq, value_fn)


@kinds.field_of.register
@kinds.value_fn_of.register
def _(eq: StochasticEquation, value_fn: Any, h: Any, **options: Any) -> NoReturn:
    raise TypeError(
        f"the equation of {eq.name} is stochastic: igr.flows.stochastic_field compiles it, and "
        "igr.vector_field its drift, eq.drift"
    )


def epoch_field(
    eq: EpochEquation, value_fn: BatchValueFn, h: float | Array, batches: PyTree
) -> Callable[[Any, PyTree, Any], PyTree]:
    """Compiles the equation of SGD in epochs.

    Args:
      eq: from `igr.modified_equation`, with a number of batches.
      value_fn: `(params, batch) -> scalar`, the loss of one batch.
      h: the step.
      batches: a pytree of arrays with a leading axis of m batches. Where a batch is known by its
        number alone, `jnp.arange(m)`.

    Returns:
      `f(t, params, args)`, for the time in which one epoch takes m h.

    Raises:
      ValueError: if there are not as many batches as the equation is for.
    """
    require_batches(eq, num_examples(batches), "batches")
    if eq.batches is not None:
        ordering = jnp.array(eq.batches)
        batches = jax.tree.map(lambda x: jnp.asarray(x)[ordering], batches)
    m = int(eq.num_batches)

    def field(t: Any, params: PyTree, args: Any = None) -> PyTree:
        del t, args
        dynamic, static = floating(params)

        def gradient_of(batch: PyTree) -> Gradient:
            return jax.grad(lambda p: value_fn(combine(p, static), batch))

        # F(t) is over f = -g: a sign for every vertex. The sums are those of m F.
        wanted = {
            t: (-1) ** order(t) * float(c) / m * h ** (order(t) - 1) for t, c in eq.sums.items()
        }
        sums = (_Ordered if eq.ordered else _Shared)(gradient_of, batches, dynamic)
        return like_params(sums.combination(wanted), params)

    return field


def epoch_value_fn(
    eq: EpochEquation, value_fn: BatchValueFn, h: float | Array, batches: PyTree
) -> Callable[[PyTree], Array]:
    """The modified loss of SGD in epochs, E + h/(4 m) sum_k |grad E_k|^2 in random order.

    Args:
      eq: a gradient up to its order.
      value_fn: `(params, batch) -> scalar`, the loss of one batch.
      h: the step.
      batches: a pytree of arrays with a leading axis of m batches.

    Returns:
      `params -> scalar`, differentiable.
    """
    modified = eq.modified_loss()
    require_batches(eq, num_examples(batches), "batches")
    coefficients = {t: float(c) for t, c in modified.coefficients.items()}
    m = int(eq.num_batches)

    def modified_value(params: PyTree) -> Array:
        dynamic, static = floating(params)

        def loss(p: PyTree, batch: PyTree) -> Array:
            return value_fn(combine(p, static), batch)

        def add_batch(total: tuple[Array, Array], batch: PyTree) -> tuple[Any, None]:
            value, gradient = jax.value_and_grad(loss)(dynamic, batch)
            square = optax.tree.norm(gradient, squared=True)
            return (total[0] + value, total[1] + square.astype(value.dtype)), None

        first = jax.tree.map(lambda x: x[0], batches)
        zero = jnp.zeros_like(value_fn(params, first))
        (value, square), _ = jax.lax.scan(add_batch, (zero, zero), batches)
        total = coefficients[LEAF] * value / m
        if (MARKED, (MARKED,)) in coefficients:
            total += coefficients[MARKED, (MARKED,)] * h * square / m
        return total.astype(value.dtype)

    return modified_value


class _OverBatches:
    """Sums of elementary differentials at one point, over a gradient for each batch."""

    def __init__(self, gradient_of: Callable[[PyTree], Gradient], batches: PyTree, at: PyTree):
        self._gradient_of, self._batches, self._at = gradient_of, batches, at

    def _zeros(self) -> PyTree:
        return jax.tree.map(jnp.zeros_like, self._at)

    def _whole(self, p: PyTree) -> PyTree:
        """The sum of the gradients of all batches."""
        zeros = jax.tree.map(jnp.zeros_like, p)
        return jax.lax.scan(
            lambda total, batch: (add(total, self._gradient_of(batch)(p)), None),
            zeros,
            self._batches,
        )[0]


class _Ordered(_OverBatches):
    """Sums in which the batch of a marked vertex comes before that of its parent."""

    def combination(self, wanted: Combination) -> PyTree:
        """sum_t wanted[t] F(t), in one pass beside those for what free edges carry."""
        # Under a free edge at the root all that hangs there is one direction, summed beforehand.
        hanging = {t[1]: c for t, c in wanted.items() if len(t) == 2 and t[1][0] == FREE}
        rest = {t: c for t, c in wanted.items() if not (len(t) == 2 and t[1][0] == FREE)}
        direction = self.combination(hanging) if hanging else None
        whole = {u: self.combination({u: 1.0}) for u in _distinct(rest, _free_edges)}
        carried = _distinct(rest, _marked_edges)

        def visit(carry: tuple[PyTree, dict[BatchTree, PyTree]], batch: PyTree):
            total, before = carry
            gradient = self._gradient_of(batch)

            def value(tree: BatchTree) -> PyTree:
                level = gradient
                for child in tree[1:]:
                    level = directional(level, (before if child[0] == MARKED else whole)[child])
                return level(self._at)

            for t, c in rest.items():
                total = add(total, scale(c, value(t)))
            if direction is not None:
                total = add(total, directional(gradient, direction)(self._at))
            return (total, {u: add(x, value(u)) for u, x in before.items()}), None

        start = self._zeros(), {u: self._zeros() for u in carried}
        return jax.lax.scan(visit, start, self._batches)[0][0]


class _Shared(_OverBatches):
    """Sums in which all marked vertices have the same batch."""

    def combination(self, wanted: Combination) -> PyTree:
        """sum_t wanted[t] F(t): one pass with a batch at hand, one inside it for the whole loss."""
        # The sum of all gradients is a sum over the shared batch like any other.
        wanted = {(MARKED,) if t == LEAF else t: c for t, c in wanted.items()}
        # A free vertex with one child is the whole loss's Hessian, taken once of the sum.
        hanging = {t[1]: c for t, c in wanted.items() if t[0] == FREE and len(t) == 2}
        rest = {t: c for t, c in wanted.items() if not (t[0] == FREE and len(t) == 2)}
        # No other tree is without a mark: without noise the flow of the mean loss is exact.
        needs_whole = any(FREE in marks(t) for t in rest)
        g = self._whole(self._at) if needs_whole else None

        def visit(total: PyTree, batch: PyTree) -> tuple[PyTree, None]:
            own, known = self._gradient_of(batch), {(FREE,): g}
            if _SQUARE in rest:
                # T[g_k, g_k] of the whole loss passes by H g_k.
                along = directional(self._whole, own(self._at))
                slope = jax.jvp(along, (self._at,), (own(self._at),))
                known |= {_PRODUCT: slope[0], _SQUARE: slope[1]}
            return add(total, self._with_batch(rest, own, known)), None

        total = jax.lax.scan(visit, self._zeros(), self._batches)[0] if rest else self._zeros()
        if hanging:
            total = add(total, directional(self._whole, self.combination(hanging))(self._at))
        return total

    def _with_batch(
        self, wanted: Combination, own: Gradient, known: Mapping[BatchTree, PyTree]
    ) -> PyTree:
        """The sum with the shared batch held; derivatives are linear in their last direction."""
        total = self._zeros()
        slots: dict[tuple[int, tuple[BatchTree, ...]], dict[BatchTree, float | Array]] = {}
        for t, c in wanted.items():
            mark, *below = t
            if t in known:
                total = add(total, scale(c, known[t]))
            elif not below:
                total = add(total, scale(c, own(self._at)))
            else:
                slots.setdefault((mark, tuple(below[1:])), {})[below[0]] = c
        for (mark, others), slot in slots.items():
            level = self._whole if mark == FREE else own
            for u in others:
                level = directional(level, self._with_batch({u: 1.0}, own, known))
            total = add(total, directional(level, self._with_batch(slot, own, known))(self._at))
        return total


def _distinct(
    wanted: Combination, edges: Callable[[BatchTree], list[BatchTree]]
) -> list[BatchTree]:
    return list(dict.fromkeys(u for t in wanted for u in edges(t)))


def _free_edges(tree: BatchTree) -> list[BatchTree]:
    """The subtrees on free edges that are met first on the way up from the root."""
    found = []
    for child in tree[1:]:
        found += [child] if child[0] == FREE else _free_edges(child)
    return found


def _marked_edges(tree: BatchTree) -> list[BatchTree]:
    """The subtrees that hang on the root by marked edges alone."""
    found = []
    for child in tree[1:]:
        if child[0] == MARKED:
            found += [child, *_marked_edges(child)]
    return found
