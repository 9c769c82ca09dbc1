r"""The drift and noise of an optimizer that is nonlinear in its memory, averaged over batches.

A step moves the slow state x by h V, V a function of the last gradients through memories. Where V
is not affine in an eliminated memory, the mean of V is no function of the memories' means, however
small h is: sequences of batches are drawn, and already the field to h^0 is an expectation over
them,

    M(x) = E V,    V = V(x; b_0, b_1, ..),

b_k the batch k steps ago. With d_k V the derivative of V by the slow state that was seen k steps
ago, and V_j the step of j steps ago,

    F_1 = sum_k ( -k E d_k V[M] + sum_(j>k) E d_k V[V_j - M] ) - (1/2) M'M.

What was seen is all that the memories took in then: a gradient, and where they read them also the
kept states, and what other memories held. For such a cascade each memory is a recursion that the
slow state drives: frozen, it has its own value along a sequence of batches, to h^0; and to h^1 it
is that recursion differentiated by how far the slow state has moved, which goes on into the
memories that read it. The steps themselves are taken here, all memories in the order in which they
read each other, and differentiated.

The noise of batches drawn anew is that of sums of V over many steps. What the batch of one step
does to all later ones, in the mean, is D_b; what is left of the sums is noise of its own.

The expectations are means over sequences that each repeat themselves, so that the memories are full
and no sequence has an end. Where a sequence has batch b another has b + 1: in the mean over these a
V that is affine has no error, at h^0 and in the noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from igr.backward_error.rules.rule import RuleMethod
from igr.checks import Count, Number, check_count
from igr.flows.fields.batches.printing import BatchField, mean_equation
from igr.flows.fields.batches.remembered import Drawn
from igr.flows.fields.batches.steps import BatchLossFn, BatchSteps, Slow
from igr.pytrees import num_examples

_LEFT = 1e-4  # of a memory when it is taken to have faded: far below what is left to chance


def averaged(
    method: RuleMethod,
    batch_loss_fn: BatchLossFn,
    h: Any,
    batches: PyTree,
    rates_at: Number | None,
    drawn: Drawn,
    sequences: Count,
    key: PRNGKeyArray | None,
) -> OverSequences:
    """The drift and noise of a rule, averaged over sequences of its batches that are drawn here.

    Args:
      method: a rule, affine in its eliminated memories or not.
      batch_loss_fn: `(params, batch) -> scalar`.
      h: the step.
      batches: with a leading axis of m.
      rates_at: the step that the rates of kept states are meant for, h if not given.
      drawn: how batches are drawn.
      sequences: the number of sequences drawn, before the batches are cyclically renamed.
      key: for the random draws.

    Raises:
      ValueError: if there are fewer than two sequences, or no key.
    """
    sequences = check_count("sequences", sequences, 2)
    if key is None:
        raise ValueError("sequences are drawn at random: give key=, as in jax.random.key(0)")
    m = num_examples(batches, "batches")
    steps = BatchSteps(method, batch_loss_fn, h, rates_at, affine=False)
    return OverSequences(steps, draw(method, drawn, m, sequences, key), drawn, batches)


@dataclass(frozen=True)
class Sequences:
    """Sequences of batches, of which each is repeated periodically.

    Attributes:
      each: the batches, of shape (sequences, steps).
      fill: the number of first steps, in which the memories fill at fixed params.
      moving: the number of steps after those, in which params move.
      last: the number of last steps, over which the field of order 1 is averaged.
    """

    each: np.ndarray
    fill: int
    moving: int
    last: int


def draw(method: RuleMethod, drawn: Drawn, m: int, count: int, key: PRNGKeyArray) -> Sequences:
    """Draws sequences of batches, each with all its m cyclic renamings of the batches.

    Args:
      method: a rule.
      drawn: how batches are drawn.
      m: the number of batches.
      count: the number of sequences, before the batches are renamed.
      key: for the random draws.
    """
    faded = _steps_to_fade(method)
    if drawn.own:
        epochs = -(-faded // m)
        fill, moving, last = epochs * m, epochs * m, m
        keys = jax.random.split(key, (count, 2 * epochs + 1))
        found = jax.vmap(jax.vmap(lambda k: jax.random.permutation(k, m)))(keys)
    else:
        fill = moving = last = max(faded, 1)
        found = jax.random.randint(key, (count, fill + moving + last), 0, m)
    named = (np.asarray(found).reshape(count, 1, -1) + np.arange(m)[:, None]) % m
    return Sequences(named.reshape(count * m, -1), fill, moving, last)


def _steps_to_fade(method: RuleMethod) -> int:
    """The number of steps after which a gradient has faded from all memories, cascades included."""
    after: dict[str, int] = {}
    memories = dict(zip((a for a, _ in method.channels), method.memories, strict=True))
    parts = {**dict(method.channels), **dict(method.states)}
    for n in method.sequence:
        of, own = parts[n].of, 0
        if n in memories:
            fading, steps = memories[n].memory()
            own = steps + (int(np.ceil(np.log(_LEFT) / np.log(fading))) if fading else 0)
        after[n] = own + max((after.get(a, 0) for a in (of.names if of else ())), default=0)
    return max(after.values(), default=0)


class OverSequences:
    """The drift and noise of a method, as averages over sequences of batches.

    Args:
      steps: the method's steps on single batches.
      sequences: the sequences of batches.
      drawn: how batches are drawn.
      batches: the m batches.

    Attributes:
      motions: the dimension of the Brownian motion that drives the noise.
    """

    def __init__(self, steps: BatchSteps, sequences: Sequences, drawn: Drawn, batches: PyTree):
        self._steps, self._sequences, self._batches = steps, sequences, batches
        self._drawn = drawn
        m = num_examples(batches, "batches")
        self.motions = m + len(sequences.each)
        counts = np.stack([np.bincount(s, minlength=m) for s in sequences.each]).astype(float)
        self._apart = counts - counts.mean(0)  # (sequences, m)

    def drift(self, order: int) -> BatchField:
        """The drift M (order 0) or M + h F_1 (order 1) as a field `f(t, state, args)`."""

        def field(t: Any, state: PyTree, args: Any = None) -> PyTree:
            del args
            slow, static = self._steps.split(t, state)
            sums, held = self._along(slow, static)
            moves = jax.tree.map(lambda x: jnp.mean(x, 0) / self._sequences.each.shape[1], sums)
            if order:
                bent = self._first_order(slow, static, moves, held)
                h = self._steps.h
                moves = jax.tree.map(lambda x, y: (x + h * y).astype(x.dtype), moves, bent)
            return self._steps.like_state(moves, state)

        method, m = self._steps.method, self._apart.shape[1]
        channels = tuple(a for a, _ in method.channels)
        return BatchField(field, *mean_equation(method.kept, channels, self._drawn, m, order))

    def noise(self, t: Any, state: PyTree) -> Callable[[jax.Array], PyTree]:
        """The noise at a time and state, as a linear function of m + sequences increments."""
        slow, static = self._steps.split(t, state)
        sums, _ = self._along(slow, static)
        count, length = self._sequences.each.shape
        m = self._apart.shape[1]
        fit = np.linalg.pinv(self._apart, rcond=1e-9)  # its columns sum up to zero
        left = np.eye(count) - self._apart @ fit - 1 / count
        of_batch = jnp.sqrt(self._steps.h / m) * fit
        of_rest = jnp.sqrt(self._steps.h / (length * (count - m))) * left
        weights = jnp.concatenate([of_batch, of_rest])

        def along(increments: jax.Array) -> PyTree:
            share = -increments @ weights  # along the gradients
            found = jax.tree.map(lambda x: jnp.tensordot(share, x, 1).astype(x.dtype), sums)
            return self._steps.of_state(found)

        return along

    def _along(self, slow: Slow, static: Any) -> tuple[Slow, dict[str, Any]]:
        """The sum of V over each sequence, and the memories after its first `fill` steps."""
        gradients = jax.vmap(lambda b: self._steps.gradient(slow, static, b))(self._batches)
        fill = self._sequences.fill

        def stepped(memories: Any, k: Any) -> tuple[Slow, Any]:
            g, batch = jax.tree.map(lambda x: x[k], (gradients, self._batches))
            return self._steps.after(slow, static, g, memories, batch)

        def filling(memories: Any, k: Any) -> Any:
            return stepped(memories, k)[1], None

        def step(carry: Any, k: Any) -> Any:
            total, memories = carry
            moved, memories = stepped(memories, k)
            return (jax.tree.map(jnp.add, total, moved), memories), None

        empty = self._steps.empty(slow, static, jax.tree.map(lambda x: x[0], self._batches))

        def one(sequence: Any) -> Any:
            none = jax.tree.map(jnp.zeros_like, slow)
            full, _ = jax.lax.scan(filling, empty, sequence)
            start, _ = jax.lax.scan(step, (none, full), sequence[:fill])
            (total, _), _ = jax.lax.scan(step, start, sequence[fill:])
            return total, start[1]

        return jax.vmap(one)(jnp.asarray(self._sequences.each))

    def _first_order(self, slow: Slow, static: Any, moves: Slow, held: Any) -> Slow:
        """The field F_1: the derivative of the mean of V in the size of the steps taken.

        Params start so far back along the mean that they are at the state in the middle of the
        last steps.
        """
        s = self._sequences
        back = -(s.moving + s.last / 2)

        def one(sequence: Any, memories: Any) -> Slow:
            def mean_of_last(size: Any) -> Slow:
                def step(carry: Any, k: Any) -> Any:
                    at, memories = carry
                    batch = jax.tree.map(lambda x: x[k], self._batches)
                    g = self._steps.gradient(at, static, batch)
                    moved, memories = self._steps.after(at, static, g, memories, batch)
                    at = jax.tree.map(lambda x, v: (x + size * v).astype(x.dtype), at, moved)
                    return (at, memories), moved

                start = jax.tree.map(
                    lambda x, v: (x + size * back * v).astype(x.dtype), slow, moves
                )
                reached, _ = jax.lax.scan(step, (start, memories), sequence[: s.moving])
                _, moved = jax.lax.scan(step, reached, sequence[s.moving :])
                return jax.tree.map(lambda x: jnp.mean(x, 0), moved)

            return jax.jvp(mean_of_last, (0.0,), (1.0,))[1]

        found = jax.vmap(one)(jnp.asarray(s.each[:, s.fill :]), held)
        return jax.tree.map(lambda x: jnp.mean(x, 0), found)
