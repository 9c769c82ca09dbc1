"""The mean of many reshuffled runs of SGD on digits, and the flows that it may follow (ours)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree

import igr
from analysis.data import Classification, digits
from analysis.models.tanh_network import batch_loss, tanh_network
from analysis.scale import Scale
from analysis.sweep import Study
from igr.flows import run_epochs
from igr.flows.fields.vector_field import Field

FLOWS = ("gradient flow", "GD's loss", "SGD's loss", "SGD, order 2")
_TOLERANCE = 1e-6  # far below the distances found
_TOGETHER = 32  # pairs of runs that are vectorised


@dataclass(frozen=True)
class Cell:
    """All learning rates, whose flows are compiled once.

    Attributes:
        learning_rates: The learning rates h.
        epochs_between: How many epochs there are between two records, for each learning rate; the
            time between two must be the same for all.
        records: How many records there are after the start.
        examples: How many digits, from the first on.
        batches: Into how many batches they are split, each of as many.
        runs: How many runs, an even number: each is paired with one that takes every epoch in the
            opposite order, so that the leading effect of the orders cancels in the mean.
    """

    learning_rates: tuple[float, ...] = (0.02, 0.04)
    epochs_between: tuple[int, ...] = (2, 1)
    records: int = 20
    examples: int = 320
    batches: int = 16
    runs: int = 768


def study(scale: Scale) -> Study:
    """Two rates, in double precision.

    Args:
        scale: "quick": 768 runs. "medium" and "full": 16,384, with a fifth of the error.
    """
    return Study("igr-sgd", run, (Cell(runs=768 if scale == "quick" else 16_384),))


@jax.enable_x64(True)
def run(cell: Cell) -> Mapping[str, Any]:
    """Runs reshuffled SGD many times and lays the mean beside the flows.

    Returns:
        Of r records, for each of the learning rates: `distance` of the mean from each of `FLOWS`
        (rates, flows, r); and, (rates, r), how far the mean has `travelled`, its standard `error`,
        the `spread` of a single run in the root mean square, and the `sharpness` of the whole loss
        along the mean. Beside these the `time` of the records, m h an epoch, (r,).
    """
    data = digits()
    params = tanh_network(data, jax.random.key(0))
    split = in_batches(data, cell.examples, cell.batches)
    apart = cell.batches * cell.learning_rates[0] * cell.epochs_between[0]
    times = apart * jnp.arange(cell.records + 1)

    def along(name: str) -> PyTree:
        """One flow at all learning rates, compiled once."""

        def at(h: Array) -> PyTree:
            return igr.flow(
                _field(name, h, split, cell.batches), params, times[-1], ts=times,
                rtol=_TOLERANCE, solver=diffrax.Tsit5(),
            ).ys  # fmt: skip

        # Third derivatives of every batch are work that pays for being optimized.
        compiled = jax.jit if name == FLOWS[-1] else _once
        return compiled(lambda hs: jax.lax.map(at, hs))(jnp.array(cell.learning_rates))

    flows = [along(name) for name in FLOWS]
    found, means = [], []
    for i, (h, between) in enumerate(zip(cell.learning_rates, cell.epochs_between, strict=True)):
        epochs = cell.records * between
        orders = jnp.asarray(opposite_pairs(1, cell.runs // 2, epochs, cell.batches))
        mean, error, spread = jax.tree.map(
            lambda x, between=between: x[::between], mean_and_errors(h, params, split, orders)
        )
        to_flows = [_distance(jax.tree.map(lambda x, i=i: x[i], flow), mean) for flow in flows]
        found.append(
            {
                "distance": np.stack(to_flows),
                "travelled": _distance(jax.tree.map(lambda x: x[:1], mean), mean),
                "error": np.array(error),
                "spread": np.array(spread),
            }
        )
        means.append(mean)
    # One search after the other: the means at the next rate begin where those at the last did.
    sharpness = sharpness_along(split, jax.tree.map(lambda *x: jnp.concatenate(x), *means))
    return {name: np.stack([at[name] for at in found]) for name in found[0]} | {
        "sharpness": sharpness.reshape(len(means), -1),
        "time": np.array(times),
        "source": "scikit-learn's digits",
    }


def in_batches(data: Classification, examples: int, batches: int) -> tuple[Array, Array]:
    """The first examples, with a leading axis of batches: inputs and classes."""
    size = examples // batches
    x, y = data.x[: size * batches], data.y[: size * batches]
    return jnp.asarray(x).reshape(batches, size, -1), jnp.asarray(y).reshape(batches, size)


def opposite_pairs(
    seed: int, pairs: int, epochs: int, batches: int
) -> Int[np.ndarray, "pairs 2 epochs m"]:
    """Random orders, and beside each run's the same with every epoch taken backwards."""
    in_order = np.broadcast_to(np.arange(batches, dtype=np.int32), (pairs, epochs, batches))
    orders = np.random.default_rng(seed).permuted(in_order, axis=-1)
    return np.stack([orders, orders[..., ::-1]], axis=1)


