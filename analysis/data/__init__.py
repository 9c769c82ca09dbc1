"""Data sets, as arrays that are checked and ready to be trained on, one a file."""

from analysis.data.cifar10 import cifar10
from analysis.data.digits import digits
from analysis.data.examples import Classification, Regression, TrainTest, split
from analysis.data.keypoints import drawn_keypoints, keypoints
from analysis.data.label_noise import flip_labels, shift_targets
from analysis.data.mnist import mnist
from analysis.data.motion_blur import motion_blur
from analysis.data.real_or_random import real_or_random
from analysis.data.sin import sin
from analysis.data.synthetic_regression import synthetic_regression
from analysis.data.textures import textures
from analysis.data.tiny_imagenet import tiny_imagenet
from analysis.data.two_circles import two_circles
from analysis.data.xor import xor, xord

__all__ = [
    "Classification",
    "Regression",
    "TrainTest",
    "cifar10",
    "digits",
    "drawn_keypoints",
    "flip_labels",
    "keypoints",
    "mnist",
    "motion_blur",
    "real_or_random",
    "shift_targets",
    "sin",
    "split",
    "synthetic_regression",
    "textures",
    "tiny_imagenet",
    "two_circles",
    "xor",
    "xord",
]
