"""The modified equation of a described method, or of an optax optimizer that is read."""

from __future__ import annotations

from typing import Any

from igr.backward_error import modified_equation as of_a_method
from igr.backward_error import protocols


def modified_equation(method: Any, order: int = 1) -> Any:
    """Derives, exactly, the modified equation that an optimizer follows.

    Args:
      method: from `igr.methods`; or an optax optimizer as a function of the learning rate, which is
        read and certified by `igr.from_optax`.
      order: the highest power of h that is kept, at least 0. Order 0 is the flow the method
        tends to as h goes to 0.

    Returns:
      The equation, as of `igr.backward_error.modified_equation`.

    Raises:
      TypeError: if `method` is neither, or is a transformation, whose step is fixed.
      ValueError: if `order` is negative, or the optimizer cannot be read.

    >>> import optax
    >>> print(modified_equation(lambda h: optax.sgd(h, momentum=0.5), 1).modified_loss())
    2 E + 3 h |g|² + O(h²)
    """
    if not protocols.is_method(method) and _is_optimizer(method):
        from igr.flows.from_optax import from_optax

        method = from_optax(method)
    return of_a_method(method, order)


def _is_optimizer(method: Any) -> bool:
    """Whether a value is a function, or an optax transformation as one would return."""
    pair = isinstance(method, tuple) and hasattr(method, "update")
    return pair or (callable(method) and not isinstance(method, type))
