"""Figure 5.2 of the dissertation on Metric regularization: eigenvalues with and without a matrix.

Section 5.2 trains a network of layers 100, 10, 5 on the middle 10 by 10 pixels of MNIST's first
five digits and finds the top 15 eigenvalues of its Hessian twice. Where MNIST is not at hand the
8 by 8 pixels of scikit-learn's digits stand in for the middle of MNIST's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from analysis.data import Classification, TrainTest, digits, mnist, split
from analysis.models import MLP
from analysis.scale import Scale, conditions
from analysis.training import Steps, train
from analysis.training.losses import cross_entropy
from igr.curvature import hessian_product, top_eigenpairs
from paper_figures import style
from paper_figures.figure import Claim, Drawing

CLASSES, WIDTH, TOP = 5, 10, 15
# Ours: the text gives neither activation nor training.
LEARNING_RATE, BATCH, STEPS = 0.1, 32, 2000
PAPER_DISTANCE = "0.00002146"
TOLERANCE = 1e-6
POWER_STEPS = 20_000  # at most, of the standard method


@dataclass(frozen=True)
class Found:
    """The eigenvalues largest in magnitude, by three ways.

    Attributes:
        matrix_free: `top_eigenpairs(method="subspace")`: products alone.
        standard: The simultaneous power method on the full Hessian.
        exact: LAPACK on the full Hessian.
        converged: Whether the matrix-free way says it converged.
        products: The products it took.
        iterations: The steps of the standard method.
    """

    matrix_free: Float[np.ndarray, " k"]
    standard: Float[np.ndarray, " k"]
    exact: Float[np.ndarray, " k"]
    converged: bool
    products: int
    iterations: int


@jax.enable_x64(True)
def figure_5_2() -> Drawing:
    """Both sets of eigenvalues as bars side by side."""
    data = five_digits(conditions().scale)
    model, accuracy = trained(data)
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def example_loss(params: Any, example: tuple[Any, Any]) -> jax.Array:
        x, y = example
        return cross_entropy(eqx.combine(params, static)(x), y)

    found = eigenvalues(example_loss, params, (jnp.asarray(data.train.x), data.train.y), TOP)
    size = sum(leaf.size for leaf in jax.tree.leaves(params))

    picture = style.picture(style.COLUMN, 2.5)
    axes = picture.subplots()
    number = np.arange(1, TOP + 1)
    axes.bar(number - 0.2, np.abs(found.standard), 0.38, color=style.BLUE,
             edgecolor="white", label="power method on the full Hessian")  # fmt: skip
    axes.bar(number + 0.2, np.abs(found.matrix_free), 0.38, color=style.ORANGE, hatch="////",
             edgecolor="white", label="matrix-free (Algorithm 1, mended)")  # fmt: skip
    for at, value in zip(number, found.exact, strict=True):
        if value < 0:
            axes.annotate("–", (at, abs(value)), (0, 1), textcoords="offset points", ha="center")
    note = "\n– : negative" if (found.exact < 0).any() else ""
    axes.set(xlabel="eigenvalue, largest in magnitude first", ylabel="magnitude")
    axes.set_xticks([1, 5, 10, 15])
    axes.legend(title=f"{data.source},\n{size:,} parameters{note}", title_fontsize=7)
    table = pd.DataFrame(
        {
            "rank": number,
            "full Hessian, power method": found.standard,
            "matrix-free": found.matrix_free,
            "full Hessian, LAPACK": found.exact,
            "data": data.source,
        }
    )
    return Drawing(picture, table, claims(found, accuracy))


def five_digits(scale: Scale) -> TrainTest[Classification]:
    """The first five digits, flattened: MNIST's middle 10 by 10 pixels, or scikit-learn's digits.

    Args:
        scale: "quick" takes scikit-learn's.
    """
    if scale == "quick":
        whole = split(digits(), 597, seed=0)
        parts = [_first_classes(part) for part in (whole.train, whole.test)]
        return TrainTest(*parts, source="scikit-learn's digits 0 to 4")
    whole = mnist()
    parts = [
        Classification(part.x[..., 9:19, 9:19].reshape(len(part), -1), part.y, part.num_classes)
        for part in (whole.train, whole.test)
    ]
    return TrainTest(*map(_first_classes, parts), source="MNIST's digits 0 to 4, the middle")


def trained(data: TrainTest[Classification]) -> tuple[MLP, float]:
    """The network at the end of training, in float64, and its training accuracy."""
    runs = train(
        lambda key: MLP(data.train.x.shape[1], CLASSES, WIDTH, 1, jnp.tanh, key=key),
        lambda settings: optax.sgd(settings["learning_rate"]),
        data,
        grid={"learning_rate": (LEARNING_RATE,)},
        seeds=(0,),
        stop=Steps(STEPS),
        batch_size=BATCH,
        samples=1,
    )
    model = jax.tree.map(
        lambda v: jnp.asarray(v, float) if eqx.is_inexact_array(v) else v, runs.model_of(0, 0)
    )
    return model, float(runs["train_accuracy"][0, 0, -1])


def eigenvalues(example_loss: Any, params: Any, batch: Any, k: int) -> Found:
    """The k eigenvalues of the mean loss's Hessian that are largest in magnitude.

    Args:
        example_loss: `(params, example) -> scalar`.
        params: Where.
        batch: The examples.
        k: How many.
    """
    product = hessian_product(example_loss, params, batch)
    free = top_eigenpairs(
        product, params, k, method="subspace", tol=TOLERANCE, max_products=200 * k
    )
    flat, unravel = ravel_pytree(params)

    def loss(flat: jax.Array) -> jax.Array:
        return jnp.mean(jax.vmap(lambda e: example_loss(unravel(flat), e))(batch))

    # Row by row from the gradient, none of the library's products in it.
    full = np.asarray(jax.jit(jax.jacrev(jax.grad(loss)))(flat))
    full = (full + full.T) / 2
    exact = np.linalg.eigvalsh(full)
    standard, iterations = power_method(full, k)
    return Found(
        matrix_free=np.asarray(free.values),
        standard=standard,
        exact=exact[np.argsort(-np.abs(exact))][:k],
        converged=bool(free.converged),
        products=int(free.products),
        iterations=iterations,
    )


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


def claims(found: Found, accuracy: float) -> tuple[Claim, ...]:
    """The two ways agree, on a network that fits its data."""
    distance = float(np.linalg.norm(found.matrix_free - found.standard))
    to_exact = float(np.linalg.norm(found.matrix_free - found.exact))
    error = np.abs(found.matrix_free - found.standard) / np.abs(found.standard)
    return (
        Claim(
            "the matrix-free method finds the same top 15 eigenvalues as the power method on the "
            "full Hessian",
            f"distance {distance:.1e}, its square root {np.sqrt(distance):.1e}; at most "
            f"{error.max():.1e} of an eigenvalue; converged: {found.converged}, "
            f"{found.products} products, {found.iterations} steps of the standard method",
            bool(found.converged and error.max() <= 1e-3),
            paper=f"{PAPER_DISTANCE} (square root of the L2 norm)",
            otherwise="Eigenvalues of nearly one size trade places in a power method.",
        ),
        Claim(
            "they are those of the full Hessian by LAPACK",
            f"distance {to_exact:.1e} (matrix-free), "
            f"{np.linalg.norm(found.standard - found.exact):.1e} (power method)",
            bool(np.allclose(found.matrix_free, found.exact, rtol=1e-3)),
            paper="not in the paper",
            otherwise="Eigenvalues of nearly one size trade places in a power method.",
        ),
        Claim(
            "the small network can fit the data",
            f"training accuracy {accuracy:.1%}",
            accuracy >= 0.95,
            paper="section 5.2, in words",
            otherwise="It is trained too briefly.",
        ),
    )


def _first_classes(data: Classification) -> Classification:
    which = data.y < CLASSES
    return Classification(data.x[which], data.y[which], CLASSES)
