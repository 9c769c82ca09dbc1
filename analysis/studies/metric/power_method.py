"""The Hessian's top eigenvalues with and without a matrix (Metric regularization, section 5.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from analysis.data import Classification, TrainTest, mnist
from analysis.models import MLP
from analysis.scale import Scale
from analysis.studies.images import Images, images
from analysis.sweep import Study
from analysis.training import Options, Steps, train
from analysis.training.losses import cross_entropy
from igr.curvature import hessian_product, top_eigenpairs

CLASSES = 5
POWER_STEPS = 20_000  # at most, of the standard method


@dataclass(frozen=True)
class Cell:
    """One network, trained, and its Hessian.

    The text gives layers (100, 10, 5) and neither activation nor training: tanh and what is below
    from `learning_rate` on are ours.

    Attributes:
        data: The middle 10 by 10 pixels of MNIST's first five digits, or, where MNIST is not at
            hand, the 8 by 8 pixels of scikit-learn's.
        width: Units of the hidden layer.
        top: How many eigenvalues.
        learning_rate: Of SGD.
        batch_size: Examples a step.
        steps: Of training.
        tolerance: Of the matrix-free method.
    """

    data: Images
    width: int = 10
    top: int = 15
    learning_rate: float = 0.1
    batch_size: int = 32
    steps: int = 2000
    tolerance: float = 1e-6


def study(scale: Scale) -> Study:
    """One network.

    Args:
        scale: "quick": scikit-learn's digits. "medium" and "full": MNIST's, the paper's own size,
            ten times as long.
    """
    cell = Cell("digits") if scale == "quick" else Cell("mnist", steps=20_000)
    return Study("metric-power-method", run, (cell,))


@jax.enable_x64(True)
def run(cell: Cell) -> Mapping[str, Any]:
    """The eigenvalues of the training loss's Hessian where training ends.

    Returns:
        What `eigenvalues` has, and beside it the network's training accuracy, its number of
        parameters and where the data are from.
    """
    data = five_digits(cell.data)
    model, accuracy = _trained(cell, data)
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def example_loss(params: Any, example: tuple[Any, Any]) -> jax.Array:
        x, y = example
        return cross_entropy(eqx.combine(params, static)(x), y)

    batch = (jnp.asarray(data.train.x), data.train.y)
    return {
        **eigenvalues(example_loss, params, batch, cell.top, cell.tolerance),
        "accuracy": accuracy,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "source": data.source,
    }


def five_digits(name: Images) -> TrainTest[Classification]:
    """The first five digits, flattened: MNIST's middle 10 by 10 pixels, or scikit-learn's digits.

    Args:
        name: Whose.
    """
    if name == "digits":
        whole = images("digits")
        parts = [_first_classes(part) for part in (whole.train, whole.test)]
        return TrainTest(*parts, source="scikit-learn's digits 0 to 4")
    whole = mnist()
    parts = [
        Classification(part.x[..., 9:19, 9:19].reshape(len(part), -1), part.y, part.num_classes)
        for part in (whole.train, whole.test)
    ]
    return TrainTest(*map(_first_classes, parts), source="MNIST's digits 0 to 4, the middle")


def eigenvalues(
    example_loss: Any, params: Any, batch: Any, k: int, tolerance: float
) -> Mapping[str, Any]:
    """The k eigenvalues of the mean loss's Hessian that are largest in magnitude, by three ways.

    Args:
        example_loss: `(params, example) -> scalar`.
        params: Where.
        batch: The examples.
        k: How many.
        tolerance: Of the matrix-free way.

    Returns:
        `matrix_free`, by `top_eigenpairs(method="subspace")`, products alone; `standard`, by the
        simultaneous power method on the full Hessian; `exact`, by LAPACK on the full Hessian; each
        (k,). Beside them `converged` and `products` of the first and `iterations` of the second.
    """
    product = hessian_product(example_loss, params, batch)
    free = top_eigenpairs(
        product, params, k, method="subspace", tol=tolerance, max_products=200 * k
    )
    flat, unravel = ravel_pytree(params)

    def loss(flat: jax.Array) -> jax.Array:
        return jnp.mean(jax.vmap(lambda e: example_loss(unravel(flat), e))(batch))

    def rows(flat: jax.Array) -> jax.Array:
        # From the gradient, none of the library's products in it; all at once would take 14 GB
        # on MNIST.
        _, row = jax.vjp(jax.grad(loss), flat)
        return jax.lax.map(lambda e: row(e)[0], jnp.eye(len(flat)), batch_size=32)

    full = np.asarray(jax.jit(rows)(flat))
    full = (full + full.T) / 2
    exact = np.linalg.eigvalsh(full)
    standard, iterations = power_method(full, k)
    return {
        "matrix_free": np.asarray(free.values),
        "standard": standard,
        "exact": exact[np.argsort(-np.abs(exact))][:k],
        "converged": bool(free.converged),
        "products": int(free.products),
        "iterations": iterations,
    }


def power_method(
    matrix: Float[np.ndarray, "n n"], k: int, tol: float = 1e-10, seed: int = 0
) -> tuple[Float[np.ndarray, " k"], int]:
    """The simultaneous power method: multiply, orthonormalize, until nothing moves.

    A column of a negative eigenvalue changes its sign in every step, so that columns are compared
    up to sign; the values are the Rayleigh quotients, which have a sign where the diagonal of R
    depends on the convention of the QR decomposition.

    Args:
        matrix: A symmetric matrix.
        k: How many eigenvalues, those largest in magnitude.
        tol: The change of the values, of the largest, at which to stop.
        seed: Of the first columns.

    Returns:
        The eigenvalues, largest in magnitude first, and the steps it took (at most
        `POWER_STEPS`).

    >>> values, _ = power_method(np.diag([1.0, -4.0, 3.0]), 2)
    >>> values.round(6).tolist()
    [-4.0, 3.0]
    """
    columns = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(matrix), k)))[0]
    values = np.zeros(k)
    step = 0
    while step < POWER_STEPS:
        step += 1
        image = matrix @ columns
        new = (columns * image).sum(axis=0)
        residuals = np.linalg.norm(image - columns * new, axis=0)
        columns = np.linalg.qr(image)[0]
        settled = np.abs(new - values).max() <= tol * np.abs(new).max()
        values = new
        # The error of a Rayleigh quotient is of the order of the residual's square.
        if settled and (residuals**2).max() <= 1e-8 * np.abs(new).min() ** 2:
            break
    return values[np.argsort(-np.abs(values))], step


def _trained(cell: Cell, data: TrainTest[Classification]) -> tuple[MLP, float]:
    """The network at the end of training, in float64, and its training accuracy."""
    runs = train(
        lambda key: MLP(data.train.x.shape[1], CLASSES, cell.width, 1, jnp.tanh, key=key),
        lambda settings: optax.sgd(settings["learning_rate"]),
        data,
        grid={"learning_rate": (cell.learning_rate,)},
        seeds=(0,),
        stop=Steps(cell.steps),
        options=Options(
            batch_size=cell.batch_size,
            samples=1,
        ),
    )
    model = jax.tree.map(
        lambda v: jnp.asarray(v, float) if eqx.is_inexact_array(v) else v, runs.model_of(0, 0)
    )
    return model, float(runs["train_accuracy"][0, 0, -1])


def _first_classes(data: Classification) -> Classification:
    which = data.y < CLASSES
    return Classification(data.x[which], data.y[which], CLASSES)
