"""A ResNet trained with explicit gradient regularization at several rates mu (Figure 3c)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from analysis.data import Classification, TrainTest, cifar10, digits, split
from analysis.models import ResNet, num_parameters
from analysis.scale import Scale
from analysis.sweep import Study
from analysis.training import At, Options, Runs, Steps, train
from igr.transforms import egr


@dataclass(frozen=True)
class Cell:
    """ResNets of 18 layers trained at one learning rate with some EGR rates, from some seeds.

    Attributes:
        data: What is learned.
        rates: The EGR rates mu.
        seeds: Of weights and batches.
        learning_rate: The step h.
        widths: Filters of the four levels.
        blocks: Blocks of a level.
        examples: To train on; None for all there are. Of digits all the others are tested on.
        batch_size: Examples a step.
        steps: Steps of SGD.
        samples: How often losses and accuracies are taken.
    """

    data: Literal["digits", "cifar10"]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    learning_rate: float = 0.01
    widths: tuple[int, ...] = (4, 8, 16, 32)
    blocks: int = 2
    examples: int | None = 400
    batch_size: int = 40
    steps: int = 300
    samples: int = 20


def study(scale: Scale) -> Study:
    """The experiment of Barrett and Dherin (2021), section 6, as far as the scale goes.

    The paper prints the range of mu, 0 to 0.05, the batch, 512, and the learning rates of its
    ResNets, but not the one of these. Ours is 0.01, among the smallest of theirs, as section 4 has
    it: small learning rates and large mu. Two mu lie beyond the paper's range; and beside them are
    runs without EGR at the paper's largest learning rate, 0.2.

    Args:
        scale: "quick": 400 digits, a sixteenth of the filters, five mu. "medium": 4,000 images of
            CIFAR-10, a quarter of the filters. "full": all of CIFAR-10 and ResNet-18.
    """
    rates, large = (0.0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2), 0.2
    if scale == "quick":
        usual = Cell("digits", (0.0, 0.01, 0.02, 0.05, 0.2), (0, 1, 2))
        cells = [usual, replace(usual, rates=(0.0,), learning_rate=large)]
    else:
        medium = Cell("cifar10", (), (0, 1), 0.01, (16, 32, 64, 128), 2, 4000, 64, 1000, 20)
        full = Cell("cifar10", (), (0, 1, 2), 0.01, (64, 128, 256, 512), 2, None, 512, 40_000, 40)
        usual = medium if scale == "medium" else full
        cells = [replace(usual, rates=(rate,)) for rate in rates]
        cells.append(replace(cells[0], learning_rate=large))
    return Study("igr-resnet", run, tuple(cells))


def run(cell: Cell) -> Mapping[str, Any]:
    """The losses and accuracies of each run while it trains.

    Returns:
        What `Runs.arrays` has; axes are EGR rate, seed, sample. Beside it the number of parameters
        and where the data are from.
    """
    runs = trained(cell, images(cell))
    arrays = {name: np.asarray(value)[0] for name, value in runs.arrays().items()}
    return {**arrays, "parameters": num_parameters(runs.model_of(0, 0, 0)), "source": runs.source}


def trained(
    cell: Cell,
    data: TrainTest[Classification],
    rule: Callable[[Mapping[str, Array]], optax.GradientTransformation] | None = None,
    grid: Mapping[str, tuple[float, ...]] | None = None,
    metrics: Mapping[str, Callable[[At], Array]] | None = None,
) -> Runs:
    """The runs themselves: a grid of one learning rate and the EGR rates.

    The loss E of a batch, whose squared gradient EGR adds, is that of training: the network
    normalises by the means and variances of the batch, and they are differentiated too.

    Args:
        cell: Network, batches, steps and seeds.
        data: What is learned.
        rule: The optimizer, made from the settings of a run; by default SGD with EGR.
        grid: The settings of that; by default the cell's learning rate and EGR rates.
        metrics: What is measured beside losses and accuracies.
    """
    return train(
        network(data.train.num_classes, data.train.x.shape[1], cell.widths, cell.blocks),
        rule or _egr,
        data,
        grid=grid or {"learning_rate": (cell.learning_rate,), "mu": cell.rates},
        seeds=cell.seeds,
        stop=Steps(cell.steps),
        options=Options(
            batch_size=cell.batch_size,
            samples=cell.samples,
            metrics=metrics,
            together=1,  # with several runs side by side a convolution is one of many groups
        ),
    )


@cache  # the same function for the same sizes: runs share the compiled program
def network(
    classes: int, channels: int, widths: tuple[int, ...], blocks: int
) -> Callable[[PRNGKeyArray], tuple[Any, eqx.nn.State]]:
    """What makes a residual network and its state from a key."""
    make = partial(ResNet, classes, channels, widths=widths, blocks=blocks)

    def make_model(key: PRNGKeyArray) -> tuple[Any, eqx.nn.State]:
        model, state = eqx.nn.make_with_state(make)(key=key)
        return (by_products(model) if jax.default_backend() == "cpu" else model), state

    return make_model


def by_products(model: Any) -> Any:
    """The same network, its convolutions written as products of matrices.

    On a CPU, inside a loop, XLA takes five times as long for a step of EGR through convolutions of
    few filters. The arrays are those of the convolutions.
    """

    def is_convolution(node: Any) -> bool:
        return isinstance(node, eqx.nn.Conv2d)

    def replaced(node: Any) -> Any:
        if not is_convolution(node):
            return node
        return Products(node.weight, node.stride[0], node.bias, node.padding[0][0])

    return jax.tree.map(replaced, model, is_leaf=is_convolution)


class Products(eqx.Module):
    """A convolution by square filters.

    Args:
        weight: Of the filters.
        step: Between places.
        bias: Of the filters, or None.
        padding: Zeros on each side of an image.
    """

    weight: Float[Array, "filters channels size size"]
    step: int = eqx.field(static=True)
    bias: Float[Array, "filters 1 1"] | None = None
    padding: int = eqx.field(static=True, default=1)

    def __call__(
        self, x: Float[Array, "channels height width"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "filters new_height new_width"]:
        """The filters' responses, at every `step`-th place from the first."""
        del key
        filters, _, size, _ = self.weight.shape
        height, width = (
            (length + 2 * self.padding - size) // self.step + 1 for length in x.shape[1:]
        )
        padded = jnp.pad(x, ((0, 0), *[(self.padding, self.padding)] * 2))
        seen = [  # what each of the filters' weights is multiplied by
            padded[
                :,
                i : i + self.step * (height - 1) + 1 : self.step,
                j : j + self.step * (width - 1) + 1 : self.step,
            ]
            for i in range(size)
            for j in range(size)
        ]
        columns = jnp.stack(seen, axis=1).reshape(-1, height * width)
        found = (self.weight.reshape(filters, -1) @ columns).reshape(filters, height, width)
        return found if self.bias is None else found + self.bias


def _egr(settings: Mapping[str, Array]) -> optax.GradientTransformation:
    return egr(settings["learning_rate"], settings["mu"])


def images(cell: Cell) -> TrainTest[Classification]:
    """What a cell learns, of digits as many as it says to train on."""
    if cell.data == "cifar10":
        data = cifar10()
        return data if cell.examples is None else data.first(cell.examples)
    known = digits()
    images = replace(known, x=known.x.reshape(-1, 1, 8, 8).astype(np.float32))
    train = cell.examples or 1200
    source = f"scikit-learn's digits, {train} to train on"
    return split(images, len(images) - train, seed=0, source=source)
