"""Ours: a network on real data, gradient descent, and the flows of order 0, 1 and 2 beside it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pandas as pd
from jaxtyping import Array, Float, PyTree

import igr
from analysis.data import Classification, digits
from paper_figures import style
from paper_figures.figure import Claim, Drawing

HIDDEN = 16
LEARNING_RATES = (0.05, 0.2)
TIME = 30.0
RECORDS = 50
ORDERS = (0, 1, 2)


@jax.enable_x64(True)
def figure_follow() -> Drawing:
    """How far gradient descent drifts from each flow, at two learning rates."""
    data = digits()
    loss = cross_entropy(data)
    start = tanh_network(data, jax.random.key(0))
    compared = {
        h: igr.compare(
            loss, start, h, round(TIME / h), ORDERS, record_every=round(TIME / h / RECORDS)
        )
        for h in LEARNING_RATES
    }

    picture = style.picture(style.PAGE, 2.6)
    panels = picture.subplots(1, len(compared), sharex=True, sharey=True)
    for axes, (h, seen) in zip(panels, compared.items(), strict=True):
        after = slice(1, None)  # at the start every distance is 0, which a logarithm cannot show
        axes.plot(seen.time[after], seen.travelled[after], color=style.GREY, linestyle=":",
                  label="its own start")  # fmt: skip
        for order, look in _LOOKS.items():
            axes.plot(seen.time[after], seen.distance[order][after], **look,
                      label=f"the flow of order {order}" + _SAYS[order])  # fmt: skip
        axes.set(yscale="log", xlabel="time $n h$", xlim=(0, TIME))
        axes.set_title(f"$h = {h:g}$, {seen.step[-1]} steps; $h \\times$ sharpness "
                       f"{seen.h_sharpness.min():.2f} to {seen.h_sharpness.max():.2f}")  # fmt: skip
    panels[0].set_ylabel("distance of gradient descent from")
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=4)

    table = pd.concat(
        pd.DataFrame(
            {
                "h": h,
                "step": seen.step,
                "time": seen.time,
                "loss": seen.discrete.value,
                "h sharpness": seen.h_sharpness,
                "travelled": seen.travelled,
            }
            | {f"distance to order {p}": seen.distance[p] for p in ORDERS}
        )
        for h, seen in compared.items()
    )
    claims = [claim for h, seen in compared.items() for claim in _claims(h, seen)]
    return Drawing(picture, table, tuple(claims))


def tanh_network(data: Classification, key: Array) -> PyTree:
    """A network with one hidden layer of tanh units, its weights scaled by 1/sqrt(fan in)."""
    inputs = data.x.shape[1]
    lower, upper = jax.random.split(key)
    return {
        "hidden": {
            "weights": jax.random.normal(lower, (inputs, HIDDEN)) / jnp.sqrt(inputs),
            "bias": jnp.zeros(HIDDEN),
        },
        "output": {
            "weights": jax.random.normal(upper, (HIDDEN, data.num_classes)) / jnp.sqrt(HIDDEN),
            "bias": jnp.zeros(data.num_classes),
        },
    }


def cross_entropy(data: Classification) -> Callable[[PyTree], Float[Array, ""]]:
    """The mean cross entropy of the network over all examples, as a function of its weights."""
    x, y = jnp.asarray(data.x), jnp.asarray(data.y)

    def loss(params: PyTree) -> Float[Array, ""]:
        hidden, output = params["hidden"], params["output"]
        units = jnp.tanh(x @ hidden["weights"] + hidden["bias"])
        logits = units @ output["weights"] + output["bias"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    return loss


def _claims(h: float, seen: igr.Comparison) -> list[Claim]:
    """Each order against the one below: at the end, and at every time on the way."""
    claims = []
    for below, above in pairwise(ORDERS):
        far, near = seen.distance[below][1:], seen.distance[above][1:]
        ratio = far / near
        rounding = bool(np.any(seen.at_rounding[above][1:]))
        claims.append(
            Claim(
                f"at h = {h:g} gradient descent is closer to the flow of order {above} than to "
                f"that of order {below}",
                f"{ratio[-1]:.1f} times closer at the end ({near[-1]:.2e} against "
                f"{far[-1]:.2e}), at least {ratio.min():.1f} times at every time"
                + ("; partly at rounding" if rounding else ""),
                bool(np.all(near < far)),
                otherwise="The next order does not help where h times the sharpness nears 1.",
            )
        )
    return claims


_SAYS = {0: " (gradient flow)", 1: " (modified loss)", 2: ""}
_LOOKS = {
    0: {"color": style.GREEN, "linestyle": "--"},
    1: {"color": style.RED, "linestyle": "-"},
    2: {"color": style.BLUE, "linestyle": "-."},
}
