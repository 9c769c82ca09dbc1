"""Follows modified equations: vector fields, flows, runs of the real optimizer, and comparisons."""

from igr.flows import rules
from igr.flows.certifying.certify import Certificate, certify
from igr.flows.certifying.order import ObservedOrder, observed_order
from igr.flows.compare import Comparison, compare
from igr.flows.comparison.options import CompareOptions
from igr.flows.edge import CentralFlow, TwoPhaseFlow, central_flow, two_phase_field, two_phase_flow
from igr.flows.epochs import run_epochs
from igr.flows.fields.batches.reshuffled import reshuffled_field
from igr.flows.fields.batches.sampled import sampled_field
from igr.flows.fields.batches.spread import spread_field
from igr.flows.fields.from_steps.along_run import FieldAlong, modified_field_along
from igr.flows.fields.from_steps.interpolation import interpolating_field
from igr.flows.fields.noise.memoryless import stochastic_rule_field
from igr.flows.fields.noise.small_noise import SmallNoiseHeun
from igr.flows.fields.noise.stochastic import (
    StochasticField,
    moments_field,
    stochastic_field,
    stochastic_flow,
)
from igr.flows.fields.vector_field import modified_value_fn, vector_field
from igr.flows.from_optax import from_optax
from igr.flows.run import Trajectory, optimizer_of, run
from igr.flows.solving.options import DiffeqsolveOptions, SolveOptions
from igr.flows.solving.solve import FlowStopped, flow, reached

__all__ = [
    "CentralFlow",
    "Certificate",
    "CompareOptions",
    "Comparison",
    "DiffeqsolveOptions",
    "FieldAlong",
    "FlowStopped",
    "ObservedOrder",
    "SmallNoiseHeun",
    "SolveOptions",
    "StochasticField",
    "Trajectory",
    "TwoPhaseFlow",
    "central_flow",
    "certify",
    "compare",
    "flow",
    "from_optax",
    "interpolating_field",
    "modified_field_along",
    "modified_value_fn",
    "moments_field",
    "observed_order",
    "optimizer_of",
    "reached",
    "reshuffled_field",
    "rules",
    "run",
    "run_epochs",
    "sampled_field",
    "spread_field",
    "stochastic_field",
    "stochastic_flow",
    "stochastic_rule_field",
    "two_phase_field",
    "two_phase_flow",
    "vector_field",
]
