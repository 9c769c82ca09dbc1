"""Dropout and batch normalisation beside gradient penalties (SpectReg, Table 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal, get_args

import equinox as eqx
import jax

from analysis.models.batch_norm import NormalisedLeNet, NormalisedMLP
from analysis.scale import Scale
from analysis.studies.igr.resnet import by_products
from analysis.studies.spectreg import mnist
from analysis.studies.spectreg.mnist import PAPER_DECAY, PENALTIES, Rule
from analysis.sweep import Study

Network = Literal["baseline", "batchnorm", "dropout"]


@dataclass(frozen=True)
class Cell:
    """One network and penalty on one draw of a small training set.

    Attributes:
        network: Which: the baseline has neither dropout nor normalisation.
        small: The training, as in `spectreg-mnist`.
    """

    network: Network
    small: mnist.Cell


def study(scale: Scale) -> Study:
    """Table 2 of Varga, Csiszarik and Zombori (2018), section 4.2; weights from about appendix C.2.

    Args:
        scale: "quick": MLPs on 200 digits, 8 draws and 3 that tune. "medium" and "full": LeNet-5 on
            2,000 of MNIST; at "medium" with the paper's weights of Tables 1 and 6 and 400 steps.
    """
    grids: dict[Rule, tuple[float, ...]] = {
        "baseline": (0.0,), "SpectReg": (0.001, 0.01, 0.1), "DoubleBack": (0.001, 1.0, 10.0),
    }  # fmt: skip
    tuned, reported = {"quick": (3, 8), "medium": (1, 3), "full": (5, 10)}[scale]
    sizes: dict[str, dict[str, Any]] = {
        "quick": {"steps": 1000},
        "medium": {"data": "mnist", "per_class": 200, **mnist.MEDIUM},
        "full": {"data": "mnist", "per_class": 200, **mnist.FULL},
    }
    if scale == "medium":
        grids |= {"SpectReg": (0.03,), "DoubleBack": (3.0,)}

    def cell(network: Network, rule: Rule, draw: int) -> Cell:
        small = mnist.Cell(rule, grids[rule], (PAPER_DECAY,), draw, draw < tuned,
                                    **sizes[scale])  # fmt: skip
        return Cell(network, replace(small, dropout=0.5 if network == "dropout" else 0.0))

    cells = tuple(
        cell(network, rule, draw)
        for network in get_args(Network)
        for rule in grids
        for draw in range(0 if len(grids[rule]) > 1 else tuned, tuned + reported)
    )
    return Study("spectreg-networks", run, cells)


def run(cell: Cell) -> Mapping[str, Any]:
    """Accuracies at the end of training.

    Returns:
        `validation` and `test`, by weight, and where the data are from. Penalties see a network
        that normalises by its running means and variances.
    """
    small = cell.small
    network = _network(cell.network, small.data, small.width, small.dropout)
    runs = mnist.trained(small, network, mnist.penalty_of(PENALTIES[small.rule]))
    accuracies = mnist.held_out_accuracies(runs, small.held_out)  # of the one weight decay
    return {name: value[0] for name, value in accuracies.items()} | {"source": runs.source}


@cache  # the same function for the same network: draws share the compiled program
def _network(name: Network, data: str, width: int, dropout: float) -> Callable[..., Any]:
    if name != "batchnorm":
        return mnist.trainable(data, width, dropout)

    def make(key: jax.Array) -> Any:
        if data == "mnist":
            model, state = eqx.nn.make_with_state(NormalisedLeNet)(key=key)
            return (by_products(model) if jax.default_backend() == "cpu" else model), state
        return eqx.nn.make_with_state(NormalisedMLP)(64, 10, width, 2, key=key)

    return make
