"""Every figure and table of the five papers that is, or is to be, regenerated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from analysis.command import chosen
from paper_figures.figure import Figure

_IGR = "Implicit gradient regularization"
_MGS = "Model gradient similarity"
_COHERENCE = "Appealing to gradients"
_METRIC = "Regularization of correlated parameter spaces"
_SPECTREG = "Gradient regularization of discriminative models"

_CURVES = "paper_figures.metric.curves"
_TWO_PARAMETERS = "paper_figures.igr.two_parameters"

_READY: tuple[Figure, ...] = (
    Figure("igr/1a", _IGR, "(y - abx)²/2: gradient descent follows the modified flow; "
           "EGR goes further", f"{_TWO_PARAMETERS}:figure_1a", 22),
    Figure("igr/1b", _IGR, "(y - abx)²/2: R/E where gradient descent ends, against the "
           "learning rate", f"{_TWO_PARAMETERS}:figure_1b", 8),
    Figure("igr/A.1", _IGR, "(y - abx)²/2: a large learning rate ricochets",
           f"{_TWO_PARAMETERS}:figure_a1", 6),
    Figure("igr/A.2", _IGR, "(y - abx)²/2: test error against the EGR rate",
           f"{_TWO_PARAMETERS}:figure_a2", 6),
    Figure("igr/follow", "(ours)", "A tanh network on digits: gradient descent against the flows "
           "of order 0, 1, 2", "paper_figures.igr.follow:figure_follow", 35),
    Figure("igr/optimizers", "(ours)", "Six optimizers of optax on digits, each against the flows "
           "of order 0, 1 (and 2) derived for it", "paper_figures.igr.optimizers:figure_optimizers",
           85, default=False),
    Figure("igr/adam-kept", "(ours)", "Adam at its defaults on digits: second moment kept beside "
           "the parameters, or eliminated", "paper_figures.igr.optimizers:figure_adam_kept", 30),
    Figure("igr/zoo", "(ours)", "Every optimizer of optax that can be read, on digits, against the "
           "flows of order 0 and 1 read from its code", "paper_figures.igr.zoo:figure_zoo", 480,
           default=False),
    Figure("igr/muon", "(ours)", "Muon on digits against its flows of order 0 and 1, and where the "
           "expansion stops being valid", "paper_figures.igr.muon:figure_muon", 120,
           default=False),
    Figure("igr/sgd", "(ours)", "A tanh network on digits: the mean of reshuffled SGD against "
           "the flows of GD and SGD", "paper_figures.igr.sgd:figure_sgd", 25),
    Figure("igr/relu", "(ours)", "tanh, GELU, ReLU and max pooling on digits: gradient descent "
           "against its flows, over phases of training", "paper_figures.igr.relu:figure_relu", 60,
           default=False),
    Figure("igr/edge", "(ours)", "Past the edge of stability on digits: loss, sharpness and "
           "distance of four flows", "paper_figures.igr.edge:figure_edge", 70, default=False),
    Figure("igr/transformer", "(ours)", "A transformer under clipped and scheduled AdamW against "
           "its flows", "paper_figures.igr.transformer:figure_transformer", 210, default=False),
    Figure("igr/2a", _IGR, "R at maximum test accuracy against λ, over widths and rates",
           "paper_figures.igr.width_and_rate:figure_2a", 110, default=False),
    Figure("igr/2b", _IGR, "Maximum test accuracy against λ, over widths and rates",
           "paper_figures.igr.width_and_rate:figure_2b", 110, default=False),
    Figure("igr/A.3", _IGR, "Loss, R, their ratio and norms while an MLP trains, by learning rate",
           "paper_figures.igr.training:figure_a3", 110, default=False),
    Figure("igr/A.4", _IGR, "The same of the test set, and its accuracy",
           "paper_figures.igr.training:figure_a4", 110, default=False),
    Figure("igr/A.5", _IGR, "R/E at equal physical time, by learning rate",
           "paper_figures.igr.training:figure_a5", 110, default=False),
    Figure("igr/A.6", _IGR, "Learning rate, size, R and test accuracy",
           "paper_figures.igr.training:figure_a6", 110, default=False),
    Figure("igr/3a", _IGR, "Slope of the loss under perturbation, by learning rate",
           "paper_figures.igr.noise:figure_3a", 45, default=False),
    Figure("igr/3b", _IGR, "Test accuracy under perturbation, by learning rate",
           "paper_figures.igr.noise:figure_3b", 45, default=False),
    Figure("igr/3c", _IGR, "A ResNet trained with EGR: test accuracy against its rate",
           "paper_figures.igr.resnet:figure_3c", 130, default=False),
    Figure("mgs/2", _MGS, "Two circles: decision boundaries and similarity, by regularizer",
           "paper_figures.mgs.two_circles:figure_2", 190, default=False),
    Figure("mgs/table-1", _MGS, "Test accuracy at four levels of label noise, by regularizer",
           "paper_figures.mgs.label_noise:table_1", 200, default=False),
    Figure("mgs/table-A.1", _MGS, "The same with a fully connected network",
           "paper_figures.mgs.label_noise:table_a1", 200, default=False),
    Figure("mgs/A.2", _MGS, "Test accuracy while a fully connected network trains, by label noise",
           "paper_figures.mgs.label_noise:figure_a2", 200, default=False),
    Figure("mgs/A.1", _MGS, "Two circles: decision boundaries by method, all of them",
           "paper_figures.mgs.two_circles:figure_a1", 190, default=False),
    Figure("mgs/A.3", _MGS, "Test accuracy while LeNet-5 trains, by label noise",
           "paper_figures.mgs.label_noise:figure_a3", 200, default=False),
    Figure("coherence/5.1", _COHERENCE, "Real against random data in 6 dimensions: gradients, "
           "weights, test loss", "paper_figures.coherence.real_or_random:figure_5_1", 6),
    Figure("coherence/training", _COHERENCE, "Coherence while training, real and random labels",
           "paper_figures.coherence.training:figure_training", 55),
    Figure("coherence/robust", _COHERENCE, "Winsorized and median-of-means descent against label "
           "noise", "paper_figures.coherence.robust:figure_robust", 55, default=False),
    Figure("coherence/stability", _COHERENCE, "Sharpness and non-uniformity of GD's and SGD's "
           "minima", "paper_figures.coherence.stability:figure_stability", 52, default=False),
    Figure("metric/1.1", _METRIC, "Regularizing steps of the metric and of L2, as vectors",
           "paper_figures.metric.vectors:figure_1_1", 9),
    Figure("metric/5.2", _METRIC, "Top eigenvalues: matrix-free power method and full Hessian",
           "paper_figures.metric.power_method:figure_5_2", 11),
    Figure("metric/readings", "(ours)", "Rates of a step or of a learning rate: distances to "
           "Tables 5.1 and 5.2", "paper_figures.metric.readings:figure_readings", 300,
           default=False),
    Figure("metric/5.39", _METRIC, "Norm of the parameters against test performance, by rule",
           "paper_figures.metric.eigenvalues:figure_norms", 300, default=False),
    Figure("metric/table-5.1", _METRIC, "Accuracy or error by learning rule, tanh networks",
           "paper_figures.metric.rules:table_5_1", 300, default=False),
    Figure("metric/table-5.2", _METRIC, "Accuracy or error by learning rule, ReLU networks",
           "paper_figures.metric.rules:table_5_2", 300, default=False),
    Figure("spectreg/table-1", _SPECTREG, "Test accuracy on small MNIST, with weight decay",
           "paper_figures.spectreg.mnist:table_1", 80, default=False),
    Figure("spectreg/table-3", _SPECTREG, "Confidence penalty against SpectReg and DoubleBack",
           "paper_figures.spectreg.combined:table_3", 60, default=False),
    Figure("spectreg/5", _SPECTREG, "Weight loss and accuracy over DoubleBack's weight, by weight "
           "decay", "paper_figures.spectreg.combined:figure_5", 60, default=False),
    Figure("spectreg/table-6", _SPECTREG, "SpectReg, FrobReg and JacReg on small MNIST",
           "paper_figures.spectreg.mnist:table_6", 80, default=False),
    Figure("spectreg/table-7", _SPECTREG, "Error on SIN against SpectReg's weight",
           "paper_figures.spectreg.sin:table_7", 15),
    Figure("spectreg/2", _SPECTREG, "Functions learned on SIN, by SpectReg's weight",
           "paper_figures.spectreg.sin:figure_2", 15),
    Figure("spectreg/3", _SPECTREG, "A part of SIN from close by, with and without SpectReg",
           "paper_figures.spectreg.sin:figure_3", 15),
)  # fmt: skip


def _rules_on_the_way() -> Iterator[Figure]:
    """Figures 5.3 to 5.34: for each task and activation what a rule does, in the paper's order."""
    kinds = {"train": "Training", "test": "Test", "norm": "Norm of the parameters"}
    vectors = "first layer"
    tasks = (
        ("xor", "XOR", ("train", "norm", vectors)),
        ("xord", "XORD", ("train", "test", "norm", vectors)),
        ("mnist", "MNIST", ("train", "test", "norm")),
        ("synthetic", "Synthetic", ("train", "test", "norm")),
        ("cifar10", "CIFAR-10", ("train", "test", "norm")),
    )
    number = 3
    for task, title, whats in tasks:
        for activation in ("tanh", "relu"):
            for what in whats:
                measure = "accuracy" if task in ("xor", "mnist", "cifar10") else "error"
                shows = (
                    "Weights of the first layer, as vectors"
                    if what == vectors
                    else kinds[what] + ("" if what == "norm" else f" {measure}") + " on the way"
                )
                words = f"{title}, {activation}: {shows[0].lower()}{shows[1:]}, by rule"
                name = f"metric/5.{number}"
                number += 1
                seconds = 130 if task == "cifar10" else 300
                if what == vectors:
                    yield Figure(name, _METRIC, words, f"{_CURVES}:figure_first_layer", 300, False,
                                 (task, activation))  # fmt: skip
                else:
                    yield Figure(name, _METRIC, words, f"{_CURVES}:figure_curves", seconds, False,
                                 (task, activation, what))  # fmt: skip


