"""Equations over batches as text and LaTeX: g and H are means, ⟨Hₖ gₖ⟩ the mean of a product."""

from __future__ import annotations

from collections.abc import Iterator

from igr.backward_error.trees import printing
from igr.backward_error.trees.batches import FREE, MARKED, BatchTree, marks

_LETTERS = "kjilnpqrst"
_SUBSCRIPTS = dict(zip(_LETTERS, "ₖⱼᵢₗₙₚqᵣₛₜ", strict=True))


def differential(tree: BatchTree, ordered: bool, latex: bool = False) -> str:
    """The elementary differential of a tree over batches, over g_k = grad L_k.

    Args:
      tree: the tree.
      ordered: whether a mark puts a batch before that of its parent, or makes it the shared one.
      latex: LaTeX, or text.

    >>> differential((1, (0, (1,))), ordered=False), differential((0, (1, (1,))), ordered=True)
    ('⟨Hₖ H gₖ⟩', '⟨Hₖ Hⱼ gᵢ; i<j, j<k⟩')
    """
    if MARKED not in marks(tree):
        return _written(tree, iter(()), latex)
    if not ordered:
        named = ("k" if mark == MARKED else "" for mark in marks(tree))
        return _mean(_written(tree, named, latex), latex)
    letters, conditions = iter(_LETTERS), []
    named = iter(list(_letters(tree, None, letters, conditions)))
    inside = _written(tree, named, latex)
    return _mean(inside + (r";\," if latex else "; ") + ", ".join(sorted(conditions)), latex)


def contraction(tree: BatchTree, latex: bool = False) -> str:
    """The loss, or the square of a gradient, over a free tree of one or two vertices."""
    if len(tree) == 1:
        return "E"
    if tree[0] == FREE:
        return r"\lvert g\rvert^{2}" if latex else "|g|²"
    return _mean(r"\lvert g_k\rvert^{2}" if latex else "|gₖ|²", latex)


def _letters(
    tree: BatchTree, parent: str | None, letters: Iterator[str], conditions: list[str]
) -> Iterator[str]:
    """The letter of each vertex in preorder, none where its batch is not compared with another."""
    compared = parent is not None or any(child[0] == MARKED for child in tree[1:])
    own = next(letters) if compared else ""
    if parent is not None:
        conditions.append(f"{own}<{parent}")
    yield own
    for child in tree[1:]:
        yield from _letters(child, own if child[0] == MARKED else None, letters, conditions)


def _written(tree: BatchTree, letters: Iterator[str], latex: bool) -> str:
    letter = next(letters, "")
    index = (f"_{letter}" if latex else _SUBSCRIPTS[letter]) if letter else ""
    inside = [_written(child, letters, latex) for child in tree[1:]]
    if not inside:
        return f"g{index}"
    if len(inside) == 1:
        return f"H{index} {inside[0]}"
    degree = len(inside) + 1
    nabla = rf"\nabla^{{{degree}}} E" if latex else f"∇{printing.superscript(degree)}E"
    return f"{nabla}{index}[{', '.join(inside)}]"


def _mean(inside: str, latex: bool) -> str:
    return rf"\langle {inside} \rangle" if latex else f"⟨{inside}⟩"
