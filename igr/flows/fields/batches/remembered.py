"""Covariances between a memory and the steps of params, by how the batches are drawn.

rho_s is the covariance of the gradients of two batches s steps apart, over the variance of one.
Drawn anew for every step, rho_0 = 1 alone; each once an epoch of m, of which m - s steps have a
partner s steps on that is another batch,

    rho_s = -(m - s)/(m (m - 1)) for 0 < s < m, which with both signs of s sum up to -rho_0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from igr.backward_error.algebra.taylor import taylor_coefficients
from igr.backward_error.methods.linear import LinearMethod

_LEFT = 1e-17  # of a memory where its weights are cut off


@dataclass(frozen=True)
class Drawn:
    """How batches are drawn, as the correlations of batches s steps apart.

    Attributes:
      rho: rho_0, rho_1, ..
    """

    rho: tuple[float, ...]

    @property
    def own(self) -> float:
        """The sum of rho_s over s > 0: the correlation of a batch with all later steps together."""
        return sum(self.rho[1:], 0.0)

    def after(self, k: int) -> float:
        """The sum of rho_|j-k| over j > 0."""
        s = len(self.rho)
        return sum((self.rho[abs(j - k)] for j in range(max(1, k - s + 1), k + s)), 0.0)


def reshuffled(m: int) -> Drawn:
    """The correlations of m batches that each come once an epoch, in random order.

    >>> reshuffled(2).rho, reshuffled(2).own
    ((1.0, -0.5), -0.5)
    """
    return Drawn((1.0, *(-(m - s) / (m * (m - 1)) for s in range(1, m))))


WITH_REPLACEMENT = Drawn((1.0,))


@dataclass(frozen=True)
class Weights:
    """The weights w_0, w_1, .. of a linear memory.

    Attributes:
      each: the weights up to where they have faded.
      total: their sum W(0).
      first: W'(0) = -sum_k k w_k.
    """

    each: np.ndarray
    total: float
    first: float

    def now(self, drawn: Drawn) -> float:
        """The sum of w_s rho_s: the weight of a step's own batch in what the channel holds."""
        return float(np.dot(self.each[: len(drawn.rho)], drawn.rho[: len(self.each)]))

    def moved(self, drawn: Drawn) -> float:
        """The sum over s > 0 of rho_s (w_0 + .. + w_(s-1)): the move that later steps see."""
        sums = np.cumsum(self.each)
        return sum((r * sums[min(s, len(sums)) - 1] for s, r in enumerate(drawn.rho) if s), 0.0)

    def met(self, drawn: Drawn) -> float:
        """The sum of w_s rho_|j-s| over s and j > 0: the weight of batches that moved params."""
        return float(np.dot(self.each, _after(drawn, len(self.each))))

    def shared(self, other: Weights, drawn: Drawn) -> float:
        """The sum of w_s w'_l rho_|j+l-s| over s, l and j > 0, with w' the weights of `other`."""
        found, top = 0.0, len(drawn.rho) - 1
        before = np.concatenate([[0.0], np.cumsum(other.each)])
        for s, w in enumerate(self.each):
            near = range(max(0, s - top), min(len(other.each), s + top + 1))
            found += w * sum(other.each[x] * drawn.after(s - x) for x in near)
            settled = min(max(s - top, 0), len(other.each))
            found += w * before[settled] * drawn.after(top + 1)
        return float(found)


def weights(memory: LinearMethod) -> Weights:
    """The weights of a linear memory, up to where they have faded.

    >>> from igr.backward_error.methods import heavy_ball
    >>> found = weights(heavy_ball(0.5))
    >>> found.total, found.first, len(found.each)
    (2.0, -2.0, 59)
    """
    b, a = memory.recurrence
    held = memory.memory()
    count = held.steps + 1
    if held.fading:
        count += math.ceil(math.log(_LEFT) / math.log(held.fading))
    numerator, denominator = [float(x) for x in b], [float(x) for x in a]
    found: list[float] = []
    for k in range(max(count, len(numerator))):
        earlier = sum(
            denominator[i] * found[k - i] for i in range(1, min(k, len(denominator) - 1) + 1)
        )
        found.append((numerator[k] if k < len(numerator) else 0.0) - earlier)
    total, first = taylor_coefficients(memory.transfer, 2)
    return Weights(np.array(found), float(total), float(first))


def _after(drawn: Drawn, count: int) -> Sequence[float]:
    top = len(drawn.rho)
    return [drawn.after(k) for k in range(min(count, top))] + [drawn.after(top)] * (count - top)
