"""Training as one program: epochs on the device, seeds and settings side by side."""

from analysis.training.at import At
from analysis.training.losses import accuracy, cross_entropy, half_squared_error, squared_error
from analysis.training.options import Options
from analysis.training.runs import Runs
from analysis.training.stopping import MaxTestAccuracy, PhysicalTime, Steps
from analysis.training.train import train

__all__ = [
    "At",
    "MaxTestAccuracy",
    "Options",
    "PhysicalTime",
    "Runs",
    "Steps",
    "accuracy",
    "cross_entropy",
    "half_squared_error",
    "squared_error",
    "train",
]