def _eigenvalues() -> Iterator[Figure]:
    draw = "paper_figures.metric.eigenvalues:figure_eigenvalues"
    for number, task, title, activation in (
        (35, "xor", "XOR", "tanh"),
        (36, "mnist", "MNIST", "tanh"),
        (37, "synthetic", "Synthetic", "relu"),
        (38, "cifar10", "CIFAR-10", "relu"),
    ):
        shows = f"{title}, {activation}: largest eigenvalues of the Hessian, by rule"
        arguments, seconds = (task, activation), 130 if task == "cifar10" else 300
        yield Figure(f"metric/5.{number}", _METRIC, shows, draw, seconds, False, arguments)


def _noise_and_size() -> Iterator[Figure]:
    """Figures A.4 to A.13: a map a regularizer, of LeNet-5 and of the fully connected network."""
    methods = ("none", "weight", "dropout", "loss gradient", "MGS")
    networks = (("blurred mnist", "LeNet-5"), ("blurred mnist, FCN", "Fully connected"))
    pairs = ((data, network, method) for data, network in networks for method in methods)
    for number, (data, network, method) in enumerate(pairs, 4):
        named = "unregularized" if method == "none" else f"with {method}"
        shows = f"{network}, {named}: test accuracy by label noise and training size"
        yield Figure(f"mgs/A.{number}", _MGS, shows, "paper_figures.mgs.noise_and_size:figure_map",
                     160, False, (data, method))  # fmt: skip


