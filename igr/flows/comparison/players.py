"""Compares the run of two players, each with a loss of its own, with its flows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from igr.backward_error import modified_equation
from igr.backward_error.methods import GameMethod
from igr.checks import Number, check_count
from igr.compiled import Traced, compiled, traced
from igr.curvature import vectors
from igr.flows.comparison.asked import Asked
from igr.flows.comparison.ensemble import records, run_together
from igr.flows.comparison.follow import (
    Followed,
    distances,
    each,
    rounding_floor,
    saved,
    solver_options,
    unreached,
)
from igr.flows.comparison.result import Comparison, FlowName
from igr.flows.fields.vector_field import vector_field
from igr.flows.run import Trajectory
from igr.flows.validity import share_of, unexplained_by
from igr.progress.late_bar import Ticking, mapped, search_bar
from igr.pytrees import combine, partition

OF_A_RECORD = 5  # rounds that a record takes, about: for a bar


def compare_players(asked: Asked) -> Comparison:
    """Runs two players and compares them with the flows of their modified equation.

    Args:
      asked: what `igr.compare` was asked for: `value_fn` the pair of their losses, each of the pair
        of their params, and `params` that pair. A step is a round.
    """
    method, h, names = asked.method, asked.learning_rate, asked.flows
    if not isinstance(method, GameMethod):
        raise TypeError(
            f"value_fn must be a pair of losses: method is one of two players, such as "
            f"igr.methods.simultaneous(); got {method.name}."
        )
    if not isinstance(asked.value_fn, Sequence) or len(asked.value_fn) != 2:
        raise TypeError(
            f"value_fn must be a pair of losses for {method.name}; got {asked.value_fn!r}."
        )
    if not isinstance(asked.params, tuple) or len(asked.params) != 2:
        raise TypeError("params is the pair (theta, phi) of the params of the two players")
    if asked.own_optimizer:
        raise ValueError(f"optimizer is not for two players: {method.name} is their optimizer")
    for name in ("start_up", "burn_in", "directions"):
        if (given := getattr(asked, name)) is not None:
            raise ValueError(f"{name} must be left out for two players; got {given!r}.")
    for p in names:
        if isinstance(p, str):
            raise ValueError(f"flows must be orders, counts, for two players; got {p!r}.")
    steps = check_count("steps", asked.steps, 1)
    every = asked.record_every or -(-steps // 100)
    dynamic, static = partition(asked.params)
    losses = [traced(lambda z, f=f: f(combine(z, static)), dynamic) for f in asked.value_fn]
    for player, loss in enumerate(losses):
        value = jax.eval_shape(loss, dynamic)
        if getattr(value, "shape", None) != ():
            raise ValueError(f"the loss of player {player + 1} must return a scalar")
    ratios = tuple(float(r) for r in method.ratios)
    turn = traced(_round(losses, ratios, method.turns, h), (dynamic,), jnp.zeros(()), None)
    start = jax.tree.map(lambda x: jnp.asarray(x)[None], (dynamic,))
    ensemble, _ = run_together(
        turn, start, jnp.zeros((steps, 1)), None, every, False, asked.progress
    )
    (recorded,) = ensemble.mean
    step = records(steps, every)
    times = step * h
    options = solver_options(h, asked.solve, asked.progress)

    def follow(p: FlowName) -> Followed:
        field = vector_field(modified_equation(method, int(p)), asked.value_fn, h)
        return saved(field, asked.params, 0.0, times, options)

    followed, failures = each(names, follow)
    distance, travelled, norm = distances(followed, dynamic, recorded)
    inputs = losses, turn, recorded, jnp.asarray(h)
    with search_bar(
        "validity", asked.progress, len(step), turn.program.jaxpr, inputs, OF_A_RECORD
    ) as bar:
        correction, remainder, values, slope = jax.tree.map(
            np.asarray, _along(modified_equation(method, 1), *inputs, bar)
        )
    nothing = np.full(len(step), np.nan)
    return Comparison(
        method=method.name,
        learning_rate=h,
        step=step,
        time=times,
        discrete=Trajectory(jnp.asarray(step), combine(recorded, static), values, slope, None),
        flows={p: followed[p].ys if p in followed else unreached(recorded) for p in names},
        distance={p: distance.get(p, np.full(len(step), np.inf)) for p in names},
        travelled=travelled,
        correction=correction,
        remainder=remainder,
        sharpness=nothing,
        stability_limit=float("nan"),
        convergence_radius=float("nan"),
        floor=rounding_floor(norm, step, dynamic, asked.solve.get("rtol")),
        start_up="no memory to fill",
        kept={p: {} for p in names},
        solver_error={p: followed[p].own_error if p in followed else np.nan for p in names},
        failures=failures,
        notes=("a step is a round of both players; the recorded loss is that of the first",),
    )


def _round(losses: list[Traced], ratios: tuple, turns: tuple[int, ...], h: Number) -> Any:
    """One round of the players as a function `(carry, draw, data) -> carry`."""

    def moved(z: PyTree, at: PyTree, player: int) -> PyTree:
        own = jax.grad(
            lambda x: losses[player](tuple(x if i == player else at[i] for i in (0, 1)))
        )(at[player])
        rate = h * ratios[player]
        new = jax.tree.map(lambda x, g: (x - rate * g).astype(x.dtype), z[player], own)
        return tuple(new if i == player else z[i] for i in (0, 1))

    def turn(carry: tuple[PyTree], draw: Any, data: Any) -> tuple[PyTree]:
        (z,) = carry
        before = z
        for player in turns or (0, 1):
            z = moved(z, z if turns else before, player)
        return (z,)

    return turn


@compiled
def _along(
    equation: Any,
    losses: list[Traced],
    turn: Traced,
    recorded: PyTree,
    h: Array,
    bar: Ticking | None,
) -> Any:
    """The ratio h |F1|/|F0|, the remainder over a round, the first loss and |F0| at each record."""
    plain, corrected = (vector_field(equation.truncate(p), tuple(losses), h) for p in (0, 1))

    def at(z: PyTree) -> Any:
        f0, f1 = plain(0.0, z, None), corrected(0.0, z, None)
        norm = vectors.norm(f0)
        apart = vectors.norm(optax.tree.sub(f1, f0))
        (after,) = turn((z,), jnp.zeros(()), None)
        rest = unexplained_by(lambda q: plain(0.0, q, None), z, after)
        return share_of(apart, norm), rest, losses[0](z), norm

    return mapped(bar, at, recorded)