@jax.jit
def mean_and_errors(
    h: float, params: PyTree, split: tuple[Array, Array], orders: Int[Array, "pairs 2 epochs m"]
) -> tuple[PyTree, Array, Array]:
    """The mean of all runs after each epoch, its standard error, and the spread of a run.

    Some pairs at a time are added to sums of what is apart from a run in the first order, so that
    memory does not grow with the runs.
    """

    def run(order: Int[Array, "epochs m"]) -> PyTree:
        return run_epochs(optax.sgd(h), batch_loss, params, split, order)

    reference = run(orders[0, 0])
    pairs = orders.shape[0]
    together = math.gcd(pairs, _TOGETHER)

    def add(sums: tuple[PyTree, Array, Array], some: Int[Array, "some 2 epochs m"]):
        apart = jax.tree.map(jnp.subtract, jax.vmap(jax.vmap(run))(some), reference)
        of_pair = jax.tree.map(lambda x: x.mean(axis=1), apart)
        total, of_pairs, of_runs = sums
        total = jax.tree.map(lambda x, y: x + y.sum(axis=0), total, of_pair)
        of_pairs = of_pairs + _squares(of_pair, 2).sum(axis=0)
        of_runs = of_runs + _squares(apart, 3).mean(axis=1).sum(axis=0)
        return (total, of_pairs, of_runs), None

    nothing = jax.tree.map(jnp.zeros_like, reference)
    zeros = jnp.zeros(orders.shape[2] + 1)
    (total, of_pairs, of_runs), _ = jax.lax.scan(
        add, (nothing, zeros, zeros), orders.reshape(-1, together, *orders.shape[1:])
    )
    apart = jax.tree.map(lambda x: x / pairs, total)
    square = _squares(apart, 1)
    mean = jax.tree.map(jnp.add, reference, apart)
    error = jnp.sqrt(jnp.maximum(of_pairs / pairs - square, 0) / (pairs - 1))
    return mean, error, jnp.sqrt(jnp.maximum(of_runs / pairs - square, 0))


def sharpness_along(split: tuple[Array, Array], visited: PyTree) -> Float[np.ndarray, " records"]:
    """The largest eigenvalue of the Hessian of the mean loss, each search begun at the last."""

    def at(vector: PyTree, params: PyTree) -> tuple[PyTree, Array]:
        loss = lambda p: jax.vmap(lambda *b: batch_loss(p, b))(*split).mean()  # noqa: E731
        found = igr.curvature.sharpness(loss, params, initial=vector, tol=1e-2)
        return found.vector, found.value

    def along(visited: PyTree) -> Array:
        first = jax.tree.map(lambda x: x[0], visited)
        return jax.lax.scan(at, jax.tree.map(jnp.ones_like, first), visited)[1]

    return np.array(_once(along)(visited))


def _once(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled for a single call of little work, in half the time: LLVM optimizes nothing."""
    return jax.jit(fn, compiler_options={"xla_backend_optimization_level": 0})


def _field(name: str, h: Array, split: tuple[Array, Array], batches: int) -> Field:
    inputs, classes = (part.reshape(-1, *part.shape[2:]) for part in split)

    def whole(params: PyTree) -> Array:
        return batch_loss(params, (inputs, classes))

    gd, sgd = igr.methods.gradient_descent(), igr.methods.reshuffled_sgd(batches)
    if name in ("gradient flow", "GD's loss"):
        order = 0 if name == "gradient flow" else 1
        return igr.vector_field(igr.modified_equation(gd, order), whole, h)
    order = 1 if name == "SGD's loss" else 2
    return igr.vector_field(igr.modified_equation(sgd, order), batch_loss, h, split)


def _squares(apart: PyTree, leading: int) -> Array:
    """The squared norm over all leaves, their leading axes kept."""
    leaves = jax.tree.leaves(apart)
    return jnp.stack(
        [jnp.sum(x**2, axis=tuple(range(leading, x.ndim))) for x in leaves]
    ).sum(axis=0)  # fmt: skip


def _distance(a: PyTree, b: PyTree) -> np.ndarray:
    return np.sqrt(np.array(_squares(jax.tree.map(jnp.subtract, a, b), 1)))
