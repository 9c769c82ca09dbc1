"""Rules given as functions: stateless optax transformations, Muon, Adafactor, schedule-free SGD."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
import sympy
from jaxtyping import PyTree

from igr.backward_error.algebra.naming import Name
from igr.backward_error.methods import ema, rule
from igr.backward_error.methods.adaptive import states_kept
from igr.backward_error.rules.rule import RuleMethod
from igr.checks import Number
from igr.flows.newton_schulz import newton_schulz


def stateless(transformation: optax.GradientTransformation) -> Callable[..., PyTree]:
    """A function `(updates, theta) -> updates` of an optax transformation without memory.

    For `igr.methods.rule`: clipping by the global norm, scaling by a trust ratio, weight decay.

    Args:
      transformation: one whose state holds no floating array.

    Raises:
      ValueError: when called, if the transformation has a memory.

    Clipping after heavy ball, `optax.chain(optax.trace(0.9), optax.clip_by_global_norm(1), ..)`:

    >>> from igr.backward_error import methods
    >>> clip = stateless(optax.clip_by_global_norm(1.0))
    >>> clipped = methods.rule(lambda m, theta: clip(m, theta), {"m": methods.trace(0.9)})
    >>> print(clip(jnp.array([3.0, 4.0]), None))
    [0.6 0.8]
    """
    if not isinstance(transformation, optax.GradientTransformation):
        raise TypeError(f"transformation must be an optax transformation; got {transformation!r}.")
    update = optax.with_extra_args_support(transformation).update

    def applied(updates: PyTree, theta: PyTree) -> PyTree:
        state = transformation.init(updates if theta is None else theta)
        if any(jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in jax.tree.leaves(state)):
            raise ValueError(
                "the transformation has a memory: describe that as a channel or a kept state, and "
                "its rule without it"
            )
        return update(updates, state, theta)[0]

    return applied


def muon(
    beta: Number = 0.95,
    *,
    nesterov: bool = True,
    weight_decay: Number = 0.0,
    consistent_rms: Number | None = None,
    adam_b1: Number = 0.9,
    adam_b2: Number = 0.999,
    adam_eps_root: Number = 0.0,
    adam_weight_decay: Number = 0.0,
    eps: Number = 1e-8,
    ns_steps: int = 5,
    keep: Iterable[str] = ("nu",),
) -> RuleMethod:
    """Muon as `optax.contrib.muon` runs it: matrices orthogonalised, all other leaves by Adam.

    A matrix moves along NS(m), m the average of its gradients and NS the Newton-Schulz iteration
    that brings its singular values near one (Jordan 2024), times sqrt(max(1, columns/rows)).
    Leaves that are no matrices follow AdamW. For matrices alone, with c = (1 + beta)/(2 (1 - beta))
    without `nesterov`, F_1 = -c J H Psi(g): for an exact polar factor, the gradient of c times the
    nuclear norm of g, through the derivative J of the rule.

    Args:
      beta: the decay rate of the average of a matrix's gradients, in [0, 1).
      nesterov: whether the rule reads beta m + (1 - beta) g, optax's default.
      weight_decay: decoupled weight decay of matrices.
      consistent_rms: as in optax: scales by sqrt(max(rows, columns)) times this number instead.
      adam_b1: b1 of Adam for the other leaves.
      adam_b2: b2 of Adam for the other leaves.
      adam_eps_root: eps_root of Adam for the other leaves.
      adam_weight_decay: decoupled weight decay of the other leaves.
      eps: added to the norm in the Newton-Schulz iteration, and eps of Adam.
      ns_steps: the number of Newton-Schulz iterations.
      keep: ("nu",) to keep Adam's second moment as a variable, as its slow default needs; () to
        eliminate it, or if every leaf is a matrix.

    Returns:
      A method for `igr.modified_equation`.

    >>> from igr.backward_error import modified_equation
    >>> modified_equation(muon(0.9), 1)
    <modified equation of Muon (beta = 9/10, nesterov), order 1>
    """
    keeps = bool(states_kept("Muon", ("nu",), keep))

    def orthogonal(x: jax.Array) -> jax.Array:
        rows, columns = x.shape
        width = math.sqrt(max(1, columns / rows))
        if consistent_rms is not None:
            width = math.sqrt(max(rows, columns)) * consistent_rms
        return width * newton_schulz(x, ns_steps, eps)

    def matrices(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x if x.ndim == 2 else optax.MaskedNode(), tree)

    def others(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda x: optax.MaskedNode() if x.ndim == 2 else x, tree)

    def psi(m: PyTree, mu: PyTree, nu: PyTree, theta: PyTree, forgotten: Any) -> PyTree:
        leaves = {"m": m, "mu": mu, "nu": nu}
        flat = {n: iter(jax.tree.leaves(tree)) for n, tree in leaves.items()}

        def direction(x: jax.Array) -> jax.Array:
            if x.ndim == 2:
                return (orthogonal(next(flat["m"])) + weight_decay * x).astype(x.dtype)
            first, second = next(flat["mu"]), next(flat["nu"])
            root = jnp.sqrt(second / (1 - forgotten) + adam_eps_root) + eps
            return (first / root + adam_weight_decay * x).astype(x.dtype)

        return jax.tree.map(direction, theta)

    def transfer(b: Number) -> sympy.Expr:
        return b * ema(b) + (1 - sympy.nsimplify(b)) if nesterov else ema(b)

    def square(g: PyTree) -> PyTree:
        return jax.tree.map(lambda x: x**2, others(g))

    channels: dict[str, Any] = {
        "m": (lambda g: matrices(g), transfer(beta)),
        "mu": (lambda g: others(g), transfer(adam_b1)),
    }
    settings = {"beta": sympy.nsimplify(beta), **({"nesterov": None} if nesterov else {})}
    inside = ", ".join(k if v is None else f"{k} = {v}" for k, v in settings.items())
    name = Name(f"Muon ({inside})")
    if not keeps:
        channels["nu"] = (square, ema(adam_b2))
        return rule(lambda m, mu, nu, theta: psi(m, mu, nu, theta, 0.0), channels, name=name)
    return rule(
        lambda m, mu, nu, theta, t, lambda_nu: psi(m, mu, nu, theta, jnp.exp(-lambda_nu * t)),
        channels,
        {"nu": (square, 1 - sympy.nsimplify(adam_b2), lambda p: optax.tree.zeros_like(others(p)))},
        {"lambda_nu": -math.log(adam_b2)},
        name=name,
    )


def schedule_free_sgd(b1: Number = 0.9) -> RuleMethod:
    """Schedule-free SGD as `optax.contrib.schedule_free(optax.sgd(h), h, b1)` runs it.

    The params are y = b1 x + (1 - b1) z, with z the iterates of gradient descent on gradients at y
    and x their average (Defazio et al. 2024, The Road Less Scheduled). z is kept as a variable; the
    average is the output `x`, as of `optax.contrib.schedule_free_eval_params`.

    Args:
      b1: the share of the average, in (0, 1].

    Returns:
      A method for `igr.modified_equation`.

    Raises:
      ValueError: if `b1` is outside (0, 1].

    >>> read = dict(schedule_free_sgd(0.5).outputs)["x"]
    >>> print(read({"theta": jnp.array([2.0]), "z": jnp.array([1.0])}))
    [3.]
    """
    if not 0 < b1 <= 1:
        raise ValueError(f"b1 must be a number in (0, 1]; got {b1}.")

    def average(theta: PyTree, z: PyTree) -> PyTree:
        return jax.tree.map(lambda y, s: ((y - (1 - b1) * s) / b1).astype(y.dtype), theta, z)

    def psi(g: PyTree, z: PyTree, theta: PyTree, t: Any, h: Any) -> PyTree:
        before = jax.tree.map(lambda s, d: s + h * d, z, g)
        x = average(theta, before)
        # The average takes in 1/(n + 1) = h/t of z.
        return jax.tree.map(lambda d, s, a: (1 - b1) * d - b1 * (s - a) / t, g, z, x)

    return rule(
        psi,
        {},
        {"z": (lambda g: jax.tree.map(jnp.negative, g), None, lambda params: params)},
        outputs={"x": average},
        name=Name("schedule-free SGD", {"b1": sympy.nsimplify(b1)}),
    )


def adafactor(
    *,
    min_dim_size_to_factor: int = 128,
    decay_rate: Number = 0.8,
    clipping_threshold: Number | None = 1.0,
    multiply_by_parameter_scale: bool = True,
    eps: Number = 1e-30,
) -> RuleMethod:
    """Adafactor as `optax.adafactor(h)` runs it, with its averages kept as variables.

    A matrix's second moments are estimated from the means of its rows and columns; the share that a
    new value has in step n is (n + 1)^(-decay_rate) (Shazeer and Stern 2018).

    Args:
      min_dim_size_to_factor: leaves whose second largest dimension is smaller keep every entry.
      decay_rate: the exponent in the share of a new value, see above.
      clipping_threshold: the largest root mean square of a leaf's update; None for no clipping.
      multiply_by_parameter_scale: whether steps are multiplied by the root mean square of a leaf.
      eps: added to squared gradients.

    Returns:
      A method for `igr.modified_equation`.

    >>> adafactor().kept
    ('v_row', 'v_col', 'v')
    """
    parts = []
    if clipping_threshold is not None:
        parts.append(optax.clip_by_block_rms(clipping_threshold))
    if multiply_by_parameter_scale:
        parts.append(optax.scale_by_param_block_rms())
    scaled = stateless(optax.chain(*parts))

    def factored(x: jax.Array) -> tuple[int, int] | None:
        """The second largest axis and the largest, over which is averaged, or None."""
        if x.ndim < 2 or sorted(x.shape)[-2] < min_dim_size_to_factor:
            return None
        order = sorted(range(x.ndim), key=lambda i: (x.shape[i], i))
        return order[-2], order[-1]

    def row(x: jax.Array) -> jax.Array:
        dims = factored(x)
        return jnp.zeros((1,), x.dtype) if dims is None else jnp.mean(x**2 + eps, axis=dims[1])

    def column(x: jax.Array) -> jax.Array:
        dims = factored(x)
        return jnp.zeros((1,), x.dtype) if dims is None else jnp.mean(x**2 + eps, axis=dims[0])

    def entry(x: jax.Array) -> jax.Array:
        return jnp.zeros((1,), x.dtype) if factored(x) is not None else x**2 + eps

    def updated(part: Callable[[jax.Array], jax.Array], old: PyTree, g: PyTree, n: Any) -> PyTree:
        share = n**-decay_rate
        return jax.tree.map(lambda v, x: (v + share * (part(x) - v)).astype(v.dtype), old, g)

    def start(part: Callable[[jax.Array], jax.Array]) -> Callable[[PyTree], PyTree]:
        return lambda params: jax.tree.map(lambda x: jnp.zeros_like(part(x)), params)

    def direction(x: jax.Array, r: jax.Array, c: jax.Array, v: jax.Array) -> jax.Array:
        dims = factored(x)
        if dims is None:
            return x / jnp.sqrt(v)
        d1, d0 = dims
        left = d1 - 1 if d1 > d0 else d1
        shares = r / jnp.mean(r, axis=left, keepdims=True)
        return x / jnp.expand_dims(jnp.sqrt(shares), d0) / jnp.expand_dims(jnp.sqrt(c), d1)

    return rule(
        lambda g, v_row, v_col, v, theta: scaled(
            jax.tree.map(direction, g, v_row, v_col, v), theta
        ),
        {},
        {
            "v_row": (lambda g, t, h, v_row: updated(row, v_row, g, t / h), 1, start(row)),
            "v_col": (lambda g, t, h, v_col: updated(column, v_col, g, t / h), 1, start(column)),
            "v": (lambda g, t, h, v: updated(entry, v, g, t / h), 1, start(entry)),
        },
        name="Adafactor",
    )
