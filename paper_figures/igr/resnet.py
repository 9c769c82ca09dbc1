"""Figure 3c of the IGR paper: the test accuracy of a ResNet against the rate of EGR."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.evidence import mean, rank_correlation
from paper_figures.figure import Claim, Drawing

PAPERS_LAST = 0.05  # the figure's axis ends there, and its accuracies are between 62 and 74 %
PAPERS_BOOST = 0.12  # section 6
_MAXIMUM, _END = "maximum test accuracy", "test accuracy at the end"
_MATCHED = "test accuracy at a matched loss"


def figure_3c(conditions: Conditions) -> Drawing:
    """Test accuracy, at its maximum and at the end, and the training loss by the rate of EGR."""
    table = measured(conditions)
    egr, plain = of_egr(table)
    rates = sorted(egr["mu"].unique())
    picture = style.picture(style.PAGE, 2.9)
    left, right = picture.subplots(1, 2)
    _curve(left, egr, _MAXIMUM, style.BLUE, "o-", "EGR, maximum")
    _curve(left, egr, _END, style.ORANGE, "s--", "EGR, at the end")
    _curve(left, egr, _MATCHED, style.GREEN, "D:", "EGR, at a matched loss")
    _curve(right, egr, "E", style.BLUE, "o-", "EGR")
    for axes, what in ((left, _MAXIMUM), (right, "E")):
        h, height = plain["h"].iloc[0], plain[what].mean()
        axes.axhline(height, color=style.GREY, linestyle=":", label=f"no EGR, h = {h:g}")
        axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
        axes.set_xlabel(rf"EGR rate $\mu$ (h = {egr['h'].iloc[0]:g})")
        if PAPERS_LAST in rates[:-1]:
            place = rates.index(PAPERS_LAST) + 0.5
            axes.axvspan(place, len(rates) - 0.6, color=style.GREY, alpha=0.15, linewidth=0,
                         label="beyond the paper's range")  # fmt: skip
        axes.set_xlim(-0.4, len(rates) - 0.6)
    left.set_ylabel("test accuracy")
    right.set(ylabel="training loss E at the end", yscale="log")
    handles, labels = left.get_legend_handles_labels()
    title = f"ResNet of {table['parameters'].iloc[0]:,} parameters; {table['data'].iloc[0]}"
    picture.legend(handles, labels, loc="outside upper center", ncols=4, title=title)
    return Drawing(picture, table, claims(table))


def measured(conditions: Conditions) -> pd.DataFrame:
    """A row a run: learning rate, EGR rate, seed, accuracies, training loss at the end."""
    rows = []
    results = computed("igr-resnet", conditions).results
    # The lowest training loss that every run of EGR comes down to.
    rate = min(cell.learning_rate for cell in results)
    level = max(
        float(np.nanmin(result["train_loss"], axis=-1).max())
        for cell, result in results.items()
        if cell.learning_rate == rate
    )
    for cell, result in results.items():
        for i, rate in enumerate(cell.rates):
            for j, seed in enumerate(cell.seeds):
                accuracy = np.asarray(result["test_accuracy"][i, j], float)
                rows.append(
                    {
                        "h": cell.learning_rate,
                        "mu": rate,
                        "seed": seed,
                        _MAXIMUM: accuracy.max(),
                        "at step": int(result["step"][i][accuracy.argmax()]),
                        _END: accuracy[-1],
                        _MATCHED: at_loss(result["train_loss"][i, j], accuracy, level),
                        "matched loss": level,
                        "train accuracy": float(result["train_accuracy"][i, j, -1]),
                        "E": float(result["train_loss"][i, j, -1]),
                        "parameters": result["parameters"],
                        "data": result["source"],
                    }
                )
    return pd.DataFrame(rows)


def at_loss(losses: np.ndarray, accuracies: np.ndarray, level: float) -> float:
    """The accuracy where the loss first comes down to a level, between samples by its logarithm.

    >>> at_loss(np.array([1.0, 0.1, 0.01]), np.array([0.2, 0.4, 0.6]), 0.1)
    0.4
    """
    below = np.asarray(losses) <= level
    if not below.any():
        return float("nan")
    i = int(np.argmax(below))
    if i == 0:
        return float(accuracies[0])
    before, after, wanted = np.log([losses[i - 1], losses[i], level])
    share = (before - wanted) / (before - after)
    return float(accuracies[i - 1] + share * (accuracies[i] - accuracies[i - 1]))


def of_egr(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs at the small learning rate, and those beside them at the large one."""
    small = table["h"] == table["h"].min()
    return table[small], table[~small]


