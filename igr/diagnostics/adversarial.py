"""Detects adversarial inputs by the trace of the tangent kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from igr.batch_parts import mapped_over_parts
from igr.checks import Count, Number, check_count, check_number, check_step
from igr.diagnostics.kernel.tangent_kernel import tangent_kernel_trace
from igr.meshes import on_any_mesh
from igr.one_example import of_one_example
from igr.pytrees import inputs_and_targets, num_examples
from igr.shown import short, table


class ROC(NamedTuple):
    """The receiver operating characteristic of a score, at every threshold.

    Attributes:
        false_positive: The share of negatives at or above the threshold, rising from 0 to 1.
        true_positive: The share of positives at or above the threshold.
        threshold: From infinity down, through every score that occurs.
        area: The area under the curve: the probability that a positive scores higher than a
            negative, ties counted half. 0.5 is chance, and below 0.5 the score is reversed.
    """

    false_positive: Float[np.ndarray, " points"]
    true_positive: Float[np.ndarray, " points"]
    threshold: Float[np.ndarray, " points"]
    area: float

    __repr__ = short
    _repr_html_ = table


class AdversarialDetection(NamedTuple):
    """The scores of clean and perturbed inputs, and their ROC curve.

    Attributes:
        perturbed: The perturbed inputs.
        clean_scores: tr K of each input, (n,).
        perturbed_scores: tr K of each perturbed input, (n,).
        roc: The ROC curve, with the perturbed inputs as positives.
    """

    perturbed: PyTree
    clean_scores: Float[Array, " n"]
    perturbed_scores: Float[Array, " n"]
    roc: ROC

    __repr__ = short
    _repr_html_ = table


def adversarial_detection(
    apply_fn: Callable[[PyTree, Any], Any],
    example_loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    batch: PyTree = None,
    y: Any = None,
    epsilon: Number | None = None,
    *,
    x: PyTree = None,
    low: Number | None = None,
    high: Number | None = None,
    chunk: Count = 128,
) -> AdversarialDetection:
    """Tests whether tr K separates inputs perturbed by the sign of the gradient from clean ones.

    Appendix C of Szolnoky et al., "On the interpretability of regularisation for neural networks
    through model gradient similarity" (2022), after Martin and Elster, "Inspecting adversarial
    examples using the Fisher information" (2020), who found the trace large for adversarial inputs.
    That is the kernel of probabilities, whose trace grows where the network is uncertain. On a
    network for 8x8 digits the areas under the curve were 0.77, 0.87 and 0.76 for epsilon 0.05, 0.1
    and 0.2, and with logits for outputs 0.45, 0.42 and 0.41: worse than chance. Give the
    probabilities.

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x: the function of the kernel,
            such as `lambda params, x: jax.nn.softmax(logits(params, x))`.
        example_loss_fn: `(params, (x, y)) -> scalar`, the loss that the attack raises.
        params: Any pytree with floating leaves.
        batch: The pair (x, y): the inputs, floating, along the leading axis, an array or a pytree
            of arrays; and their targets, along the same. `epsilon` comes next.
        y: The targets, where they are given apart, and `batch` the inputs alone.
        epsilon: How far every entry of an input is moved.
        x: The inputs, where these are given apart too.
        low: The least an entry of an input may become, such as 0 for grey levels; no limit by
            default.
        high: The most it may become.
        chunk: The number of inputs to take at a time.

    Returns:
        An `AdversarialDetection`: perturbed, clean_scores, perturbed_scores, roc.

    Raises:
        ValueError: As `sign_perturbed` and `example_kernel_traces`; if a score is NaN.
        TypeError: As `sign_perturbed`.

    >>> import jax.numpy as jnp
    >>> apply_fn = lambda w, x: w @ x  # of which |x|^2 is the trace, and x shall grow
    >>> loss = lambda w, example: -apply_fn(w, example[0]) * example[1]
    >>> x, w = jnp.array([[-1.0, 2.0], [2.0, 3.0]]), jnp.array([-1.0, -1.0])
    >>> found = adversarial_detection(apply_fn, loss, w, (x, jnp.ones(2)), 2.0)
    >>> print(found.clean_scores, found.perturbed_scores, found.roc.area)
    [ 5. 13.] [17. 41.] 1.0
    """
    x, y, epsilon = _asked(batch, y, epsilon, x)
    perturbed = sign_perturbed(example_loss_fn, params, (x, y), epsilon, low=low, high=high)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), x, perturbed)
    clean, moved = jnp.split(example_kernel_traces(apply_fn, params, both, chunk=chunk), 2)
    return AdversarialDetection(perturbed, clean, moved, roc_curve(clean, moved))


@on_any_mesh
def example_kernel_traces(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree, *, chunk: Count = 128
) -> Float[Array, " n"]:
    """The trace of each example's tangent kernel, sum_o |grad f_o(x_i)|^2, an array (n,).

    Args:
        apply_fn: `(params, x) -> outputs (q,)`, or a scalar, for one x.
        params: Any pytree with floating leaves.
        x: A pytree of arrays with a leading axis of n examples.
        chunk: The number of examples to take at a time.

    Returns:
        One number an example; they add up to `tangent_kernel_trace`.

    Raises:
        ValueError: As `tangent_kernel_trace`.
        TypeError: If `chunk` is not an integer.

    >>> import jax.numpy as jnp
    >>> print(example_kernel_traces(lambda w, x: w * x, jnp.ones(2), jnp.array([[1.0, 2], [0, 3]])))
    [5. 9.]
    """
    chunk = check_count("chunk", chunk, 1)
    n = num_examples(x)

    def of_one(x: PyTree) -> Array:
        return tangent_kernel_trace(apply_fn, params, jax.tree.map(lambda leaf: leaf[None], x))

    return mapped_over_parts(of_one, x, min(chunk, n))


def sign_perturbed(
    example_loss_fn: Callable[[PyTree, PyTree], Any],
    params: PyTree,
    batch: PyTree = None,
    y: Any = None,
    epsilon: Number | None = None,
    *,
    x: PyTree = None,
    low: Number | None = None,
    high: Number | None = None,
) -> PyTree:
    """The inputs moved by epsilon along the sign of the loss's gradient, so that the loss rises.

    Goodfellow, Shlens and Szegedy, "Explaining and harnessing adversarial examples" (2015).

    Args:
        example_loss_fn: `(params, (x, y)) -> scalar`.
        params: Any pytree.
        batch: The pair (x, y): the inputs, floating, along the leading axis, an array or a pytree
            of arrays; and their targets, along the same. `epsilon` comes next.
        y: The targets, where they are given apart, and `batch` the inputs alone.
        epsilon: How far every entry is moved; an entry whose derivative is zero is not.
        x: The inputs, where these are given apart too.
        low: The least an entry may become.
        high: The most it may become.

    Returns:
        Inputs of the shapes and dtypes of x.

    Raises:
        ValueError: If epsilon is not positive and finite, x and y disagree in their leading axis, x
            is not floating, or low is not below high.
        TypeError: If the batch is neither a pair nor given as x and y, or epsilon is missing.

    >>> import jax.numpy as jnp
    >>> loss = lambda w, example: w * example[1] * jnp.sum(example[0])
    >>> batch = jnp.zeros((2, 1)), jnp.array([1.0, -1.0])
    >>> print(sign_perturbed(loss, 1.0, batch, 0.5).ravel())
    [ 0.5 -0.5]
    """
    x, y, epsilon = _asked(batch, y, epsilon, x)
    epsilon = check_step("epsilon", epsilon)
    num_examples((x, y))
    for leaf in jax.tree.leaves(x):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(f"x must be floating to be differentiated by; got {leaf.dtype}.")
    low = None if low is None else check_number("low", low)
    high = None if high is None else check_number("high", high)
    if low is not None and high is not None and not low < high:
        raise ValueError(f"low must be below high; got {low} and {high}.")
    x = jax.tree.map(jnp.asarray, x)

    def loss(x: PyTree, y: PyTree) -> Array:
        return of_one_example(example_loss_fn, params, (x, y))

    gradient = jax.vmap(jax.grad(loss))(x, y)

    def moved(x: Array, g: Array) -> Array:
        return jnp.clip(x + jnp.asarray(epsilon, x.dtype) * jnp.sign(g), low, high)

    return jax.tree.map(moved, x, gradient)


def _asked(batch: Any, y: Any, epsilon: Any, x: Any) -> tuple[Any, Any, Any]:
    """The inputs x, targets y and epsilon, from any accepted order of arguments."""
    if epsilon is None:
        y, epsilon = None, y
    if epsilon is None:
        raise TypeError("epsilon must be given, how far every entry of an input is moved.")
    return *inputs_and_targets(batch, y, x), epsilon


def roc_curve(negatives: Any, positives: Any) -> ROC:
    """The receiver operating characteristic (ROC) of a score.

    Args:
        negatives: The scores of the negatives, a vector.
        positives: The scores of the positives, which are to be detected, a vector.

    Returns:
        A `ROC`: false_positive, true_positive, threshold, area.

    Raises:
        ValueError: If one is not a vector, is empty or holds NaN.

    >>> found = roc_curve([1.0, 2.0, 3.0], [2.5, 4.0])
    >>> found.true_positive.tolist(), round(found.area, 3)
    ([0.0, 0.5, 0.5, 1.0, 1.0, 1.0], 0.833)
    """
    scores = {"negatives": np.asarray(negatives), "positives": np.asarray(positives)}
    for name, given in scores.items():
        if given.ndim != 1 or not given.size:
            raise ValueError(f"{name} must be a vector of scores; got shape {given.shape}.")
        if np.any(np.isnan(given)):
            raise ValueError(f"{name} must be numbers; got {np.sum(np.isnan(given))} NaN.")
    threshold = np.unique(np.concatenate(list(scores.values())))[::-1]

    def share(scores: np.ndarray) -> np.ndarray:
        above = len(scores) - np.searchsorted(np.sort(scores), threshold)
        return np.concatenate([[0.0], above / len(scores)])

    false_positive, true_positive = (share(given) for given in scores.values())
    return ROC(
        false_positive=false_positive,
        true_positive=true_positive,
        threshold=np.concatenate([[np.inf], threshold]),
        area=float(np.trapezoid(true_positive, false_positive)),
    )
