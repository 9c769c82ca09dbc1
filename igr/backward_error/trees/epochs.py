"""An epoch of minibatch steps as a series over trees of batches: in a fixed order or on average.

Weights here are those of sums over batches, where their number m does not appear.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import permutations
from math import factorial, prod
from typing import Any

import sympy

from igr.backward_error.trees import rooted
from igr.backward_error.trees.batches import FREE, MARKED
from igr.backward_error.trees.series import Series, logarithm

Rational = sympy.QQ


def epoch_field(vertices: int, ordered: bool) -> dict[int, Any]:
    """The weights of m F in sums over batches, where epochs of time m h follow the field F."""
    step = epoch(vertices)
    return logarithm(step if ordered else mean_over_orders(step), vertices)


def epoch(vertices: int) -> dict[int, Any]:
    """The series of (theta_m - theta_0)/h for one epoch, over trees of ordered batches.

    Step k takes its gradient where the steps before it led. As a Runge-Kutta method, with a stage
    for each batch, it has the tableau a_kj = 1 for j before k, b_k = 1; so a tree has weight one
    for all batches that decrease from the root up (Hairer, Lubich and Wanner, *Geometric Numerical
    Integration*, III.1, Theorem 1.4).
    """

    def rises(t: int, mark: int) -> int:
        below = (rises(child, MARKED) for child in rooted.children(t))
        return rooted.index(tuple(sorted(below)), mark)

    plain = (t for n in range(1, vertices + 1) for t in rooted.of_order(n))
    return {rises(t, FREE): Rational(1) for t in plain}


def mean_over_orders(step: Series) -> dict[int, Any]:
    """The average of an epoch's series over all orders of the batches, in trees of shared batches.

    The mean weighs a coloured tree by the probability that a random order has its batches as the
    marks say. That depends only on which of its vertices share a batch, so that the mean is a sum
    over set partitions of the vertices of differentials summed over *different* batches; and these
    are sums over free batches by Moebius inversion. With at most three vertices no more than one
    batch is shared by several vertices, and one mark tells which.

    >>> mean = mean_over_orders({rooted.intern((0, (1,))): Rational(1)})
    >>> {rooted.as_tuple(t): str(weight) for t, weight in mean.items()}
    {(0, (0,)): '1/2', (1, (1,)): '-1/2'}
    """
    mean: dict[int, Any] = {}
    for tree, weight in step.items():
        size, befores = rooted.size(tree), _befores(tree)
        if size > 3:
            raise ValueError(f"two batches may be shared in a tree of {size} vertices")
        for block_of in _set_partitions(size):
            chance = weight / rooted.sigma(tree) * _chance(block_of, befores)
            for merged in _set_partitions(max(block_of) + 1):
                together = Counter(merged)
                moebius = prod((-1) ** (n - 1) * factorial(n - 1) for n in together.values())
                t = _shared(tree, tuple(merged[block] for block in block_of))
                mean[t] = mean.get(t, 0) + chance * moebius * rooted.sigma(t)
    by_size = sorted(mean, key=lambda t: (rooted.size(t), rooted.as_tuple(t)))
    return {t: mean[t] for t in by_size if mean[t]}


def _befores(tree: int) -> list[tuple[int, int]]:
    """The (vertex, parent) pairs, in preorder numbers, where the child's batch comes before."""

    def visit(t: int, at: int) -> Iterator[tuple[int, int]]:
        child_at = at + 1
        for child in rooted.children(t):
            if rooted.colour(child) == MARKED:
                yield child_at, at
            yield from visit(child, child_at)
            child_at += rooted.size(child)

    return list(visit(tree, 0))


def _set_partitions(size: int) -> Iterator[tuple[int, ...]]:
    """All partitions of a set of this size, each as the tuple of its elements' block numbers."""
    if size == 0:
        yield ()
        return
    for rest in _set_partitions(size - 1):
        for block in range(max(rest, default=-1) + 2):
            yield (*rest, block)


def _chance(block_of: tuple[int, ...], befores: list[tuple[int, int]]) -> Any:
    """The probability that a random order of the blocks puts every vertex before its parent."""
    blocks = max(block_of) + 1
    good = sum(
        all(place[block_of[v]] < place[block_of[parent]] for v, parent in befores)
        for place in permutations(range(blocks))
    )
    return Rational(good, factorial(blocks))


def _shared(tree: int, block_of: tuple[int, ...]) -> int:
    """The tree with exactly those vertices marked that share their batch with another."""
    sizes = Counter(block_of)
    vertices = iter(block_of)

    def visit(t: int) -> int:
        mark = MARKED if sizes[next(vertices)] > 1 else FREE
        below = [visit(child) for child in rooted.children(t)]
        return rooted.index(tuple(sorted(below)), mark)

    return visit(tree)
