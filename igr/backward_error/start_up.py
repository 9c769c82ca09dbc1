"""The first steps of a method with memory, before the start-up is over.

From a memory of zeros step n has the weights w_0, .., w_n alone. It still is the flow of a field
F_n over the time h, one field for each step, with D the derivative along a field:

    M_n = sum_i b_i exp(-h D_(n-1)) .. exp(-h D_(n-i)) f - sum_{i>0} a_i (..) M_(n-i),
    exp(h F_n) = 1 + h M_n,

every direction of the past pulled back to theta[n] by the fields that led there. F_n tends to the
field F of the modified equation as fast as the memory fades, and the steps together move the start
by a *shift*: the flow of F from sigma(theta[0]) meets the run once the memory has filled, where

    sigma_n = exp(-h F) sigma_(n+1) exp(h F_n),      sigma = sigma_0.

Both are series over trees, found in floating point.
"""

from __future__ import annotations

from igr.backward_error import trees
from igr.backward_error.methods.linear import LinearMethod
from igr.backward_error.stability import require_numbers
from igr.backward_error.trees.series import Series, exponential, logarithm, transported
from igr.checks import Number

Weights = dict[int, float]


def starting_fields(method: LinearMethod, order: int, steps: int) -> list[Weights]:
    """The fields F_0, .., F_(steps-1) whose flows over the time h are the method's first steps.

    Args:
      method: without open symbols, weight decay or a SAM ascent.
      order: the highest power of h kept.
      steps: how many.

    Returns:
      For each step the weights b(t) over f = -grad E, as of a `ModifiedEquation`.

    Raises:
      ValueError: if the method has open symbols, no finite memory, weight decay or a SAM ascent.

    Heavy ball starts as gradient descent and is 1/(1 - beta) times as fast in the end:

    >>> from igr.backward_error import methods
    >>> fields = starting_fields(methods.heavy_ball(0.5), order=0, steps=4)
    >>> [field[trees.LEAF] for field in fields]
    [1.0, 1.5, 1.75, 1.875]
    """
    b, a = _recurrence(method)
    vertices = order + 1
    f: Weights = {trees.LEAF: 1.0}
    lags = len(b) - 1
    memory: list[Weights] = [{} for _ in range(lags + 1)]
    fields = []
    for _ in range(steps):
        direction = _sum((b[0], f), (1.0, memory[0]))
        field = logarithm(direction, vertices)
        fields.append(field)
        # A direction at the last point, as a function of the point that the field led to.
        back = {t: -w for t, w in field.items()}
        memory = [
            transported(
                _sum((1.0, memory[i + 1]), (b[i + 1], f), (-a[i + 1], direction)), back, vertices
            )
            for i in range(lags)
        ] + [{}]
    return fields


def initial_shift(method: LinearMethod, order: int, steps: int) -> Weights:
    """The series of sigma(theta) - theta, from where the flow meets the run after its start-up.

    Args:
      method: as in `starting_fields`.
      order: the highest power of h kept in the fields.
      steps: the number of steps after which the start-up is taken to be over.

    Returns:
      The weights s(t) with sigma = theta + sum_t h^|t| s(t)/sigma(t) F(t) over f = -grad E.

    Heavy ball lags behind by b/(1-b)^2 gradients, which at b = 1/2 is 2:

    >>> from igr.backward_error import methods
    >>> round(initial_shift(methods.heavy_ball(0.5), order=0, steps=60)[trees.LEAF], 12)
    -2.0
    """
    vertices = order + 1
    weights, domain = method.field_weights(vertices)
    final = {t: float(domain.to_sympy(w)) for t, w in weights.items()}
    back = exponential({t: -w for t, w in final.items()}, vertices)
    shift: Weights = {}  # the logarithm of sigma_n, n = steps, .., 0
    for field in reversed(starting_fields(method, order, steps)):
        # As operators on functions maps compose the other way round.
        moved = _after(_after(back, shift, vertices), field, vertices)
        shift = logarithm(moved, vertices)
    return exponential(shift, vertices)


def _after(step: Series, field: Series, vertices: int) -> Weights:
    """The series of one map after another: first the flow of `field`, then `step` from there."""
    return _sum((1.0, exponential(field, vertices)), (1.0, transported(step, field, vertices)))


def _recurrence(method: LinearMethod) -> tuple[list[float], list[float]]:
    require_numbers(method)
    if method.weight_decay != 0 or method.rho != 0:
        raise ValueError(
            f"the first steps of {method.name} are not those of a memory of gradients alone: "
            "use a burn-in"
        )
    b, a = ([float(x) for x in part] for part in method.recurrence)
    length = max(len(a), len(b))
    return b + [0.0] * (length - len(b)), a + [0.0] * (length - len(a))


def _sum(*parts: tuple[Number, Series]) -> Weights:
    total: Weights = {}
    for factor, series in parts:
        for t, weight in series.items():
            total[t] = total.get(t, 0.0) + factor * weight
    return total
