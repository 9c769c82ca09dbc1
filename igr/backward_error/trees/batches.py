"""Trees over minibatches: which batch each vertex of an epoch's trees stands for.

An epoch composes Euler steps of several fields f_k = -grad L_k, one for each of m batches.
Expanded in h it is a sum over trees whose vertices each stand for one of the batches, and only two
things about the batches of two vertices ever matter. A tree is `(mark, *children)`:

- *ordered*, for one order of the batches: 1 says that the vertex's batch comes before that of its
  parent; 0 that it is any batch. The epoch itself has a 1 at every vertex but the root.
- *shared*, for the mean over all orders: 1 says that the vertex's batch is that of all vertices
  marked 1; 0 that it is any batch, on its own.

A tree stands for the mean of its differential over all batches: over every vertex that has its own,
and over the one that marked vertices share; in a fixed order over every vertex, where batches in
another order than the marks ask count as zero. Differentiated along a field, every vertex of the
one is joined in turn with the root of the other, whose marks stay as they are: the batches of the
two have nothing to do with each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import sympy

from igr.backward_error.algebra.taylor import exact
from igr.backward_error.trees import rooted
from igr.backward_error.trees.colouring import Colouring, Letters, Losses, symbols
from igr.backward_error.trees.rooted import Tree

FREE, MARKED = 0, 1
_LETTERS = "kjilnpqrst"
_SUBSCRIPTS = dict(zip(_LETTERS, "ₖⱼᵢₗₙₚqᵣₛₜ", strict=True))


@dataclass(frozen=True)
class Batches(Colouring):
    """The colouring of SGD in epochs: a vertex stands for the loss of one of m batches.

    Attributes:
      num_batches: m, a positive integer or a symbol.
      batches: the fixed order of the batches, empty if m is a symbol; a mark then says that a
        vertex's batch comes before its parent's. None if each epoch draws a new random order;
        marked vertices then share a batch.
    """

    num_batches: sympy.Expr
    batches: tuple[int, ...] | None

    palette: ClassVar[tuple[int, ...]] = (FREE, MARKED)
    shape: ClassVar[str] = (
        "a tree over batches is (mark, *children) with marks 0 or 1, such as (0, (1,)) for a root "
        "with one marked leaf"
    )

    @property
    def ordered(self) -> bool:
        """Whether every epoch takes the batches in the same fixed order."""
        return self.batches is not None

    @property
    def free_symbols(self) -> set[Any]:
        """The set {m} if m is a symbol, otherwise the empty set."""
        return self.num_batches.free_symbols

    def subs(self, values: Mapping[sympy.Symbol, Any]) -> Batches:
        """The same colouring with a number in place of the symbol m."""
        m = number_of_batches(self.num_batches.subs(values), str(self.num_batches))
        counted = self.ordered and m.is_Integer and not self.batches
        return Batches(m, tuple(range(int(m))) if counted else self.batches)

    def means(self, t: int) -> int:
        """Over how many independent batch indices the differential of a tree is averaged."""
        if self.ordered:
            return rooted.size(t)
        return rooted.colours(t).count(FREE) + (MARKED in rooted.colours(t))

    def representative(self, t: int) -> int | None:
        """The rooting that stands for the free tree; None where batches are compared.

        Rooted at another vertex, such a tree would compare the batches in another order.
        """
        if self.ordered and MARKED in rooted.colours(t):
            return None
        return super().representative(t)

    def vanishes(self, t: int) -> bool:
        """Whether a tree is zero because it puts one batch before another and there is only one."""
        return self.ordered and self.num_batches == 1 and MARKED in rooted.colours(t)

    def check_number(self, number: int, argument: str, name: str) -> None:
        """Raises `ValueError` unless m is a number and equal to `number`."""
        m = self.num_batches
        if not m.is_Integer:
            raise ValueError(
                f"the equation of {name} has the open symbol {m}; give it a number: "
                f"eq.subs({{{str(m)!r}: {number}}})"
            )
        if number != m:
            raise ValueError(f"{name}: {argument} must be {m} in number; got {number}.")

    def losses(self, loss: Any, params: Any, name: str) -> Losses:
        """The batches' losses L_0, .., L_(m-1) as a `Losses`, from a sequence of expressions."""
        if not isinstance(loss, Sequence) or isinstance(loss, str):
            raise TypeError(
                f"loss must be the sequence of the losses of the batches of {name}; got {loss!r}."
            )
        each = [exact(e, f"loss[{k}]") for k, e in enumerate(loss)]
        self.check_number(len(each), "losses", name)
        return _LossesOfBatches([each[k] for k in self.batches or range(len(each))], params, self)

    def letters(self, tree: Tree, latex: bool) -> Letters:
        """The printed names of a tree's vertices: ⟨Hₖ gₖ⟩ is the mean of a product over batches.

        g and H without an index are those of the mean loss.
        """
        if MARKED not in rooted.colours(rooted.intern(tree)):
            return Letters(latex)
        return _BatchLetters(tree, self.ordered, latex)


