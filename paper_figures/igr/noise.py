"""Figures 3a and 3b of the IGR paper: slope and accuracy of networks under parameter noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture
from matplotlib.lines import Line2D

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.evidence import RankCorrelation, rank_correlation
from paper_figures.figure import Claim, Drawing

_MARKS = "osD^vP*"
_COLOURS = (style.BLUE, style.RED, style.GREEN, style.ORANGE, style.PURPLE, style.SKY, style.BLACK)
_STOPPED = (
    "Every run is looked at where its own test accuracy was highest, and the losses there differ: "
    "where the loss is smaller, so is the slope for that alone."
)
_NOTHING_LEFT = (
    "Noise of several times each parameter leaves nothing of what was learned, whatever the rate, "
    "and noise too small to do harm nothing to tell apart: there the rates differ by less than "
    "seeds do."
)


def figure_3a(conditions: Conditions) -> Drawing:
    """The slope |grad E| of the training loss at parameters multiplied by 1 + sigma eps."""
    table = measured(conditions)
    picture = _panels(table, "slope", "slope deviation", bounded=False)
    picture.axes[0].set(yscale="log", ylabel=r"slope of the loss, $|\nabla E|$")
    best, matched = _moments(table)
    claims = [
        Claim(
            f"{title} the slope is smaller where the rate is larger",
            f"{by_level(rows, 'slope')[0.0]}; mean slope "
            f"{' at the smallest rate, '.join(_ends(rows, 0.0, 'slope'))} at the largest; "
            f"losses there {' and '.join(_ends(rows, 0.0, 'E'))}",
            by_level(rows, "slope")[0.0].high < 0,
            paper=paper,
            otherwise=otherwise,
        )
        for title, rows, paper, otherwise in (
            (*best, "Figure 3a, MNIST, 400 units a layer: smaller; no number is printed", _STOPPED),
            (*matched, "not in the paper", _at_one_loss(matched[1])),
        )
    ] + [
        _under_noise(
            rows, "slope", -1,
            f"{title} the slope is smaller where the rate is larger, at every level of noise",
            paper, _NOTHING_LEFT,
        )
        for title, rows, paper in (
            (*best, "Figure 3a: slopes remain small, up to 300 %"),
            (*matched, "not in the paper"),
        )
    ]  # fmt: skip
    return Drawing(picture, table, tuple(claims))


def figure_3b(conditions: Conditions) -> Drawing:
    """The test accuracy at parameters multiplied by 1 + sigma eps."""
    table = measured(conditions)
    picture = _panels(table, "test accuracy", "test accuracy deviation", bounded=True)
    picture.axes[0].set(ylim=(0, 1.02), ylabel="test accuracy")
    best, matched = _moments(table)
    claims = []
    for title, rows, paper in (
        (*best, "Figure 3b, MNIST, 400 units a layer: robustness rises with the rate"),
        (*matched, "not in the paper"),
    ):
        halves = [
            (h, np.array([half_way(one["sigma"], one["test accuracy"]) for _, one in runs]))
            for h, runs in ((h, group.groupby("seed")) for h, group in rows.groupby("h"))
        ]
        found = rank_correlation(np.array([h for h, _ in halves]), [half for _, half in halves])
        claims += [
            _under_noise(
                rows, "test accuracy", 1,
                f"under noise the test accuracy is higher where the rate is larger, {title}, at "
                "every level",
                paper, _NOTHING_LEFT,
            ),
            Claim(
                "it takes more noise to lose half of what is above chance where the rate is "
                f"larger, {title}",
                f"{found}; noise of {100 * halves[0][1].mean():.0f} % at the smallest rate, "
                f"{100 * halves[-1][1].mean():.0f} % at the largest",
                found.low > 0,
                paper="not in the paper",
                otherwise="A few seeds and draws do not tell neighbouring rates apart.",
            ),
        ]  # fmt: skip
    return Drawing(picture, table, tuple(claims))


def measured(conditions: Conditions) -> pd.DataFrame:
    """A row a run, moment and level: mean and deviation over draws of slope, loss, test accuracy.

    `E` is the training loss, at its own level of noise. The moments are that of maximum test
    accuracy and that of a training loss which is the same for all runs. Runs that never classify
    all training examples rightly are left out, as in Figure 2.
    """
    rows = []
    for cell, result in computed("igr-noise", conditions).results.items():
        for i, j in np.ndindex(len(cell.learning_rates), len(cell.seeds)):
            if not (result["train_accuracy"][i, j] == 1).any():
                continue
            kept = float(result["step"][i][result["kept"][i, j]])
            moments = {"": ("max accuracy", kept)}
            if np.isfinite(result["matched_step"][i, j]):
                at = float(result["matched_step"][i, j])
                moments["matched_"] = (f"loss {cell.matched:g}", at)
            for prefix, (when, step) in moments.items():
                here = {"h": cell.learning_rates[i], "seed": cell.seeds[j], "when": when}
                for n, level in enumerate(cell.levels):
                    row = {"step": step, "sigma": level}
                    for name, values in _COLUMNS.items():
                        drawn = np.asarray(result[f"{prefix}{values}"][i, j, n], float)
                        row |= {name: drawn.mean(), f"{name} deviation": drawn.std(ddof=1)}
                    rows.append(here | row | {"draws": cell.draws, "data": result["source"]})
    return pd.DataFrame(rows)


_COLUMNS = {"slope": "slope", "E": "loss", "test accuracy": "accuracy"}


def by_level(table: pd.DataFrame, what: str) -> dict[float, RankCorrelation]:
    """For every level of noise, the rank correlation of a column with the learning rate."""
    found = {}
    for level, rows in table.groupby("sigma"):
        rates, runs = zip(*rows.groupby("h")[what], strict=True)
        found[level] = rank_correlation(np.array(rates), [np.asarray(run, float) for run in runs])
    return found


def half_way(sigma: pd.Series, accuracy: pd.Series, chance: float = 0.1) -> float:
    """The level of noise at which half of what accuracy had above chance is lost.

    Args:
        sigma: The levels, from 0 on, in order.
        accuracy: At those levels.
        chance: What a guess among the classes has.

    Returns:
        Between two levels by a straight line; the last level where so much is never lost.

    >>> half_way(pd.Series([0.0, 1.0, 2.0]), pd.Series([0.9, 0.6, 0.2]))
    1.25
    """
    levels, values = np.asarray(sigma, float), np.asarray(accuracy, float)
    goal = (values[0] + chance) / 2
    below = np.flatnonzero(values < goal)
    if len(below) == 0:
        return float(levels[-1])
    end = below[0]
    return round(float(np.interp(-goal, -values[[end - 1, end]], levels[[end - 1, end]])), 9)


def _at_one_loss(rows: pd.DataFrame) -> str:
    """Why the slope may not fall at a matched loss: in its mean either, or beyond the seeds."""
    if by_level(rows, "slope")[0.0].rho < 0:
        return "Its mean falls, but seeds change the order of neighbouring rates."
    return (
        "Then the smaller slope at maximum test accuracy may be that of a smaller loss and no more."
    )


def _under_noise(
    table: pd.DataFrame, what: str, sign: int, says: str, paper: str, otherwise: str
) -> Claim:
    found = {level: one for level, one in by_level(table, what).items() if level > 0}
    held = [level for level, one in found.items() if (one.high < 0 if sign < 0 else one.low > 0)]
    largest = max(found)
    ends = [
        f"at {100 * level:.0f} % {low} at the smallest rate and {high} at the largest"
        for level in (min(found, key=lambda one: abs(one - 0.5)), largest)
        for low, high in [_ends(table, level, what)]
    ]
    return Claim(
        says,
        f"Spearman {', '.join(f'{one.rho:.2f}' for one in found.values())} at noise of "
        f"{', '.join(f'{100 * level:.0f}' for level in found)} %, beyond the seeds' spread at "
        f"{len(held)} of {len(found)} levels; {'; '.join(ends)}",
        len(held) == len(found),
        paper=paper,
        otherwise=otherwise,
    )


def _ends(table: pd.DataFrame, level: float, what: str) -> tuple[str, str]:
    """The mean over seeds at the smallest rate and at the largest."""
    means = table[table["sigma"] == level].groupby("h")[what].mean()
    return f"{means.iloc[0]:.3g}", f"{means.iloc[-1]:.3g}"


def _moments(table: pd.DataFrame) -> tuple[tuple[str, pd.DataFrame], tuple[str, pd.DataFrame]]:
    """What the two moments are called, and their rows."""
    (level,) = set(table["when"]) - {"max accuracy"}
    at_best = table["when"] == "max accuracy"
    return (
        ("at maximum test accuracy", table[at_best]),
        (f"where E falls to {level.removeprefix('loss ')}", table[~at_best]),
    )


def _panels(table: pd.DataFrame, what: str, deviation: str, *, bounded: bool) -> Picture:
    """A panel a moment, side by side."""
    picture = style.picture(style.PAGE, 2.9)
    panels = picture.subplots(1, 2, sharey=True)
    looks = list(zip(_COLOURS, _MARKS, strict=True))
    lines: dict[float, tuple[str, str]] = dict(
        zip(sorted(table["h"].unique()), looks, strict=False)
    )
    for axes, (title, rows) in zip(panels, _moments(table), strict=True):
        _curves(axes, rows, what, deviation, lines, bounded=bounded)
        axes.set_title(title)
    handles, labels = panels[0].get_legend_handles_labels()
    handles.append(Line2D([], [], color="0.4", linestyle="--", linewidth=0.6))
    labels.append(f"mean {'±' if bounded else '+'} a standard deviation")
    picture.legend(handles, labels, loc="outside upper center", ncols=7, title="learning rate")
    return picture


def _curves(
    axes: Axes,
    table: pd.DataFrame,
    what: str,
    deviation: str,
    lines: dict[float, tuple[str, str]],
    *,
    bounded: bool,
) -> None:
    """Means over draws and seeds, and dashed a standard deviation over the draws from them."""
    for h, rows in table.groupby("h"):
        colour, mark = lines[h]  # pyright: ignore[reportArgumentType]
        means = rows.groupby("sigma")[[what, deviation]].mean()
        noise = 100 * means.index.to_numpy(float)
        centre, spread = means[what].to_numpy(), means[deviation].to_numpy()
        axes.plot(noise, centre, color=colour, marker=mark, markersize=3.5, label=f"{h:g}")
        # the mean less a deviation is below 0 for most slopes, and has no place on their axis
        for sign in (-1, 1) if bounded else (1,):
            edge = centre + sign * spread
            edge = np.clip(edge, 0, 1) if bounded else edge
            axes.plot(noise, edge, color=colour, linestyle="--", linewidth=0.6)
    axes.set_xlabel(r"noise $\sigma$, % of each parameter")
