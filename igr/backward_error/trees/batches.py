"""Rooted trees over many losses: the index set of an epoch of minibatch steps.

An epoch composes Euler steps of several fields f_k = -grad L_k, one for each batch. Expanded in h
it is a sum over trees whose vertices each stand for one of the batches, and only two things about
the batches of two vertices ever matter. A tree is written `(mark, *children)`, its children
sorted, with marks 0 and 1:

- *ordered*, for one order of the batches: 1 says that the vertex's batch comes before that of its
  parent; 0 that it is any batch. The epoch itself has a 1 at every vertex but the root.
- *shared*, for the mean over all orders: 1 says that the vertex's batch is that of all vertices
  marked 1; 0 that it is any batch, on its own.

A tree stands for the sum of its elementary differential over all batches so allowed. Differentiated
along a field, every vertex of the one is joined in turn with the root of the other, whose marks
stay as they are: the batches of the two have nothing to do with each other.

Series are dictionaries from tree to coefficient, F = sum_t h^(|t|-1) c(t) F(t).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from fractions import Fraction
from functools import cache
from itertools import permutations
from math import factorial, prod

from igr.backward_error import trees

BatchTree = tuple  # (mark, *children): recursive aliases are not yet expressible for tuples
Series = Mapping[BatchTree, Fraction]

FREE, MARKED = 0, 1
LEAF: BatchTree = (FREE,)


def order(tree: BatchTree) -> int:
    """Number of vertices |t|."""
    return 1 + sum(map(order, tree[1:]))


def marks(tree: BatchTree) -> Iterator[int]:
    """The marks of all vertices."""
    yield tree[0]
    for child in tree[1:]:
        yield from marks(child)


def canonical(tree: BatchTree) -> BatchTree:
    """Sorts the children at every vertex; raises `TypeError` for what is not such a tree."""
    if not isinstance(tree, tuple) or not tree or tree[0] not in (FREE, MARKED):
        raise TypeError(
            "a tree over batches is (mark, *children) with marks 0 or 1, such as (0, (1,)) for a "
            f"root with one marked leaf; got {tree!r}"
        )
    return (tree[0], *sorted(map(canonical, tree[1:])))


def symmetry(tree: BatchTree) -> int:
    """Number of automorphisms that fix the root and the marks."""
    repeats = Counter(tree[1:])
    return prod(symmetry(child) ** n * factorial(n) for child, n in repeats.items())


@cache
def rootings(tree: BatchTree) -> frozenset[BatchTree]:
    """The trees that share the free tree and its marks; for shared marks, which have no direction.

    >>> sorted(rootings((0, (1,))))
    [(0, (1,)), (1, (0,))]
    """
    seen, frontier = {tree}, [tree]
    while frontier:
        mark, *below = frontier.pop()
        for child in set(below):
            rest = list(below)
            rest.remove(child)
            moved = canonical((*child, (mark, *rest)))
            if moved not in seen:
                seen.add(moved)
                frontier.append(moved)
    return frozenset(seen)


@cache
def graft(branch: BatchTree, trunk: BatchTree) -> Mapping[BatchTree, int]:
    """Joins the root of `branch` to each vertex of `trunk` in turn.

    >>> graft((0,), (0, (1,)))
    {(0, (0,), (1,)): 1, (0, (1, (0,))): 1}
    """
    mark, *below = trunk
    grafted = Counter([canonical((mark, *below, branch))])
    for i, child in enumerate(below):
        for tree, count in graft(branch, child).items():
            grafted[canonical((mark, *below[:i], tree, *below[i + 1 :]))] += count
    return dict(grafted)


def logarithm(step: Series, vertices: int) -> dict[BatchTree, Fraction]:
    """The field whose flow over one unit of time is the step: exp(h F) theta = theta + h step.

    Order by order: the coefficient of a tree in exp(h F) is its coefficient in F plus what smaller
    trees, already known, contribute.
    """
    field: dict[BatchTree, Fraction] = {}
    for n in range(1, vertices + 1):
        below = _exponential(field, n)
        for t in {t for t in (*step, *below) if order(t) == n}:
            c = step.get(t, Fraction(0)) - below.get(t, Fraction(0))
            if c:
                field[t] = c
    return dict(sorted(field.items(), key=lambda item: (order(item[0]), item[0])))


def _exponential(field: Series, vertices: int) -> dict[BatchTree, Fraction]:
    total: Counter[BatchTree] = Counter()
    term: Series = field  # D_F^(j-1) F
    for j in range(1, vertices + 1):
        for t, c in term.items():
            total[t] += c / factorial(j)  # pyright: ignore[reportArgumentType]
        term = _lie_derivative(term, field, vertices)
    return dict(total)  # pyright: ignore[reportReturnType]


def _lie_derivative(of: Series, along: Series, vertices: int) -> dict[BatchTree, Fraction]:
    result: dict[BatchTree, Fraction] = {}
    for trunk, a in of.items():
        for branch, b in along.items():
            if order(trunk) + order(branch) <= vertices:
                for t, count in graft(branch, trunk).items():
                    result[t] = result.get(t, Fraction(0)) + count * a * b
    return result


def epoch(vertices: int) -> dict[BatchTree, Fraction]:
    """One Euler step after the other, each batch once: (theta_m - theta_0)/h in ordered trees.

    Step k takes its gradient where the steps before it led. As a Runge-Kutta method, with a stage
    for each batch, it has the tableau a_kj = 1 for j before k, b_k = 1; so a tree has weight one
    for all batches that decrease from the root up, divided by its symmetry (Hairer, Lubich and
    Wanner, *Geometric Numerical Integration*, III.1, Theorem 1.4).
    """
    return {
        _rises(t, FREE): Fraction(1, trees.symmetry(t))
        for n in range(1, vertices + 1)
        for t in trees.trees_of_order(n)
    }


def _rises(tree: trees.Tree, mark: int) -> BatchTree:
    return (mark, *sorted(_rises(child, MARKED) for child in tree))


def mean_over_orders(step: Series) -> dict[BatchTree, Fraction]:
    """The mean of a step in ordered trees over all orders of the batches, in shared trees.

    A coloured tree counts for as often as a random order puts its batches as the marks ask. That
    depends only on which of its vertices share a batch, so that the mean is a sum over set
    partitions of the vertices of differentials summed over *different* batches; and these are
    sums over free batches by Moebius inversion. With at most three vertices no more than one
    batch is shared by several vertices, and one mark tells which.

    >>> mean_over_orders({(0, (1,)): Fraction(1)})
    {(0, (0,)): Fraction(1, 2), (1, (1,)): Fraction(-1, 2)}
    """
    mean: dict[BatchTree, Fraction] = {}
    for tree, c in step.items():
        size, befores = order(tree), list(_befores(tree))
        if size > 3:
            raise ValueError(f"two batches may be shared in a tree of {size} vertices: {tree}")
        for block_of in _set_partitions(size):
            chance = _chance(block_of, befores)
            for merged in _set_partitions(max(block_of) + 1):
                together = Counter(merged)
                moebius = prod((-1) ** (n - 1) * factorial(n - 1) for n in together.values())
                coarser = tuple(merged[block] for block in block_of)
                t = _shared(tree, coarser)
                mean[t] = mean.get(t, Fraction(0)) + c * chance * moebius
    return {t: c for t, c in sorted(mean.items(), key=lambda item: (order(item[0]), item[0])) if c}


def _befores(tree: BatchTree) -> Iterator[tuple[int, int]]:
    """(vertex, parent) for each vertex marked to come before its parent, numbered in preorder."""

    def visit(tree: BatchTree, at: int) -> Iterator[tuple[int, int]]:
        child_at = at + 1
        for child in tree[1:]:
            if child[0] == MARKED:
                yield child_at, at
            yield from visit(child, child_at)
            child_at += order(child)

    return visit(tree, 0)


def _set_partitions(size: int) -> Iterator[tuple[int, ...]]:
    """The block of each of `size` things, blocks numbered as they appear."""
    if size == 0:
        yield ()
        return
    for rest in _set_partitions(size - 1):
        for block in range(max(rest, default=-1) + 2):
            yield (*rest, block)


def _chance(block_of: tuple[int, ...], befores: list[tuple[int, int]]) -> Fraction:
    """How often a random order of the blocks puts every vertex before its parent."""
    blocks = max(block_of) + 1
    good = sum(
        all(place[block_of[v]] < place[block_of[parent]] for v, parent in befores)
        for place in permutations(range(blocks))
    )
    return Fraction(good, factorial(blocks))


def _shared(tree: BatchTree, block_of: tuple[int, ...]) -> BatchTree:
    sizes = Counter(block_of)
    vertices = iter(block_of)

    def visit(tree: BatchTree) -> BatchTree:
        mark = MARKED if sizes[next(vertices)] > 1 else FREE
        return (mark, *sorted([visit(child) for child in tree[1:]]))

    return visit(tree)
