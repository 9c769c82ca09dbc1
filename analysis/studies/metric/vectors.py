"""Steps of regularizers over a plane of two parameters (Metric regularization, Figure 1.1).

The network of the dissertation's Figure 1.2 has one path and two parameters,
f(x) = phi(theta_2 phi(theta_1 x)) (section 3.2), and learns from an identical "teacher". The text
gives neither phi, the teacher's parameters nor the inputs: tanh, (1, 1) and 41 evenly spaced
inputs are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from analysis.scale import Scale
from analysis.sweep import Study
from igr.transforms import metric_decay

TEACHER = (1.0, 1.0)
INPUTS = np.linspace(-2.0, 2.0, 41)
RULES: dict[str, optax.GradientTransformationExtraArgs] = {
    "Metric, Fisher information": metric_decay(1.0, "gauss_newton"),
    "Metric, Hessian": metric_decay(1.0, "hessian"),
    "L2": optax.with_extra_args_support(optax.add_decayed_weights(-1.0)),
}
Parameters = Float[Array, "2"]
Points = Float[np.ndarray, "points 2"]


@dataclass(frozen=True)
class Cell:
    """The plane, and how far a regularizer is followed on its own.

    Attributes:
        reach: Of either parameter, both ways.
        arrows: Points along each axis; an even number, so that none is on an axis.
        decay: The rate at which a step is taken over and over.
        steps: How often.
    """

    reach: float = 3.0
    arrows: int = 12
    decay: float = 0.05
    steps: int = 2000


def study(scale: Scale) -> Study:
    """The one plane.

    Args:
        scale: Makes no difference: this is the paper's own size.
    """
    del scale
    return Study("metric-vectors", run, (Cell(),))


@jax.enable_x64(True)
def run(cell: Cell) -> Mapping[str, Any]:
    """What each rule does at every point, and what the network is there.

    Returns:
        `rules`, their names. By point: `at`, where it is; `loss`; `slopes`, the loss's gradient;
        `effects`, the mean over inputs of |d f / d theta_i|. By rule and point: `steps`; `ends`,
        where the steps lead; `arrows`, which have the steps' directions and the square roots of
        their lengths, so that the smallest are seen; `tips`, the loss where arrows end. And the
        loss as a surface (theta_1, theta_2, loss), `coarse` and `fine`.
    """
    ticks = np.linspace(-cell.reach, cell.reach, cell.arrows)
    at = np.array(list(product(ticks, ticks)))
    steps = np.stack([jax.vmap(regularizing_step(name))(at) for name in RULES])
    arrows = np.stack([_drawn(vectors, 2 * cell.reach / (cell.arrows - 1)) for vectors in steps])
    losses = jax.vmap(loss)
    return {
        "rules": list(RULES),
        "at": at,
        "loss": np.asarray(losses(jnp.asarray(at))),
        "slopes": np.asarray(jax.vmap(jax.grad(loss))(at)),
        "effects": np.abs(np.asarray(jax.vmap(jax.jacfwd(outputs))(at))).mean(axis=1),
        "steps": steps,
        "ends": np.stack([_followed(name, at, cell) for name in RULES]),
        "arrows": arrows,
        "tips": np.stack([losses(jnp.asarray(at + vectors)) for vectors in arrows]),
        "coarse": _surface(cell.reach, 40),
        "fine": _surface(cell.reach, 80),
    }


def outputs(theta: Parameters) -> Float[Array, " inputs"]:
    """What the network makes of every input."""
    return jnp.tanh(theta[1] * jnp.tanh(theta[0] * INPUTS))


def loss(theta: Parameters) -> Float[Array, ""]:
    """Half the mean squared distance from the teacher."""
    return _output_loss(outputs(theta))


def regularizing_step(name: str) -> Callable[[Any], Parameters]:
    """What a rule with the rate 1 adds to theta, as a function of theta."""
    rule = RULES[name]

    def step(theta: Parameters) -> Parameters:
        nothing = jnp.zeros_like(theta)
        extra = {"value_fn": loss, "apply_fn": outputs, "output_loss_fn": _output_loss}
        return rule.update(nothing, rule.init(theta), theta, **extra)[0]  # pyright: ignore

    return step


def _output_loss(found: Float[Array, " inputs"]) -> Float[Array, ""]:
    return jnp.mean((found - outputs(jnp.array(TEACHER))) ** 2) / 2


def _followed(name: str, at: Points, cell: Cell) -> Float[Array, "points 2"]:
    step = jax.vmap(regularizing_step(name))
    return jax.jit(
        lambda points: jax.lax.fori_loop(
            0, cell.steps, lambda _, p: p + cell.decay * step(p), points
        )
    )(jnp.asarray(at))


def _drawn(vectors: Points, spacing: float) -> Points:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / lengths * np.sqrt(lengths / lengths.max()) * 1.1 * spacing


def _surface(reach: float, number: int) -> Float[np.ndarray, "n n 3"]:
    ticks = np.linspace(-reach, reach, number)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1)
    heights = jax.vmap(jax.vmap(loss))(jnp.asarray(grid))
    return np.concatenate([grid, np.asarray(heights)[..., None]], axis=-1)
