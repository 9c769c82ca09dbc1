"""The studies by name, each a module; kept as text so that listing them imports no JAX."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from analysis.command import chosen
from analysis.scale import Conditions, Scale
from analysis.sweep import Study, Sweep, committed, sweep

STUDIES: dict[str, str] = {
    "coherence-real-or-random": "analysis.studies.coherence_real_or_random:study",
    "coherence-robust": "analysis.studies.coherence_robust:study",
    "coherence-stability": "analysis.studies.coherence_stability:study",
    "coherence-training": "analysis.studies.coherence_training:study",
    "igr-edge": "analysis.studies.igr_edge:study",
    "igr-follow": "analysis.studies.igr_follow:study",
    "igr-muon": "analysis.studies.igr_muon:study",
    "igr-noise": "analysis.studies.igr_noise:study",
    "igr-optimizers": "analysis.studies.igr_optimizers:study",
    "igr-relu": "analysis.studies.igr_relu:study",
    "igr-resnet": "analysis.studies.igr_resnet:study",
    "igr-resnet-rates": "analysis.studies.igr_resnet_rates:study",
    "igr-sgd": "analysis.studies.igr_sgd:study",
    "igr-transformer": "analysis.studies.igr_transformer:study",
    "igr-two-parameters": "analysis.studies.igr_two_parameters:study",
    "igr-width-and-rate": "analysis.studies.igr_width_and_rate:study",
    "igr-zoo": "analysis.studies.igr_zoo:study",
    "igr-zoo-runs": "analysis.studies.igr_zoo_runs:study",
    "metric-cifar10": "analysis.studies.metric_cifar10:study",
    "metric-power-method": "analysis.studies.metric_power_method:study",
    "metric-rules": "analysis.studies.metric_rules:study",
    "metric-vectors": "analysis.studies.metric_vectors:study",
    "mgs-alexnet": "analysis.studies.mgs_alexnet:study",
    "mgs-keypoints": "analysis.studies.mgs_keypoints:study",
    "mgs-label-noise": "analysis.studies.mgs_label_noise:study",
    "mgs-noise-and-size": "analysis.studies.mgs_noise_and_size:study",
    "mgs-robustness": "analysis.studies.mgs_robustness:study",
    "mgs-two-circles": "analysis.studies.mgs_two_circles:study",
    "spectreg-combined": "analysis.studies.spectreg_combined:study",
    "spectreg-images": "analysis.studies.spectreg_images:study",
    "spectreg-mnist": "analysis.studies.spectreg_mnist:study",
    "spectreg-networks": "analysis.studies.spectreg_networks:study",
    "spectreg-sin": "analysis.studies.spectreg_sin:study",
    "spectreg-sizes": "analysis.studies.spectreg_sizes:study",
}

# What all cells of each take at "quick" on two cores, compilation included.
SECONDS: dict[str, float] = {
    "coherence-real-or-random": 6,
    "coherence-robust": 12,
    "coherence-stability": 52,
    "coherence-training": 18,
    "igr-edge": 70,
    "igr-follow": 35,
    "igr-muon": 120,
    "igr-noise": 45,
    "igr-optimizers": 85,
    "igr-relu": 60,
    "igr-resnet": 130,
    "igr-resnet-rates": 65,
    "igr-sgd": 25,
    "igr-transformer": 210,
    "igr-two-parameters": 35,
    "igr-width-and-rate": 110,
    "igr-zoo": 480,
    "igr-zoo-runs": 240,
    "metric-cifar10": 130,
    "metric-power-method": 11,
    "metric-rules": 245,
    "metric-vectors": 9,
    "mgs-alexnet": 85,
    "mgs-keypoints": 155,
    "mgs-label-noise": 90,
    "mgs-noise-and-size": 90,
    "mgs-robustness": 70,
    "mgs-two-circles": 115,
    "spectreg-combined": 60,
    "spectreg-images": 110,
    "spectreg-mnist": 80,
    "spectreg-networks": 45,
    "spectreg-sin": 15,
    "spectreg-sizes": 55,
}


def study(name: str, scale: Scale) -> Study:
    """A study at a scale.

    Args:
        name: One of `STUDIES`.
        scale: "quick", "medium" or "full".

    Raises:
        ValueError: If there is none of that name.

    >>> study("igr-width-and-rates", "quick")
    Traceback (most recent call last):
    ...
    ValueError: no study is called 'igr-width-and-rates'; close: igr-width-and-rate...
    """
    (known,) = chosen([name], list(STUDIES), "study")
    module, function = STUDIES[known].split(":")
    return getattr(importlib.import_module(module), function)(scale)


def computed(
    name: str, conditions: Conditions, only: Callable[[Any], bool] = lambda cell: True
) -> Sweep:
    """The results of a study; computes what is missing.

    Args:
        name: One of `STUDIES`.
        conditions: The scale, the engine, the folder of results, and whether anything is computed.
        only: Which cells are wanted; by default all.

    Raises:
        ValueError: If there is no such study.
        FileNotFoundError: If results are missing and nothing is to be computed.
        RuntimeError: If a cell failed.
    """
    whole = study(name, conditions.scale)
    wanted = replace(whole, cells=tuple(cell for cell in whole.cells if only(cell)))
    if conditions.committed:
        return committed(wanted, conditions.results)
    swept = sweep(wanted, conditions.results, engine=conditions.engine)
    if swept.failures:
        errors = "\n".join(f"{failure.cell}\n{failure.error}" for failure in swept.failures)
        raise RuntimeError(f"{len(swept.failures)} cells of {name} failed:\n{errors}")
    return swept
