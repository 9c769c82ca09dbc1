"""From a modified equation to a trajectory, and beside it the real run."""

from igr.flows.certify import Certificate, certify
from igr.flows.compare import Comparison, compare
from igr.flows.discrete import Trajectory, optimizer_of, run
from igr.flows.epochs import run_epochs
from igr.flows.field_along import FieldAlong, modified_field_along
from igr.flows.interpolate import interpolating_field
from igr.flows.order import ObservedOrder, observed_order
from igr.flows.small_noise import SmallNoiseHeun
from igr.flows.solve import FlowStopped, flow, reached
from igr.flows.stochastic import (
    StochasticField,
    moments_field,
    stochastic_field,
    stochastic_flow,
)
from igr.flows.vector_field import modified_value_fn, vector_field

__all__ = [
    "Certificate",
    "Comparison",
    "FieldAlong",
    "FlowStopped",
    "ObservedOrder",
    "SmallNoiseHeun",
    "StochasticField",
    "Trajectory",
    "certify",
    "compare",
    "flow",
    "interpolating_field",
    "modified_field_along",
    "modified_value_fn",
    "moments_field",
    "observed_order",
    "optimizer_of",
    "reached",
    "run",
    "run_epochs",
    "stochastic_field",
    "stochastic_flow",
    "vector_field",
]
