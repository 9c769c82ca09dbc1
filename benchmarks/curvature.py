"""Hessian products and eigenpairs against the plain gradient and scipy's eigsh.

MLP 784-256-256-10 (269,322 parameters), 2,048 examples, float32, at initialization and after 200
Adam steps: `python -m benchmarks curvature`. With IGR_DATA the images are MNIST's, from the files
of its owners under $IGR_DATA/mnist; else scikit-learn's digits, enlarged.

Every solver stops by its own rule, at tol = 1e-3. That of scipy asks for a residual of 1e-3; ours
for an error bound of 1e-3 on the value. The errors are against a solution to 1e-6.
"""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.sparse.linalg
from jax.flatten_util import ravel_pytree

from benchmarks.measure import Row, median_seconds
from benchmarks.network import example_loss, logits, network
from igr.curvature import (
    fisher_product,
    gauss_newton_product,
    hessian_product,
    top_eigenpairs,
)

EXAMPLES = 2048
K = 10
CHUNK = 256
_PRODUCTS = {"initialization": "<= 200", "200 Adam steps": "<= 260"}  # of the subspace method


def rows() -> Iterator[Row]:
    """Yields the measurements."""
    batch = images()
    params = network(jax.random.key(0))
    yield from _products(params, batch)
    yield from _eigenpairs("initialization", params, batch)
    yield from _eigenpairs("200 Adam steps", trained(params, batch, 200), batch)


def _products(params: Any, batch: Any) -> Iterator[Row]:
    many = jax.tree.map(lambda x: jax.random.normal(jax.random.key(1), (K, *x.shape)), params)
    whole = hessian_product(example_loss, params, batch)
    parts = hessian_product(example_loss, params, batch, chunk=CHUNK)
    gauss_newton = gauss_newton_product(
        logits, optax.softmax_cross_entropy_with_integer_labels, params, batch
    )
    fisher = fisher_product(example_loss, params, batch)
    seconds = median_seconds(
        {
            "gradient": lambda: _gradient(params, batch),
            "whole": lambda: whole(params),
            "parts": lambda: parts(params),
            "gauss_newton": lambda: gauss_newton(params),
            "fisher": lambda: fisher(params),
            "whole, many": lambda: _many(whole, many),
            "parts, many": lambda: _many(parts, many),
        },
        repeats=7,
    )
    cost = {name: value / seconds["gradient"] for name, value in seconds.items()}
    yield Row("Hessian product, linearized once", cost["whole"], "gradients", "<= 2.0")
    yield Row(f"Hessian product in chunks of {CHUNK}", cost["parts"], "gradients")
    yield Row("Gauss-Newton product", cost["gauss_newton"], "gradients")
    yield Row("Fisher product", cost["fisher"], "gradients")
    yield Row(f"Hessian products of {K}, each", cost["whole, many"] / K, "gradients")
    what = f"Hessian products of {K} in chunks of {CHUNK}"
    yield Row(f"{what}, each", cost["parts, many"] / K, "gradients", "<= 2.0")
    memory = _temporaries(parts, many) / _temporaries(whole, many)
    yield Row(f"{what}, memory", memory, "of that at once", "<= 0.25")


def _eigenpairs(at: str, params: Any, batch: Any) -> Iterator[Row]:
    product = hessian_product(example_loss, params, batch)
    exact = top_eigenpairs(product, params, K, tol=1e-6, max_products=500)
    if not exact.converged:
        raise RuntimeError(f"the reference did not converge: {exact.residuals}")
    spent, eigsh = _eigsh(product, params)

    def ours(method: Any) -> Callable[[], Any]:
        return lambda: top_eigenpairs(product, params, K, method=method)

    found = {method: ours(method)() for method in ("lanczos", "subspace")}
    spent.clear()
    scipy_values = eigsh()
    scipy_products = len(spent)
    seconds = median_seconds(
        {"gradient": lambda: _gradient(params, batch), "lanczos": ours("lanczos"), "eigsh": eigsh},
        repeats=3,
        settle=False,
    )
    on_cores = median_seconds(
        {
            "products": lambda: [product(params) for _ in range(K)],
            "lanczos": ours("lanczos"),
        },
        repeats=3,
        settle=False,
        clock=time.process_time,
    )
    subspace = median_seconds({"subspace": ours("subspace")}, repeats=1)["subspace"]
    unit = seconds["gradient"]
    lanczos = f"top {K} at {at}, Lanczos"
    yield Row(f"{lanczos}: products", int(found["lanczos"].products), "products", "<= 45")
    yield Row(f"{lanczos}: time", seconds["lanczos"] / unit, "gradients", "<= 100")
    of_products = int(found["lanczos"].products) * on_cores["products"] / K
    beyond = 100 * (on_cores["lanczos"] / of_products - 1)
    yield Row(f"{lanczos}: beyond its products", beyond, "% of CPU time", "<= 20")
    yield Row(f"{lanczos}: time", seconds["lanczos"] / seconds["eigsh"], "of eigsh", "<= 1.1")
    power = f"top {K} at {at}, subspace"
    yield Row(f"{power}: products", int(found["subspace"].products), "products", _PRODUCTS[at])
    yield Row(f"{power}: time", subspace / unit, "gradients")
    yield Row(f"top {K} at {at}, eigsh: products", scipy_products, "products")
    for name, values, converged in (
        ("Lanczos", found["lanczos"].values, bool(found["lanczos"].converged)),
        ("subspace", found["subspace"].values, bool(found["subspace"].converged)),
        ("eigsh", scipy_values, True),
    ):
        error = np.max(np.abs(np.asarray(values) - exact.values) / np.abs(exact.values))
        called = "called converged" if converged else "not called converged"
        yield Row(f"top {K} at {at}, {name}: largest error", error, f"({called})", "<= 1e-3")


