r"""The drift of an optimizer on random batches to h^1, and its noise, for rules affine in memories.

A step moves the slow state x (params, kept states, the time) by h V_b(x, a), b the batch, with
channels a_i = sum_k w_ik phi_i(g_b[n-k]) in which V is affine with slope L_i. rho_s is what the
batches of two steps s apart have in common (see `remembered`), ~ what a batch does apart from the
mean over batches. To leading order the mean moves with

    M(x) = E_b V_b(x, W_i(0) E phi_i + (sum_s w_is rho_s) ~phi_ib).

For h^1, write x[n-k] = x[n] - h sum_j V[n-j] in every argument of V[n]. In the mean this is the
equation of one loss; around the mean, the batch of step n - j has moved what is seen by all later
ones, and what they see depends on it in turn where rho_s is not 0, or where V reads a channel that
holds it still. Averaged over the drawing of batches,

    F_1 = sum_i W_i'(0) L_i E phi_i'[M] - (1/2) M'M
          + E_b V_b'[u_b] + sum_i W_i(0) L_i E_b phi_ib'[u_b] + sum_i E_b L_i'[d_ib] ~phi_ib,
    u_b  = (sum_(s>0) rho_s) ~V_b + sum_i (sum_(s>0) rho_s (w_i0 + .. + w_i(s-1))) L_i ~phi_ib,
    d_ib = (sum_(s, j>0) w_is rho_|j-s|) ~V_b + sum_l (sum_(s, r, j>0) w_is w_lr rho_|j+r-s|)
           L_l ~phi_lb.

Without eliminated memory that is -(1/2) M'M for batches drawn anew, the field of any step in the
mean, and -(1/2) E V_b'V_b for those that come once an epoch. The noise of batches drawn anew, sum
of all that one does in the end, is sqrt(h/m) sum_b ~V_b(x, W_i(0) phi_ib) dW_b.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from igr.flows.fields.batches.printing import BatchField, equation
from igr.flows.fields.batches.remembered import Drawn, weights
from igr.flows.fields.batches.steps import BatchSteps, Slow
from igr.pytrees import num_examples


def drift(steps: BatchSteps, drawn: Drawn, h: Any, batches: PyTree, order: int) -> BatchField:
    """The drift M (order 0) or M + h F_1 (order 1) as a field `f(t, state, args)`."""
    held = _Held(steps, drawn)

    def field(t: Any, state: PyTree, args: Any = None) -> PyTree:
        del args
        slow, static = steps.split(t, state)
        steps.check_affine(slow, static, jax.tree.map(lambda x: x[0], batches))

        def each(slow: Slow) -> tuple[PyTree, dict[str, PyTree]]:
            return jax.vmap(lambda batch: steps.seen(slow, static, batch))(batches)

        def velocities(slow: Slow, g: PyTree, a: PyTree) -> Slow:
            one = lambda g, a, batch: steps.velocity(slow, static, g, a, batch)  # noqa: E731
            return jax.vmap(one)(g, a, batches)

        def in_the_mean(slow: Slow) -> Slow:
            g, phi = each(slow)
            a = {n: _level(phi[n], w.total, w.now(drawn)) for n, w in held.weights.items()}
            return _mean(velocities(slow, g, a))

        moves = in_the_mean(slow)
        if order == 0:
            return steps.like_state(moves, state)
        _, bent = jax.jvp(in_the_mean, (slow,), (moves,))
        parts = [(-0.5, bent)]
        g, phi = each(slow)
        level = {n: _level(phi[n], w.total, 0.0) for n, w in held.weights.items()}
        apart = {n: _centred(x) for n, x in phi.items()}
        mean_g, first = _mean(g), jax.tree.map(lambda x: x[0], batches)
        mean_level = {n: _mean(x) for n, x in level.items()}

        def along(values: PyTree, at: Slow = slow) -> Slow:
            """The sum of L_i applied to a value for each channel i."""
            step = lambda a: steps.velocity(at, static, mean_g, a, first)  # noqa: E731
            return jax.jvp(step, (mean_level,), (values,))[1]

        own = _centred(velocities(slow, g, level))

        def fluctuation(of_own: float, factors: dict[str, float]) -> Slow:
            """The sum c ~V_b + sum_i c_i L_i ~phi_ib, with a leading axis of batches."""
            found = _scaled(own, of_own)
            if factors:
                scaled = {n: _scaled(x, factors[n]) for n, x in apart.items()}
                found = _sum([found, jax.vmap(along)(scaled)])
            return _still(found)

        if held.weights:
            phi_mean = lambda s: _mean(each(s)[1])  # noqa: E731
            _, slopes = jax.jvp(phi_mean, (slow,), (moves,))
            lagged = {n: _scaled(slopes[n], w.first) for n, w in held.weights.items()}
            parts.append((1.0, along(lagged)))
        if drawn.own:
            u = fluctuation(drawn.own, held.moved)

            def met(s: Slow, batch: PyTree, a: PyTree) -> tuple[Slow, dict[str, PyTree]]:
                seen, channels = steps.seen(s, static, batch)
                return steps.velocity(s, static, seen, a, batch), channels

            def one(u: Slow, batch: PyTree, a: PyTree) -> tuple[Slow, dict[str, PyTree]]:
                return jax.jvp(lambda s: met(s, batch, a), (slow,), (u,))[1]

            pushed, channels = _mean(jax.vmap(one)(u, batches, level))
            held_by = {n: _scaled(channels[n], w.total) for n, w in held.weights.items()}
            parts += [(1.0, pushed), (1.0, along(held_by))]
        for n in held.weights:
            d = fluctuation(held.met[n], held.shared[n])

            def turned(d: Slow, x: PyTree, n: str = n) -> Slow:
                values = {**jax.tree.map(jnp.zeros_like, mean_level), n: x}
                return jax.jvp(lambda s: along(values, s), (slow,), (d,))[1]

            parts.append((1.0, _mean(jax.vmap(turned)(d, apart[n]))))
        total = _sum([moves, *(_scaled(x, h * c) for c, x in parts)])
        return steps.like_state(total, state)

    m = num_examples(batches, "batches")
    return BatchField(field, *equation(steps.method.kept, held.weights, drawn, m, order))


def noise(
    steps: BatchSteps, h: Any, batches: PyTree, m: int
) -> Callable[[Any, PyTree], Callable[[jax.Array], PyTree]]:
    """The noise of batches drawn with replacement, as a function of time and state.

    Its value is a linear function from the m increments of a Brownian motion to the state.
    """
    held = {a: weights(w).total for (a, _), w in zip(
        steps.method.channels, steps.method.memories, strict=True)}  # fmt: skip

    def at(t: Any, state: PyTree) -> Callable[[jax.Array], PyTree]:
        slow, static = steps.split(t, state)
        steps.check_affine(slow, static, jax.tree.map(lambda x: x[0], batches))

        def one(batch: PyTree) -> Slow:
            g, phi = steps.seen(slow, static, batch)
            return steps.velocity(
                slow, static, g, {n: _scaled(x, held[n]) for n, x in phi.items()}, batch
            )

        found = jax.vmap(one)(batches)

        def along(increments: jax.Array) -> PyTree:
            share = -jnp.sqrt(h / m) * (increments - jnp.mean(increments))  # along the gradients
            sums = jax.tree.map(lambda x: jnp.tensordot(share, x, axes=1).astype(x.dtype), found)
            return steps.of_state(sums)

        return along

    return at


class _Held:
    """The coefficients with which channels hold earlier batches, as numbers."""

    def __init__(self, steps: BatchSteps, drawn: Drawn):
        names = [a for a, _ in steps.method.channels]
        memories = map(weights, steps.method.memories)
        self.weights = dict(zip(names, memories, strict=True))
        each = self.weights.items()
        self.moved = {n: w.moved(drawn) for n, w in each}
        self.met = {n: w.met(drawn) for n, w in each}
        self.shared = {n: {k: w.shared(v, drawn) for k, v in each} for n, w in each}


def _mean(values: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.mean(x, 0), values)


def _centred(values: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x - jnp.mean(x, 0), values)


def _level(values: PyTree, of_mean: float, of_apart: float) -> PyTree:
    """For each batch, the mean over batches times `of_mean` plus the deviation times `of_apart`."""

    def leaf(x: jax.Array) -> jax.Array:
        mean = jnp.mean(x, 0, keepdims=True)
        return (of_mean * mean + of_apart * (x - mean)).astype(x.dtype)

    return jax.tree.map(leaf, values)


def _scaled(values: PyTree, factor: Any) -> PyTree:
    return jax.tree.map(lambda x: (factor * x).astype(x.dtype), values)


def _still(values: Slow) -> Slow:
    """The values with a zero for the time, which advances alike for every batch."""
    return values._replace(t=jnp.zeros_like(values.t))


def _sum(trees: Any) -> PyTree:
    first, *rest = trees
    for tree in rest:
        first = jax.tree.map(jnp.add, first, tree)
    return first
