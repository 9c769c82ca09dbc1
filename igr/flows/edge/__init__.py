"""At and past the edge of stability: two-phase flow and central flow.

Where h times the sharpness is near the limit of stability a run oscillates along the sharpest
directions, and no expansion in h follows it. Two flows do: that of its two phases, the even and the
odd steps, and that of its centre, which the oscillation keeps from getting sharper.
"""

from igr.flows.edge.central import CentralFlow, central_flow
from igr.flows.edge.midpoints import midpoint_after, midpoints
from igr.flows.edge.two_phase import TwoPhaseField, TwoPhases, two_phase_field
from igr.flows.edge.two_phase_flow import TwoPhaseFlow, two_phase_flow

__all__ = [
    "CentralFlow",
    "TwoPhaseField",
    "TwoPhaseFlow",
    "TwoPhases",
    "central_flow",
    "midpoint_after",
    "midpoints",
    "two_phase_field",
    "two_phase_flow",
]
