"""The studies by name, each a module; kept as text so that listing them imports no JAX."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from analysis.command import chosen
from analysis.scale import Conditions, Scale
from analysis.sweep import Study, Sweep, committed, sweep

STUDIES: dict[str, str] = {
    "coherence-real-or-random": "analysis.studies.coherence.real_or_random:study",
    "coherence-robust": "analysis.studies.coherence.robust:study",
    "coherence-stability": "analysis.studies.coherence.stability:study",
    "coherence-training": "analysis.studies.coherence.training:study",
    "igr-edge": "analysis.studies.igr.edge:study",
    "igr-follow": "analysis.studies.igr.follow:study",
    "igr-muon": "analysis.studies.igr.muon:study",
    "igr-noise": "analysis.studies.igr.noise:study",
    "igr-optimizers": "analysis.studies.igr.optimizers:study",
    "igr-relu": "analysis.studies.igr.relu:study",
    "igr-resnet": "analysis.studies.igr.resnet:study",
    "igr-resnet-rates": "analysis.studies.igr.resnet_rates:study",
    "igr-sgd": "analysis.studies.igr.sgd:study",
    "igr-transformer": "analysis.studies.igr.transformer:study",
    "igr-two-parameters": "analysis.studies.igr.two_parameters:study",
    "igr-width-and-rate": "analysis.studies.igr.width_and_rate:study",
    "igr-zoo": "analysis.studies.igr.zoo:study",
    "igr-zoo-runs": "analysis.studies.igr.zoo_runs:study",
    "metric-cifar10": "analysis.studies.metric.cifar10:study",
    "metric-power-method": "analysis.studies.metric.power_method:study",
    "metric-rules": "analysis.studies.metric.rules:study",
    "metric-vectors": "analysis.studies.metric.vectors:study",
    "mgs-alexnet": "analysis.studies.mgs.alexnet:study",
    "mgs-keypoints": "analysis.studies.mgs.keypoints:study",
    "mgs-label-noise": "analysis.studies.mgs.label_noise:study",
    "mgs-noise-and-size": "analysis.studies.mgs.noise_and_size:study",
    "mgs-robustness": "analysis.studies.mgs.robustness:study",
    "mgs-two-circles": "analysis.studies.mgs.two_circles:study",
    "spectreg-combined": "analysis.studies.spectreg.combined:study",
    "spectreg-images": "analysis.studies.spectreg.images:study",
    "spectreg-mnist": "analysis.studies.spectreg.mnist:study",
    "spectreg-networks": "analysis.studies.spectreg.networks:study",
    "spectreg-sin": "analysis.studies.spectreg.sin:study",
    "spectreg-sizes": "analysis.studies.spectreg.sizes:study",
}

# What all cells of each take at "quick" on two cores, compilation included.
SECONDS: dict[str, float] = {
    "coherence-real-or-random": 6,
    "coherence-robust": 55,
    "coherence-stability": 52,
    "coherence-training": 55,
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
    "mgs-label-noise": 200,
    "mgs-noise-and-size": 160,
    "mgs-robustness": 70,
    "mgs-two-circles": 190,
    "spectreg-combined": 60,
    "spectreg-images": 110,
    "spectreg-mnist": 100,
    "spectreg-networks": 45,
    "spectreg-sin": 15,
    "spectreg-sizes": 55,
}

# The same at "medium". What was run in whole has its measured CPU time, halved; of the others those
# that were measured have seconds a step times the steps; some are not known.
_MEDIUM_SECONDS: dict[str, float] = {
    "coherence-robust": 1450,
    "coherence-stability": 85,
    "coherence-training": 470,
    "igr-noise": 455,
    "igr-width-and-rate": 315,
    "metric-cifar10": 95,
    "metric-rules": 520,
    "mgs-alexnet": 1355,
    "mgs-label-noise": 705,
    "mgs-noise-and-size": 415,
    "mgs-robustness": 575,
    "spectreg-combined": 575,
    "spectreg-mnist": 610,
    "spectreg-networks": 290,
    "spectreg-sizes": 890,
}


def seconds(name: str, scale: Scale) -> float | None:
    """What all cells of a study take on two cores; None where it is not known.

    >>> seconds("igr-noise", "quick"), seconds("igr-noise", "full")
    (45, None)
    """
    if scale == "quick":
        return SECONDS[name]
    if study(name, scale).cells == study(name, "quick").cells:
        return SECONDS[name]
    return _MEDIUM_SECONDS.get(name) if scale == "medium" else None


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
    told = conditions.told
    swept = sweep(
        wanted,
        conditions.results,
        engine=conditions.engine,
        told=None if told is None else partial(told, name),
    )
    if swept.failures:
        errors = "\n".join(f"{failure.cell}\n{failure.error}" for failure in swept.failures)
        raise RuntimeError(f"{len(swept.failures)} cells of {name} failed:\n{errors}")
    return swept