def _later() -> Iterator[Figure]:
    """Those of studies of their own, each of some minutes."""
    rates, keypoints = "paper_figures.igr.resnet_rates", "paper_figures.mgs.keypoints"
    spectreg = "paper_figures.spectreg"
    for name, paper, shows, source, seconds in (
        (
            "igr/A.7",
            _IGR,
            "ResNet-18 on CIFAR-10: accuracy, R, slope and norm while training, by rate",
            f"{rates}:figure_a7",
            70,
        ),
        (
            "igr/A.8",
            _IGR,
            "ResNet-18 on CIFAR-10: rate, R and test accuracy",
            f"{rates}:figure_a8",
            70,
        ),
        (
            "mgs/3",
            _MGS,
            "AlexNet on corrupted MNIST: test accuracy and similarity while training",
            "paper_figures.mgs.alexnet:figure_3",
            90,
        ),
        (
            "mgs/4",
            _MGS,
            "Quantiles of the test accuracy over what controls training",
            "paper_figures.mgs.robustness:figure_4",
            90,
        ),
        (
            "mgs/table-2",
            _MGS,
            "Test loss on corrupted keypoints, LeNet-5",
            f"{keypoints}:table_2",
            90,
        ),
        (
            "mgs/table-A.2",
            _MGS,
            "Test loss on corrupted keypoints, a fully connected network",
            f"{keypoints}:table_a2",
            60,
        ),
        (
            "spectreg/table-2",
            _SPECTREG,
            "Dropout and batch normalization against DoubleBack and SpectReg",
            f"{spectreg}.networks:table_2",
            60,
        ),
        (
            "spectreg/table-4",
            _SPECTREG,
            "Small CIFAR-10, by regularizer (CIFAR-100 is not here)",
            f"{spectreg}.images:table_4",
            90,
        ),
        (
            "spectreg/table-5",
            _SPECTREG,
            "TinyImageNet-200, by regularizer",
            f"{spectreg}.images:table_5",
            60,
        ),
        (
            "spectreg/1",
            _SPECTREG,
            "Test accuracy on MNIST against the size of the training set",
            f"{spectreg}.sizes:figure_1",
            60,
        ),
    ):
        yield Figure(name, paper, shows, source, seconds, False)


FIGURES: tuple[Figure, ...] = (
    *_READY,
    *_rules_on_the_way(),
    *_eigenvalues(),
    *_noise_and_size(),
    *_later(),
)


def chosen_figures(names: Sequence[str], figures: Sequence[Figure] = FIGURES) -> list[Figure]:
    """The figures that are meant by names, patterns or papers, as `analysis.command.chosen` has it.

    Raises:
        ValueError: If one is unknown; the message has the nearest ones.

    >>> [figure.name for figure in chosen_figures(["spectreg/table-*"])][:2]
    ['spectreg/table-1', 'spectreg/table-3']
    """
    known = {figure.name: figure for figure in figures}
    return [known[name] for name in chosen(names, list(known), "figure")]
