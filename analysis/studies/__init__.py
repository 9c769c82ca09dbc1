"""The studies by name, each a module; kept as text so that listing them imports no JAX."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from analysis.scale import Scale, conditions
from analysis.sweep import Study, Sweep, sweep

STUDIES: dict[str, str] = {
    "coherence-real-or-random": "analysis.studies.coherence_real_or_random:study",
    "coherence-robust": "analysis.studies.coherence_robust:study",
    "coherence-stability": "analysis.studies.coherence_stability:study",
    "coherence-training": "analysis.studies.coherence_training:study",
    "igr-follow": "analysis.studies.igr_follow:study",
    "igr-noise": "analysis.studies.igr_noise:study",
    "igr-optimizers": "analysis.studies.igr_optimizers:study",
    "igr-resnet": "analysis.studies.igr_resnet:study",
    "igr-sgd": "analysis.studies.igr_sgd:study",
    "igr-two-parameters": "analysis.studies.igr_two_parameters:study",
    "igr-width-and-rate": "analysis.studies.igr_width_and_rate:study",
    "metric-power-method": "analysis.studies.metric_power_method:study",
    "metric-rules": "analysis.studies.metric_rules:study",
    "metric-vectors": "analysis.studies.metric_vectors:study",
    "mgs-label-noise": "analysis.studies.mgs_label_noise:study",
    "mgs-two-circles": "analysis.studies.mgs_two_circles:study",
    "spectreg-mnist": "analysis.studies.spectreg_mnist:study",
    "spectreg-sin": "analysis.studies.spectreg_sin:study",
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
    ValueError: no study is called 'igr-width-and-rates'; there are: ...
    """
    if name not in STUDIES:
        raise ValueError(f"no study is called {name!r}; there are: {', '.join(STUDIES)}")
    module, function = STUDIES[name].split(":")
    return getattr(importlib.import_module(module), function)(scale)


def computed(name: str, only: Callable[[Any], bool] = lambda cell: True) -> Sweep:
    """The results of a study under the conditions of the environment; computes what is missing.

    Args:
        name: One of `STUDIES`.
        only: Which cells are wanted; by default all.

    Raises:
        ValueError: If there is no such study.
        RuntimeError: If a cell failed.
    """
    here = conditions()
    whole = study(name, here.scale)
    wanted = replace(whole, cells=tuple(cell for cell in whole.cells if only(cell)))
    swept = sweep(wanted, here.results, engine=here.engine)
    if swept.failures:
        errors = "\n".join(f"{failure.cell}\n{failure.error}" for failure in swept.failures)
        raise RuntimeError(f"{len(swept.failures)} cells of {name} failed:\n{errors}")
    return swept
