"""The term algebra: elementwise expressions in the derivatives of a loss along vectors.

A vector is a sympy expression, read elementwise, in the parameters, the gradient g, kept states,
and *contractions* L^(k)[a_2, .., a_k]: the k-th derivative tensor of the loss with k - 1 of its
indices contracted with vectors that are expressions of the same kind. A contraction stands in the
expression as a symbol of its own, so that sympy adds and multiplies elementwise; the algebra
remembers what it stands for, and two equal contractions are one symbol.

A field acts as a derivation: D theta = F, D g = L^(2)[F], the product and chain rules on
expressions, and D L^(k)[a, ..] = L^(k+1)[F, a, ..] + L^(k)[D a, ..] + .. . A contraction is linear
in each vector, so that for linear methods every vector ends as a combination of elementary
differentials of trees.

A method that looks at the length of its gradient needs numbers made of vectors besides: inner
products <a, b>, which stand in expressions as symbols too, and D <a, b> = <D a, b> + <a, D b>.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import sympy

# Not declared real: sqrt(g^2) must not become |g|, whose second derivative is a delta function.
THETA = sympy.Symbol("theta")
G = sympy.Symbol("g")
T = sympy.Symbol("t", positive=True)  # time: n h after n steps


class Contraction(NamedTuple):
    """L^(k)[vectors]: the k-th derivative tensor of the loss, contracted with k - 1 vectors.

    Attributes:
      vectors: the k - 1 expressions it is contracted with, in a fixed order.
    """

    vectors: tuple[sympy.Expr, ...]

    @property
    def degree(self) -> int:
        """k, the order of the derivative tensor."""
        return len(self.vectors) + 1


class Algebra:
    """The table of contractions and inner products met so far, and the derivative along a field.

    Args:
      states: the symbols of vectors that are kept beside theta.
    """

    def __init__(self, states: tuple[sympy.Symbol, ...] = ()):
        self.states = states
        self.contractions: dict[sympy.Symbol, Contraction] = {}
        self.products: dict[sympy.Symbol, tuple[sympy.Expr, sympy.Expr]] = {}
        self._symbols: dict[tuple[sympy.Expr, ...], sympy.Symbol] = {}
        self._pairs: dict[tuple[sympy.Expr, ...], sympy.Symbol] = {}

    def is_scalar(self, expression: sympy.Expr) -> bool:
        """Whether an expression has the same value at every coordinate of the parameters."""
        vectors = {THETA, G, T, *self.states, *self.contractions}
        return not (expression.free_symbols & vectors)

    def contract(self, vectors: tuple[sympy.Expr, ...]) -> sympy.Expr:
        """The expression of L^(k)[vectors], expanded by linearity in each vector."""
        for i, vector in enumerate(vectors):
            parts = self._linear_parts(vector)
            if parts is not None:
                return sympy.Add(
                    *(
                        c * self.contract((*vectors[:i], atom, *vectors[i + 1 :]))
                        for c, atom in parts
                    )
                )
        key = tuple(sorted(vectors, key=sympy.default_sort_key))
        if key not in self._symbols:
            symbol = sympy.Symbol(f"L{len(self._symbols)}")
            self._symbols[key] = symbol
            self.contractions[symbol] = Contraction(key)
        return self._symbols[key]

    def inner(self, a: sympy.Expr, b: sympy.Expr) -> sympy.Expr:
        """The expression of the inner product <a, b>, expanded by linearity in both vectors."""
        for left, right in ((a, b), (b, a)):
            parts = self._linear_parts(left)
            if parts is not None:
                return sympy.Add(*(c * self.inner(atom, right) for c, atom in parts))
        key = tuple(sorted((a, b), key=sympy.default_sort_key))
        if key not in self._pairs:
            symbol = sympy.Symbol(f"S{len(self._pairs)}", positive=a == b)
            self._pairs[key] = symbol
            self.products[symbol] = key
        return self._pairs[key]

    def derivative(
        self,
        expression: sympy.Expr,
        field: sympy.Expr,
        states: Mapping[sympy.Symbol, sympy.Expr],
        first: bool = True,
    ) -> sympy.Expr:
        """The derivative of an expression along theta' = field and y' = states[y].

        The time t has derivative one. Where a field is a sum of parts, that is counted for the part
        with `first` true alone.
        """
        total = sympy.Integer(0)
        for atom in sorted(expression.free_symbols, key=str):
            if atom == THETA:
                along = field
            elif atom == G:
                along = self.contract((field,))
            elif atom == T:
                along = sympy.Integer(1) if first else sympy.Integer(0)
            elif atom in states:
                along = states[atom]
            elif atom in self.contractions:
                along = self._moved(self.contractions[atom], field, states, first)
            elif atom in self.products:
                a, b = self.products[atom]
                along = self.inner(self.derivative(a, field, states, first), b)
                along += self.inner(a, self.derivative(b, field, states, first))
            else:
                continue
            if along != 0:
                total += sympy.diff(expression, atom) * along
        return self.tidy(total)

    def tidy(self, expression: sympy.Expr) -> sympy.Expr:
        """An equal expression with the coefficients of each contraction collected.

        Roots and denominators stay as they are: multiplied out they would grow, and lose the small
        number in them to rounding when they are evaluated.
        """
        hidden: dict[sympy.Expr, sympy.Dummy] = {}
        expanded = sympy.expand(_hide(expression, hidden))
        shown = {dummy: base for base, dummy in hidden.items()}
        present = sorted(expanded.free_symbols & set(self.contractions), key=str)
        if not present:
            return sympy.factor_terms(expanded).xreplace(shown)
        collected = sympy.collect(expanded, present, evaluate=False)
        return sympy.Add(
            *(sympy.factor_terms(c).xreplace(shown) * atom for atom, c in collected.items())
        )

    def _moved(
        self,
        contraction: Contraction,
        field: sympy.Expr,
        states: Mapping[sympy.Symbol, sympy.Expr],
        first: bool,
    ) -> sympy.Expr:
        """The derivative of a contraction along the fields, by the product rule.

        D L^(k)[a, ..] = L^(k+1)[F, a, ..] + L^(k)[D a, ..] + ..
        """
        vectors = contraction.vectors
        total = self.contract((*vectors, field))
        for i, vector in enumerate(vectors):
            moved = self.derivative(vector, field, states, first)
            total += self.contract((*vectors[:i], moved, *vectors[i + 1 :]))
        return total

    def _linear_parts(self, vector: sympy.Expr) -> list[tuple[sympy.Expr, sympy.Expr]] | None:
        """A vector as a sum of numbers times vectors, or None if it is not to be taken apart.

        A sum is taken apart only into numbers times single contractions, the gradient or theta: an
        elementwise product stays one direction to differentiate along.
        """
        if vector == 0:
            return []
        parts = []
        for term in sympy.Add.make_args(sympy.expand(vector)):
            scalars = [f for f in sympy.Mul.make_args(term) if self.is_scalar(f)]
            rest = sympy.Mul(*(f for f in sympy.Mul.make_args(term) if not self.is_scalar(f)))
            parts.append((sympy.Mul(*scalars), rest))
        pure = all(atom in (G, THETA) or atom in self.contractions for _, atom in parts)
        if pure:
            alone = len(parts) == 1 and parts[0][0] == 1
            return None if alone else parts
        number, rest = sympy.factor_terms(vector).as_coeff_Mul()
        return None if number == 1 else [(number, rest)]


def _hide(expression: sympy.Expr, hidden: dict[sympy.Expr, sympy.Dummy]) -> sympy.Expr:
    """The expression with a symbol for every sum under a root or in a denominator.

    The symbols are added to `hidden`, by the sum they stand for.

    With s for the 1 - e^(-lambda t) of a bias correction, e^(-lambda t) elsewhere is 1 - s.
    """
    for power in expression.atoms(sympy.Pow):
        if power.base.is_Add and not (power.exp.is_Integer and power.exp.is_positive):
            hidden.setdefault(power.base, sympy.Dummy())
    fading = {}  # exponents a with a hidden 1 - e^a
    for base in hidden:
        rest = 1 - base
        if isinstance(rest, sympy.exp):
            fading[rest.args[0]] = base

    def replaced(e: sympy.Expr) -> sympy.Expr:
        if e.is_Pow and e.base in hidden and not (e.exp.is_Integer and e.exp.is_positive):
            return hidden[e.base] ** e.exp
        if isinstance(e, sympy.exp):
            for exponent, base in fading.items():
                times = e.args[0] / exponent
                if times.is_Integer:
                    return (1 - hidden[base]) ** times
        return e if e.is_Atom else e.func(*map(replaced, e.args))

    return replaced(expression)
