"""The plane of sharpness and non-uniformity ("Appealing to gradients", section 2.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.scale import Conditions
from analysis.studies import computed
from analysis.studies.coherence.stability import noise_of
from igr.diagnostics import sgd_region
from paper_figures import style
from paper_figures.evidence import RankCorrelation, mean, rank_correlation
from paper_figures.figure import Claim, Drawing

SETTLED = 0.05**2 / 2  # the loss: errors of 0.05 in the root mean square, targets being 1 and -1
ROUNDING = 0.01  # eigenvalues are found to 0.1 %, and GD swings about 2 / eta for a long time
LEFT = 10.0  # what the loss must rise to, of that which a small push has made, to have left
_LOOKS = ((style.BLACK, "o"), (style.BLUE, "s"), (style.ORANGE, "^"), (style.RED, "D"))
_WORDS = "remark 2.5, in words and formulas; no number is printed"


def figure_stability(conditions: Conditions) -> Drawing:
    """Where GD and SGD end in the plane, for each rate; and which of GD's minima SGD keeps."""
    trained, restarted = measured(conditions)
    sizes = sorted(trained["B"].unique(), reverse=True)
    looks = dict(zip(sizes, _LOOKS, strict=False))
    rates = sorted(trained["eta"].unique())
    picture = style.picture(style.COLUMN, 3.9)
    panels = picture.subplots(2, 2).flat
    for axes, rate in zip(panels, rates, strict=False):
        _plane(axes, trained[trained["eta"] == rate], looks)
        axes.set_title(rf"$\eta$ = {rate:g}", pad=3)
    _kept(panels[len(rates)], restarted, looks)
    n = int(trained["n"].iloc[0])
    handles = [
        Line2D([], [], color=colour, marker=mark, markersize=4, linestyle="-", linewidth=1,
               label="GD" if size == n else f"SGD, $B$ = {size}")
        for size, (colour, mark) in looks.items()
    ]  # fmt: skip
    picture.legend(handles=handles, loc="outside upper center", ncols=4, columnspacing=1.0)
    table = pd.concat([trained.assign(what="trained"), restarted.assign(what="restarted")])
    return Drawing(picture, table, claims(trained, restarted))