def _eigsh(product: Any, params: Any) -> tuple[list[int], Callable[[], np.ndarray]]:
    """scipy's Lanczos over the same product; a list that grows by one a product."""
    flat, unravel = ravel_pytree(params)
    apply = jax.jit(lambda product, v: ravel_pytree(product(unravel(v)))[0])
    spent: list[int] = []

    def matvec(v: np.ndarray) -> np.ndarray:
        spent.append(1)
        return np.asarray(apply(product, jnp.asarray(v.ravel(), jnp.float32)))

    shape = (flat.size, flat.size)
    operator = scipy.sparse.linalg.LinearOperator(shape, matvec=matvec, dtype=np.float32)
    start = np.random.default_rng(0).normal(size=flat.size).astype(np.float32)

    def solve() -> np.ndarray:
        values, _ = scipy.sparse.linalg.eigsh(operator, k=K, tol=1e-3, v0=start)
        return values[np.argsort(-np.abs(values))]

    return spent, solve


def _mean_loss(params: Any, batch: Any) -> jax.Array:
    return jnp.mean(jax.vmap(lambda example: example_loss(params, example))(batch))


_gradient = jax.jit(jax.grad(_mean_loss))
_many = jax.jit(lambda product, vectors: jax.vmap(product)(vectors))


def _temporaries(product: Any, vectors: Any) -> float:
    analysis: Any = _many.lower(product, vectors).compile().memory_analysis()
    return float(analysis.temp_size_in_bytes)


def trained(params: Any, batch: Any, steps: int) -> Any:
    """The parameters after full-batch Adam at 1e-3."""
    optimizer = optax.adam(1e-3)

    @jax.jit
    def run(params: Any, batch: Any) -> Any:
        def step(carry: Any, _: None) -> Any:
            params, state = carry
            updates, state = optimizer.update(jax.grad(_mean_loss)(params, batch), state)
            return (optax.apply_updates(params, updates), state), None

        return jax.lax.scan(step, (params, optimizer.init(params)), length=steps)[0][0]

    return run(params, batch)


def images() -> tuple[jax.Array, jax.Array]:
    """2,048 images of 784 pixels in [0, 1] and their classes."""
    folder = os.environ.get("IGR_DATA")
    if folder:
        x = _idx(Path(folder) / "mnist" / "train-images-idx3-ubyte.gz", 16, EXAMPLES * 784)
        y = _idx(Path(folder) / "mnist" / "train-labels-idx1-ubyte.gz", 8, EXAMPLES)
        return jnp.asarray(x.reshape(EXAMPLES, 784) / 255.0, jnp.float32), jnp.asarray(y, jnp.int32)
    from sklearn.datasets import load_digits

    small, classes = load_digits(return_X_y=True)
    large = np.kron(small.reshape(-1, 8, 8) / 16.0, np.ones((3, 3)))
    large = np.pad(large, ((0, 0), (2, 2), (2, 2))).reshape(-1, 784)
    rng = np.random.default_rng(0)  # 1,797 images: 251 come twice, with other noise
    chosen = np.arange(EXAMPLES) % len(large)
    noisy = np.clip(large[chosen] + 0.05 * rng.normal(size=(EXAMPLES, 784)), 0, 1)
    return jnp.asarray(noisy, jnp.float32), jnp.asarray(classes[chosen], jnp.int32)


def _idx(path: Path, header: int, count: int) -> np.ndarray:
    with gzip.open(path) as file:
        return np.frombuffer(file.read(header + count), np.uint8, offset=header)
