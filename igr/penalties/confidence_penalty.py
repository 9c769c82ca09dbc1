"""The confidence penalty: the negative entropy of the predicted probabilities."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from igr.one_example import of_one_example
from igr.penalties.example_loss import require_classes


def confidence_penalty(
    apply_fn: Callable[[PyTree, Any], Any], params: PyTree, x: PyTree
) -> Float[Array, ""]:
    r"""The negative entropy sum_o p_o log p_o of p = softmax(f(x_i)), a mean over the batch.

    Pereyra, Tucker, Chorowski, Kaiser and Hinton, "Regularizing neural networks by penalizing
    confident output distributions" (2017), which "Gradient regularization improves accuracy of
    discriminative models" compares with in section 4.3. It lies between -log q, where all q
    classes are equally likely, and 0, where the network is certain.

    Normalisation: L + beta P for a mean loss, as in the paper, which writes L - beta H; the
    entropy H is in nats.

    Args:
        apply_fn: `(params, x) -> logits (q,)` for one x.
        params: Any pytree.
        x: A pytree of arrays with a leading axis of n examples.

    Returns:
        The scalar P, in float32 or wider.

    Raises:
        ValueError: If the leaves of x disagree in their leading axis, or apply_fn returns no
            vector of two logits or more.

    >>> import jax.numpy as jnp
    >>> print(confidence_penalty(lambda w, x: w * x, jnp.zeros(4), jnp.ones(3)).round(4))  # -log 4
    -1.3863
    """
    require_classes(apply_fn, params, x)
    logits = jax.vmap(lambda x: jnp.ravel(of_one_example(apply_fn, params, x)))(x)
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    log_p = jax.nn.log_softmax(logits, axis=1)
    p = jnp.exp(log_p)
    # a class ruled out by a logit of -inf counts 0 log 0 = 0
    return jnp.mean(jnp.sum(jnp.where(p > 0, p * jnp.where(p > 0, log_p, 0), 0), axis=1))