def measured(conditions: Conditions) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs at their ends, a row each; and the restarts from GD's minima.

    `a`, `s` are sharpness and non-uniformity, `a eta/2` and `s/limit` those in units of their
    limits in remark 2.5; `growth` is theorem 2.4's, less one, off the flat directions; `r gain` is
    what must be below one for linear stability; `rise` is the highest loss over the first.
    """
    runs, restarts = [], []
    for cell, result in computed("coherence-stability", conditions).results.items():
        n = cell.examples
        for i, rate in enumerate(cell.learning_rates):
            for j, seed in enumerate(cell.seeds):
                loss, a, s = (
                    float(result[name][i, j].flat[-1])
                    for name in ("train_loss", "sharpness", "non_uniformity")
                )
                size = cell.batch_size or n
                settled = bool(loss <= SETTLED and result["converged"][i, j])
                gain = _r_gain(float(result["gain"][i, j]), size, n)
                runs.append(
                    {"eta": rate, "B": size, "seed": seed, "n": n, "steps": cell.steps,
                     "loss": loss, "settled": settled, "a": a, "s": s,
                     **_limits(a, s, rate, size, n),
                     "growth": float(result["growth"][i, j]), "r gain": gain,
                     "data": result["source"]}
                )  # fmt: skip
                if cell.restart is None or not settled:
                    continue
                for k, factor in enumerate(cell.restart.factors):
                    for m, other in enumerate(cell.restart.batch_sizes):
                        h, losses = factor * rate, result["restart_loss"][i, j, k, m]
                        rise = np.max(losses) / losses[0]  # NaN where it diverged
                        restarts.append(
                            {"eta": h, "B": other, "seed": seed, "n": n, "found with": rate,
                             "steps": cell.restart.steps, "a": a, "s": s,
                             **_limits(a, s, h, other, n),
                             "growth": float(result["restart_growth"][i, j, k, m]),
                             "r gain": _r_gain(float(result["restart_gain"][i, j, k]), other, n),
                             "rise": float(rise), "kept": bool(rise < LEFT),
                             "data": result["source"]}
                        )  # fmt: skip
    return pd.DataFrame(runs), pd.DataFrame(restarts)


def _r_gain(gain: float, batch_size: int, examples: int) -> float:
    noise = noise_of(batch_size, examples)
    return 0.0 if noise == 0 and np.isfinite(gain) else gain * max(noise, 1e-300)


def _limits(a: float, s: float, rate: float, size: int, n: int) -> dict[str, float]:
    region = sgd_region(rate, size, n)
    return {
        "a eta/2": a / float(region.sharpness_limit),
        "s/limit": s / float(region.non_uniformity_limit),
    }


def claims(trained: pd.DataFrame, restarted: pd.DataFrame) -> tuple[Claim, ...]:
    """What remark 2.5 and theorem 2.4 say, and what they lead one to expect."""
    runs = trained[trained["settled"]]
    full = runs["B"] == runs["n"]
    descent, stochastic = runs[full], runs[~full]
    diverged = int(trained["loss"].isna().sum())
    counted = f"{len(runs)} of {len(trained)} runs settled, {diverged} diverged"
    return (
        Claim(
            "GD settles in minima of sharpness at most 2/η",
            f"η a/2 from {descent['a eta/2'].min():.3f} to {descent['a eta/2'].max():.3f} over "
            f"{len(descent)} runs; {counted}",
            bool(len(descent) and (descent["a eta/2"] <= 1 + ROUNDING).all()),
            paper=_WORDS,
            otherwise="The runs swing about 2/η while their loss still falls.",
        ),
        Claim(
            "SGD settles in minima within both limits of (2), of every rate and batch size",
            f"at most {stochastic['a eta/2'].max():.3f} of that of a and "
            f"{stochastic['s/limit'].max():.3f} of that of s over {len(stochastic)} runs",
            bool(len(stochastic) and _inside(stochastic).all()),
            paper=_WORDS,
            otherwise="(2) is necessary for theorem 2.4's condition, which itself is not necessary "
            "with more than one parameter.",
        ),
        Claim(
            "the minima SGD settles in are linearly stable, by the exact second moments",
            f"{(stochastic['r gain'] <= 1).sum()} of {len(stochastic)} are, r gain being at most "
            f"{stochastic['r gain'].max():.3f} and 1 at the limit; theorem 2.4's condition holds "
            f"at {(stochastic['growth'] <= 0).sum()}",
            bool(len(stochastic) and (stochastic["r gain"] <= 1 + ROUNDING).all()),
            paper="definition 2.2; the exact condition is ours",
            otherwise="These runs go through shuffled epochs, which shake less than the batches "
            "of the theorem, drawn anew every step; and a mean square may grow by rare runs alone.",
        ),
        _grows_with_the_batch(runs, "s", "non-uniformity", _WORDS),
        _grows_with_the_batch(
            runs, "a", "sharpness", "not in the paper; Wu, Ma and E (2018) find it"
        ),
        _most_by_descent(runs),
        _flatter_with_rate(runs),
        *_claims_of_restarts(restarted),
    )


def _inside(rows: pd.DataFrame) -> pd.Series:
    return (rows["a eta/2"] <= 1 + ROUNDING) & (rows["s/limit"] <= 1 + ROUNDING)


def _grows_with_the_batch(runs: pd.DataFrame, what: str, name: str, paper: str) -> Claim:
    found = {
        rate: _rank(rows.groupby("B")[what]) for rate, rows in runs.groupby("eta") if len(rows)
    }
    said = [
        f"η = {rate:g}: {one.rho:.2f} in [{one.low:.2f}, {one.high:.2f}] "
        f"({_means(runs, rate, what)})"
        for rate, one in found.items()
    ]
    return Claim(
        f"at every rate {name} rises with the batch size, from the smallest to GD",
        f"Spearman of B and mean {what}, 95 % of the bootstrap over seeds, mean {what} and its "
        f"standard error: {'; '.join(said)}",
        bool(found and all(one.low > 0 for one in found.values())),
        paper=paper,
        otherwise="Batches of neighbouring sizes end within the seeds' spread of one another.",
    )


def _most_by_descent(runs: pd.DataFrame) -> Claim:
    said, held = [], []
    for rate, rows in runs.groupby("eta"):
        full = rows["B"] == rows["n"]
        gd, most = mean(rows.loc[full, "s"]), rows[~full].groupby("B")["s"].mean()
        if not len(most):
            continue
        size = most.idxmax()
        sgd = mean(rows.loc[rows["B"] == size, "s"])
        said.append(f"η = {rate:g}: {gd:.3g}, and at most {sgd:.3g} (B = {size})")
        held.append(bool(gd.value > sgd.value))
    return Claim(
        "at every rate GD's minima are less uniform in the mean than SGD's of every batch size",
        f"mean s of GD, and of SGD: {'; '.join(said)}",
        bool(held and all(held)),
        paper=_WORDS,
        otherwise="At a large rate some runs, of GD too, are thrown into a flat minimum early on, "
        "and which ones decides more than large batches do.",
    )


def _flatter_with_rate(runs: pd.DataFrame) -> Claim:
    said, held = [], []
    for size, rows in runs.groupby("B"):
        ends = rows.groupby("eta")["a"]
        name = "GD" if size == rows["n"].iloc[0] else f"B = {size}"
        rank = _rank(ends)
        said.append(
            f"{name} {', '.join(f'{v:.3g}' for v in ends.mean())} (Spearman {rank.rho:.2f} in "
            f"[{rank.low:.2f}, {rank.high:.2f}])"
        )
        held.append(rank.high < 0)
    return Claim(
        "the larger the rate, the flatter the minimum, for GD and for every batch size",
        "mean a by rate, from the smallest, and its rank correlation with the rate, 95 % of the "
        f"bootstrap over seeds: {'; '.join(reversed(said))}",
        bool(held and all(held)),
        paper=_WORDS,
        otherwise="A limit that is lower binds only a run that comes near it.",
    )


def _rank(groups: Any) -> RankCorrelation:
    keys, values = zip(*((key, np.asarray(group)) for key, group in groups), strict=True)
    if len(keys) < 3:  # too few settled: nothing can be said
        return RankCorrelation(0.0, -1.0, 1.0)
    return rank_correlation(np.array(keys), list(values))


def _means(runs: pd.DataFrame, rate: float, what: str) -> str:
    rows = runs[runs["eta"] == rate]
    said = []
    for size, group in rows.groupby("B")[what]:
        name = "GD" if size == rows["n"].iloc[0] else f"B = {size}"
        error = f" ± {group.std() / len(group) ** 0.5:.2g}" if len(group) > 1 else ", one run"
        said.append(f"{name} {group.mean():.3g}{error}")
    return ", ".join(reversed(said))


def _claims_of_restarts(rows: pd.DataFrame) -> tuple[Claim, ...]:
    safe, outside = rows[rows["growth"] <= 0], rows[~_inside(rows)]
    own = rows[np.isclose(rows["eta"], rows["found with"])]
    smallest = own[own["B"] == own["B"].min()]
    is_beyond = smallest["s/limit"] > 1
    beyond, within = smallest[is_beyond], smallest[~is_beyond]
    stable = rows["r gain"] < 1
    says = "SGD started beside GD's minima"
    return (
        Claim(
            f"{says} keeps those where theorem 2.4's condition holds",
            f"{safe['kept'].sum()} of {len(safe)} kept, the loss rising to at most "
            f"{safe['rise'].max():.3g} times its start",
            bool(len(safe) and safe["kept"].all()),
            paper="theorem 2.4: a sufficient condition",
            otherwise="The theorem is of the linearized step.",
        ),
        Claim(
            f"{says} leaves those outside (2)",
            f"{(~outside['kept']).sum()} of {len(outside)} left; of those inside "
            f"{(~rows.loc[_inside(rows), 'kept']).sum()} of {_inside(rows).sum()}; stable or not "
            f"by the exact second moments: {(rows['kept'] == stable).sum()} of {len(rows)} as "
            "these say",
            bool(len(outside) and (~outside["kept"]).all()),
            paper=_WORDS,
            otherwise="Just outside, the mean square grows so slowly that so many steps do not "
            "show it, and it may grow by rare runs alone; and with more than one parameter (2) is "
            "not necessary for stability.",
        ),
        Claim(
            "at the rate GD found them with, SGD of the smallest batch filters its minima: it "
            "leaves those beyond the limit of s and keeps the others",
            f"with B = {own['B'].min()}: {beyond['kept'].eq(False).sum()} of {len(beyond)} beyond "
            f"it left, by a factor of {beyond['s/limit'].mean():.2f} in the mean; "
            f"{within['kept'].sum()} of {len(within)} others kept",
            bool(len(beyond) and (~beyond["kept"]).all() and within["kept"].all()),
            paper=_WORDS,
            otherwise="Near the limit of a also a little noise is too much.",
        ),
    )


def _plane(axes: Axes, rows: pd.DataFrame, looks: dict[int, tuple[str, str]]) -> None:
    """The minima of one rate, and of each batch size the limits of (2)."""
    rate, n = float(rows["eta"].iloc[0]), int(rows["n"].iloc[0])
    settled = rows[rows["settled"]]
    edge = float(sgd_region(rate, n, n).sharpness_limit)
    top = 1.25 * settled["s"].max() if len(settled) else 1.0
    axes.set(xlim=(0, 1.15 * edge), ylim=(0, top))
    for size, (colour, mark) in looks.items():
        here = settled[settled["B"] == size]
        axes.plot(here["a"], here["s"], mark, color=colour, markersize=3.2, alpha=0.85, zorder=3)
        limit = float(sgd_region(rate, size, n).non_uniformity_limit)
        if size == n:
            axes.axvline(edge, color=colour, linewidth=0.9)
        elif limit < top:
            axes.plot([0, edge], [limit, limit], color=colour, linewidth=0.9)
    axes.set(xlabel="sharpness $a$", ylabel="non-uniformity $s$")


def _kept(axes: Axes, rows: pd.DataFrame, looks: dict[int, tuple[str, str]]) -> None:
    """SGD beside GD's minima: filled where kept, crossed where left."""
    for size, here in rows.groupby("B"):
        colour, mark = looks[int(size)]
        kept, left = here[here["kept"]], here[~here["kept"]]
        axes.plot(kept["a eta/2"], kept["s/limit"], mark, color=colour, markersize=2.6)
        axes.plot(left["a eta/2"], left["s/limit"], "x", color=colour, markersize=3)
    axes.plot([0, 1, 1], [1, 1, 0], color=style.GREY, linewidth=0.9, zorder=0)
    a = np.linspace(0, 1, 100)
    axes.plot(a, 2 * np.sqrt(a * (1 - a)), ":", color=style.GREY, linewidth=0.9, zorder=0)
    axes.set(xlabel=r"$a$ / limit", ylabel=r"$s$ / limit", xlim=(0, 1.15), ylim=(0, None))
    axes.text(0.04, 0.97, r"$\times$ left", transform=axes.transAxes, va="top", fontsize=7)
    axes.set_title("SGD at GD's minima", pad=3)
