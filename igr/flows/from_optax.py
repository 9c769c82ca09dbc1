"""Any optax optimizer as a method: read from its own code, and checked on its own steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import jax
import optax
from jaxtyping import PyTree

from igr.checks import Number
from igr.flows.certifying.own_steps import check_own_steps
from igr.options import check_known
from igr.shown import short, table
from igr.tracing import ReadingOptions, read_optimizer


def from_optax(
    make: Callable[..., optax.GradientTransformation],
    *,
    params: PyTree | None = None,
    certify: bool = True,
    **options: Unpack[ReadingOptions],
) -> Any:
    """Reads an optax optimizer's code and describes it as a method: its memories and its rule.

    `init` and `update` are traced once, every primitive is read in sympy, and the states are
    recognised: averages and sums that fade, last values, counts, bias corrections and schedules as
    functions of the time, accumulators. What is linear in the gradient becomes a method of trees,
    what acts element by element one of terms.

    Args:
      make: a function of the learning rate, such as `lambda h: optax.adamw(h, weight_decay=0.1)`.
      params: the params to be trained, needed if the optimizer treats leaves differently.
      certify: whether to compare the description with the real optimizer, step by step, and raise
        if they differ.
      **options: `igr.tracing.ReadingOptions`: the states to `keep` as variables of the flow, and
        `smooth`, for a rule with signs or conditions in it.

    Returns:
      A method for `igr.modified_equation`. The start-up of eliminated memories is taken to be over;
      kept states have their bias correction. A condition on the number of the step that
      changes within the first two steps is read as it is afterwards, unless the rule would not be
      finite before.

    Raises:
      TypeError: if `make` is no function of the learning rate, or returns no transformation; if
        there is no option of a name that is given.
      ValueError: if `keep` names a state that does not exist.
      UnreadableOptimizerError: a `ValueError`, where there is no description; it says why and what
        to do instead.

    >>> from igr.backward_error import modified_equation
    >>> method = from_optax(lambda h: optax.sgd(h, momentum=0.5))
    >>> print(modified_equation(method, 1).modified_loss())
    2 E + 3 h |g|² + O(h²)
    """
    check_known(from_optax, options)
    reading = read_optimizer(make, params=params, **options)
    if certify:
        check_own_steps(reading)
    return reading.method


class BesideState(NamedTuple):
    """The state of an optimizer together with its kept states by name.

    Attributes:
      leaves: the leaves of the optimizer's own state.
      kept: the kept states by the names that the method gives them.
    """

    leaves: list[Any]
    kept: dict[str, PyTree]

    __repr__ = short
    _repr_html_ = table


def read_beside(
    make: Callable[..., optax.GradientTransformation], params: PyTree, h: Number
) -> tuple[Any, optax.GradientTransformationExtraArgs]:
    """The method of an optimizer, and the optimizer with the kept states by name in its state.

    Args:
      make: as in `from_optax`.
      params: the params to be trained.
      h: the learning rate.
    """
    reading = read_optimizer(make, params=params)
    check_own_steps(reading)
    real = optax.with_extra_args_support(make(h))
    traced, method = reading.traced, reading.method
    elementwise = reading.description is not None

    def named(leaves: list[Any], structure: Any) -> dict[str, PyTree]:
        found = {}
        for name in method.kept:
            own = [leaves[p] for p, n in enumerate(traced.names) if n == name]
            found[name] = jax.tree.unflatten(structure, own) if elementwise else tuple(own)
        return found

    def init(params: PyTree) -> BesideState:
        leaves = jax.tree.leaves(real.init(params))
        return BesideState(leaves, named(leaves, jax.tree.structure(params)))

    def update(
        updates: PyTree, state: BesideState, params: PyTree | None = None, **extra_args: Any
    ) -> tuple[PyTree, BesideState]:
        inner = jax.tree.unflatten(traced.state, state.leaves)
        updates, after = real.update(updates, inner, params, **extra_args)
        leaves = jax.tree.leaves(after)
        return updates, BesideState(leaves, named(leaves, jax.tree.structure(updates)))

    return method, optax.GradientTransformationExtraArgs(init, update)
