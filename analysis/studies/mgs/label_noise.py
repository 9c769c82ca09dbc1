"""Five regularizers, each tuned at one level of label noise, at four of them (MGS, Table 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from typing import Any, Literal

import jax
import numpy as np
import optax
from jaxtyping import Float

from analysis.data import Classification, TrainTest, flip_labels, mnist, motion_blur, split
from analysis.data.examples import take
from analysis.models import MLP, LeNet
from analysis.scale import Scale
from analysis.studies.igr.resnet import by_products
from analysis.studies.images import images
from analysis.sweep import Study
from analysis.training import At, Options, Runs, Steps, train
from analysis.training.threads import cores_allowed, in_threads
from igr.penalties import gradient_similarity_trace, loss_gradient_penalty, weight_penalty

Data = Literal["digits", "digits, LeNet-5", "blurred mnist", "blurred mnist, FCN"]
Method = Literal["none", "dropout", "weight", "loss gradient", "MGS"]

LAST = 5  # "calculated as an average of the previous 5 metric samples" (appendix D.1)


@dataclass(frozen=True)
class Cell:
    """One regularizer: its factor chosen on validation examples, then all levels of noise.

    Attributes:
        data: What is learned: digits by an MLP, or by LeNet-5 with filters of 3 by 3 ("LeNet-5");
            blurred MNIST by LeNet-5, or by a fully connected network of six layers of 300 ("FCN").
        method: The regularizer.
        factors: What to choose from: factors of the penalty, or rates of dropout.
        noises: The parts of the training labels that are wrong.
        examples: To train on.
        draws: How many samples of the training data, each with a network of its own.
        epochs: Through the training examples.
        tuning_noise: The part of wrong labels when the factor is chosen.
        tuning_examples: To train on then.
        tuning_draws: Samples and networks then.
        tuning_epochs: Epochs then.
        learning_rate: The step at the start; it falls by a factor of ten in `epochs`.
        batch_size: Examples a step.
        width: Units of a hidden layer of the MLP.
        depth: Its hidden layers.
        samples: How often losses and accuracies are taken.
        every: Of the samples before the last five one in so many is taken, which saves time.
        probes: How many draws of random signs a step estimate MGS's trace, without bias; 0 for the
            trace itself.
    """

    data: Data
    method: Method
    factors: tuple[float, ...]
    noises: tuple[float, ...] = (0.0, 0.3, 0.6, 0.8)
    examples: int = 3000
    draws: int = 10
    epochs: int = 400
    tuning_noise: float = 0.5
    tuning_examples: int = 6000
    tuning_draws: int = 5
    tuning_epochs: int = 100
    learning_rate: float = 0.1
    batch_size: int = 32
    width: int = 64
    depth: int = 3
    samples: int = 100
    every: int = 1
    probes: int = 0


# Half decades, as many for each penalty; at the ends they do too little and too much. On MNIST they
# are wider, as a trial there takes long.
FACTORS: dict[Data, dict[Method, tuple[float, ...]]] = {
    "digits": {
        "none": (0.0,),
        "dropout": (0.05, 0.1, 0.2, 0.3, 0.4, 0.5),
        "weight": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
        "loss gradient": (1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0),
        "MGS": (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4),
    },
    "blurred mnist": {
        "none": (0.0,),
        "dropout": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        "weight": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
        "loss gradient": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0),
        "MGS": (1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
    },
}

# At medium: those in the middle of the range that quick and full try.
FEW: dict[Method, tuple[float, ...]] = {
    "none": (0.0,),
    "dropout": (0.2, 0.4, 0.6),
    "weight": (1e-4, 1e-3, 1e-2),
    "loss gradient": (1e-2, 1e-1, 1.0),
    "MGS": (1e-6, 1e-5, 1e-4),
}


def study(scale: Scale) -> Study:
    """The classification of Szolnoky et al. (2022), section 6.1 and appendices D.1, D.2.

    The text gives sizes, epochs, batch and learning rate; it gives neither the factors tried nor
    the decay of the learning rate, which are ours. It chooses factors by the loss on the test
    images; here they are chosen on images that are in neither part of what is reported.

    Args:
        scale: "quick": digits, by LeNet-5 with filters of 3 by 3 and by a small MLP. "medium":
            blurred MNIST, by LeNet-5 and by a fully connected network, 500 examples, 80 epochs,
            three draws, three factors a decade apart and one draw to choose among them. One draw
            of random signs a step estimates MGS's trace at "medium", and that of LeNet-5 at
            "quick". "full": as in the paper.
    """

    def cell(method: Method) -> Cell:
        if scale == "quick":
            # As many batches a draw as fit, and as in the paper twice as many to tune on.
            return Cell("digits, LeNet-5", method, FACTORS["digits"][method], examples=384,
                        draws=3, tuning_examples=768, tuning_draws=2,
                        probes=int(method == "MGS"))  # fmt: skip
        given = Cell("blurred mnist", method, FACTORS["blurred mnist"][method])
        if scale == "full":
            return given
        # With the trace itself a step of LeNet-5 takes a core seven times as long.
        return Cell("blurred mnist", method, FEW[method], examples=500, draws=3, epochs=80,
                    tuning_examples=500, tuning_draws=1, tuning_epochs=20, every=10,
                    probes=1)  # fmt: skip

    cells = tuple(cell(method) for method in FACTORS["digits"])
    dense: dict[str, Any] = {"data": "blurred mnist, FCN", "width": 300, "depth": 6}
    if scale == "quick":
        dense = {"data": "digits", "draws": 5, "tuning_draws": 3, "probes": 0}
    return Study("mgs-label-noise", run, cells + tuple(replace(one, **dense) for one in cells))


def run(cell: Cell) -> Mapping[str, Any]:
    """Chooses the factor, then trains at every level of noise.

    Returns:
        The metrics of `Runs.arrays` with the factor chosen; axes are noise, draw, sample. Beside
        them `factor`; `tried` and, by factor and draw, `validation_loss`, the mean of the last
        samples at the tuning noise, infinite where training diverged; and where the data are from.
    """
    known = parts(cell.data)
    factor, losses = chosen(cell)

    def one(job: tuple[float, int]) -> dict[str, np.ndarray]:
        noise, draw = job
        data = known.sample(cell.examples, noise, draw)
        arrays = trained(cell, (factor,), data, draw, cell.epochs, taken(cell, data)).arrays()
        return {name: np.asarray(value).reshape(-1) for name, value in arrays.items()}

    found = _each(one, list(product(cell.noises, range(cell.draws))))
    shape = (len(cell.noises), cell.draws)
    return {
        **{
            name: np.stack([result[name] for result in found]).reshape(*shape, -1)
            for name in found[0]
            if name != "kept"
        },
        "factor": factor,
        "tried": np.array(cell.factors),
        "validation_loss": losses,
        "source": known.source,
    }


def chosen(cell: Cell) -> tuple[float, Float[np.ndarray, "factors draws"]]:
    """The factor with the least validation loss where factors are chosen, and all the losses."""
    losses = _tune(replace(cell, noises=(), examples=0, samples=100, every=1))
    return cell.factors[int(np.argmin(losses.mean(axis=1)))], losses


def taken(cell: Cell, data: TrainTest[Classification]) -> int | list[int]:
    """How many samples are taken of a run on these data, or after which steps."""
    if cell.every == 1:
        return cell.samples
    steps = cell.epochs * (len(data.train) // cell.batch_size)
    last = cell.samples - LAST
    numbers = [*range(cell.every, last + 1, cell.every), *range(last + 1, cell.samples + 1)]
    return [steps * number // cell.samples for number in numbers]


@dataclass(frozen=True)
class Parts:
    """The examples in three parts of which none is in another.

    Attributes:
        pool: Training samples are drawn from these.
        validation: Factors are chosen by these.
        test: What is reported.
        source: Where they are from.
    """

    pool: Classification
    validation: Classification
    test: Classification
    source: str

    def sample(
        self, examples: int, noise: float, draw: int, *, tuning: bool = False
    ) -> TrainTest[Classification]:
        """A random sample of the pool, classes in proportion, with wrong labels in it.

        Of what is held out there are at most five times as many, or 2,500, always the same.
        """
        drawn = split(self.pool, examples, seed=draw).test
        held_out = self.validation if tuning else self.test
        enough = max(5 * examples, 2500)
        if len(held_out) > enough:
            held_out = split(held_out, enough, seed=0).test
        return flip_labels(TrainTest(drawn, held_out, self.source), noise, seed=draw)


@cache  # cells that differ only in what is trained afterwards share it
def _tune(cell: Cell) -> np.ndarray:
    """The validation loss at the end, by factor and draw."""
    known = parts(cell.data)
    if len(cell.factors) == 1:
        return np.zeros((1, 1))
    steps = cell.tuning_epochs * (cell.tuning_examples // cell.batch_size)
    last = [steps * i // cell.samples for i in range(cell.samples - LAST + 1, cell.samples + 1)]
    # The rate of dropout is part of the network: one at a time.
    groups = [(f,) for f in cell.factors] if cell.method == "dropout" else [cell.factors]

    def one(job: tuple[tuple[float, ...], int]) -> np.ndarray:
        factors, draw = job
        # Other draws than those that are reported.
        draw += cell.draws
        data = known.sample(cell.tuning_examples, cell.tuning_noise, draw, tuning=True)
        runs = trained(cell, factors, data, draw, cell.tuning_epochs, last)
        return runs.last_mean("test_loss", LAST).reshape(-1)

    found = _each(one, list(product(groups, range(cell.tuning_draws))))
    by_group = np.stack(found).reshape(len(groups), cell.tuning_draws, -1)
    losses = by_group.swapaxes(1, 2).reshape(-1, cell.tuning_draws)
    return np.where(np.isfinite(losses), losses, np.inf)


def trained(
    cell: Cell,
    factors: tuple[float, ...],
    data: TrainTest[Classification],
    seed: int,
    epochs: int,
    samples: int | Sequence[int],
) -> Runs:
    """Networks trained as a cell says, a factor beside the other, on these data."""
    batches = len(data.train) // cell.batch_size
    on_cpu = jax.default_backend() == "cpu"
    return train(
        _network(cell.data, cell.width, cell.depth, factors[0] * (cell.method == "dropout")),
        _rule,
        data,
        grid={
            "learning_rate": (cell.learning_rate,),
            "tenth": (cell.epochs * batches,),
            "factor": factors,
        },
        seeds=(seed,),
        stop=Steps(epochs * batches),
        options=Options(
            batch_size=cell.batch_size,
            samples=samples,
            penalty=_penalty(cell),
            # There a convolution with weights of its own a run is slow, and so are the patches of
            # many images at once, which no cache holds.
            together=1 if on_cpu else None,
            chunk=50 if on_cpu and cell.data == "blurred mnist" else 1000,
            devices=jax.local_devices()[:1],  # batches of 32 are too small to share
        ),
    )


def _each(work: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
    """The work on every job; on a CPU a thread a core, as each draw has data of its own."""
    return in_threads(work, jobs, cores_allowed() if jax.default_backend() == "cpu" else 1)


@cache  # the same functions for the same sizes: runs share the compiled program
def _network(data: Data, width: int, depth: int, dropout: float) -> Callable[..., Any]:
    if data in ("digits", "blurred mnist, FCN"):
        inputs = 64 if data == "digits" else 784
        return lambda key: MLP(inputs, 10, width, depth, dropout=dropout, key=key)
    side, filter_side = (8, 3) if data == "digits, LeNet-5" else (28, 5)
    return partial(_lenet, side, filter_side, dropout)


def _lenet(side: int, filter_side: int, dropout: float, key: jax.Array) -> Any:
    model = LeNet(10, 1, side, dropout, True, filter_side, key=key)
    return by_products(model) if jax.default_backend() == "cpu" else model


def _rule(settings: Mapping[str, jax.Array]) -> optax.GradientTransformation:
    """SGD whose rate falls to a tenth in "tenth" steps."""
    return optax.sgd(lambda n: settings["learning_rate"] * 0.1 ** (n / settings["tenth"]))


def _weight(at: At) -> jax.Array:
    return at.settings["factor"] * weight_penalty(at.params)


def _loss_gradient(at: At) -> jax.Array:
    norm = loss_gradient_penalty(at.example_loss_fn, at.params, at.x, at.y)
    return at.settings["factor"] * norm


def _similarity(at: At) -> jax.Array:
    return at.settings["factor"] * gradient_similarity_trace(at.apply_fn, at.params, at.x)


@cache  # the same function for the same number: runs share the compiled program
def _estimate(probes: int) -> Callable[[At], jax.Array]:
    def penalty(at: At) -> jax.Array:
        trace = gradient_similarity_trace(
            at.apply_fn, at.params, at.x, method="random_signs", probes=probes, key=at.key
        )
        return at.settings["factor"] * trace

    return penalty


def _penalty(cell: Cell) -> Callable[[At], jax.Array] | None:
    if cell.method == "MGS" and cell.probes:
        return _estimate(cell.probes)
    return PENALTIES.get(cell.method)


PENALTIES: dict[str, Callable[[At], jax.Array]] = {
    "weight": _weight,
    "loss gradient": _loss_gradient,
    "MGS": _similarity,
}


@cache
def parts(name: Data) -> Parts:
    """The examples of a name in three parts, always divided alike."""
    if name in ("blurred mnist", "blurred mnist, FCN"):
        blurred = motion_blur(mnist())
        held_out = 5000
        order = np.arange(len(blurred.train))
        return Parts(
            take(blurred.train, order[:-held_out]),
            take(blurred.train, order[-held_out:]),
            blurred.test,
            blurred.source,
        )
    whole = images("digits")
    rest = split(whole.train, 300, seed=0)
    known = rest.train, rest.test, whole.test
    if name == "digits":
        return Parts(*known, whole.source)
    pool, validation, test = (
        replace(part, x=part.x.reshape(-1, 1, 8, 8).astype(np.float32)) for part in known
    )
    return Parts(pool, validation, test, whole.source)
