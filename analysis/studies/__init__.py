"""The studies by name, each a module; kept as text so that listing them imports no JAX."""

from __future__ import annotations

import importlib

from analysis.scale import Scale, conditions
from analysis.sweep import Study, Sweep, sweep

STUDIES: dict[str, str] = {
    "coherence-robust": "analysis.studies.coherence_robust:study",
    "coherence-training": "analysis.studies.coherence_training:study",
    "igr-noise": "analysis.studies.igr_noise:study",
    "igr-width-and-rate": "analysis.studies.igr_width_and_rate:study",
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


def computed(name: str) -> Sweep:
    """All results of a study under the conditions of the environment; computes what is missing.

    Raises:
        ValueError: If there is no such study.
        RuntimeError: If a cell failed.
    """
    here = conditions()
    swept = sweep(study(name, here.scale), here.results, engine=here.engine)
    if swept.failures:
        errors = "\n".join(f"{failure.cell}\n{failure.error}" for failure in swept.failures)
        raise RuntimeError(f"{len(swept.failures)} cells of {name} failed:\n{errors}")
    return swept
