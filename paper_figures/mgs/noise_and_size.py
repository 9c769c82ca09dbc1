"""Final test accuracy over label noise and the size of the training set (MGS, Figures A.4-A.13)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Float

from analysis.scale import Conditions
from analysis.studies import computed
from analysis.studies.mgs.label_noise import LAST
from paper_figures import style
from paper_figures.evidence import Mean, difference, mean
from paper_figures.figure import Claim, Drawing
from paper_figures.mgs.label_noise import ON_DIGITS, learned_for

# Percent; axes are training size, label noise, draw.
Bench = Float[np.ndarray, "size noise draw"]


def figure_map(conditions: Conditions, data: str, method: str) -> Drawing:
    """A map of one regularizer: label noise to the right, training size upwards.

    Args:
        conditions: Under which the study is computed.
        data: What the paper's network is trained on, as the study calls it.
        method: The regularizer.
    """
    results = computed("mgs-noise-and-size", conditions).results
    known = {data, ON_DIGITS[data]}
    ours = {cell: found for cell, found in results.items() if cell.data in known}
    sizes = sorted({cell.examples for cell in ours})
    noises = next(iter(ours)).noises
    bench = {
        name: np.stack([
            100 * np.asarray(ours[cell]["test_accuracy"])[..., -LAST:].mean(axis=-1)
            for size in sizes for cell in ours if (cell.method, cell.examples) == (name, size)
        ])
        for name in dict.fromkeys(cell.method for cell in ours)
    }  # fmt: skip
    means = bench[method].mean(axis=-1)
    picture = style.picture(style.COLUMN, 2.6)
    axes = picture.subplots()
    shown = axes.imshow(means, origin="lower", aspect="auto", vmin=0, vmax=100, cmap="cividis")
    for (i, j), value in np.ndenumerate(means):
        ink = "white" if value < 55 else "black"
        axes.text(j, i, f"{value:.0f}", ha="center", va="center", color=ink, fontsize=7)
    axes.set_xticks(range(len(noises)), [f"{noise:.0%}" for noise in noises])
    axes.set_yticks(range(len(sizes)), [str(size) for size in sizes])
    factor = float(next(found["factor"] for cell, found in ours.items() if cell.method == method))
    named = "unregularized" if method == "none" else f"{method}, factor {factor:g}"
    axes.set(xlabel="training labels that are wrong", ylabel="training examples")
    learned = learned_for(next(iter(ours)).data, data).replace(", for", ",\nfor")
    axes.set_title(f"{learned}\n{named}", fontsize=7)
    picture.colorbar(shown, label="final test accuracy (%)")
    rows = [
        {"regularizer": method, "factor": factor, "examples": size, "noise": noise, "draw": draw,
         "final test accuracy": bench[method][i, j, draw]}
        for i, size in enumerate(sizes) for j, noise in enumerate(noises)
        for draw in range(bench[method].shape[2])
    ]  # fmt: skip
    return Drawing(picture, pd.DataFrame(rows), claims(bench, method, sizes, noises))


def claims(
    bench: Mapping[str, Bench], method: str, sizes: list[int], noises: tuple[float, ...]
) -> tuple[Claim, ...]:
    """What the map shows, and what section 6 says of MGS over the whole test bench.

    Args:
        bench: The final accuracy by regularizer.
        method: The regularizer whose map it is.
        sizes: Those of the first axis.
        noises: Those of the second.
    """
    mine = bench[method]
    found = [_falls(mine, method, noises), _grows(mine, method, sizes)]
    if method == "MGS":
        found.append(_ahead(bench))
    return tuple(found)


def _falls(mine: Bench, method: str, noises: tuple[float, ...]) -> Claim:
    """From each level of noise to the next, in the mean over sizes, draw by draw."""
    by_draw = mine.mean(axis=0)
    lost = [difference(by_draw[i], by_draw[i + 1]) for i in range(len(noises) - 1)]
    said = ", ".join(f"{mean(level).value:.1f}" for level in by_draw)
    return Claim(
        f"{method}: the more labels are wrong the lower the accuracy at the end, at each step",
        f"{said} % at {', '.join(f'{noise:.0%}' for noise in noises)}, in the mean over the sizes; "
        f"at the smallest step by {_smallest(lost):.1f}",
        all(one.above() for one in lost),
        paper="a map, without numbers; so in Tables 1 and A.1",
        otherwise="A regularizer that hardly learns has little to lose.",
    )


def _grows(mine: Bench, method: str, sizes: list[int]) -> Claim:
    """From each size to the next, in the mean over levels of noise, draw by draw."""
    by_draw = mine.mean(axis=1)
    gained = [difference(larger, smaller) for smaller, larger in pairwise(by_draw)]
    said = ", ".join(f"{mean(size).value:.1f}" for size in by_draw)
    return Claim(
        f"{method}: the more examples the higher the accuracy at the end, at each step",
        f"{said} % with {', '.join(map(str, sizes))}, in the mean over the levels of noise; at the "
        f"smallest step by {_smallest(gained):.1f}",
        all(one.above() for one in gained),
        paper="a map, without numbers",
        otherwise="The factor is chosen for one size, and is too small or too large at others.",
    )


def _smallest(steps: list[Mean]) -> Mean:
    return min(steps, key=lambda step: step.value)


def _ahead(bench: Mapping[str, Bench]) -> Claim:
    """Draw by draw, over the whole bench: all regularizers see the same samples and labels."""
    means = {name: values.mean(axis=(0, 1)) for name, values in bench.items()}
    lead = {name: difference(means["MGS"], v) for name, v in means.items() if name != "MGS"}
    nearest = min(lead, key=lambda name: lead[name].value)
    said = ", ".join(f"{name} {values.mean():.1f}" for name, values in means.items())
    return Claim(
        "MGS outperforms each other regularizer, in the mean over all sizes and levels of noise",
        f"{said} %; ahead of {nearest} by {lead[nearest]:.1f}",
        all(one.above() for one in lead.values()),
        paper="section 6.3, in words: substantially",
        otherwise="The factor that the loss chooses after fewer epochs is small.",
    )
