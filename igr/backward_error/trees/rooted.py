"""Rooted trees whose vertices may carry a colour: the index set of every series in this package.

A tree with one colour is written as the sorted nested tuple of its children: `()` is one vertex,
`((),)` two, and `((), ())` the cherry. Where vertices stand for different things, as the players of
a game, a tree is `(colour, *children)` with colours 0, 1, ... Inside, a tree is a small integer
into one table that grows on demand, so that equality, hashing and every per-tree quantity cost one
list access whatever the tree's size.

Hairer, Lubich and Wanner, *Geometric Numerical Integration*, III.1 and IX.9 use the same objects:
order |t| (vertices), symmetry sigma(t) (automorphisms fixing the root), density gamma(t), and the
splittings of a tree by the removal of one edge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from math import factorial, prod
from threading import Lock

Tree = tuple  # nested: each child is a Tree; recursive aliases are not yet expressible for tuples
PLAIN = -1  # the colour of the vertices of a tree with one colour


def trees_of_order(n: int) -> tuple[Tree, ...]:
    """All rooted trees of one colour with `n` vertices, as nested tuples.

    Args:
      n: number of vertices, at least 1.

    Returns:
      A tuple of 1, 1, 2, 4, 9, 20, 48, 115, ... trees (OEIS A000081).

    Raises:
      TypeError: if `n` is not an integer.
      ValueError: if it is below 1.

    >>> trees_of_order(3)
    ((((),),), ((), ()))
    """
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"n must be an integer, the number of vertices of a tree; got {n!r}.")
    if n < 1:
        raise ValueError(f"n must be at least 1, the number of vertices of a tree; got {n}.")
    return tuple(as_tuple(t) for t in of_order(n))


def order(tree: Tree) -> int:
    """The number |t| of vertices."""
    return _ORDER[intern(tree)]


def symmetry(tree: Tree) -> int:
    """The symmetry sigma(t): the number of automorphisms that fix the root and the colours.

    >>> symmetry(((), (), ())), symmetry((0, (0,), (1,)))
    (6, 1)
    """
    return _SYMMETRY[intern(tree)]


def density(tree: Tree) -> int:
    """The density gamma(t): |t| times the densities of the root's children.

    >>> density((((),),))
    6
    """
    return order(tree) * prod(density(child) for child in _parts(tree)[1])


def graft(branch: Tree, trunk: Tree) -> dict[Tree, int]:
    """The trees made by joining the root of `branch` to a vertex of `trunk`, with their counts.

    Returns:
      tree -> how many vertices of the trunk give it. The sum over these trees is the derivative of
      the trunk's elementary differential along the branch's.

    >>> graft((), ((),))
    {((), ()): 1, (((),),): 1}
    """
    grafted: Counter[Tree] = Counter([canonical((*trunk, branch))])
    for i, child in enumerate(trunk):
        if not isinstance(child, int):
            for tree, count in graft(branch, child).items():
                grafted[canonical((*trunk[:i], tree, *trunk[i + 1 :]))] += count
    return dict(grafted)


def rootings(tree: Tree) -> tuple[Tree, ...]:
    """All different rooted trees with the same free tree as `tree`, each one once.

    The first is the representative that stands for the free tree: the rooting whose root has the
    most children, and among those the largest nested tuple.

    >>> rootings((((),),))
    (((), ()), (((),),))
    """
    return tuple(as_tuple(t) for t in rooted_alike(intern(tree)))


def canonical(tree: Tree) -> Tree:
    """The tree with the children at every vertex sorted.

    Raises:
      TypeError: if it is not a nested tuple of tuples.
    """
    return as_tuple(intern(tree))


def intern(tree: Tree) -> int:
    """The integer that stands for a tree given as a nested tuple, its children in any order."""
    colour_, below = _parts(tree)
    found = tuple(sorted(map(intern, below)))
    if any((_COLOUR[child] == PLAIN) != (colour_ == PLAIN) for child in found):
        raise TypeError(f"all vertices of a tree must carry a colour, or none; got {tree!r}.")
    return index(found, colour_)


def _parts(tree: Tree) -> tuple[int, Tree]:
    """The colour of a nested tuple's root (PLAIN if it has none), and its children."""
    if not isinstance(tree, tuple):
        raise TypeError(
            "a tree must be the nested tuple of its children, such as () for one vertex or ((), "
            "()) for a root with two leaves, each led by its colour where there are several; got "
            f"{tree!r}."
        )
    if tree and type(tree[0]) is int and tree[0] >= 0:
        return tree[0], tree[1:]
    return PLAIN, tree


# The table. Row 0 is the tree with one vertex.

_COLOUR: list[int] = []
_CHILDREN: list[tuple[int, ...]] = []
_ORDER: list[int] = []
_SYMMETRY: list[int] = []
_NESTED: list[Tree] = []
_INDEX: dict[tuple, int] = {}
_GROWTH = Lock()  # two threads that grow the table at once would mix up its rows


