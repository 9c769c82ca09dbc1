"""Products of the Gauss-Newton and Fisher matrices, positive semi-definite, with vectors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from igr.checks import Count
from igr.compiled import traced
from igr.curvature.operator import first_example, operator, traced_scalar
from igr.forward_mode import jvp, linearize
from igr.missing_parts import of_whole
from igr.one_example import of_one_example
from igr.pytrees import combine, partition


def gauss_newton_product(
    apply_fn: Callable[..., Any],
    output_loss_fn: Callable[..., Any],
    params: PyTree,
    batch: tuple[PyTree, PyTree] | None = None,
    *,
    chunk: Count | None = None,
) -> Callable[[PyTree], PyTree]:
    """The function v -> Gv, with G the Gauss-Newton matrix of the mean of a composed loss.

    The loss of an example (x, y) is output_loss_fn(f, y) at f = apply_fn(params, x). With J the
    Jacobian of f in the parameters and H_f the Hessian of the loss in f,

        G = mean over the examples of J' H_f J,

    the Hessian without its part from the second derivatives of f; positive semi-definite where
    the loss is convex in f. For losses that are a negative log likelihood in its natural parameters
    (squared error, cross-entropy on logits) G is the Fisher matrix of the model.

    Args:
        apply_fn: `(params, x) -> outputs` for one example; or, without `batch`, `params -> outputs`
            for all. The outputs are any pytree of floating arrays.
        output_loss_fn: `(outputs, y) -> scalar` for one example; or, without `batch`,
            `outputs -> scalar` for all.
        params: Any pytree with floating leaves; the others are held fixed.
        batch: The pair (inputs, targets), each a pytree with the same leading example axis. Prefer
            it to functions that close over the data (see `hessian_product`).
        chunk: The number of examples to take at a time, by default all, with the linearization
            kept (see `hessian_product`).

    Returns:
        A function on vectors, as that of `hessian_product`.

    Raises:
        ValueError: If `params` has no floating leaf, `batch` is not a pair, its axes disagree, the
            loss is not a scalar, or `chunk` is not a positive number of examples.

    >>> import jax.numpy as jnp
    >>> product = gauss_newton_product(
    ...     lambda w, x: jnp.tanh(w @ x),
    ...     lambda out, y: (out - y) ** 2 / 2,
    ...     jnp.zeros(2),
    ...     (jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([5.0, 7.0])),
    ... )
    >>> print(product(jnp.array([1.0, 0.0])))
    [5. 1.]

    References:
        Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent"
        (2002); Martens, "New insights and perspectives on the natural gradient method" (2020).
    """
    params = combine(*partition(params))
    if batch is None:
        apply = traced(partial(of_whole, apply_fn), params)
        outputs = eqx.filter_eval_shape(apply, params)
        loss = traced_scalar("output_loss_fn", output_loss_fn, outputs)
        return operator(_GaussNewtonTerm(apply, loss), params, None, chunk)
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        raise ValueError(
            f"batch must be the pair (inputs, targets); got {type(batch).__name__}"
            + (f" of length {len(batch)}." if isinstance(batch, tuple | list) else ".")
        )
    x, y = first_example(tuple(batch))
    apply = traced(partial(of_one_example, apply_fn), params, x)
    outputs = eqx.filter_eval_shape(apply, params, x)
    loss = traced_scalar("output_loss_fn", output_loss_fn, outputs, y)
    return operator(_GaussNewtonTerm(apply, loss), params, tuple(batch), chunk)


def fisher_product(
    example_loss_fn: Callable[..., Any],
    params: PyTree,
    batch: PyTree,
    *,
    chunk: Count | None = None,
) -> Callable[[PyTree], PyTree]:
    """The function v -> Fv, with F the empirical Fisher matrix, the mean over examples of g_i g_i'.

    g_i is the gradient of example i. Where the loss is a negative log likelihood this is the Fisher
    information with its expectation over the data set (Metric regularization, equation 2.3), often
    called the empirical Fisher. The one with its expectation over the model's own targets is the
    Gauss-Newton matrix of such a loss: `gauss_newton_product`. No gradient of a single example is
    ever formed: a product is one derivative of the losses along v and one weighted gradient.

    Args:
        example_loss_fn: `(params, example) -> scalar`.
        params: Any pytree with floating leaves; the others are held fixed.
        batch: A pytree of arrays with a leading example axis.
        chunk: The number of examples to take at a time, by default all, with the linearization
            kept (see `hessian_product`).

    Returns:
        A function on vectors, as that of `hessian_product`.

    Raises:
        ValueError: If `params` has no floating leaf, the loss is not a scalar, the axes of `batch`
            disagree, or `chunk` is not a positive number of examples.

    >>> import jax.numpy as jnp
    >>> product = fisher_product(lambda w, x: w @ x, jnp.zeros(2), jnp.array([[1.0, 2], [3, 0]]))
    >>> print(product(jnp.array([1.0, 0.0])))
    [5. 1.]
    """
    params = combine(*partition(params))
    loss = traced_scalar("example_loss_fn", example_loss_fn, params, first_example(batch))
    return operator(_FisherTerm(loss), params, batch, chunk, semidefinite=True)


class _GaussNewtonTerm(eqx.Module):
    apply_fn: Callable[..., Any]
    output_loss_fn: Callable[..., Any]

    def __call__(self, params: PyTree, batch: PyTree, v: PyTree) -> PyTree:
        vector, rest = partition(params)

        def outputs(vector: PyTree) -> PyTree:
            whole = combine(vector, rest)
            if batch is None:
                return self.apply_fn(whole)
            return jax.vmap(lambda x: self.apply_fn(whole, x))(batch[0])

        def loss(outputs: PyTree) -> Any:
            if batch is None:
                return self.output_loss_fn(outputs)
            return jnp.sum(jax.vmap(self.output_loss_fn)(outputs, batch[1]))

        f, along, back, _ = linearize(outputs, vector)
        return back(jvp(jax.grad(loss), (f,), (along(v),))[1])


class _FisherTerm(eqx.Module):
    example_loss_fn: Callable[..., Any]

    def __call__(self, params: PyTree, batch: PyTree, v: PyTree) -> PyTree:
        vector, rest = partition(params)

        def losses(vector: PyTree) -> Any:
            whole = combine(vector, rest)
            return jax.vmap(lambda example: self.example_loss_fn(whole, example))(batch)

        _, along, back, _ = linearize(losses, vector)
        return back(along(v))
