"""Top eigenpairs against hessian-eigenthings, curvlinops and pyhessian, in one process.

The network, the images and the two sets of parameters are those of `benchmarks.curvature`, copied
to PyTorch; every peer that imports is measured. A time is divided by that of ours on the same
problem, so a target is `> 1`. Peers stop by their own rule at a tolerance of 1e-3, with one
exception: Lanczos of hessian-eigenthings runs for a number of steps that is told to it. It gets the
smallest multiple of ten at which its ten values are right to 1e-3, which no user would know
beforehand. The power iterations of the peers may spend 100 products an eigenvalue, their default.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import jax
import numpy as np

from benchmarks.curvature import K, example_loss, images, network, trained
from benchmarks.measure import Row, median_seconds
from igr.curvature import hessian_product, top_eigenpairs

TOLERANCE = 1e-3
MOST = 100  # products of a power iteration on one eigenvalue: the default of both


def rows() -> Iterator[Row]:
    """Yields the measurements; none where PyTorch is not installed."""
    if _imported("torch") is None:
        return
    batch = images()
    params = network(jax.random.key(0))
    yield from _at("initialization", params, batch)
    yield from _at("200 Adam steps", trained(params, batch, 200), batch)


def _at(at: str, params: Any, batch: Any) -> Iterator[Row]:
    product = hessian_product(example_loss, params, batch)
    exact = np.asarray(top_eigenpairs(product, params, K, tol=1e-6, max_products=500).values)
    peer = _Torch(params, batch)

    def error(values: Any) -> float:
        """The largest relative error; values that were not found count as zeros."""
        values = np.asarray(values, float)
        ordered = values[np.argsort(-np.abs(values))]
        return float(np.max(np.abs(ordered - exact) / np.abs(exact)))

    for method, solvers in (
        ("lanczos", {"hessian-eigenthings": _eigenthings_lanczos, "curvlinops": _curvlinops}),
        ("subspace", {"hessian-eigenthings": _eigenthings_power, "pyhessian": _pyhessian}),
    ):
        ours: Callable[[], Any] = lambda m=method: top_eigenpairs(product, params, K, method=m)
        times = median_seconds({"igr": ours}, 3, settle=False)
        yield Row(f"top {K} at {at}, igr, {method}", times["igr"], "s")
        for name, solver in solvers.items():
            found = solver(peer, error)
            if found is None:
                continue
            what, seconds, values = found
            row = f"top {K} at {at}, {name}, {what}"
            yield Row(row, seconds / times["igr"], f"times igr, {method}", "> 1")
            yield Row(f"{row}: largest error", error(values), "")


Found = tuple[str, float, Any] | None  # what was run, its seconds, the values


class _Torch:
    """The same network and examples in PyTorch."""

    def __init__(self, params: Any, batch: Any) -> None:
        torch = import_module("torch")
        layers: list[Any] = []
        for layer in params:
            inputs, outputs = layer["w"].shape
            linear = torch.nn.Linear(inputs, outputs)
            with torch.no_grad():
                linear.weight.copy_(torch.tensor(np.array(layer["w"]).T))
                linear.bias.copy_(torch.tensor(np.array(layer["b"])))
            layers += [linear, torch.nn.ReLU()]
        self.model = torch.nn.Sequential(*layers[:-1])
        self.loss = torch.nn.CrossEntropyLoss()
        x, labels = batch
        self.data = [(torch.tensor(np.array(x)), torch.tensor(np.array(labels)).long())]


def _eigenthings_lanczos(peer: _Torch, error: Callable[[Any], float]) -> Found:
    package = _imported("hessian_eigenthings")
    if package is None:
        return None
    operator = _eigenthings(package, peer)
    for steps in range(2 * K, 10 * K + 1, 10):
        seconds, result = _timed(
            lambda: package.lanczos(operator, k=K, max_iter=steps, tol=TOLERANCE, seed=0)  # noqa: B023
        )
        if error(result.eigenvalues) <= TOLERANCE:
            break
    return f"Lanczos of {steps} steps", seconds, result.eigenvalues


def _eigenthings_power(peer: _Torch, error: Callable[[Any], float]) -> Found:
    del error
    package = _imported("hessian_eigenthings")
    if package is None:
        return None
    operator = _eigenthings(package, peer)
    seconds, result = _timed(
        lambda: package.deflated_power_iteration(
            operator, k=K, max_iter=MOST, tol=TOLERANCE, seed=0
        )
    )
    return f"power iteration ({result.iterations} products)", seconds, result.eigenvalues


def _eigenthings(package: Any, peer: _Torch) -> Any:
    return package.HessianOperator(peer.model, peer.data, package.supervised_loss(peer.loss))


def _curvlinops(peer: _Torch, error: Callable[[Any], float]) -> Found:
    del error
    package, linalg = _imported("curvlinops"), import_module("scipy.sparse.linalg")
    if package is None:
        return None
    operator = package.HessianLinearOperator(
        peer.model, peer.loss, list(peer.model.parameters()), peer.data, check_deterministic=False
    ).to_scipy(np.float32)
    start = np.random.default_rng(0).normal(size=operator.shape[0]).astype(np.float32)
    solve = lambda: linalg.eigsh(operator, K, tol=TOLERANCE, v0=start, return_eigenvectors=True)  # noqa: E731
    operator @ start  # the first product is slower
    seconds, (values, _) = _timed(solve)
    return "eigsh", seconds, values


def _pyhessian(peer: _Torch, error: Callable[[Any], float]) -> Found:
    del error
    package, torch = _imported("pyhessian"), import_module("torch")
    if package is None:
        return None
    torch.manual_seed(0)
    hessian = package.hessian(peer.model, peer.loss, data=peer.data[0], cuda=False)
    seconds, (values, _) = _timed(lambda: hessian.eigenvalues(maxIter=MOST, tol=TOLERANCE, top_n=K))
    peer.model.zero_grad()
    return "power iteration", seconds, values


def _timed(run: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def _imported(name: str) -> Any:
    """The package, or None where it is not installed."""
    try:
        return import_module(name)
    except ModuleNotFoundError:
        return None


if __name__ == "__main__":
    for row in rows():
        verdict = {True: "met", False: "missed", None: ""}[row.met]
        print(
            f"{row.name:75} {row.measured:10.4g} {row.unit:22} {row.target:6} {verdict}", flush=True
        )
