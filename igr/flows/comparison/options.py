"""How a comparison is made: the options of `igr.compare`."""

from __future__ import annotations

from typing import Any

from jaxtyping import PRNGKeyArray

from igr.checks import Count
from igr.flows.comparison.filling import StartUp
from igr.flows.solving.options import SolveOptions


class CompareOptions(SolveOptions, total=False):
    """How a comparison is made; with what `SolveOptions` has, for each of its flows.

    Attributes:
      epochs: with batches, how many epochs, instead of `steps`.
      runs: with batches, how many runs the mean is of; 16 if not given.
      key: with batches, a `jax.random.key` that draws their orders.
      sequences: with batches, over how many sequences of them the equation of a method without
        formula is averaged, four or more; in two halves, half the distance of whose flows is in
        `standard_error`. For small networks: `notes` say what it costs.
      start_up: how to deal with the first steps, in which a memory fills. The equation holds once
        it has; *from a cold start every order is only O(h) close.*
        "burn-in": the comparison begins after some steps of the discrete run. The default.
        "weights": the flow follows the field of each of the first steps, whose weights depend on
        the step, and then the equation. Linear methods.
        "shift": the flow starts where it will meet the run once the memory has filled. Linear
        methods; distances at the first records are those of the shift.
        "cold": nothing is done.
      burn_in: steps of the discrete run before the comparison starts; 0 is a cold start. If not
        given: as many as make what the memory still lacks 1e-8 of it, and where states are kept at
        least 32 times as many as the slowest memory looks back on the mean.
      record_every: steps between records; such that there are about 100 records if not given.
      sharpness: whether to measure the sharpness at every record; True if not given.
      directions: how many sharpest directions "central" follows, 3 if not given, and, if given,
        "two-phase" confines its oscillation to.
    """

    epochs: Count | None
    runs: Count | None
    key: PRNGKeyArray | None
    sequences: Count | None
    start_up: StartUp | None
    burn_in: Count | None
    record_every: Count | None
    sharpness: bool | None
    directions: Count | None


def own_and_solve(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options apart: all of a comparison's own, and those given of its flows."""
    of_flows = SolveOptions.__annotations__
    own = {name: options.get(name) for name in CompareOptions.__annotations__.keys() - of_flows}
    return own, {name: value for name, value in options.items() if name in of_flows}
