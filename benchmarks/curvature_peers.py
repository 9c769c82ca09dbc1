"""Top eigenpairs against hessian-eigenthings, curvlinops and pyhessian, in one process.

The network, the images and the two sets of parameters are those of `benchmarks.curvature`, copied
to PyTorch; every peer that imports is measured. A time is divided by that of ours on the same
problem, so a target is `> 1`. Ours stop by their own rule. The peers are told what no user knows
beforehand: Lanczos of hessian-eigenthings the smallest multiple of ten steps, and the power
iterations the largest power of ten as their tolerance, at which all ten values are right to 1e-3.
A power iteration may spend 100 products an eigenvalue, the default of both.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import Any

import jax
import numpy as np

from benchmarks.curvature import K, images, trained
from benchmarks.measure import Row
from benchmarks.network import example_loss, network
from igr.curvature import hessian_product, top_eigenpairs

ERROR = 1e-3
_PEERS = ("hessian_eigenthings", "curvlinops", "pyhessian")
MOST = 100  # products of a power iteration on one eigenvalue: the default of both


def rows() -> Iterator[Row]:
    """Yields the measurements; none where PyTorch is not installed."""
    if "torch" in missing():
        return
    batch = images()
    params = network(jax.random.key(0))
    yield from at("initialization", params, batch)
    yield from at("200 Adam steps", trained(params, batch, 200), batch)


def missing() -> list[str]:
    """PyTorch and the peers that are not installed, by the names they are imported by."""
    return [name for name in ("torch", *_PEERS) if _imported(name) is None]


def at(where: str, params: Any, batch: Any) -> Iterator[Row]:
    """Yields the measurements at some parameters."""
    product = hessian_product(example_loss, params, batch)
    exact = np.asarray(top_eigenpairs(product, params, K, tol=1e-6, max_products=500).values)
    peer = _Torch(params, batch)
    for method, solver in (
        ("lanczos", _eigenthings_lanczos),
        ("lanczos", _curvlinops),
        ("subspace", _eigenthings_power),
        ("subspace", _pyhessian),
    ):
        ours = _ours(product, params, method)
        jax.block_until_ready(ours())
        found: list[Row] = []
        for what, run in solver(peer):
            before, _ = _timed(ours)
            seconds, values = _timed(run)
            after, _ = _timed(ours)  # on both sides, so that all see the same machine
            ratio, error = 2 * seconds / (before + after), _error(values, exact)
            what = f"top {K} at {where}, {what}"
            found = [
                Row(what, ratio, f"times igr, {method}", "> 1"),
                Row(f"{what}: largest error", error, ""),
            ]
            if error <= ERROR:
                break
        yield from found


def _ours(product: Any, params: Any, method: Any) -> Callable[[], Any]:
    return lambda: jax.block_until_ready(top_eigenpairs(product, params, K, method=method))


def _error(values: Any, exact: np.ndarray) -> float:
    """The largest relative error."""
    values = np.asarray(values, float)
    ordered = values[np.argsort(-np.abs(values))]
    return float(np.max(np.abs(ordered - exact) / np.abs(exact)))


Runs = Iterator[tuple[str, Callable[[], Any]]]  # what, and how; from cheap to dear


class _Torch:
    """The same network and examples in PyTorch, on a GPU where there is one."""

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
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = torch.nn.Sequential(*layers[:-1]).to(self.device)
        self.loss = torch.nn.CrossEntropyLoss()
        x, labels = batch
        inputs, classes = torch.tensor(np.array(x)), torch.tensor(np.array(labels)).long()
        self.data = [(inputs.to(self.device), classes.to(self.device))]


def _eigenthings_lanczos(peer: _Torch) -> Runs:
    package = _imported("hessian_eigenthings")
    if package is None:
        return
    operator = _eigenthings(package, peer)
    for steps in range(2 * K, 10 * K + 1, 10):
        run = partial(package.lanczos, operator, k=K, max_iter=steps, seed=0)
        yield f"hessian-eigenthings, Lanczos of {steps} steps", _values_of(run)


def _eigenthings_power(peer: _Torch) -> Runs:
    package = _imported("hessian_eigenthings")
    if package is None:
        return
    operator = _eigenthings(package, peer)
    for tol in _TOLERANCES:
        run = partial(
            package.deflated_power_iteration, operator, k=K, max_iter=MOST, tol=tol, seed=0
        )
        yield f"hessian-eigenthings, power iteration to {tol:g}", _values_of(run)


def _values_of(run: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: [float(value) for value in run().eigenvalues]  # which waits for a GPU


_TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)


def _eigenthings(package: Any, peer: _Torch) -> Any:
    return package.HessianOperator(peer.model, peer.data, package.supervised_loss(peer.loss))


def _curvlinops(peer: _Torch) -> Runs:
    package, linalg = _imported("curvlinops"), import_module("scipy.sparse.linalg")
    if package is None:
        return
    operator = package.HessianLinearOperator(
        peer.model, peer.loss, list(peer.model.parameters()), peer.data, check_deterministic=False
    ).to_scipy(np.float32)
    start = np.random.default_rng(0).normal(size=operator.shape[0]).astype(np.float32)
    operator.matvec(start)  # the first product is slower
    yield "curvlinops, eigsh", lambda: linalg.eigsh(operator, K, tol=ERROR, v0=start)[0]


def _pyhessian(peer: _Torch) -> Runs:
    package, torch = _imported("pyhessian"), import_module("torch")
    if package is None:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the graph that it keeps for all its products
        hessian = package.hessian(
            peer.model, peer.loss, data=peer.data[0], cuda=peer.device == "cuda"
        )
    for tol in _TOLERANCES:
        torch.manual_seed(0)
        run = partial(hessian.eigenvalues, maxIter=MOST, tol=tol, top_n=K)
        yield f"pyhessian, power iteration to {tol:g}", lambda run=run: run()[0]
    peer.model.zero_grad()


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
