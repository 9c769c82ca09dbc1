"""Section 5 and appendix A.4 of Barrett and Dherin (2021): figures 1a, 1b, A.1 and A.2."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Float
from matplotlib.axes import Axes
from scipy.stats import spearmanr

import igr
from paper_figures import style
from paper_figures.figure import Claim, Drawing
from paper_figures.igr_two_parameter_model import (
    FLATTEST,
    H_LARGE,
    START_I,
    START_II,
    X_TEST,
    Y_TEST,
    Point,
    Start,
    X,
    Y,
    descend,
    egr,
    follow,
    loss,
    modified_field,
    regularized_field,
    regularized_loss,
    regularizer_over_loss,
    sharpness,
)


@jax.enable_x64(True)
def figure_1a() -> Drawing:
    """Phase plane: gradient descent at two learning rates, the modified flow, and EGR."""
    picture = style.picture(style.COLUMN, 3.5)
    axes = picture.subplots()
    _draw_loss_surface(axes, (0.0, 4.0), arrows=15)
    tables, claims = [], []
    for start in (START_I, START_II):
        lines = {
            "gradient descent, small rate": descend(
                optax.sgd(start.h_small), start, round(start.time / start.h_small)
            ),
            "gradient descent, moderate rate": descend(
                optax.sgd(start.h_medium), start, round(start.time / start.h_medium)
            ),
            "modified flow": follow(modified_field(start.h_medium), start, start.time),
            "EGR, flow": follow(regularized_field(start.mu), start, start.euler_time),
            "EGR": descend(
                egr(start.h_euler, start.mu), start, round(start.euler_time / start.h_euler)
            ),
        }
        for line, path in lines.items():
            axes.plot(*path.T, **_LOOKS[line], label=_LABELS[line] if start is START_I else None)
            tables.append(
                pd.DataFrame({"start": start.name, "line": line, "a": path[:, 0], "b": path[:, 1]})
            )
        claims += _claims_of_following(start)
        claims += _claims_of_regularizing(start, lines["EGR"][-1], lines["EGR, flow"][-1])
    axes.plot(*START_I.at, "o", color=style.BLACK, markersize=3)
    axes.annotate("I", START_I.at, (4, 2), textcoords="offset points")
    axes.annotate("from II", (3.97, 3.97), ha="right", va="top")
    handles, labels = axes.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=2)
    return Drawing(picture, pd.concat(tables), tuple(claims))


@jax.enable_x64(True)
def figure_1b() -> Drawing:
    """R/E where gradient descent ends, against lambda = h/2, and where the flows end."""
    h = jnp.linspace(5e-4, START_I.h_medium, 25)
    steps = round(START_I.time / float(h[0]))
    descent = jax.vmap(
        lambda h: igr.run(optax.sgd(h), loss, START_I.params, steps, record_every=steps).last
    )(h)

    def end_of_flow(h, order=1):
        ends = igr.flow(modified_field(h, order), START_I.params, START_I.time).ys
        assert ends is not None  # as it would be without a save point
        return ends[-1]

    modified, original = jax.vmap(end_of_flow)(h), end_of_flow(1.0, order=0)
    table = pd.DataFrame(
        {
            "h": h,
            "lambda": h / 2,
            "gradient descent": regularizer_over_loss(descent),
            "modified flow": regularizer_over_loss(modified),
            "gradient flow": float(regularizer_over_loss(original)),
        }
    )

    picture = style.picture(style.COLUMN, 2.4)
    axes = picture.subplots()
    axes.plot(table["lambda"], table["gradient flow"], "--", color=style.GREEN,
              label="gradient flow")  # fmt: skip
    axes.plot(table["lambda"], table["modified flow"], "-", color=style.ORANGE,
              label="modified flow")  # fmt: skip
    axes.plot(table["lambda"], table["gradient descent"], "o", color=style.RED, markersize=3,
              label="gradient descent")  # fmt: skip
    axes.set(xlabel=r"$\lambda$ = learning rate $\times$ network size / 4",
             ylabel=r"$R_{IG}/E$ at the end", xlim=(0, None))  # fmt: skip
    axes.legend(loc="lower left")

    ratio = table["gradient descent"].to_numpy()
    rank = spearmanr(h, ratio).statistic
    off_original = np.abs(ratio - table["gradient flow"]).to_numpy()
    off_modified = np.abs(ratio - table["modified flow"]).to_numpy()
    claims = (
        Claim(
            "R/E at the end is smaller for larger learning rates",
            f"{ratio[0]:.3f} at h = {h[0]:.4f}, {ratio[-1]:.3f} at h = {h[-1]:.3f}; "
            f"rank correlation {rank:.3f}, falling at every step: {_yes(_falls(ratio))}",
            _falls(ratio),
            paper="axis from 4.20 to 4.60",
            otherwise="R/E rises somewhere along this range of learning rates.",
        ),
        Claim(
            "the modified flow says where gradient descent ends better than the gradient flow does",
            f"at h = {h[-1]:.3f} off by {off_modified[-1]:.4f} against {off_original[-1]:.4f}; "
            f"largest at any h {off_modified.max():.4f} against {off_original.max():.4f}",
            bool(np.all(off_modified < off_original)),
            otherwise="At some learning rate the gradient flow ends nearer.",
        ),
    )
    return Drawing(picture, table, claims)


@jax.enable_x64(True)
def figure_a1() -> Drawing:
    """A learning rate too large for backward error analysis: steps over the attractor."""
    lines = {
        r"$h_S = 10^{-3}$": descend(
            optax.sgd(START_I.h_small), START_I, round(START_I.time / START_I.h_small)
        ),
        r"$h_L = 0.18$": np.asarray(igr.run(optax.sgd(H_LARGE), loss, START_I.params, 400).params),
    }
    small, large = lines.values()
    reach = 1.15 * np.abs(large).max()
    picture = style.picture(style.COLUMN, 3.5)
    axes = picture.subplots()
    _draw_loss_surface(axes, (-reach, reach), arrows=17)
    for (label, path), look in zip(lines.items(), ("gradient descent, small rate", "large rate"),
                                   strict=True):  # fmt: skip
        axes.plot(*path.T, **_LOOKS[look], label=f"gradient descent, {label}")
    axes.plot(*START_I.at, "o", color=style.BLACK, markersize=4)
    handles, labels = axes.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=2)

    residual = Y - X * large[:, 0] * large[:, 1]
    crossings = int(np.sum(np.sign(residual[1:]) * np.sign(residual[:-1]) < 0))
    end = float(loss(jnp.asarray(large[-1])))
    curvature = sharpness(loss, jnp.asarray(large[-1]))
    table = pd.concat(
        pd.DataFrame({"line": line, "a": path[:, 0], "b": path[:, 1]})
        for line, path in (("h_S", small), ("h_L", large))
    )
    claims = (
        Claim(
            "with h_L gradient descent steps over the line attractors before it lands",
            f"{crossings} crossings of ab = y/x in {len(large) - 1} steps",
            crossings >= 2,
            otherwise="It goes to the attractor that it starts beside.",
        ),
        Claim(
            "with h_L gradient descent converges to a global minimum",
            f"E = {end:.1e} after {len(large) - 1} steps",
            end < 1e-12,
            otherwise="It has not converged.",
        ),
        Claim(
            "it can only land where the surface is flat enough: h_L times the curvature below 2",
            f"{H_LARGE * curvature:.3f}",
            H_LARGE * curvature < 2,
            otherwise="The minimum it ends at is one that it should leave.",
        ),
    )
    return Drawing(picture, table, claims)


@jax.enable_x64(True)
def figure_a2() -> Drawing:
    """Test error against the rate of explicit regularization, at several training times."""
    mu = jnp.linspace(0.0, START_I.mu, 26)
    steps, every = round(20.0 / START_I.h_euler), round(0.1 / START_I.h_euler)
    paths = jax.vmap(
        lambda mu: igr.run(
            egr(START_I.h_euler, mu), loss, START_I.params, steps,
            record_every=every,
        ).params
    )(mu)  # fmt: skip
    paths = np.asarray(paths)
    test = (Y_TEST - X_TEST * paths[..., 0] * paths[..., 1]) ** 2 / 2
    at = {0.1: 1, 0.2: 2, 0.5: 5, 20.0: -1}  # training time -> record
    norm = np.sum(paths[:, -1] ** 2, axis=-1)
    table = pd.DataFrame(
        {"mu": mu}
        | {f"test error, t = {t:g}": test[:, i] for t, i in at.items()}
        | {"a^2 + b^2, t = 20": norm}
    )

    picture = style.picture(style.COLUMN, 3.5)
    upper, lower = picture.subplots(2, sharex=True, height_ratios=(3, 2))
    looks = zip((":", "-.", "--", "-"), (style.SKY, style.ORANGE, style.PURPLE, style.BLUE),
                strict=True)  # fmt: skip
    for (t, i), (dash, colour) in zip(at.items(), looks, strict=True):
        label = "converged" if i == -1 else f"t = {t:g}"
        upper.plot(mu, test[:, i], dash, color=colour, label=label)
    upper.set(yscale="log", ylabel="test error")
    handles, labels = upper.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=4, columnspacing=1.2)
    lower.plot(mu, norm, color=style.BLUE)
    lower.axhline(2 * FLATTEST**2, color=style.BLACK, linestyle="--", linewidth=0.8)
    lower.annotate("smallest of all minima", (0, 2 * FLATTEST**2), (2, 3),
                   textcoords="offset points", fontsize=7)  # fmt: skip
    lower.set(xlabel=r"explicit regularization rate $\mu$", ylabel="$a^2 + b^2$\nconverged",
              ylim=(0, None))  # fmt: skip

    *early, converged = test[:, list(at.values())].T
    ranks = [spearmanr(mu, error).statistic for error in early]
    claims = (
        Claim(
            "test error falls with mu once training has converged",
            f"{converged[0]:.6f} at mu = 0, {converged[-1]:.6f} at mu = {mu[-1]:g}; "
            f"spread {np.ptp(converged):.0e}",
            converged[0] - converged[-1] > 1e-9,
            paper="falls",
            otherwise="a and b enter only by their product, which every minimum of the training "
            "loss fixes at y/x: all predict alike at x = 0.5, and no penalty can tell them apart.",
        ),
        Claim(
            "test error falls with mu when training stops before it has converged",
            "rank correlation "
            + ", ".join(f"{rank:.2f} at t = {t:g}" for t, rank in zip(at, ranks, strict=False)),
            all(_falls(error) for error in early),
            paper="falls (time not given)",
            otherwise="The penalty changes how fast ab comes down to y/x, and on the way down test "
            "error passes through zero at ab = 1.2: which mu is ahead depends on the time.",
        ),
        Claim(
            "larger mu leads to flatter minima: a^2 + b^2 at the end falls with mu",
            f"{norm[0]:.3f} at mu = 0, {norm[-1]:.3f} at mu = {mu[-1]:g}",
            _falls(norm),
            otherwise="The norm rises somewhere along this range of mu.",
        ),
    )
    return Drawing(picture, table, claims)


def _claims_of_following(start: Start) -> list[Claim]:
    """Theorem 3.1 seen at h_M: gradient descent against the two flows, at equal time n h."""
    steps = round(start.time / start.h_medium)
    compared = igr.compare(
        loss, start.params, start.h_medium, steps, orders=(0, 1), sharpness=False
    )
    original, modified = (np.asarray(compared.distance[p]) for p in (0, 1))
    at_end = original[-1] / modified[-1]
    at_worst = original.max() / modified.max()
    return [
        Claim(
            f"from {start.name} at h_M gradient descent is closer to the modified flow than to the "
            "gradient flow",
            f"{at_end:.1f} times closer at the end ({modified[-1]:.4f} against "
            f"{original[-1]:.4f}); at the largest distance {at_worst:.1f} times "
            f"({modified.max():.4f} against {original.max():.4f})",
            at_end > 1 and at_worst > 1,
            paper="closer",
            otherwise="The expansion is not to be trusted at this learning rate.",
        )
    ]


def _claims_of_regularizing(start: Start, egr_end: Point, flow_end: Point) -> list[Claim]:
    """What EGR reaches that no learning rate does, and whether Table A.1's step follows it."""
    h = jnp.geomspace(start.h_medium, start.largest_h, 2000)
    steps = round(4 * start.time / start.h_medium)
    ends = jax.vmap(
        lambda h: igr.run(optax.sgd(h), loss, start.params, steps, record_every=steps).last
    )(h)
    # A run that left the finite numbers compares as False.
    converged = np.asarray(jax.vmap(loss)(ends) < 1e-16)
    norms = np.where(converged, np.linalg.norm(ends, axis=1), np.inf)
    egr, flow, smallest = np.linalg.norm(egr_end), np.linalg.norm(flow_end), norms.min()
    orderly = np.asarray(h * sharpness(loss, start.params) < 1)
    matching = igr.run(optax.sgd(2 * start.mu), loss, start.params, 100)
    stiffness = start.h_euler * sharpness(regularized_loss(start.mu), start.params)
    return [
        Claim(
            f"from {start.name} EGR ends at a smaller norm than gradient descent at h_M, and at "
            "any larger h that starts with h times sharpness below 1",
            f"{egr:.4f} against {norms[0]:.4f} at h_M and {norms[orderly].min():.4f} at "
            f"h = {h[orderly][-1]:.3g}",
            bool(egr < norms[orderly].min()),
            paper="smaller",
            otherwise="A learning rate within reach of the analysis ends at a smaller norm.",
        ),
        Claim(
            f"from {start.name} EGR ends at a smaller norm than gradient descent can at any h that "
            "converges",
            f"{egr:.4f} against {smallest:.4f} at h = {h[norms.argmin()]:.3g}, of {h.size} h up to "
            f"{h[-1]:.3g}, of which {converged.sum()} converge; "
            f"no minimum has less than {np.sqrt(2) * FLATTEST:.4f}",
            bool(egr < smallest),
            paper="not possible with IGR",
            otherwise="Steps large enough to jump, but not to diverge, can land by chance on a "
            "flatter minimum; backward error analysis says nothing about them.",
        ),
        Claim(
            f"from {start.name} gradient descent with h = 2 mu, the learning rate that would "
            "regularize as strongly, diverges",
            f"h = {2 * start.mu:g}: E = {float(matching.value[3]):.0e} after 3 steps",
            not bool(np.isfinite(matching.value[-1])),
            paper="diverges",
            otherwise="It stays finite for 100 steps.",
        ),
        Claim(
            f"from {start.name} EGR with the printed h_Euler follows the flow of E + mu R",
            f"ends at norm {egr:.4f} against {flow:.4f}; h_Euler times sharpness of E + mu R at "
            f"the start {stiffness:.2g}",
            bool(abs(egr - flow) < 0.01),
            paper="very small h",
            otherwise="The printed step is not small for the regularized loss, which is much "
            "steeper than E this far out: above 2 the first step jumps over the origin. A smaller "
            "step ends nearer to the flattest minimum.",
        ),
    ]


