"""Rules that are code: any stateless optax transformation, and Muon as optax runs it."""

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
        raise TypeError(f"transformation is an optax transformation, got {transformation!r}")
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
    beta: float = 0.95,
    *,
    nesterov: bool = True,
    weight_decay: float = 0.0,
    consistent_rms: float | None = None,
    adam_b1: float = 0.9,
    adam_b2: float = 0.999,
    adam_eps_root: float = 0.0,
    adam_weight_decay: float = 0.0,
    eps: float = 1e-8,
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
      beta: of the average of a matrix's gradients, in [0, 1).
      nesterov: whether the rule reads beta m + (1 - beta) g, optax's default.
      weight_decay: of matrices, decoupled.
      consistent_rms: as in optax: scales by sqrt(max(rows, columns)) times this number instead.
      adam_b1: of the other leaves.
      adam_b2: of the other leaves.
      adam_eps_root: of the other leaves.
      adam_weight_decay: of the other leaves.
      eps: of the Newton-Schulz iteration's norm, and of Adam.
      ns_steps: how many Newton-Schulz iterations.
      keep: ("nu",) to keep Adam's second moment as a variable, as its slow default asks for; () to
        eliminate it, and where every leaf is a matrix.

    >>> from igr.backward_error import modified_equation
    >>> modified_equation(muon(0.9), 1)
    <modified equation of Muon (beta = 9/10, nesterov), order 1>
    """
    keeps = bool(states_kept("Muon", ("nu",), keep))
    # Without memory, it is the iteration alone.
    newton_schulz = optax.contrib.scale_by_muon(
        beta=0.0, nesterov=False, eps=eps, ns_steps=ns_steps
    )

    def orthogonal(x: jax.Array) -> jax.Array:
        rows, columns = x.shape
        width = math.sqrt(max(1, columns / rows))
        if consistent_rms is not None:
            width = math.sqrt(max(rows, columns)) * consistent_rms
        return width * newton_schulz.update(x, newton_schulz.init(x))[0]

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

    def transfer(b: float) -> sympy.Expr:
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