def claims(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What section 6 says of Figure 3c, and what its axes show."""
    egr, plain = of_egr(table)
    curve = egr.pivot(index="seed", columns="mu", values=_MAXIMUM)
    found, at_end = gain(curve), gain(egr.pivot(index="seed", columns="mu", values=_END))
    base = curve[0.0].mean()
    beside = f"{100 * plain[_MAXIMUM].mean():.1f} % without EGR at h = {plain['h'].iloc[0]:g}"
    inside = curve.loc[:, curve.columns <= PAPERS_LAST]
    rank = rank_correlation(
        inside.columns.to_numpy(float), [inside[mu].to_numpy() for mu in inside]
    )
    means = ", ".join(f"{100 * value:.1f}" for value in curve.mean())
    matched = gain(egr.pivot(index="seed", columns="mu", values=_MATCHED))
    last = curve.columns[-1]
    fall = gain(curve, last)
    return (
        Claim(
            "EGR boosts the test accuracy by more than 12 %",
            f"by {found} points, from {100 * base:.1f} % ({at_end} points at the end of training); "
            f"{beside}",
            found.mean > PAPERS_BOOST,
            paper="more than 12 % (section 6), on an axis from 62 to 74 %",
            otherwise=f"Without EGR {100 * (1 - base):.1f} % of the tests are wrong, which is all "
            "there is to gain on these data."
            if 1 - base <= PAPERS_BOOST
            else "The data and the network are not the paper's, and its learning rate and number "
            "of steps are not printed.",
        ),
        Claim(
            "EGR raises the test accuracy at all",
            f"by {found} points at the rate that is best for the other seeds, mostly "
            f"{found.rate:g}",
            found.mean - 2 * found.error > 0,
            paper="it does, on CIFAR-10 with ResNet-18",
            otherwise="The gain is not beyond two standard errors of the seeds.",
        ),
        Claim(
            f"the test accuracy rises with the rate, from 0 to {PAPERS_LAST}",
            f"{rank}; accuracies {means} % at rates {', '.join(f'{mu:g}' for mu in curve)}",
            rank.low > 0,
            paper="Figure 3c: its axes go from 0 to 0.05 and from 62 to 74 %",
            otherwise="All rates take the same number of steps, and after them the larger ones "
            "have more training loss left; or neighbouring rates differ by less than seeds do.",
        ),
        Claim(
            "too large a rate takes accuracy away again",
            f"the best rate is better than {last:g} by {fall} points",
            fall.mean - 2 * fall.error > 0,
            paper="not in the text; the figure ends at 0.05",
            otherwise="The largest rate is still a useful one here.",
        ),
        Claim(
            "(ours) EGR raises the test accuracy at the same training loss, too",
            f"by {matched} points where the loss comes down to {egr['matched loss'].iloc[0]:.3g}, "
            f"mostly at {matched.rate:g}",
            matched.mean - 2 * matched.error > 0,
            paper="not in the text",
            otherwise="At a loss that all rates reach the gain is gone, or within what seeds do.",
        ),
    )


@dataclass(frozen=True)
class Gain:
    """A difference of accuracies: its mean over seeds, the standard error, the rate it is at."""

    mean: float
    error: float
    rate: float

    def __str__(self):
        return f"{100 * self.mean:.1f} ± {100 * self.error:.1f}"


def gain(curve: pd.DataFrame, beside: float = 0.0) -> Gain:
    """What the best rate gains over another; which is best is asked of the other seeds.

    Of the same seeds the best of several rates would seem better than it is.

    Args:
        curve: Accuracies, a row a seed (two at least), a column a rate.
        beside: The other rate.

    >>> curve = pd.DataFrame([[0.5, 0.6, 0.1], [0.5, 0.8, 0.1]], columns=[0.0, 0.1, 0.2])
    >>> print(gain(curve), gain(curve).rate)
    20.0 ± 10.0 0.1
    """
    best = [curve.drop(index=seed).mean().idxmax() for seed in curve.index]
    differences = np.array(
        [curve.at[seed, rate] - curve.at[seed, beside]
         for seed, rate in zip(curve.index, best, strict=True)]
    )  # fmt: skip
    found = mean(differences)
    return Gain(found.value, found.error, float(pd.Series(best).mode()[0]))


def _curve(axes: Axes, rows: pd.DataFrame, what: str, colour: str, line: str, label: str) -> None:
    """Every run a point, their means, and a standard error from them."""
    groups = rows.groupby("mu")[what]
    means, errors = groups.mean(), groups.sem()
    places = np.arange(len(means))
    axes.errorbar(
        places, means, errors, fmt=line, color=colour, markersize=4, capsize=2, label=label
    )
    of_run = rows["mu"].map(dict(zip(means.index, places, strict=True)))
    axes.plot(of_run + 0.12, rows[what], ".", color=colour, alpha=0.45, markersize=3)
