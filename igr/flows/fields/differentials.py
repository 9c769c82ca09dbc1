"""Evaluates linear combinations of elementary differentials with few derivatives.

The elementary differential of a tree with root children u_1 .. u_k is the k-th derivative of the
gradient along the differentials of the u_i: nested `jax.jvp` with the directions held fixed, and
never a matrix. A sum of many trees need not take one such derivative for each:

*Open slot.* A derivative is linear in each direction. All trees at whose root only leaves and one
child u stand, f^(m+1)[g, .., g, u], are summed over u before the derivative is taken, and that
sum is evaluated by the same rule.

*Curves.* The k-th derivative along a curve through the point, d^k/ds^k f(x(s)) with
x' = g, x'' = x_2, .., is f'[x_k] + k f''[g, x_(k-1)] + .. + f^(k)[g, .., g] and a few products of
the x_j (Faa di Bruno). One curve through chosen x_j gives a whole field, but for such products,
which are subtracted exactly, in rational arithmetic, and evaluated for themselves. Where the top
derivative is not one along g alone, the same is done for f'(x(s))[y(s)].

XLA merges what nested jvps have in common, so that a curve of order k costs (k+1)(k+2)/2 gradients
at most (and not 2^k), and curves with the same beginning share it.

Trees of several colours are summed by open slots alone, whatever else stands at the root.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import product
from math import comb, factorial, prod
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from igr.backward_error import trees
from igr.checks import Number
from igr.forward_mode import jvp

_SHARING_PAYS = 4  # the order from which the trees of up to three vertices are wanted often
Combination = Mapping[int, Any]  # tree -> coefficient; fractions where the trees are of one colour


class Differentials:
    """The elementary differentials over a gradient at one point, each sum evaluated once.

    Args:
      gradient: `params -> params`, differentiable; or one for each colour of the trees.
      at: the point, a pytree of floating arrays.
      known: differentials that are already known, by tree.
    """

    def __init__(
        self,
        gradient: Callable[[PyTree], PyTree] | Mapping[int, Callable[[PyTree], PyTree]],
        at: PyTree,
        known: Mapping[int, PyTree] | None = None,
    ):
        self._of_colour = gradient if isinstance(gradient, Mapping) else {trees.PLAIN: gradient}
        self._gradient: Any = self._of_colour.get(trees.PLAIN)  # None where there are several
        self._at = at
        self._known: dict[Any, PyTree] = dict(known or {})
        self._singly = 1  # sums of trees with no more vertices are taken tree by tree

    def combination(self, wanted: Combination) -> PyTree:
        """The sum of wanted[t] F(t), a pytree like params, with F(t) over the gradient."""
        if self._gradient is None:
            return self._by_open_child(wanted)
        wanted = {t: c for t, c in wanted.items() if c}
        if wanted and all(len(wanted) == 1 or trees.size(t) <= self._singly for t in wanted):
            return self._tree_by_tree(wanted)
        key = frozenset(wanted.items())
        if key not in self._known:
            self._known[key] = self._sum(wanted)
        return self._known[key]

    def _sum(self, wanted: Combination) -> PyTree:
        total = jax.tree.map(jnp.zeros_like, self._at)
        rest = dict(wanted)
        if trees.LEAF in rest:
            total = scale(rest.pop(trees.LEAF), self.tree(trees.LEAF))
        slots = open_slots(rest)
        if slots:
            degree = max(slots)
            if degree > 1 and set(slots[degree]) == {trees.LEAF}:
                c = slots[degree][trees.LEAF]
                curve, rest = curve_through(rest, degree)
                if degree >= _SHARING_PAYS:
                    self._share_small_trees(curve[1])
                directions = [self.combination(x) for x in curve]
                total = add(total, scale(c, self._along_curve(directions)))
            else:
                if self._singly > 1 and degree == 2:
                    # The square along g is known by itself: keep it out of the open slot.
                    slots[2].pop(trees.LEAF, None)
                for m, slot in slots.items():
                    for u in slot:
                        del rest[_with_leaves(m, u)]
                # One tree alone is a direction as it stands, that others may have taken too.
                c = next(iter(slots[degree].values())) if len(slots[degree]) == 1 else Fraction(1)
                directions = [
                    self.combination(
                        {u: x / (c * comb(degree - 1, m)) for u, x in slots.get(m + 1, {}).items()}
                    )
                    for m in reversed(range(degree))
                ]
                total = add(total, scale(c, self._along_line(directions)))
        return add(total, self._tree_by_tree(rest))

    def _by_open_child(self, wanted: Combination) -> PyTree:
        """The same sum, with trees that differ in one child at the root taken together."""
        total = jax.tree.map(jnp.zeros_like, self._at)
        slots: dict[tuple[int, tuple[int, ...]], dict[int, Any]] = {}
        for t, c in wanted.items():
            below = sorted(trees.children(t), key=trees.as_tuple)
            if t in self._known or not below:
                total = add(total, scale(c, self.tree(t)))
            else:
                u, *others = below
                slots.setdefault((trees.colour(t), tuple(others)), {})[u] = c
        # What several slots want is taken once, by itself.
        wanted_by = Counter(u for slot in slots.values() for u in slot)
        for (colour, others), slot in slots.items():
            level = self._of_colour[colour]
            for u in others:
                level = directional(level, self.tree(u))
            often = {u: c for u, c in slot.items() if wanted_by[u] > 1}
            direction = self.combination({u: c for u, c in slot.items() if u not in often})
            direction = add(direction, self._tree_by_tree(often))
            total = add(total, directional(level, direction)(self._at))
        return total

    def _share_small_trees(self, x2: Combination) -> None:
        """Evaluates trees of up to three vertices singly, and T[g, g] from the curve.

        d^2/ds^2 f(x(s)) = T[g, g] + H x_2 is worked out on the way to the higher derivatives.
        """
        self._singly = 3
        if all(trees.size(u) < 3 for u in x2):
            second = self._along_curve([self.tree(trees.LEAF), self.combination(x2)])
            linear = self._tree_by_tree({trees.index((u,)): -c for u, c in x2.items()})
            self._known[trees.index((trees.LEAF, trees.LEAF))] = add(second, linear)

    def _tree_by_tree(self, wanted: Combination) -> PyTree:
        total = jax.tree.map(jnp.zeros_like, self._at)
        for t, c in wanted.items():
            total = add(total, scale(c, self.tree(t)))
        return total

    def _along_curve(self, directions: Sequence[PyTree]) -> PyTree:
        """The derivative d^k/ds^k f(x(s)), from x_1, .., x_k of a curve x(s) through the point."""
        level: Callable[..., PyTree] = self._gradient
        for _ in directions:
            level = _next_on_curve(level)
        return level(self._at, *directions)

    def _along_line(self, directions: Sequence[PyTree]) -> PyTree:
        """d^(k-1)/ds^(k-1) f'(x(s))[y(s)] on the line x' = g, from y_0, .., y_(k-1)."""
        g = self.tree(trees.LEAF)
        level: Callable[..., PyTree] = lambda x, y: jvp(self._gradient, (x,), (y,))[1]  # noqa: E731
        for _ in directions[1:]:
            level = _next_on_line(level, g)
        return level(self._at, *directions)

    def tree(self, t: int) -> PyTree:
        """The elementary differential F(t) of one tree."""
        if t not in self._known:
            level = self._of_colour[trees.colour(t)]
            for child in sorted(trees.children(t), key=lambda u: (trees.size(u), u)):
                level = directional(level, self.tree(child))
            self._known[t] = level(self._at)
        return self._known[t]


def open_slots(wanted: Combination) -> dict[int, dict[int, Fraction]]:
    """The trees with leaves and at most one other child u at the root: degree -> u -> factor."""
    slots: dict[int, dict[int, Fraction]] = {}
    for t, c in wanted.items():
        *leaves, u = sorted(trees.children(t), key=lambda u: (trees.size(u), u))
        if all(leaf == trees.LEAF for leaf in leaves):
            slots.setdefault(len(leaves) + 1, {})[u] = c
    return slots


def curve_through(
    wanted: Combination, k: int
) -> tuple[list[dict[int, Fraction]], dict[int, Fraction]]:
    """The curve whose k-th derivative covers the wanted trees, and the trees left over.

    Args:
      wanted: no leaf; the coefficient c of the tree with k leaves at the root is not zero, and
        no open slot has a higher degree.
      k: the order of the derivative.

    Returns:
      x_1 .. x_k, with x_1 = g, and the rest: c d^k/ds^k f(x(s)) + rest is what is wanted.
    """
    rest = dict(wanted)
    c = rest.pop(trees.index((trees.LEAF,) * k))
    curve: list[dict[int, Fraction]] = [{trees.LEAF: Fraction(1)}]
    for degree in range(k - 1, 0, -1):
        # Products of directions already chosen arise whether wanted or not.
        for orders, count in _block_sizes(k, degree, largest=k - degree):
            for factors in product(*(curve[j - 1].items() for j in orders)):
                t = trees.index(tuple(sorted(u for u, _ in factors)))
                rest[t] = rest.get(t, Fraction(0)) - c * count * prod(x for _, x in factors)
        rest = {t: value for t, value in rest.items() if value}
        slot = open_slots(rest).get(degree, {})
        curve.append({u: value / (c * comb(k, degree - 1)) for u, value in slot.items()})
        for u in slot:
            del rest[_with_leaves(degree, u)]
    return curve, rest


def _with_leaves(degree: int, u: int) -> int:
    """The tree with the child u and degree - 1 leaves at its root."""
    return trees.index(tuple(sorted((trees.LEAF,) * (degree - 1) + (u,))))


def _block_sizes(k: int, blocks: int, largest: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """The block sizes of partitions of k elements, each with the number of such partitions."""

    def sizes(left: int, blocks: int, largest: int) -> Iterator[tuple[int, ...]]:
        if blocks == 0:
            if left == 0:
                yield ()
            return
        for size in range(min(left - blocks + 1, largest), 0, -1):
            for others in sizes(left - size, blocks - 1, size):
                yield (size, *others)

    for found in sizes(k, blocks, largest):
        repeats = prod(factorial(n) for n in Counter(found).values())
        yield found, factorial(k) // (prod(map(factorial, found)) * repeats)


def _next_on_curve(level: Callable[..., PyTree]) -> Callable[..., PyTree]:
    def derivative(x: PyTree, *xs: PyTree) -> PyTree:
        return jvp(level, (x, *xs[:-1]), xs)[1]

    return derivative


def _next_on_line(level: Callable[..., PyTree], g: PyTree) -> Callable[..., PyTree]:
    def derivative(x: PyTree, *ys: PyTree) -> PyTree:
        return jvp(level, (x, *ys[:-1]), (g, *ys[1:]))[1]

    return derivative


def directional(function: Callable[[PyTree], PyTree], v: PyTree) -> Callable[[PyTree], PyTree]:
    """The derivative of a function along a fixed vector v, as a function of the point."""
    return lambda p: jvp(function, (p,), (v,))[1]


def scale(c: Number | Fraction | jax.Array, tree: PyTree) -> PyTree:
    """A pytree times the number c, each leaf in its own dtype."""
    if isinstance(c, Fraction):
        if c == 1:
            return tree
        c = float(c)
    return jax.tree.map(lambda x: (c * x).astype(x.dtype), tree)


def add(a: PyTree, b: PyTree) -> PyTree:
    """The sum of two pytrees."""
    return jax.tree.map(jnp.add, a, b)
