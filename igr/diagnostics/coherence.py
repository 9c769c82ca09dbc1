"""Coherence: how far the gradients of the examples point in the same direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from igr.checks import Count, Number, check_choice, check_count, check_number, check_numbers
from igr.curvature.vectors import HIGHEST, inner, scaled, widened
from igr.meshes import on_any_mesh
from igr.per_example.sums import spreads_of_signs, streamed_sums
from igr.powers_of_two import power_of_two_near
from igr.pytrees import num_examples, trained_part
from igr.shown import short, table


class Coherence(NamedTuple):
    """The coherence of the gradients g_1, ..., g_n of n examples.

    Attributes:
        alpha: |mean g|^2 over the mean of |g_i|^2: from 0, where the gradients cancel, through
            1/n, where they are orthogonal, to 1, where they are equal. NaN where all are zero.
        helped: alpha over its orthogonal limit 1/n: how many examples the gradient of one helps to
            fit, on average.
        mean_gradient_square: |mean g|^2, the mean of g_i . g_j over all i and j.
        mean_square: The mean of |g_i|^2.
        standard_error: The standard error of alpha that is due to the random signs; 0 where none
            were drawn, infinite where one draw says nothing of its error.
        mean_gradient_norm: |mean g|, which stays in the range of the dtype where the square may
            not: it is 0 or infinite for gradients far from one in float32.
        root_mean_square: The root of the mean of |g_i|^2, likewise.
    """

    alpha: Float[Array, ""]
    helped: Float[Array, ""]
    mean_gradient_square: Float[Array, ""]
    mean_square: Float[Array, ""]
    standard_error: Float[Array, ""]
    mean_gradient_norm: Float[Array, ""]
    root_mean_square: Float[Array, ""]

    __repr__ = short
    _repr_html_ = table


@on_any_mesh
def coherence(
    example_loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    batch: PyTree,
    *,
    method: Literal["exact", "random_signs"] = "exact",
    probes: Count = 8,
    key: PRNGKeyArray | None = None,
    chunk: Count | None = None,
) -> Coherence:
    """The coherence alpha = E[g_z . g_z'] / E[g_z . g_z] of a batch's gradients.

    Section 5.2 of "Appealing to gradients to investigate neural network generalization", after
    Chatterjee and Zielinski, "On the generalization mystery in deep learning" (2022). Two sums are
    enough, |sum g_i|^2 and sum |g_i|^2:

    - "exact" adds both up in one pass over the batch. Where a matrix enters the loss as products
      alone, as in dense layers, sequences and scans, both come from the activations and the
      cotangents of its output (`igr.per_example.factors`); gradients of other leaves are formed
      for `chunk` examples at a time. The memory is a few times the parameters, and the activations.
    - "random_signs" takes one gradient of the batch and one backward pass a probe, of the losses
      weighted by random signs r_i less their mean:
      sum |g_i|^2 = |sum g_i|^2 / n + E |sum (r_i - mean r) g_i|^2. The first part is known; only
      the spread about the mean gradient is drawn, so that the estimate is the better the more
      coherent the gradients are. It is unbiased, with the variance
      2 sum_(i != j) ((g_i - mean g) . (g_j - mean g))^2 a probe; alpha, a ratio, is so to first
      order, and never leaves [0, 1].

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves.
        batch: A pytree of arrays with a leading axis of n examples.
        method: "exact" or "random_signs".
        probes: The number of draws of n random signs.
        key: For the signs; `jax.random.key(0)` by default. In a training loop give a new one each
            time.
        chunk: The number of examples to differentiate at a time under "exact"; by default as many
            as keep the gradients that must be formed as small as the parameters.

    Returns:
        A `Coherence`: alpha, helped and the sums they come from, in float32 or wider.

    Raises:
        ValueError: If the leaves of batch disagree in their leading axis, params have no floating
            leaf, the loss is not a scalar, `method` is none of the two, or `probes` or `chunk` is
            less than 1.
        TypeError: If `probes` or `chunk` is not an integer.

    Two examples pull the same way along one axis and are alone on another each:

    >>> import jax.numpy as jnp
    >>> found = coherence(lambda w, x: w @ x, jnp.zeros(3), jnp.array([[1.0, 1, 0], [1.0, 0, 1]]))
    >>> float(found.alpha), float(found.helped)
    (0.75, 1.5)
    """
    check_choice("method", method, ("exact", "random_signs"))
    probes = check_count("probes", probes, 1)
    if chunk is not None:
        chunk = check_count("chunk", chunk, 1)
    n = num_examples(batch)
    if method == "exact":
        sum_square, square_sum, unit = streamed_sums(example_loss_fn, params, batch, chunk)
        return _coherence(sum_square / n**2, square_sum / n, n, unit=unit)
    sum_square, spreads, unit = spreads_of_signs(example_loss_fn, params, batch, probes, key)
    mean_square = (sum_square / n + jnp.mean(spreads)) / n
    # with one probe the sample variance is 0/0
    error = jnp.std(spreads, ddof=1) / probes**0.5 if probes > 1 else jnp.inf
    return _coherence(sum_square / n**2, mean_square, n, error / n, unit)


@on_any_mesh
def coherence_from_batches(
    batch_gradients: PyTree, batch_size: Count, *, finite_sample: bool = False
) -> Coherence:
    """The coherence of single examples, from the mean gradients of mini-batches.

    Theorem 5.6 of "Appealing to gradients": means of k independent draws have the coherence
    k a / (1 + (k - 1) a), where a is that of the draws. Solved for a = alpha, with w the b batch
    gradients, E|g|^2 = |mean w|^2 + k (E|w|^2 - |mean w|^2).

    The theorem is about a distribution; put into it, b batches know their own mean and not that of
    the distribution, and orthogonal examples seem to help one another by the factor b / (b - 1).
    `finite_sample` counts this: with (m - 1) / (b - 1) for k, where m = b k, both parts of alpha
    are unbiased over random partitions of the m examples, and orthogonal gradients of one length
    have helped = 1 exactly. Arrays twice as large as the b gradients are held beside them.

    Args:
        batch_gradients: A pytree of the mean gradients of b disjoint batches, stacked along a
            leading axis (as `igr.per_example.grouped_gradients` returns them).
        batch_size: The number k of examples in each batch.
        finite_sample: Whether to estimate the coherence of these m = b k examples without bias,
            instead of what the theorem gives.

    Returns:
        A `Coherence` of the m = b k examples.

    Raises:
        ValueError: If the leaves disagree in their leading axis, there are fewer than two batches,
            no leaf is a floating array, or `batch_size` is less than 1.
        TypeError: If `batch_size` is not an integer.

    >>> import jax.numpy as jnp
    >>> found = coherence_from_batches(jnp.array([[1.0, 1.0], [1.0, -1.0]]), 4)
    >>> float(found.alpha), float(found.helped)
    (0.2, 1.6)
    """
    k = check_count("batch_size", batch_size, 1)
    gradients = widened(trained_part(batch_gradients))
    b = _num_batches(gradients)
    unit = power_of_two_near(gradients)
    gradients = scaled(1 / unit, gradients)
    n = b * k
    # As a product: of jnp.mean XLA would make a new one for every entry it is subtracted from.
    mean = jax.tree.map(
        lambda w: jnp.tensordot(jnp.full(b, 1 / b, w.dtype), w, 1, precision=HIGHEST), gradients
    )
    aligned = inner(mean, mean)
    spread = sum(jax.tree.leaves(jax.tree.map(lambda w, m: jnp.sum((w - m) ** 2), gradients, mean)))
    factor = (n - 1) / (b - 1) if finite_sample else k
    return _coherence(aligned, aligned + factor * spread / b, n, unit=unit)


def generalization_gap_bound(
    alphas: Float[Array | np.ndarray, " steps"],
    learning_rates: Float[Array | np.ndarray, " steps"] | Number,
    num_examples: Count,
    *,
    lipschitz: Number,
    smoothness: Number,
) -> Float[Array, " steps"]:
    """The coherence bound on the generalization gap after each step of a run, an array (T,).

    Theorem 5.4 of "Appealing to gradients" (Chatterjee and Zielinski, 2022): after T steps

        |gap| <= L^2/m sum_(t=1)^T [prod_(k=t+1)^T (1 + h_k beta)] h_t sqrt(2 (1 - alpha_(t-1))).

    A qualitative bound: it grows exponentially in the length of the run, and what it says is that
    coherence early on is worth more than coherence late. Along a run recorded by `igr.run` the
    coherences are `jax.lax.map(lambda p: coherence(example_loss_fn, p, batch).alpha, run.params)`,
    the last of them, after the last step, left out; along any other, those of an `igr.Monitor` with
    every=1.

    Args:
        alphas: The coherence alpha before each step.
        learning_rates: h of each step, or one for all.
        num_examples: The size m of the training set.
        lipschitz: L, a bound of the gradients of single examples.
        smoothness: beta, a Lipschitz constant of those gradients.

    Returns:
        The bound after 1, 2, ..., T steps; infinite where it leaves the range of the dtype.

    Raises:
        ValueError: If `alphas` is not a vector of numbers in [0, 1], `learning_rates` is neither
            one number nor one a step, or any of the constants is negative.
        TypeError: If `num_examples` is not an integer.

    >>> import jax.numpy as jnp
    >>> bound = generalization_gap_bound(jnp.array([0.5, 0.5]), 1.0, 4, lipschitz=2, smoothness=1)
    >>> print(bound)
    [1. 3.]
    """
    num_examples = check_count("num_examples", num_examples, 1)
    learning_rates = check_numbers("learning_rates", learning_rates)
    lipschitz = check_number("lipschitz", lipschitz, at_least=0)
    smoothness = check_number("smoothness", smoothness, at_least=0)
    alphas = jnp.asarray(alphas, jnp.result_type(float, jnp.asarray(alphas)))
    bound_of_gradients, beta = (jnp.asarray(x, alphas.dtype) for x in (lipschitz, smoothness))
    rates = jnp.asarray(learning_rates, alphas.dtype)
    if alphas.ndim != 1:
        raise ValueError(f"alphas must be a vector, one a step; got shape {alphas.shape}.")
    if rates.shape not in ((), alphas.shape):
        raise ValueError(
            f"learning_rates must be one number or {alphas.size}, as many as alphas; got shape "
            f"{rates.shape}."
        )
    _require("alphas must lie in [0, 1]", alphas, (alphas >= 0) & (alphas <= 1 + 1e-5))
    _require("learning_rates must not be negative", rates, rates >= 0)

    def step(bound: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        alpha, rate = now
        spread = jnp.sqrt(2 * jnp.maximum(1 - alpha, 0))  # alpha may pass 1 by rounding
        bound = (1 + rate * beta) * bound + rate * spread
        return bound, bound

    rates = jnp.broadcast_to(rates, alphas.shape)
    sums = jax.lax.scan(step, jnp.zeros((), alphas.dtype), (alphas, rates))[1]
    # Not by the square, which may be out of range where the bound is not.
    return bound_of_gradients * (bound_of_gradients / num_examples * sums)


def _coherence(
    aligned: Array, mean_square: Array, n: int, error: Any = 0.0, unit: Array | Number = 1.0
) -> Coherence:
    """A `Coherence` from |mean g|^2 and the mean of |g_i|^2, which has the standard error `error`.

    Both are those of the gradients divided by `unit`.
    """
    alpha = aligned / mean_square
    standard_error = jnp.asarray(alpha * error / mean_square, alpha.dtype)
    unit = jnp.asarray(unit, alpha.dtype)
    return Coherence(
        alpha=alpha,
        helped=n * alpha,
        mean_gradient_square=unit * (unit * aligned),
        mean_square=unit * (unit * mean_square),
        standard_error=standard_error,
        mean_gradient_norm=unit * jnp.sqrt(aligned),
        root_mean_square=unit * jnp.sqrt(mean_square),
    )


def _num_batches(gradients: PyTree) -> int:
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(gradients)}
    if not lengths:
        raise ValueError("batch_gradients must hold at least one floating array; it holds none.")
    if len(lengths) > 1 or () in lengths:
        raise ValueError(
            "the leaves of batch_gradients must agree in a leading axis of batches; got shapes "
            f"{[leaf.shape for leaf in jax.tree.leaves(gradients)]}."
        )
    (b,) = lengths.pop()
    if b < 2:
        raise ValueError(f"batch_gradients must hold at least two batches; got {b}.")
    return b


def _require(what: str, value: Any, holds: Array) -> None:
    """Raises `ValueError` unless `holds` is true everywhere; traced values pass."""
    if not isinstance(holds, Tracer) and not bool(jnp.all(holds)):
        raise ValueError(f"{what}; got {value}.")
