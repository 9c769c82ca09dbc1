"""What the vertices of an equation's trees stand for: all that tells one colouring from another.

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
    """One loss and its gradient, unless a subclass says otherwise."""

    palette: ClassVar[tuple[int, ...]] = (PLAIN,)
    shape: ClassVar[str] = (
        "a tree must be the nested tuple of its children, such as () for one vertex"
    )
    powers: ClassVar[bool] = True  # whether H H is printed as H²

    @property
    def free_symbols(self) -> set[Any]:
        """The symbols in it."""
        return set()

    def subs(self, values: Mapping[sympy.Symbol, Any]) -> Colouring:
        """With values for symbols."""
        del values
        return self

    def no_gradient(self) -> str | None:
        """Why the field is never a gradient, if so."""
        return None

    def representative(self, t: int) -> int | None:
        """The rooting that stands for the free tree; None for a tree in no gradient."""
        return rooted.rooted_alike(t)[0]

    def vanishes(self, t: int) -> bool:
        """Whether the differentials of a tree are zero whatever the losses."""
        del t
        return False

    def read(self, tree: Tree) -> int:
        """The integer of a nested tuple; raises `TypeError` for a tree of other colours."""
        t = rooted.intern(tree)
        if not set(rooted.colours(t)) <= set(self.palette):
            raise TypeError(f"{self.shape}; got {tree!r}.")
        return t

    # Closed form

    def losses(self, loss: Any, params: Any, name: str) -> Losses:
        """What a closed form is made of; `name` is what errors call the method."""
        del name
        return Losses(exact(loss, "loss"), symbols(params))

    # Print

    def rows(self, latex: bool) -> list[Row]:
        """The left sides, each with the colour of the roots of its terms (None for all)."""
        return [(r"\dot\theta" if latex else "θ'", None)]

    def letters(self, tree: Tree, latex: bool) -> Letters:
        """What the vertices are called, in preorder."""
        del tree
        return Letters(latex)

    def meaning(self, latex: bool) -> list[str]:
        """What E, or g, stands for where it is not the loss itself and its gradient."""
        del latex
        return []


class Losses:
    """The losses behind the vertices, in closed form: of one loss, here.

    Attributes:
      params: the symbols of all parameters.
      tidy: how a component of the closed form is simplified.
    """

    tidy: Callable[[sympy.Expr], sympy.Expr] = staticmethod(sympy.factor)

    def __init__(self, loss: sympy.Expr, params: tuple[sympy.Symbol, ...]):
        self.loss, self.params = loss, params

    def over(self, t: int, batch: int | None) -> tuple[sympy.Expr, Sequence[int | None]]:
        """The batches a tree is summed over, under a vertex of a batch, and the factor before."""
        del t, batch
        return sympy.Integer(1), (None,)

    def vertex(self, colour: int, batch: int | None) -> sympy.Expr | list[sympy.Expr]:
        """The loss whose derivatives a vertex is, or its gradient where that is of no loss."""
        del colour, batch
        return self.loss

    def moved(self, colour: int) -> Sequence[sympy.Symbol]:
        """The parameters that descend on this loss."""
        del colour
        return self.params


class Letters:
    """Names of vertices for the printer: g, H, nabla^3 E."""

    before = after = ""

    def __init__(self, latex: bool):
        self.latex = latex

    def index(self, tree: Tree) -> str:
        """The index of the next vertex in preorder."""
        del tree
        return ""

    def operator(self, tree: Tree, degree: int) -> str:
        """The derivative of that degree at the root of a tree."""
        index = self.index(tree)
        if degree <= 2:
            return ("E", "g", "H")[degree] + index
        nabla = rf"\nabla^{{{degree}}} E" if self.latex else f"∇{superscript(degree)}E"
        return nabla + index


_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def superscript(number: int) -> str:
    """The digits raised."""
    return str(number).translate(_SUPERSCRIPTS)


def symbols(params: Any, argument: str = "params") -> tuple[sympy.Symbol, ...]:
    """Parameters as a tuple; raises unless they are different symbols."""
    found = tuple(params) if isinstance(params, Sequence) and not isinstance(params, str) else ()
    if not found or not all(isinstance(p, sympy.Symbol) for p in found):
        raise TypeError(
            f"{argument} must be a sequence of one or more sympy symbols; got {params!r}."
        )
    if len(set(found)) < len(found):
        raise ValueError(f"each of {argument} must stand once; got {params!r}.")
    return found
