"""SGD with minibatches, drawn without replacement in epochs or with replacement at every step.

With L = mean_k L_k over m batches, an epoch is m steps theta <- theta - h grad L_k and takes the
time m h. In a fixed order its iterates lie on the flow of a modified equation, to every order. In
random order their *mean* does, up to h^2: the mean of an epoch is a map of its starting point, and
its logarithm is the equation. From h^3 on the iterates' spread, itself of order h^3 after a time
of order one, moves the mean of the epochs that follow, and no equation in the mean alone is right.

Time m h for the step h makes the field 1/m of the logarithm of an epoch in sums over batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sympy

from igr.backward_error.algebra.naming import Name
from igr.backward_error.algebra.orders import check_order
from igr.backward_error.algebra.taylor import Z, exact, fraction_field
from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.methods.memoryless import Memoryless
from igr.backward_error.protocols import Memory
from igr.backward_error.stochastic import MOST, Diffusion, StochasticEquation
from igr.backward_error.stochastic import batch_size as checked_batch_size
from igr.backward_error.trees.batches import Batches, number_of_batches
from igr.backward_error.trees.epochs import epoch_field
from igr.backward_error.trees.equation import ModifiedEquation
from igr.checks import Count

MOST_RESHUFFLED = 2


@dataclass(frozen=True)
class EpochMethod(Memoryless):
    """SGD in epochs: every epoch takes each of m batches exactly once.

    Attributes:
      name: how the method calls itself in print and in errors.
      num_batches: m, a positive integer or a symbol.
      order: the fixed order of the batches, empty if m is a symbol; None if each epoch draws a
        new random order.
      remembers: the momentum, as a linear method, for batches in random order; None without.
    """

    name: str
    num_batches: sympy.Expr
    order: tuple[int, ...] | None
    remembers: LinearMethod | None = None

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free symbols, sorted by name: m if it is a symbol, and those of the momentum."""
        of_memory = () if self.remembers is None else self.remembers.parameters
        return tuple(sorted(self.num_batches.free_symbols.union(of_memory), key=str))

    def memory(self) -> Memory:
        """How far back gradients enter a step, as a `Memory`."""
        return Memory() if self.remembers is None else self.remembers.memory()

    def equation(self, order: Count) -> ModifiedEquation:
        """The modified equation that the iterates after whole epochs follow, up to h^order.

        Raises:
          ValueError: for an order above 2 of reshuffled SGD, or above 1 with momentum.
        """
        order = check_order(order)
        over = Batches(self.num_batches, self.order)
        if self.remembers is not None:
            return self._with_memory(self.remembers, order, over)
        if not over.ordered and order > MOST_RESHUFFLED:
            raise ValueError(
                f"the mean of {self.name} follows an equation of its own up to "
                f"h^{MOST_RESHUFFLED}; got order {order}: from h^3 on it depends on the spread of "
                "the iterates."
            )
        sums = epoch_field(order + 1, over.ordered)
        kept = [t for t in sums if not over.vanishes(t)]
        means = [sympy.QQ.to_sympy(sums[t]) * self.num_batches ** (over.means(t) - 1) for t in kept]
        domain, weights = fraction_field(means)
        by_tree = dict(zip(kept, weights, strict=True))
        return ModifiedEquation(self.name, order, by_tree, domain, over)

    def _with_memory(self, memory: LinearMethod, order: int, over: Batches) -> ModifiedEquation:
        """The modified equation of reshuffled SGD with momentum, to h^0 or h^1.

        It is that of the momentum on the mean loss and, at h^1, a term of the covariance of two
        batches of one epoch. Let w_k be the weights of the memory and A_s = w_0 + .. + w_(s-1),
        by which the gradient of s steps ago has moved params by now. Two batches of one epoch
        have -1/(m - 1) times the covariance of one with itself; of the m steps of an epoch m - s
        have a batch of the same epoch s steps before. Batches of different epochs have none.
        """
        if order > 1:
            raise ValueError(
                f"the mean of {self.name} is known up to h^1; got order {order}: beyond, the "
                "memory carries the order of the batches from one epoch into the next."
            )
        m = int(self.num_batches)
        b, a = memory.recurrence
        weights: list[sympy.Expr] = []
        for k in range(m - 1):
            earlier = sympy.Add(*(a[i] * weights[k - i] for i in range(1, min(k, len(a) - 1) + 1)))
            weights.append((b[k] if k < len(b) else sympy.Integer(0)) - earlier)
        plain = memory.equation(1)
        total = plain.coefficient(())
        moved = sympy.Add(
            *(sympy.Add(*weights[:s]) * sympy.Rational(m - s, m * (m - 1)) for s in range(1, m))
        )
        terms = {
            (0,): total,
            (0, (0,)): plain.coefficient(((),)) + total * moved,
            (1, (1,)): -total * moved,
        }
        found = {over.read(t): sympy.factor(c) for t, c in terms.items()}
        found = {t: c for t, c in found.items() if c != 0}
        domain, values = fraction_field(list(found.values()))
        by_tree = dict(zip(found, values, strict=True))
        return ModifiedEquation(self.name, 1, by_tree, domain, over).truncate(order)


