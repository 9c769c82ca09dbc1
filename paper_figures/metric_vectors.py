"""Figure 1.1 of the dissertation on Metric regularization: its steps and those of L2, as vectors.

The network of Figure 1.2 has one path and two parameters, f(x) = phi(theta_2 phi(theta_1 x))
(section 3.2), and learns from an identical "teacher". The text gives neither phi, the teacher's
parameters nor the inputs: tanh, (1, 1) and evenly spaced inputs are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Array, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from igr.transforms import metric_decay
from paper_figures import style
from paper_figures.figure import Claim, Drawing

TEACHER = (1.0, 1.0)
INPUTS = np.linspace(-2.0, 2.0, 41)
REACH = 3.0  # of either parameter, both ways
ARROWS = 12  # along each axis; an even number, so that no arrow is on an axis
LARGE = 3.0  # from which ratio on one parameter is large relative to the other
DECAY, STEPS = 0.05, 2000  # of the regularizer followed on its own
Parameters = Float[Array, "2"]
Points = Float[np.ndarray, "points 2"]

RULES: dict[str, optax.GradientTransformationExtraArgs] = {
    "Metric, Fisher information": metric_decay(1.0, "gauss_newton"),
    "Metric, Hessian": metric_decay(1.0, "hessian"),
    "L2": optax.with_extra_args_support(optax.add_decayed_weights(-1.0)),
}
FISHER, HESSIAN, L2 = RULES


@jax.enable_x64(True)
def figure_1_1() -> Drawing:
    """The steps of three regularizers over the plane of parameters, from two angles."""
    ticks = np.linspace(-REACH, REACH, ARROWS)
    at = np.array(list(product(ticks, ticks)))
    steps = {name: np.asarray(jax.vmap(regularizing_step(name))(at)) for name in RULES}
    slopes = np.asarray(jax.vmap(jax.grad(loss))(at))
    picture = style.picture(style.PAGE, 4.7)
    tops = []
    for column, (name, vectors) in enumerate(steps.items()):
        _front(picture, column, name, at, vectors)
        tops.append(_top(picture, column, name, at, vectors))
    picture.colorbar(tops[-1][1], ax=[axes for axes, _ in tops], label="loss", shrink=0.8)
    picture.supxlabel("arrows are as long as the square root of the step", fontsize=7)
    tables = [
        pd.DataFrame(
            {
                "rule": name,
                "theta_1": at[:, 0],
                "theta_2": at[:, 1],
                "step_1": vectors[:, 0],
                "step_2": vectors[:, 1],
                "loss": jax.vmap(loss)(jnp.asarray(at)),
            }
        )
        for name, vectors in steps.items()
    ]
    ends = {name: np.asarray(_followed(name, at)) for name in RULES}
    return Drawing(picture, pd.concat(tables), claims(at, steps, slopes, ends))


def outputs(theta: Parameters) -> Float[Array, " inputs"]:
    """What the network makes of every input."""
    return jnp.tanh(theta[1] * jnp.tanh(theta[0] * INPUTS))


def loss(theta: Parameters) -> Float[Array, ""]:
    """Half the mean squared distance from the teacher."""
    return _output_loss(outputs(theta))


def claims(
    at: Points,
    steps: Mapping[str, Points],
    slopes: Points,
    ends: Mapping[str, Points],
) -> tuple[Claim, ...]:
    """What section 1 and the caption say.

    Args:
        at: Where on the plane.
        steps: The step of every rule there.
        slopes: The gradient of the loss there.
        ends: Where the step of every rule, taken over and over, leads from there.
    """
    to_origin = {name: _cosines(vectors, -at) for name, vectors in steps.items()}
    along = {name: np.abs(_cosines(vectors, slopes)) for name, vectors in steps.items()}
    corners = np.isclose(np.abs(at), REACH).all(axis=1)
    found = [
        Claim(
            "L2 regularization always points towards the origin",
            f"cosine with the way to the origin at least {to_origin[L2].min():.6f}",
            bool(to_origin[L2].min() > 1 - 1e-9),
            paper="Figure 1.1b",
            otherwise="It is -theta by definition.",
        )
    ]
    for name in (FISHER, HESSIAN):
        size = np.abs(steps[name])
        # Column 0 for the larger of the two parameters, column 1 for the other.
        order = np.argsort(-np.abs(at), axis=1)
        ratio = np.divide(*np.take_along_axis(np.abs(at), order, axis=1).T)
        large, small = np.take_along_axis(size, order, axis=1)[ratio >= LARGE].T
        effects = np.abs(np.asarray(jax.vmap(jax.jacfwd(outputs))(at[corners]))).mean(axis=1)
        angles = np.degrees(np.arctan2(size[corners].min(axis=1), size[corners].max(axis=1)))
        along_lesser = size[corners].argmax(axis=1) == effects.argmin(axis=1)
        found += [
            Claim(
                f"{name}: the steps do not always point towards the origin",
                f"cosine with the way to the origin from {to_origin[name].min():.2f}; above 0.9 at "
                f"{np.mean(to_origin[name] > 0.9):.0%} of the points",
                bool(to_origin[name].min() < 0.9),
                paper="Figure 1.1a",
                otherwise="The metric is near the identity on this part of the plane.",
            ),
            Claim(
                f"{name}: the steps follow the slope of the loss",
                f"median |cosine| with the gradient {np.median(along[name]):.3f}, against "
                f"{np.median(along[L2]):.3f} for L2",
                bool(np.median(along[name]) > max(0.9, np.median(along[L2]))),
                paper="Figure 1.1a",
                otherwise="The metric has a second direction here that the gradient lacks.",
            ),
            Claim(
                f"{name}: at the corners the steps run parallel to one parameter, which has little "
                "effect on the network's function",
                f"{angles.min():.0f} to {angles.max():.0f} degrees from the nearer axis; along the "
                f"parameter of the lesser effect at {np.sum(along_lesser)} of {corners.sum()} "
                f"corners (mean |d f / d theta_i| {effects.min():.2g} and {effects.max():.2g})",
                bool((angles < 15).all() and along_lesser.all()),
                paper="Figure 1.1, caption",
                otherwise="With tanh both parameters have little effect there, and the metric "
                "leans to the one that has more; the paper does not give its activation, teacher "
                "or inputs.",
            ),
            Claim(
                f"{name}: a parameter that is large relative to the other ({LARGE:g} times) is "
                "regularized very little",
                f"its part of the step is the smaller one at {np.mean(large < small):.0%} of "
                f"{len(large)} such points; median {np.median(large / small):.2f} of the other's "
                f"(for L2: {np.median(ratio[ratio >= LARGE]):.1f})",
                bool((large < small).all()),
                paper="section 1, in words",
                otherwise="Near the curve where the parts of the Hessian cancel, the step turns "
                "quickly."
                if name == HESSIAN
                else "Where tanh saturates the larger parameter no longer decides.",
            ),
        ]
    sparse = {name: _sparsity(points) for name, points in ends.items()}
    start = _sparsity(at)
    shrunk = {name: np.median(np.linalg.norm(p, axis=1)) for name, p in ends.items()}
    found += [
        Claim(
            f"{name}: followed on its own it promotes sparsity, and L2 a low norm",
            f"smaller over larger parameter, median: {start:.2f} at the start, after {STEPS} steps "
            f"of {DECAY:g} {sparse[name]:.3f}, {sparse[L2]:.2f} for L2; median norm "
            f"{shrunk[name]:.2f}, {shrunk[L2]:.1g} for L2",
            bool(sparse[name] < start / 2 and shrunk[L2] < shrunk[name]),
            paper="section 1, in words",
            otherwise="Along negative curvature it pushes away from the origin, out of the part of "
            "the plane that is drawn.",
        )
        for name in (FISHER, HESSIAN)
    ]
    return tuple(found)


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


def _followed(name: str, at: Points) -> Float[Array, "points 2"]:
    step = jax.vmap(regularizing_step(name))
    return jax.jit(
        lambda points: jax.lax.fori_loop(0, STEPS, lambda _, p: p + DECAY * step(p), points)
    )(jnp.asarray(at))


def _cosines(a: Points, b: Points) -> Float[np.ndarray, " points"]:
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def _sparsity(points: Points) -> float:
    """The median of the smaller parameter over the larger."""
    size = np.abs(points)
    return float(np.median(size.min(axis=1) / size.max(axis=1)))


def _drawn(vectors: Points) -> Points:
    """Arrows whose lengths are the square roots of the steps, so that the smallest are seen."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    longest = 1.1 * 2 * REACH / (ARROWS - 1)
    return vectors / lengths * np.sqrt(lengths / lengths.max()) * longest


