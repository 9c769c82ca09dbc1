"""What a comparison was asked for, its method and optimizer found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import optax
from jaxtyping import PRNGKeyArray, PyTree

from igr.backward_error import methods
from igr.backward_error.protocols import Method
from igr.checks import Count, Number
from igr.flows.comparison.filling import StartUp
from igr.flows.comparison.result import FlowName
from igr.flows.from_optax import read_beside


@dataclass(frozen=True)
class Asked:
    """The arguments of `igr.compare`, checked.

    Attributes:
      own_optimizer: whether the optimizer was given, and not made from the method.
      read: whether the method was read from it, and its steps held against the optimizer's then.
      solve: of the `SolveOptions` those that were given, with the most steps.
      epochs: and the following, as in `CompareOptions`.
    """

    value_fn: Any
    params: PyTree
    learning_rate: Number
    steps: Count | None
    flows: list[FlowName]
    method: Method
    optimizer: Any  # of optax; None for two players, who have one of their own
    own_optimizer: bool
    read: bool
    progress: bool | None
    solve: dict[str, Any]
    epochs: Count | None
    runs: Count | None
    key: PRNGKeyArray | None
    sequences: Count | None
    start_up: StartUp | None
    burn_in: Count | None
    record_every: int | None
    sharpness: bool
    directions: Count | None


def method_and_optimizer(
    method: Method | None, optimizer: Any, params: PyTree, h: Number
) -> tuple[Method | None, optax.GradientTransformation | None]:
    """Both as they were given; the method read from an optimizer that is a function of the step.

    Raises:
      TypeError: if `optimizer` is neither a transformation nor a function.
    """
    if optimizer is None or isinstance(optimizer, optax.GradientTransformation):
        return method, optimizer
    if not callable(optimizer):
        raise TypeError(
            f"optimizer must be an optax transformation or h -> one; got {optimizer!r}."
        )
    if method is None:
        return read_beside(optimizer, params, h)
    return method, optimizer(h)


def default_method() -> Method:
    """Gradient descent."""
    return methods.gradient_descent()