def reshuffled_sgd(num_batches: Any, *, momentum: Any = 0, nesterov: bool = False) -> EpochMethod:
    """SGD in epochs of `num_batches` steps that take the batches in a new random order each time.

    Its equation is that of the mean iterate after each epoch, at times n m h, up to h^2. At h^1 it
    is the flow of L + h/(4 m) sum_k |grad L_k|^2 (Smith, Dherin, Barrett and De 2021, On the origin
    of implicit regularization in stochastic gradient descent, equation 1).

    Args:
      num_batches: m, an integer of at least 1, or a sympy symbol.
      momentum: as in `optax.sgd`, a number in [0, 1) or a symbol. With momentum m must be a number
        and the equation goes up to h^1, where the batches of one epoch, being different, add a
        term to that of the mean loss. Batches drawn with replacement have no such term.
      nesterov: as in `optax.sgd`.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      ValueError: if `num_batches` is not a positive integer or a symbol, or with momentum if it is
        a symbol.

    >>> from sympy import Symbol
    >>> from igr.backward_error import modified_equation
    >>> eq = modified_equation(reshuffled_sgd(Symbol("m")), order=1)
    >>> print(eq)
    θ' = -g - h/2 ⟨Hₖ gₖ⟩ + O(h²)
    >>> print(eq.modified_loss())
    E + h/4 ⟨|gₖ|²⟩ + O(h²)
    >>> eq.coefficient((1, (1,)))
    -1/2
    >>> print(modified_equation(reshuffled_sgd(2, momentum=0.5), order=1))
    θ' = -2 g - h (5 H g + ⟨Hₖ gₖ⟩) + O(h²)
    """
    m = number_of_batches(num_batches)
    settings: dict[str, Any] = {"num_batches": m}
    if momentum == 0:
        return EpochMethod(Name("reshuffled SGD", settings), m, None)
    if not m.is_Integer:
        raise ValueError(f"with momentum num_batches must be an integer; got {num_batches!r}.")
    beta = exact(momentum, "momentum")
    if beta.is_number and not (beta.is_real and 0 <= beta < 1):
        raise ValueError(
            f"momentum must be a number from 0 up to but not including 1; got {momentum!r}."
        )
    settings["momentum"] = beta
    memory = 1 / (1 - beta * sympy.exp(-Z))
    transfer = 1 + beta * memory if nesterov else memory
    name = Name("reshuffled SGD, Nesterov" if nesterov else "reshuffled SGD", settings)
    return EpochMethod(name, m, None, LinearMethod(name, transfer))


def cyclic_sgd(batches: Any) -> EpochMethod:
    """SGD in epochs that all take the batches in the same fixed order.

    The flow of its equation passes through the iterate after each epoch, at times n m h. At h^1 it
    depends on the order: F1 = (1/m) sum_{j<k} H_k g_j - (m/2) H g, which is no gradient.

    Args:
      batches: their number m, an integer or a sympy symbol, for the order 0, 1, .., m - 1; or
        their order, a sequence with each of 0, 1, .., m - 1 once.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      ValueError: if `batches` is not a positive integer, a symbol or a permutation.

    >>> from sympy import Symbol
    >>> from igr.backward_error import modified_equation
    >>> print(modified_equation(cyclic_sgd(Symbol("m")), order=1))
    θ' = -g - h (m/2 H g - m ⟨Hₖ gⱼ; j<k⟩) + O(h²)
    """
    if isinstance(batches, Sequence) and not isinstance(batches, str):
        if sorted(batches) != list(range(len(batches))) or not batches:
            raise ValueError(
                f"batches must be a number of batches or their order, a permutation of 0 .. m - 1; "
                f"got {batches!r}."
            )
        order = tuple(int(k) for k in batches)
        return EpochMethod(f"cyclic SGD (batches {order})", sympy.Integer(len(order)), order)
    m = number_of_batches(batches, "batches")
    order = tuple(range(int(m))) if m.is_Integer else ()
    return EpochMethod(Name("cyclic SGD", {"batches": m}), m, order)


@dataclass(frozen=True)
class SampledMethod(Memoryless):
    """SGD whose every step takes the mean gradient of B examples drawn with replacement.

    Attributes:
      name: how the method calls itself in print and in errors.
      batch_size: B, an integer of at least 1 or a symbol.
    """

    name: str
    batch_size: sympy.Expr

    @property
    def parameters(self) -> tuple[sympy.Symbol, ...]:
        """The free symbols as a tuple: B if it is a symbol, otherwise none."""
        return tuple(self.batch_size.free_symbols)

    def equation(self, order: Count) -> StochasticEquation:
        """The stochastic modified equation, with a drift up to h^order.

        Raises:
          ValueError: for an order above 1.
        """
        order = check_order(order)
        if order > MOST:
            raise ValueError(
                f"{self.name} follows a stochastic equation of order 0 or 1 (weak order 1 or 2); "
                f"got order {order}: beyond, the third moments of its gradients show, and no "
                "diffusion has those."
            )
        # The mean of one step is a step of gradient descent, and the covariance does not meet it
        # before h^3: the drift is the field of gradient descent.
        drift = LinearMethod("gradient descent", sympy.Integer(1)).equation(order)
        return StochasticEquation(self.name, drift, Diffusion(self.batch_size))


def sgd_with_replacement(batch_size: Any = 1) -> SampledMethod:
    """SGD whose every step draws `batch_size` examples with replacement.

    Its equation is stochastic: `igr.flows.stochastic_field` compiles it for diffrax,
    `igr.flows.moments_field` to an equation for mean and covariance. Order 0 has weak order 1,
    order 1 has weak order 2.

    Args:
      batch_size: B, an integer of at least 1, or a sympy symbol.

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      ValueError: if `batch_size` is not a positive integer or a symbol.

    >>> from igr.backward_error import modified_equation
    >>> print(modified_equation(sgd_with_replacement(8), order=1))
    dθ = (-g - h/2 H g) dt + √(h Σ/8) dW, weak order 2
    """
    size = checked_batch_size(batch_size)
    return SampledMethod(Name("SGD with replacement", {"batch_size": size}), size)
