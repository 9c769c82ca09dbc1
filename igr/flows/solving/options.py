"""Options of `igr.flow`, and of all functions that follow a flow."""

from __future__ import annotations

from typing import TypedDict

import diffrax
from jaxtyping import Array, PyTree

from igr.checks import Count, Number


class DiffeqsolveOptions(TypedDict, total=False):
    """Options that are passed on to `diffrax.diffeqsolve`, whose documentation says more.

    An option that is None counts as not given.

    Attributes:
      dt0: the first step.
      solver: such as `diffrax.Tsit5()`.
      max_steps: the most steps the solver may take; 1,000,000, and 100,000 for each flow of
        `igr.compare`, if not given. A flow that runs out of them is a `FlowStopped`.
      stepsize_controller: what sets the steps. With `diffrax.ConstantStepSize()` they are dt0,
        of which t1 - t0 should be a multiple, for the last step is cut short otherwise.
      saveat: what to save, in place of params at `ts`: a `diffrax.SaveAt`.
      adjoint: how to differentiate through the solve.
      event: a `diffrax.Event` that ends it. If not given, `igr.flow` ends where numbers leave the
        finite ones.
      args: the third argument of the field.
      throw: whether a solve that fails is an error; if not given it is one in
        `igr.flows.stochastic_flow`, and a warning elsewhere.
      progress_meter: one of diffrax's, in place of the bar.
      solver_state: of an earlier solve, to go on from.
      controller_state: of an earlier solve, to go on from.
      made_jump: whether the field jumps at the start.
    """

    dt0: Number | None
    solver: diffrax.AbstractSolver | None
    max_steps: Count | None
    stepsize_controller: diffrax.AbstractStepSizeController | None
    saveat: diffrax.SaveAt | None
    adjoint: diffrax.AbstractAdjoint | None
    event: diffrax.Event | None
    args: PyTree
    throw: bool | None
    progress_meter: diffrax.AbstractProgressMeter | None
    solver_state: PyTree
    controller_state: PyTree
    made_jump: bool | Array | None


class SolveOptions(DiffeqsolveOptions, total=False):
    """The options of a solve: its tolerances, and those of `DiffeqsolveOptions`.

    >>> import igr
    >>> options: igr.flows.SolveOptions = {"rtol": 1e-4, "solver": diffrax.Tsit5()}
    >>> solution = igr.flow(lambda t, x, args: -x, 1.0, 2.0, **options)
    >>> print(solution.ys.round(3))
    [0.135]

    Attributes:
      rtol: relative tolerance of the adaptive steps; 1e-10 if every leaf is float64, else 1e-5.
      atol: absolute tolerance; `rtol` / 100 if not given.
      optimizer_step: the step h of the optimizer whose flow this is, to bound the cost: at most 1.5
        steps of the solver for each of them and 100 besides are adaptive, and from there on all
        are h. Where a loss has kinks an adaptive solver else takes thousands. `igr.compare` gives
        its learning rate.
    """

    rtol: Number | None
    atol: Number | None
    optimizer_step: Number | Array | None