def _surface(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ticks = np.linspace(-REACH, REACH, number)
    grid = np.stack(np.meshgrid(ticks, ticks), axis=-1)
    return grid[..., 0], grid[..., 1], np.asarray(jax.vmap(jax.vmap(loss))(jnp.asarray(grid)))


def _front(picture: Picture, column: int, name: str, at: Points, vectors: Points) -> None:
    axes: Any = picture.add_subplot(2, 3, column + 1, projection="3d", computed_zorder=False)
    axes.plot_surface(*_surface(40), color="#DDDDDD", edgecolor="#BBBBBB", linewidth=0.2, alpha=0.7,
                      zorder=1)  # fmt: skip
    arrows = _drawn(vectors)
    foot, tip = (np.asarray(jax.vmap(loss)(jnp.asarray(points))) for points in (at, at + arrows))
    axes.quiver(*at.T, foot + 0.02, *arrows.T, tip - foot, color=_COLOURS[name], linewidth=0.7,
                arrow_length_ratio=0.45, zorder=2)  # fmt: skip
    axes.view_init(elev=38, azim=-68)
    axes.set(xlabel=r"$\theta_1$", ylabel=r"$\theta_2$", zticks=[0, 0.5, 1], title=name)
    axes.text2D(0.9, 0.8, "loss", transform=axes.transAxes)
    axes.set_box_aspect((1, 1, 0.6))
    axes.grid(visible=False)
    axes.tick_params(pad=-3, labelsize=6)
    axes.xaxis.labelpad = axes.yaxis.labelpad = -8


def _top(picture: Picture, column: int, name: str, at: Points, vectors: Points) -> tuple[Axes, Any]:
    axes = picture.add_subplot(2, 3, column + 4)
    shades = axes.contourf(*_surface(80), levels=np.linspace(0, 1.2, 13), cmap="Greys", vmax=2.4)
    axes.quiver(*at.T, *_drawn(vectors).T, color=_COLOURS[name], angles="xy", scale_units="xy",
                scale=1, width=0.007, minlength=0, headwidth=4)  # fmt: skip
    axes.set(xlabel=r"$\theta_1$", aspect="equal", xticks=[-3, 0, 3], yticks=[-3, 0, 3])
    axes.set(xlim=(-REACH - 0.4, REACH + 0.4), ylim=(-REACH - 0.4, REACH + 0.4))
    if column == 0:
        axes.set_ylabel(r"$\theta_2$")
    return axes, shades


_COLOURS = {FISHER: style.BLUE, HESSIAN: style.GREEN, L2: style.RED}
