"""Which minima GD and SGD settle in, and which they leave ("Appealing to gradients", 2.2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree

from analysis.data import Classification, Regression, TrainTest
from analysis.models import MLP
from analysis.scale import Scale
from analysis.studies.images import Images, images
from analysis.studies.optimizers import sgd
from analysis.sweep import Study
from analysis.training import Options, Steps, train
from analysis.training.losses import half_squared_error
from igr.curvature import sgd_stability
from igr.per_example import per_example_gradients


@dataclass(frozen=True)
class Restart:
    """SGD started again beside the minima found, of exactly no loss.

    The targets are made what the network says at the minimum, as the theorem supposes that all
    examples are fitted, and its weights moved a little.

    Attributes:
        factors: The learning rates, in parts of the one that the minimum was found with.
        batch_sizes: B, each with every rate.
        steps: So many.
        samples: How often the training loss is looked at.
        moved: The standard deviation of what is added to each weight.
    """

    factors: tuple[float, ...] = (0.125, 0.25, 0.5, 0.75, 1.0)
    batch_sizes: tuple[int, ...] = (2, 8, 32)
    steps: int = 2000
    samples: int = 200
    moved: float = 1e-4


@dataclass(frozen=True)
class Cell:
    """One batch size; all learning rates and seeds go side by side.

    The network has one output, to be 1 for the digits from 5 on and -1 for the others, tanh units,
    and half the squared error for its loss: the loss can be zero where the Hessian is not (cross
    entropy is flat where it is zero), and has the Hessians that the theorem asks for.

    Attributes:
        data: What is learned.
        batch_size: B; None for GD.
        learning_rates: eta.
        seeds: Of weights and batches.
        examples: n, to train on.
        width: Units of each hidden layer.
        depth: Hidden layers.
        steps: Of each run, whatever its rate and batch.
        restart: From the minima found, if at all.
    """

    data: Images
    batch_size: int | None
    learning_rates: tuple[float, ...] = (0.05, 0.1, 0.2)
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    examples: int = 320
    width: int = 32
    depth: int = 2
    steps: int = 20_000
    restart: Restart | None = None


def study(scale: Scale) -> Study:
    """GD and SGD with three batch sizes; SGD again from where GD ended.

    Args:
        scale: "quick": 320 digits, a small network. "medium": 320 of MNIST, three seeds. "full":
            1,000 of MNIST (of which many, as Wu, Ma and E), ten seeds.
    """
    batches, restart = (None, 32, 8, 2), Restart()

    def cell(size: int | None) -> Cell:
        again = restart if size is None else None
        if scale == "quick":
            return Cell("digits", size, restart=again)
        rates = (0.01, 0.02, 0.04)
        if scale == "medium":
            return Cell("mnist", size, rates, (0, 1, 2), restart=again)
        return Cell("mnist", size, rates, tuple(range(10)), 1000, 256, 2, 200_000, again)

    return Study("coherence-stability", run, tuple(cell(size) for size in batches))


def run(cell: Cell) -> Mapping[str, Any]:
    """Sharpness and non-uniformity of each run at its end, and what decides on its stability.

    Returns:
        What `Runs.arrays` has; axes are rate, seed, sample. With the axes rate and seed
        `sharpness`, `non_uniformity`, of the Hessians as they are, whether both `converged`, and
        `growth` and `gain` of `Minimum`, as if nothing of the loss were left;
        NaN where the run diverged. With a restart, axes rate, seed, factor, and but for the gain
        batch size, `restart_gain`, `restart_growth` and, with samples, the loss `restart_loss`.
        Beside it where the data are from.
    """
    data = _data(cell.data, cell.examples)
    make = partial(MLP, data.train.x[0].size, 1, cell.width, cell.depth, jnp.tanh)
    runs = train(
        lambda key: make(key=key),
        sgd,
        data,
        grid={"learning_rate": cell.learning_rates},
        seeds=cell.seeds,
        stop=Steps(cell.steps),
        options=Options(
            batch_size=cell.batch_size,
            samples=20,
            loss=half_squared_error,
        ),
    )
    params, static = eqx.partition(runs.model, eqx.is_inexact_array)
    dtype = jax.tree.leaves(params)[0].dtype
    x, y = (jnp.asarray(v, dtype) for v in (data.train.x, data.train.y))
    output = _Output(static)
    each = [
        _measured(
            cell, output, jax.tree.map(lambda v, i=i, j=j: jnp.asarray(v[i, j]), params), x, y, rate
        )
        for i, rate in enumerate(cell.learning_rates)
        for j in range(len(cell.seeds))
    ]
    shape = (len(cell.learning_rates), len(cell.seeds))
    measured = {
        name: np.stack([one[name] for one in each]).reshape(*shape, *np.shape(each[0][name]))
        for name in each[0]
    }
    if cell.restart is not None:
        measured["restart_loss"] = _restarted(cell, cell.restart, output, params, x)
    return {**runs.arrays(), **measured, "source": runs.source}


@dataclass(frozen=True)
class Minimum:
    """SGD linearized at a minimum without loss, of a network with one output.

    An example has the Hessian H_i = g_i g_i', with g_i the gradient of its output, and the kernel
    K_ij = g_i . g_j says all: that of n rows in place of as many as there are parameters.

    Attributes:
        values: The eigenvalues of H, the mean of the H_i, on other than flat directions: of K / n.
        vectors: The eigenvectors of K, in columns.
        squares: |g_i|^2.

    >>> each_its_own_direction = Minimum.of(np.array([[1.0, 0.0], [0.0, 3.0]]))
    """

    values: Float[np.ndarray, " rank"]
    vectors: Float[np.ndarray, "n rank"]
    squares: Float[np.ndarray, " n"]

    @classmethod
    def of(cls, kernel: Float[np.ndarray, "n n"]) -> Minimum:
        """The minimum that a kernel describes."""
        values, vectors = np.linalg.eigh(np.asarray(kernel, float) / len(kernel))
        kept = values > 1e-9 * values[-1]
        return cls(values[kept], vectors[:, kept], np.diag(kernel))

    def growth(self, learning_rate: float, batch_size: int) -> float:
        """lambda_max((I - eta H)^2 + eta^2 r Sigma) - 1, where it is not on a flat direction.

        Theorem 2.4 asks that it be at most 0. With G the rows g_i the mean of H_i^2 is
        G' diag(K) G / n, so that the matrix has the eigenvalues of one as large as K.

        >>> each_its_own_direction = Minimum.of(np.array([[1.0, 0.0], [0.0, 3.0]]))
        >>> round(each_its_own_direction.growth(0.5, 1), 12)  # (1 + (1 - 0.5)^2) / 2 - 1
        -0.375
        """
        noise = noise_of(batch_size, len(self.squares))
        core = learning_rate * noise * (self.vectors.T * self.squares) @ self.vectors
        core += np.diag(learning_rate * (1 - noise) * self.values - 2)
        roots = np.sqrt(self.values)
        return float(learning_rate * np.linalg.eigvalsh(roots[:, None] * core * roots)[-1])

    def gain(self, learning_rate: float) -> float:
        """What decides, exactly, whether SGD is linearly stable: r gain < 1, for every batch size.

        Of the errors u = G (w - w*) the second moments U = E u u' obey a closed equation, exact
        for the linearized SGD of definition 2.2:

            U <- (A + r N) U,    A U = (I - eta K / n) U (I - eta K / n),
            N U = eta^2 (K diag(U) K / n - K U K / n^2),    r = (n - B) / (B (n - 1)).

        A and N keep U positive semi-definite. Hence the spectral radius of A + r N is below one if
        and only if that of A is (sharpness below 2 / eta) and r times that of (1 - A)^-1 N is:
        that is the gain, infinite where the sharpness is not below 2 / eta. Theorem 2.4 implies
        it. With more than one parameter remark 2.5 neither implies it nor follows from it.

        >>> each_its_own_direction = Minimum.of(np.array([[1.0, 0.0], [0.0, 3.0]]))
        >>> round(each_its_own_direction.gain(0.5), 3)
        0.6
        """
        n, values, vectors = len(self.squares), self.values, self.vectors
        if learning_rate * values[-1] >= 2:
            return float("inf")
        products = np.outer(values, values)
        # 1 / (1 - A) in the basis of the eigenvectors, with the outer factors K / n of N
        without = np.add.outer(values, values) - learning_rate * products
        weights = learning_rate * products / without
        moments, gain = np.diag(values / values.sum()), 0.0
        for _ in range(1000):
            spread = np.sum((vectors @ moments) * vectors, axis=1)
            moments = weights * (n * (vectors.T * spread) @ vectors - moments)
            before, gain = gain, float(np.trace(moments))
            moments = moments / gain
            if abs(gain - before) <= 1e-5 * gain:
                break
        return gain


def noise_of(batch_size: int, examples: int) -> float:
    """r = (n - B) / (B (n - 1)): the variance of a batch's mean, in units of an example's."""
    return (examples - batch_size) / (batch_size * (examples - 1))


class _Output(eqx.Module):
    """`(params, x) -> scalar`; of one type, so that all runs share compiled programs."""

    static: PyTree = eqx.field(static=True)

    def __call__(self, params: PyTree, x: jax.Array) -> jax.Array:
        return eqx.combine(params, self.static)(x)[0]

    def loss(self, params: PyTree, example: tuple[jax.Array, jax.Array]) -> jax.Array:
        x, y = example
        return half_squared_error(self(params, x)[None], y)


def _measured(
    cell: Cell, output: _Output, minimum: PyTree, x: jax.Array, y: jax.Array, rate: float
) -> dict[str, Any]:
    again = cell.restart or Restart(factors=(), batch_sizes=())
    shape = (len(again.factors), len(again.batch_sizes))
    found: dict[str, Any] = dict.fromkeys(("sharpness", "non_uniformity", "growth", "gain"), np.nan)
    found |= {"converged": False}
    found |= {"restart_gain": np.full(shape[:1], np.nan), "restart_growth": np.full(shape, np.nan)}
    if all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(minimum)):
        # Neither depends on rate and batch; with these the growth, of no use here, is found fast.
        here = sgd_stability(output.loss, minimum, (x, y), 1.0, 1, chunk=64)
        linear = Minimum.of(_kernel(output, minimum, x))
        rates = [factor * rate for factor in again.factors]
        found |= {
            "sharpness": float(here.sharpness),
            "non_uniformity": float(here.non_uniformity),
            "converged": bool(here.converged),
            "growth": linear.growth(rate, cell.batch_size or len(x)),
            "gain": linear.gain(rate),
            "restart_gain": np.array([linear.gain(h) for h in rates]),
            "restart_growth": np.array(
                [[linear.growth(h, size) for size in again.batch_sizes] for h in rates]
            ),
        }
    if cell.restart is None:
        del found["restart_gain"], found["restart_growth"]
    return found


def _kernel(output: _Output, params: PyTree, x: jax.Array) -> np.ndarray:
    gradients = jax.tree.leaves(per_example_gradients(output, params, x))
    rows = [np.asarray(leaf, float).reshape(len(x), -1) for leaf in gradients]
    return sum((part @ part.T for part in rows), np.zeros((len(x), len(x))))


def _restarted(
    cell: Cell, again: Restart, output: _Output, params: PyTree, x: jax.Array
) -> Float[np.ndarray, "rate seed factor batch sample"]:
    """The losses of SGD whose batches are drawn anew every step, as the theorem has it."""
    rates = np.multiply.outer(cell.learning_rates, again.factors)
    shape = (len(cell.learning_rates), len(cell.seeds), len(again.factors))
    i, j, k = np.indices(shape).reshape(3, -1)
    minima = jax.tree.map(lambda v: jnp.asarray(v)[i, j], params)
    at = jnp.asarray(rates[i, k], x.dtype)
    losses = []
    for size in again.batch_sizes:
        rng = np.random.default_rng(size)
        draws = np.array([rng.permutation(len(x))[:size] for _ in range(again.steps)], np.int32)
        draws = draws.reshape(again.samples, -1, size)
        losses.append(_descend(output, minima, at, again.moved, x, draws, jax.random.key(size)))
    return np.stack(losses, axis=1).reshape(*shape, len(again.batch_sizes), again.samples + 1)


@eqx.filter_jit
def _descend(
    output: _Output,
    minima: PyTree,
    rates: Float[jax.Array, " runs"],
    moved: float,
    x: jax.Array,
    draws: Int[np.ndarray, "samples steps batch"],
    key: jax.Array,
) -> Float[jax.Array, "runs samples"]:
    """The mean loss of each run at the start and after each stretch of steps."""
    outputs = jax.vmap(output, (None, 0))
    targets = jax.vmap(outputs, (0, None))(minima, x)

    def loss(params: PyTree, target: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.mean((outputs(params, x) - target) ** 2) / 2

    losses = jax.vmap(loss, (0, 0, None))
    slopes = jax.vmap(jax.grad(loss), (0, 0, None))

    def step(params: PyTree, drawn: jax.Array) -> tuple[PyTree, None]:
        def stepped(v: jax.Array, slope: jax.Array) -> jax.Array:
            return v - rates.reshape(-1, *[1] * (v.ndim - 1)) * slope

        return jax.tree.map(stepped, params, slopes(params, targets[:, drawn], x[drawn])), None

    def stretch(params: PyTree, several: jax.Array) -> tuple[PyTree, jax.Array]:
        params, _ = jax.lax.scan(step, params, several)
        return params, losses(params, targets, x)

    leaves, structure = jax.tree.flatten(minima)
    keys = jax.random.split(key, len(leaves))
    noise = [jax.random.normal(k, v.shape, v.dtype) for k, v in zip(keys, leaves, strict=True)]
    start = jax.tree.map(lambda v, e: v + moved * e, minima, jax.tree.unflatten(structure, noise))
    _, later = jax.lax.scan(stretch, start, jnp.asarray(draws))
    return jnp.concatenate([losses(start, targets, x)[None], later]).T


def _data(name: Images, examples: int) -> TrainTest[Regression]:
    found = images(name).first(examples)
    return TrainTest(_halves(found.train), _halves(found.test), found.source)


def _halves(part: Classification) -> Regression:
    """1 for the digits from 5 on, -1 for the others."""
    return Regression(part.x, np.where(part.y >= 5, 1.0, -1.0)[:, None])
