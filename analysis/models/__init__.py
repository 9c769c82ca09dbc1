"""The networks of the five papers, as equinox modules of one example, one a file."""

from analysis.models.alexnet import AlexNet
from analysis.models.dense import Dense
from analysis.models.initialisation import (
    INITIAL_RANGES,
    glorot_normal,
    initialise,
    lecun_normal,
    num_parameters,
    uniform,
)
from analysis.models.lenet import LeNet
from analysis.models.mlp import MLP
from analysis.models.resnet import ResNet
from analysis.models.xord_network import XordNetwork

__all__ = [
    "INITIAL_RANGES",
    "MLP",
    "AlexNet",
    "Dense",
    "LeNet",
    "ResNet",
    "XordNetwork",
    "glorot_normal",
    "initialise",
    "lecun_normal",
    "num_parameters",
    "uniform",
]
