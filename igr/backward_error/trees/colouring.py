"""What the vertices of an equation's trees stand for: a loss, a player or a batch.

Equation, certificate, loss, closed form and printer are written once, over coloured trees. A
colouring supplies what they cannot know: which losses the vertices are derivatives of and over
which batches they are summed, which trees are rootings of one free tree, and how they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import sympy

from igr.backward_error.algebra.taylor import exact
from igr.backward_error.trees import rooted
from igr.backward_error.trees.rooted import PLAIN, Tree

Row = tuple[str, int | None]  # the left side of an equation, and the colour of its trees' roots


class Colouring:
    """What the vertices of the trees stand for; this base class: one loss and its gradient."""

    palette: ClassVar[tuple[int, ...]] = (PLAIN,)
    shape: ClassVar[str] = (
        "a tree must be the nested tuple of its children, such as () for one vertex"
    )
    powers: ClassVar[bool] = True  # whether H H is printed as H²

    @property
    def free_symbols(self) -> set[Any]:
        """The set of free symbols in the colouring."""
        return set()

    def subs(self, values: Mapping[sympy.Symbol, Any]) -> Colouring:
        """The same colouring with these values in place of symbols."""
        del values
        return self

    def no_gradient(self) -> str | None:
        """The reason why the field is never a gradient, or None if it may be one."""
        return None

    def representative(self, t: int) -> int | None:
        """The rooting that stands for the free tree of `t`; None if no gradient has such trees."""
        return rooted.rooted_alike(t)[0]

    def vanishes(self, t: int) -> bool:
        """Whether the differential of a tree is zero for every choice of losses."""
        del t
        return False

    def read(self, tree: Tree) -> int:
        """The integer of a tree given as a nested tuple.

        Raises:
          TypeError: if it is no tree of these colours.
        """
        t = rooted.intern(tree)
        if not set(rooted.colours(t)) <= set(self.palette):
            raise TypeError(f"{self.shape}; got {tree!r}.")
        return t

    # Closed form

    def losses(self, loss: Any, params: Any, name: str) -> Losses:
        """The losses that the vertices are derivatives of, in closed form.

        `name` is the method's name in error messages.
        """
        del name
        return Losses(exact(loss, "loss"), symbols(params))

    # Print

    def rows(self, latex: bool) -> list[Row]:
        """The left sides of the equation, each with the root colour of its terms (None for all)."""
        return [(r"\dot\theta" if latex else "θ'", None)]

    def letters(self, tree: Tree, latex: bool) -> Letters:
        """The printed names of a tree's vertices, in preorder."""
        del tree
        return Letters(latex)

    def meaning(self, latex: bool) -> list[str]:
        """Remarks on what E or g stands for, where it is not the loss itself or its gradient."""
        del latex
        return []


class Losses:
    """The losses that vertices are derivatives of, in closed form; this base class: one loss.

    Attributes:
      params: the symbols of all parameters.
      tidy: how a component of the closed form is simplified.
    """

    tidy: Callable[[sympy.Expr], sympy.Expr] = staticmethod(sympy.factor)

    def __init__(self, loss: sympy.Expr, params: tuple[sympy.Symbol, ...]):
        self.loss, self.params = loss, params

    def over(self, t: int, batch: int | None) -> tuple[sympy.Expr, Sequence[int | None]]:
        """The factor and the batches over which a tree is summed, given its parent's batch."""
        del t, batch
        return sympy.Integer(1), (None,)

    def vertex(self, colour: int, batch: int | None) -> sympy.Expr | list[sympy.Expr]:
        """The loss that a vertex is a derivative of, or the components of g if it has none."""
        del colour, batch
        return self.loss

    def moved(self, colour: int) -> Sequence[sympy.Symbol]:
        """The parameters that descend on the loss of this colour."""
        del colour
        return self.params


class Letters:
    """The printed names of a tree's vertices for one loss: g, H, ∇³E."""

    before = after = ""

    def __init__(self, latex: bool):
        self.latex = latex

    def index(self, tree: Tree) -> str:
        """The text of the index of the next vertex in preorder."""
        del tree
        return ""

    def operator(self, tree: Tree, degree: int) -> str:
        """The printed derivative of the given degree at the root of a tree."""
        index = self.index(tree)
        if degree <= 2:
            return ("E", "g", "H")[degree] + index
        nabla = rf"\nabla^{{{degree}}} E" if self.latex else f"∇{superscript(degree)}E"
        return nabla + index


_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def superscript(number: int) -> str:
    """The number in superscript digits."""
    return str(number).translate(_SUPERSCRIPTS)


def symbols(params: Any, argument: str = "params") -> tuple[sympy.Symbol, ...]:
    """The parameters as a tuple of sympy symbols.

    Raises:
      TypeError: if they are no sequence of symbols.
      ValueError: if a symbol stands twice.
    """
    found = tuple(params) if isinstance(params, Sequence) and not isinstance(params, str) else ()
    if not found or not all(isinstance(p, sympy.Symbol) for p in found):
        raise TypeError(
            f"{argument} must be a sequence of one or more sympy symbols; got {params!r}."
        )
    if len(set(found)) < len(found):
        raise ValueError(f"each of {argument} must stand once; got {params!r}.")
    return found