def index(children: tuple[int, ...], colour: int = PLAIN) -> int:
    """The integer of the tree with these children, given as sorted integers."""
    key = children if colour == PLAIN else (colour, children)
    found = _INDEX.get(key)
    if found is not None:
        return found
    symmetry_ = 1
    for child, count in Counter(children).items():
        symmetry_ *= _SYMMETRY[child] ** count * factorial(count)
    with _GROWTH:
        if key not in _INDEX:
            _COLOUR.append(colour)
            _CHILDREN.append(children)
            _ORDER.append(1 + sum(_ORDER[c] for c in children))
            _SYMMETRY.append(symmetry_)
            below = sorted(_NESTED[c] for c in children)
            _NESTED.append(tuple(below) if colour == PLAIN else (colour, *below))
            _INDEX[key] = len(_CHILDREN) - 1
    return _INDEX[key]


LEAF = index(())


def as_tuple(t: int) -> Tree:
    """The nested tuple of the tree with this integer."""
    return _NESTED[t]


def colour(t: int) -> int:
    """The colour of the root of the tree with this integer."""
    return _COLOUR[t]


def children(t: int) -> tuple[int, ...]:
    """The integers of the subtrees at the root of the tree with this integer."""
    return _CHILDREN[t]


def size(t: int) -> int:
    """The number of vertices of the tree with this integer."""
    return _ORDER[t]


def sigma(t: int) -> int:
    """The symmetry (number of automorphisms) of the tree with this integer."""
    return _SYMMETRY[t]


@cache
def colours(t: int) -> tuple[int, ...]:
    """The colours of all vertices of the tree with this integer, the root's first."""
    return _COLOUR[t], *(c for child in _CHILDREN[t] for c in colours(child))


@cache
def of_order(n: int, palette: tuple[int, ...] = (PLAIN,)) -> tuple[int, ...]:
    """The integers of all trees with `n` vertices of these colours, each one once.

    Trees of one colour stand in a fixed order with the unbranched one first; trees of several are
    sorted by their nested tuples.
    """
    forests = [tuple(sorted(f)) for f in _forests(n - 1, n - 1, None, palette)]
    found = (index(forest, c) for c in palette for forest in forests)
    return tuple(found) if palette == (PLAIN,) else tuple(sorted(found, key=as_tuple))


def _forests(
    vertices: int, largest: int, below: int | None, palette: tuple[int, ...]
) -> Iterator[tuple[int, ...]]:
    """All multisets of trees with this many vertices in total, each from large to small trees."""
    if vertices == 0:
        yield ()
        return
    for n in range(min(vertices, largest), 0, -1):
        candidates = of_order(n, palette)
        start = candidates.index(below) if below is not None and n == largest else 0
        for t in candidates[start:]:
            for rest in _forests(vertices - n, n, t, palette):
                yield (t, *rest)


@cache
def splittings(t: int) -> tuple[tuple[int, int, int], ...]:
    """All ways to cut one edge of a tree, as (number of such edges, branch, trunk) triples."""
    found: dict[tuple[int, int], int] = {}
    below, root = _CHILDREN[t], _COLOUR[t]
    for child, count in Counter(below).items():
        at = below.index(child)
        rest = below[:at] + below[at + 1 :]
        found[child, index(rest, root)] = found.get((child, index(rest, root)), 0) + count
        for edges, branch, trunk in splittings(child):
            key = branch, index(tuple(sorted((*rest, trunk))), root)
            found[key] = found.get(key, 0) + count * edges
    return tuple((edges, branch, trunk) for (branch, trunk), edges in found.items())


@cache
def rooted_alike(t: int) -> tuple[int, ...]:
    """The integers of all rootings of the free tree of `t`, the representative first."""
    seen = {t}
    frontier = [t]
    while frontier:
        at = frontier.pop()
        for child in set(_CHILDREN[at]):
            # Moves the root across one edge.
            rest = list(_CHILDREN[at])
            rest.remove(child)
            old_root = index(tuple(rest), _COLOUR[at])
            moved = index(tuple(sorted((*_CHILDREN[child], old_root))), _COLOUR[child])
            if moved not in seen:
                seen.add(moved)
                frontier.append(moved)
    return tuple(sorted(seen, key=lambda r: (len(_CHILDREN[r]), _NESTED[r]), reverse=True))


def free_symmetry(t: int) -> int:
    """The number of automorphisms of the free tree of `t`.

    A rooting t arises at |Aut|/sigma(t) of the vertices, and over all rootings these numbers sum to
    the number of vertices.
    """
    automorphisms = prod(_SYMMETRY[r] for r in rooted_alike(t))
    per_automorphism = sum(automorphisms // _SYMMETRY[r] for r in rooted_alike(t))
    return _ORDER[t] * automorphisms // per_automorphism
