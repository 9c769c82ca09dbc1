"""Bounds on the Rademacher complexity by tangent features."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree

from igr.checks import Number, check_numbers
from igr.diagnostics.complexity.path_complexity import feature_norm, feature_norms, steps_of
from igr.pytrees import num_examples


def rademacher_bound(
    apply_fn: Callable[[PyTree, Any], Any],
    params: PyTree,
    x: PyTree,
    radius: Number | Array,
    *,
    inverse: Callable[[PyTree], PyTree] | None = None,
) -> Float[Array, ""]:
    r"""The bound (M / n) |A^-1 Phi'|_F on the Rademacher complexity of models with |w|_A <= M.

    Proposition 4.4 of "Appealing to gradients to investigate neural network generalization": the
    models are x -> w . Phi(x), Phi the tangent features of the network at `params`, and
    |w|_A = |A' w|. By Jensen's inequality: the complexity is (M / n) E |A^-1 Phi' s| over random
    signs s. For q outputs every output of every example has its sign, and the mean is over the n
    examples.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.
        radius: M, not negative.
        inverse: v -> A^-1 v on pytrees as params (None at leaves that are not floating); the
            identity by default. One pass for each output of each example is taken then.

    Returns:
        The scalar, in float32 or wider.

    Raises:
        ValueError: As `tangent_kernel`; if `radius` is negative.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[3.0, 0.0], [0.0, 4.0]])  # |Phi|_F = 5
    >>> float(rademacher_bound(lambda w, x: w @ x, jnp.ones(2), x, radius=2.0))
    5.0
    """
    radius = check_numbers("radius", radius)
    _require_not_negative("radius", radius)
    return radius * feature_norm(apply_fn, params, x, inverse) / num_examples(x)


def rademacher_bound_of_path(
    apply_fn: Callable[[PyTree, Any], Any],
    path: PyTree,
    x: PyTree,
    radii: Float[Array | np.ndarray, " steps"],
    *,
    inverse: Callable[[Int[Array, ""], PyTree], PyTree] | None = None,
    progress: bool | None = None,
) -> Float[Array, ""]:
    r"""The bound sum_t (m_t / n) |A_t^-1 Phi_t'|_F for runs with steps |dw_t|_A_t <= m_t.

    Theorem 4.5 of "Appealing to gradients to investigate neural network generalization", for
    features that are those of the parameters before each step, as in Remark 4.6 (of the theorem
    itself they do not change). The sequence of features is given beforehand; for the features that
    a run has learnt by itself it is a heuristic, `path_complexity` over n.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        path: The parameters before each step: a pytree as params, floating arrays with a leading
            axis of steps; other leaves as they are.
        x: A pytree of arrays with a leading axis of n examples.
        radii: m_t, not negative, one for each step, (steps,).
        inverse: (t, v) -> A_t^-1 v, as in `rademacher_bound`, with the number t of the step.
        progress: Whether to show a bar with the time left; if not given, only after some seconds.
            There is none under a transformation such as jit or vmap.

    Returns:
        The scalar, in float32 or wider.

    Raises:
        ValueError: As `tangent_kernel`; if the leaves of `path` disagree in their leading axis,
            `radii` are not one a step, or one is negative.

    >>> import jax.numpy as jnp
    >>> line, x = lambda w, x: w**2 * x / 2, jnp.array([3.0, 4.0])  # |Phi|_F = 5 |w|
    >>> float(rademacher_bound_of_path(line, jnp.array([1.0, 2.0]), x, jnp.array([0.2, 0.4])))
    2.5
    """
    radii = jnp.asarray(radii)
    steps = steps_of(path)
    if radii.shape != (steps,):
        raise ValueError(f"radii must be one a step, of shape ({steps},); got {radii.shape}.")
    radii = jnp.asarray(check_numbers("radii", radii))
    _require_not_negative("radii", radii)
    norms = feature_norms(apply_fn, path, x, inverse, progress)
    return jnp.sum(radii.astype(norms.dtype) * norms) / num_examples(x)


def _require_not_negative(name: str, value: Any) -> None:
    if not isinstance(value, Tracer) and not np.all(np.asarray(value) >= 0):
        raise ValueError(f"{name} must not be negative; got {value}.")
