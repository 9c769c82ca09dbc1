"""Ours: six optimizers of optax on real data, each beside the flows derived for it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import diffrax
import jax
import numpy as np
import optax
import pandas as pd

import igr
from analysis.data import Classification, digits
from paper_figures import style
from paper_figures.figure import Claim, Drawing
from paper_figures.igr_follow import cross_entropy, tanh_network

EXAMPLES = 360
BURN_IN = 500
STEPS = 300
RECORD_EVERY = 20


class Optimizer(NamedTuple):
    """An optimizer of optax and its description.

    Attributes:
        method: What igr derives the equation from.
        real: The transformation that is run, by learning rate.
        learning_rate: The step h.
        orders: The powers of h to which the equation is kept, each on its own.
    """

    method: igr.methods.Method | igr.methods.ElementwiseMethod
    real: Callable[[float], optax.GradientTransformation]
    learning_rate: float
    orders: tuple[int, ...]


METHODS = igr.methods
OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": Optimizer(METHODS.gradient_descent(), optax.sgd, 0.1, (0, 1, 2)),
    "sgd, momentum 0.9": Optimizer(
        METHODS.heavy_ball(0.9), lambda h: optax.sgd(h, momentum=0.9), 0.01, (0, 1, 2)
    ),
    "sgd, Nesterov 0.9": Optimizer(
        METHODS.nesterov(0.9), lambda h: optax.sgd(h, momentum=0.9, nesterov=True), 0.01, (0, 1, 2)
    ),
    "rmsprop, decay 0.99": Optimizer(
        METHODS.rmsprop(0.99, keep=("nu",)),
        lambda h: optax.rmsprop(h, decay=0.99, eps_in_sqrt=True),
        1e-3,
        (0, 1),
    ),
    "adam": Optimizer(METHODS.adam(), optax.adam, 1e-3, (0, 1, 2)),
    "adamw, decay 0.1": Optimizer(
        METHODS.adamw(weight_decay=0.1), lambda h: optax.adamw(h, weight_decay=0.1), 1e-3, (0, 1)
    ),
}


@jax.enable_x64(True)
def figure_optimizers() -> Drawing:
    """How far six optimizers drift from the flows of their own equations."""
    seen = {name: _beside(optimizer) for name, optimizer in OPTIMIZERS.items()}
    picture = style.picture(style.PAGE, 4.2)
    panels = picture.subplots(2, 3, sharex=True, sharey=True)
    for axes, (name, at) in zip(panels.flat, seen.items(), strict=True):
        _distances(axes, at, 1e-9)
        axes.set_title(f"{name}, $h = {at.learning_rate:g}$")
    for axes in panels[:, 0]:
        axes.set_ylabel("distance, of the way\ntravelled in all")
    for axes in panels[1]:
        axes.set_xlabel(f"steps, after {BURN_IN} of burn-in")
    _legend(picture, panels.flat[0], columns=3)
    table = pd.concat(_table(name, at) for name, at in seen.items())
    claims = [claim for name, at in seen.items() for claim in _claims(name, at)]
    return Drawing(picture, table, tuple(claims))


@jax.enable_x64(True)
def figure_adam_kept() -> Drawing:
    """Adam at its defaults: the second moment kept beside the parameters, or eliminated."""
    adam = OPTIMIZERS["adam"]
    h = adam.learning_rate
    ways = {
        "second moment kept": _beside(adam._replace(orders=(0, 1))),
        # The eliminated field is nearly that of sign descent and turns wherever a gradient changes
        # sign: no adaptive solver gets through it, so each takes two steps for one of Adam.
        "second moment eliminated": _whatever_becomes_of_it(
            # The root is made smooth on the scale of eps: some pixels never give a gradient.
            adam._replace(method=METHODS.adam(eps_root=1e-16, keep=()), orders=(0, 1)),
            solver=diffrax.Heun(),
            stepsize_controller=diffrax.ConstantStepSize(),
            dt0=h / 2,
        ),
    }
    picture = style.picture(style.PAGE, 2.7)
    panels = picture.subplots(1, 2, sharex=True, sharey=True)
    for axes, (name, at) in zip(panels, ways.items(), strict=True):
        _distances(axes, at, 1e-4)
        axes.set_title(f"adam, $h = {h:g}$, $\\beta_2 = 0.999$: {name}")
        axes.set_xlabel(f"steps, after {BURN_IN} of burn-in")
    panels[0].set_ylabel("distance, of the way\ntravelled in all")
    _legend(picture, panels[0], columns=2)
    kept, eliminated = (_shares(at) for at in ways.values())
    far = [float(np.nan_to_num(share[-1], nan=np.inf)) for share in eliminated.values()]
    claims = (
        Claim(
            "with its second moment kept, the flow is within 3 % of the way at order 0 and 0.2 % "
            "at order 1",
            f"{kept[0][-1]:.2%} and {kept[1][-1]:.3%} at the end",
            bool(kept[0][-1] <= 0.03 and kept[1][-1] <= 0.002),
            otherwise="The run is still settling: a longer burn-in brings both down.",
        ),
        Claim(
            "with its second moment eliminated, the flow is further off than the run has travelled",
            "; ".join(
                f"order {p}: {share[-1]:.2f} of the way at the end"
                if np.isfinite(share[-1])
                else f"order {p}: out of the finite numbers, and not drawn from there"
                for p, share in eliminated.items()
            ),
            min(far) > 1,
            otherwise="The gradients changed little while the second moment was averaged.",
        ),
    )
    table = pd.concat(_table(name, at) for name, at in ways.items())
    return Drawing(picture, table, claims)


def _beside(optimizer: Optimizer, **options: Any) -> igr.Comparison:
    data = digits()
    some = Classification(data.x[:EXAMPLES], data.y[:EXAMPLES], data.num_classes)
    return igr.compare(
        cross_entropy(some),
        tanh_network(some, jax.random.key(0)),
        optimizer.learning_rate,
        STEPS,
        optimizer.orders,
        optimizer.method,
        optimizer=optimizer.real(optimizer.learning_rate),
        burn_in=BURN_IN,
        record_every=RECORD_EVERY,
        **{"rtol": 1e-8, **options},
    )


def _whatever_becomes_of_it(optimizer: Optimizer, **options: Any) -> igr.Comparison:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", igr.FlowStopped)
        return _beside(optimizer, **options)


def _shares(seen: igr.Comparison) -> dict[int, np.ndarray]:
    """The distance from the flow of each order, of the way that the run travels in all."""
    return {p: distance / seen.travelled[-1] for p, distance in seen.distance.items()}


def _distances(axes, seen: igr.Comparison, lowest: float) -> None:
    after = slice(1, None)  # at the start every distance is 0, which a logarithm cannot show
    share = seen.travelled / seen.travelled[-1]
    axes.plot(seen.step[after], share[after], color=style.GREY, linestyle=":", label="its start")
    for order, distance in _shares(seen).items():
        axes.plot(
            seen.step[after], distance[after], **_LOOKS[order], label=f"the flow of order {order}"
        )
    axes.set(yscale="log", xlim=(0, STEPS), ylim=(lowest, 5))


def _legend(picture, axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=columns + 1)


def _table(name: str, seen: igr.Comparison) -> pd.DataFrame:
    columns = {
        "optimizer": name,
        "h": seen.learning_rate,
        "step": seen.step,
        "loss": seen.discrete.value,
        "travelled": seen.travelled,
        "h |F1| / |F0|": seen.correction,
        "h sharpness": seen.h_sharpness,
        "stability limit": seen.stability_limit,
        "trusted": seen.trusted,
    }
    return pd.DataFrame(
        columns | {f"distance to order {p}": seen.distance[p] for p in seen.distance}
    )


def _claims(name: str, seen: igr.Comparison) -> list[Claim]:
    """Each order against the one below, at the end."""
    claims = []
    for below, above in pairwise(sorted(seen.distance)):
        far, near = seen.distance[below][-1], seen.distance[above][-1]
        claims.append(
            Claim(
                f"{name}: closer to the flow of order {above} than to that of order {below}",
                f"{far / near:.1f} times closer at the end: {near / seen.travelled[-1]:.2e} of the "
                f"way; h times sharpness {np.nanmax(seen.h_sharpness):.2g} of "
                f"{seen.stability_limit:.2g}",
                bool(near < far),
                otherwise="The expansion does not help where a mode oscillates.",
            )
        )
    return claims


_LOOKS = {
    0: {"color": style.GREEN, "linestyle": "--"},
    1: {"color": style.RED, "linestyle": "-"},
    2: {"color": style.BLUE, "linestyle": "-."},
}
