"""The implicit regularization of optimizers: derive it, follow it, use it, measure it.

Each part is imported when it is first used: a training loop that takes a penalty from here loads
neither sympy nor diffrax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from igr import curvature, diagnostics, flows, penalties, per_example, plots, transforms
    from igr.any_optimizer import modified_equation
    from igr.backward_error import ModifiedEquation, ModifiedLoss, NotAGradientError, methods
    from igr.diagnostics import Monitor
    from igr.flows import (
        Certificate,
        Comparison,
        FieldAlong,
        FlowStopped,
        Trajectory,
        certify,
        compare,
        flow,
        from_optax,
        interpolating_field,
        modified_field_along,
        modified_value_fn,
        observed_order,
        run,
        vector_field,
    )

__version__ = "0.2.0"

_BACKWARD_ERROR = (
    "ModifiedEquation",
    "ModifiedLoss",
    "NotAGradientError",
    "methods",
)
_FLOWS = (
    "Certificate",
    "Comparison",
    "FieldAlong",
    "FlowStopped",
    "Trajectory",
    "certify",
    "compare",
    "flow",
    "from_optax",
    "interpolating_field",
    "modified_field_along",
    "modified_value_fn",
    "observed_order",
    "run",
    "vector_field",
)
_SUBPACKAGES = (
    "curvature",
    "diagnostics",
    "flows",
    "penalties",
    "per_example",
    "plots",
    "transforms",
)

__all__ = [
    "Certificate",
    "Comparison",
    "FieldAlong",
    "FlowStopped",
    "ModifiedEquation",
    "ModifiedLoss",
    "Monitor",
    "NotAGradientError",
    "Trajectory",
    "certify",
    "compare",
    "curvature",
    "diagnostics",
    "flow",
    "flows",
    "from_optax",
    "interpolating_field",
    "methods",
    "modified_equation",
    "modified_field_along",
    "modified_value_fn",
    "observed_order",
    "penalties",
    "per_example",
    "plots",
    "run",
    "transforms",
    "vector_field",
]


def __getattr__(name: str):
    if name == "modified_equation":
        return importlib.import_module("igr.any_optimizer").modified_equation
    if name in _BACKWARD_ERROR:
        return getattr(importlib.import_module("igr.backward_error"), name)
    if name in _FLOWS:
        return getattr(importlib.import_module("igr.flows"), name)
    if name == "Monitor":
        return importlib.import_module("igr.diagnostics").Monitor
    if name in _SUBPACKAGES:
        return importlib.import_module(f"igr.{name}")
    raise AttributeError(f"module 'igr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