_LABELS = {
    "gradient descent, small rate": "gradient descent, $h_S$",
    "gradient descent, moderate rate": "gradient descent, $h_M$",
    "modified flow": r"modified flow, $\lambda = h_M/2$",
    "EGR": "EGR, large $\\mu$, $h_{\\rm Euler}$",
    "EGR, flow": "EGR, large $\\mu$, exact flow",
}
_LOOKS = {
    "gradient descent, small rate": {"color": style.GREEN},
    "gradient descent, moderate rate": {"color": style.RED},
    "modified flow": {"color": style.BLACK, "linestyle": (0, (1, 1.5)), "linewidth": 1.2},
    "EGR": {"color": style.BLUE, "linestyle": "--"},
    "EGR, flow": {"color": style.SKY, "linewidth": 0.9},
    "large rate": {"color": style.RED, "marker": "o", "markersize": 2, "linewidth": 0.8},
}


def _draw_loss_surface(axes: Axes, limits: tuple[float, float], arrows: int) -> None:
    """Arrows along the gradient flow, the line attractor, and the flattest of its minima."""
    low, high = limits
    grid = np.linspace(low, high, 2 * arrows + 1)[1::2]
    points = jnp.stack(jnp.meshgrid(jnp.asarray(grid), jnp.asarray(grid)), axis=-1)
    downhill = -np.asarray(jax.vmap(jax.vmap(jax.grad(loss)))(points))
    length = np.linalg.norm(downhill, axis=-1, keepdims=True)
    downhill = downhill / np.maximum(length, 1e-12)
    axes.quiver(points[..., 0], points[..., 1], downhill[..., 0], downhill[..., 1],
                color="#BBBBBB", pivot="mid", scale=1.6 * arrows, width=0.004)  # fmt: skip
    for side in (1, -1) if low < 0 else (1,):
        a = side * np.geomspace(Y / X / high, high, 400)
        axes.plot(a, Y / X / a, "--", color=style.BLACK, linewidth=1)
        axes.plot(side * FLATTEST, side * FLATTEST, "x", color=style.BLACK, markersize=7,
                  markeredgewidth=1.8, zorder=5)  # fmt: skip
    axes.set(xlim=limits, ylim=limits, xlabel="$a$", ylabel="$b$", aspect="equal")


def _falls(values: Float[np.ndarray, " n"]) -> bool:
    return bool(np.all(np.diff(values) < 0))


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"
