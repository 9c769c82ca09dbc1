"""Rooted trees against brute force: labelled trees, permutations, edges removed one by one."""

import subprocess
import sys
from collections import Counter
from fractions import Fraction
from itertools import permutations, product
from math import factorial

import pytest

from igr.backward_error import trees
from igr.backward_error.trees import free_symmetry

ROOTED = [1, 1, 2, 4, 9, 20, 48, 115, 286, 719, 1842, 4766]  # OEIS A000081
FREE = [1, 1, 1, 2, 3, 6, 11, 23, 47, 106, 235, 551]  # OEIS A000055


def edges_of(tree):
    """The tree as a list of edges (parent, child), vertices numbered from the root 0."""
    found, count = [], 1

    def walk(node, at):
        nonlocal count
        for child in node:
            label, count = count, count + 1
            found.append((at, label))
            walk(child, label)

    walk(tree, 0)
    return found


def tree_from(edges, root):
    """The canonical nested tuple of a set of undirected edges, hung up at the root."""
    neighbours = {}
    for a, b in edges:
        neighbours.setdefault(a, []).append(b)
        neighbours.setdefault(b, []).append(a)

    def hang(at, above):
        return tuple(sorted(hang(b, at) for b in neighbours.get(at, []) if b != above))

    return hang(root, None)


def automorphisms(tree):
    """Permutations of the vertices that keep the edges: all of them, and those fixing the root."""
    edges = {frozenset(e) for e in edges_of(tree)}
    n = trees.order(tree)
    free = rooted = 0
    for p in permutations(range(n)):
        if {frozenset(p[v] for v in e) for e in edges} == edges:
            free += 1
            rooted += p[0] == 0
    return free, rooted


def linear_extensions(tree):
    """Ways to number the vertices so that every vertex comes after its parent."""
    edges = edges_of(tree)
    return sum(all(p[a] < p[b] for a, b in edges) for p in permutations(range(trees.order(tree))))


def test_number_of_rooted_trees():
    assert [len(trees.trees_of_order(n)) for n in range(1, 13)] == ROOTED


def test_rooted_trees_are_those_of_all_labelled_trees():
    """Every way to give each vertex but the root an earlier parent, up to isomorphism."""
    for n in range(2, 8):
        parents = product(*(range(v) for v in range(1, n)))
        found = {tree_from([(p, v) for v, p in enumerate(ps, 1)], 0) for ps in parents}
        assert found == set(trees.trees_of_order(n))


def test_number_of_free_trees():
    for n, expected in enumerate(FREE, 1):
        representatives = {trees.rootings(t)[0] for t in trees.trees_of_order(n)}
        assert len(representatives) == expected


@pytest.mark.parametrize("n", range(1, 8))
def test_rootings_are_the_tree_hung_up_at_each_vertex(n):
    for t in trees.trees_of_order(n):
        edges = edges_of(t)
        hung = {tree_from(edges, v) for v in range(n)}
        assert set(trees.rootings(t)) == hung
        assert len(trees.rootings(t)) == len(hung)
        # The representative is the same from wherever one starts, and has the most children.
        assert {trees.rootings(r)[0] for r in hung} == {trees.rootings(t)[0]}
        assert len(trees.rootings(t)[0]) == max(len(r) for r in hung)


@pytest.mark.parametrize("n", range(1, 7))
def test_symmetry_counts_automorphisms(n):
    for t in trees.trees_of_order(n):
        free, rooted = automorphisms(t)
        assert trees.symmetry(t) == rooted
        assert free_symmetry(trees.intern(t)) == free


@pytest.mark.parametrize("n", range(1, 7))
def test_density_counts_linear_extensions(n):
    """n!/gamma orders of growth (the hook length formula)."""
    for t in trees.trees_of_order(n):
        assert Fraction(factorial(n), trees.density(t)) == linear_extensions(t)


@pytest.mark.parametrize("n", range(1, 12))
def test_increasing_trees_are_counted_by_a_factorial(n):
    """Sum of n!/(gamma sigma): the vertices v = 2..n choose a parent among v - 1 earlier ones."""
    total = sum(
        Fraction(factorial(n), trees.density(t) * trees.symmetry(t))
        for t in trees.trees_of_order(n)
    )
    assert total == factorial(n - 1)


@pytest.mark.parametrize("n", range(1, 9))
def test_labelled_rooted_trees_are_counted_by_cayley(n):
    """Sum of n!/sigma is n^(n-1)."""
    assert sum(factorial(n) // trees.symmetry(t) for t in trees.trees_of_order(n)) == n ** (n - 1)


@pytest.mark.parametrize("n", range(2, 9))
def test_splittings_remove_each_edge(n):
    for t in trees.trees_of_order(n):
        edges = edges_of(t)
        expected = Counter()
        for cut in edges:
            kept = [e for e in edges if e != cut]
            expected[tree_from(kept, cut[1]), tree_from(kept, 0)] += 1
        found = {
            (trees.as_tuple(branch), trees.as_tuple(trunk)): count
            for count, branch, trunk in trees.splittings(trees.intern(t))
        }
        assert found == expected


@pytest.mark.parametrize("n", range(1, 6))
def test_graft_joins_at_every_vertex(n):
    for trunk in trees.trees_of_order(n):
        for m in range(1, 5):
            for branch in trees.trees_of_order(m):
                shifted = [(a + n, b + n) for a, b in edges_of(branch)]
                expected = Counter(
                    tree_from([*edges_of(trunk), (v, n), *shifted], 0) for v in range(n)
                )
                assert trees.graft(branch, trunk) == expected


def test_children_may_stand_in_any_order():
    assert trees.canonical((((),), ())) == ((), ((),)) == trees.canonical(((), ((),)))
    assert trees.intern((((),), ())) == trees.intern(((), ((),)))
    assert trees.order((((),), ())) == 4
    assert trees.symmetry((((),), ((),))) == 2


@pytest.mark.parametrize("bad", [[()], "()", None, 1, ((), []), ((), "x")])
def test_what_is_not_a_nested_tuple_is_refused(bad):
    for function in (trees.order, trees.symmetry, trees.rootings, trees.canonical):
        with pytest.raises(
            TypeError, match=r"a tree must be the nested tuple of its children.*got"
        ):
            function(bad)


def test_number_of_vertices_is_checked():
    with pytest.raises(ValueError, match="at least 1, the number of vertices of a tree; got 0"):
        trees.trees_of_order(0)
    for bad in (2.0, True, "2", None):
        with pytest.raises(TypeError, match="n must be an integer, the number of vertices"):
            trees.trees_of_order(bad)


def test_the_table_grows_under_threads():
    """In a process of its own, where the table is empty and threads change places all the time."""
    script = (
        "import sys, threading\n"
        "from igr.backward_error.trees import rooted as trees\n"
        "sys.setswitchinterval(1e-6)\n"
        "threads = [threading.Thread(target=trees.of_order, args=(10,)) for _ in range(4)]\n"
        "[t.start() for t in threads], [t.join() for t in threads]\n"
        "for n in range(1, 11):\n"
        "    for t in trees.of_order(n):\n"
        "        assert trees.intern(trees.as_tuple(t)) == t and trees.size(t) == n\n"
        "assert len(trees._CHILDREN) == len(trees._INDEX) == 1205\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