def number_of_batches(value: Any, argument: str = "num_batches") -> sympy.Expr:
    """The number of batches as an exact sympy number or symbol.

    Raises:
      ValueError: unless it is an integer of at least 1 or a symbol.
    """
    whole = not isinstance(value, bool | float) and "float" not in str(getattr(value, "dtype", ""))
    m = exact(value, argument) if whole else sympy.nan
    if not (m.is_Symbol or (m.is_Integer and m >= 1)):
        raise ValueError(
            f"{argument} must be an integer of at least 1 or a sympy symbol; got {value!r}."
        )
    return m


class _LossesOfBatches(Losses):
    """The losses of the batches in the order of the epoch, in closed form."""

    def __init__(self, each: Sequence[sympy.Expr], params: Any, colouring: Batches):
        super().__init__(sympy.Add(*each) / len(each), symbols(params))
        self._each, self._ordered = each, colouring.ordered

    def over(self, t: int, batch: int | None) -> tuple[sympy.Expr, Sequence[int | None]]:
        """The factor and the batch indices over which the root of a tree is summed.

        These are all batches, those before the parent's, or the one batch that is shared.
        """
        one, m = sympy.Integer(1), len(self._each)
        if self._ordered:
            before = batch if rooted.colour(t) == MARKED and batch is not None else m
            return one / m, range(before)
        if MARKED not in rooted.colours(t):
            return one, (None,)
        if batch is not None:
            return one, (batch,)
        return one / m, range(m)

    def vertex(self, colour: int, batch: int | None) -> sympy.Expr:
        """The loss of this batch, or the mean loss for a vertex without one."""
        if batch is None or (colour == FREE and not self._ordered):
            return self.loss
        return self._each[batch]


class _BatchLetters(Letters):
    """The indices of compared or shared batches in print, and the conditions j<k on them."""

    def __init__(self, tree: Tree, ordered: bool, latex: bool):
        super().__init__(latex)
        self._conditions: list[str] = []
        if ordered:
            named = self._compared(tree, None, iter(_LETTERS))
        else:
            named = ("k" * c for c in rooted.colours(rooted.intern(tree)))
        self._names = iter(list(named))
        conditions = ", ".join(sorted(self._conditions))
        between = (r";\," if latex else "; ") if conditions else ""
        self.before = r"\langle " if latex else "⟨"
        self.after = between + conditions + (r" \rangle" if latex else "⟩")

    def index(self, tree: Tree) -> str:
        """The index of the next vertex in preorder."""
        del tree
        letter = next(self._names)
        if not letter:
            return ""
        return f"_{letter}" if self.latex else _SUBSCRIPTS[letter]

    def _compared(self, tree: Tree, parent: str | None, letters: Iterator[str]) -> Iterator[str]:
        """The index letter of each vertex in preorder, empty where its batch is not compared."""
        compared = parent is not None or any(child[0] == MARKED for child in tree[1:])
        own = next(letters) if compared else ""
        if parent is not None:
            self._conditions.append(f"{own}<{parent}")
        yield own
        for child in tree[1:]:
            yield from self._compared(child, own if child[0] == MARKED else None, letters)
