"""Certifies a derived equation against the optimizer that is really run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from igr.backward_error.protocols import Method
from igr.checks import Count, check_count
from igr.flows.certifying.optimizers import check_optimizer, is_optimizer
from igr.flows.certifying.order import ObservedOrder, observed_order
from igr.flows.on_the_host import on_the_host
from igr.options import check_known
from igr.shown import cut, table_of
from igr.tracing import ReadingOptions
from igr.tracing.reading import name_of

ValueFn = Callable[[PyTree], Array]

TOLERANCE = 0.15  # of a slope, beyond which an order is not reached


@dataclass(frozen=True)
class Certificate:
    """The slopes of an equation's one-step error, measured against a real optimizer.

    Attributes:
      method: the name of the description that was certified.
      observed: order -> the measured slope, with the steps and errors it was fitted to.
    """

    method: str
    observed: dict[int, ObservedOrder]

    @property
    def expected(self) -> dict[int, int]:
        """order -> order + 2, the slope if the description is right."""
        return {p: p + 2 for p in self.observed}

    @property
    def reached(self) -> dict[int, bool]:
        """order -> whether the measured slope is at least the expected one, up to a tolerance."""
        return {p: bool(slope > p + 2 - TOLERANCE) for p, slope in self.observed.items()}

    @property
    def holds(self) -> bool:
        """Whether the expected slope is reached at every order."""
        return all(self.reached.values())

    def __repr__(self) -> str:
        slopes = {p: f"{slope:.2f}" for p, slope in self.observed.items()}
        found = ", ".join(f"{slope} at order {p}" for p, slope in slopes.items())
        return cut(f"<Certificate of {self.method}: slopes {found}; holds: {self.holds}>", 400)

    def _repr_html_(self) -> str:
        columns = {
            "order": list(self.observed),
            "slope": [float(slope) for slope in self.observed.values()],
            "expected": list(self.expected.values()),
            "reached": list(self.reached.values()),
        }
        return table_of(columns, f"{self.method}: {'certified' if self.holds else 'NOT certified'}")

    def __str__(self) -> str:
        lines = [
            f"{self.method}: {'certified' if self.holds else 'NOT certified'}",
            "order  slope  expected  one-step error at h    and at h",
        ]
        for p, slope in self.observed.items():
            hs, errors = slope.hs, slope.errors
            lines.append(
                f"{p:>5}  {slope:5.2f}  {p + 2:>8}  {errors[0]:.2e} at {hs[0]:.2e}  "
                f"{errors[-1]:.2e} at {hs[-1]:.2e}{'' if self.reached[p] else '  <- too low'}"
            )
        return "\n".join(lines)


@on_the_host
def certify(
    method: Method | Callable[..., optax.GradientTransformation],
    optimizer: Callable[..., optax.GradientTransformation] | None = None,
    value_fn: ValueFn | None = None,
    params: PyTree | None = None,
    *,
    order: Count = 1,
    progress: bool | None = None,
    **options: Unpack[ReadingOptions],
) -> Certificate:
    """Tests a method's description against an optax optimizer, by the slope of its one-step error.

    A description that is wrong in anything, be it a beta or the place of an epsilon, shows at once:
    the slope falls short at the first order that sees the mistake.

    Args:
      method: the description, from `igr.methods`, without open symbols; or an optax optimizer as a
        function of the learning rate, which is read, and whose own code is then replayed with
        its clocks slowed as h falls: `certify(lambda h: optax.adam(h))`.
      optimizer: `learning_rate -> optax.GradientTransformation`, such as
        `lambda h: optax.sgd(h, momentum=0.9)`. For a method that keeps states
        `(learning_rate, rates)`: `lambda h, rates: optax.adam(h, b2=1 - rates["nu"])`, because
        the share of a new value falls with h (see `igr.observed_order`). Left out if `method` is
        an optimizer.
      value_fn: a smooth loss, `params -> scalar`; that of a small network in float64 if not given.
      params: where to measure, in float64 (in float32 the error soon reaches rounding).
      order: the highest power of h to certify; those below it are certified too.
      progress: whether to show a bar with the time left for each order; if not given, only for
        those that take more than some seconds.
      **options: `igr.tracing.ReadingOptions`, `keep` and `smooth`, for an optimizer that is read.

    Returns:
      A `Certificate`, whose `holds` is the answer; `print` it for a small table.

    Raises:
      TypeError: if `optimizer` is a transformation itself, whose step cannot be changed; if there
        is no option of a name that is given.
      ValueError: as `igr.observed_order`, or if one of `value_fn` and `params` is missing.

    >>> import jax, jax.numpy as jnp
    >>> from igr.backward_error import methods
    >>> loss = lambda x: jnp.sum(jnp.cosh(x))
    >>> with jax.enable_x64(True):
    ...     start = jnp.array([0.4, 1.0])
    ...     right = certify(methods.heavy_ball(0.5), lambda h: optax.sgd(h, 0.5), loss, start)
    ...     wrong = certify(methods.heavy_ball(0.6), lambda h: optax.sgd(h, 0.5), loss, start)
    >>> right.holds, wrong.holds, wrong.reached
    (True, False, {0: False, 1: False})
    """
    check_known(certify, options)
    order = check_count("order", order, 0)
    read = is_optimizer(method)
    if optimizer is None and not read:
        raise TypeError("optimizer must be a function of the learning rate; got None.")
    check_optimizer(optimizer)
    if (value_fn is None) != (params is None):
        raise ValueError("value_fn and params are given together, or neither of them")
    how: dict[str, Any] = {"optimizer": optimizer, "progress": progress, **options}
    with jax.enable_x64(True) if value_fn is None else contextlib.nullcontext():
        if value_fn is None:
            value_fn, params = small_network()
        observed: dict[int, Any] = {
            p: observed_order(method, value_fn, params, p, **how) for p in range(order + 1)
        }
    return Certificate(name_of(method) if read else method.name, observed)


def small_network() -> tuple[ValueFn, dict[str, Array]]:
    """A tanh network's loss on fixed data, and params for it: one matrix, one vector."""
    random = np.random.default_rng(0)
    inputs, targets = jnp.asarray(random.normal(size=(6, 3))), jnp.asarray(random.normal(size=6))
    params = {
        "matrix": jnp.asarray(random.normal(size=(3, 2))),
        "vector": jnp.asarray(random.normal(size=(2,))),
    }

    def value_fn(p: Any) -> Array:
        return jnp.mean((jnp.tanh(inputs @ p["matrix"]) @ p["vector"] - targets) ** 2)

    return value_fn, params
