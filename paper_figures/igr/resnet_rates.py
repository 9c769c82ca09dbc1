"""Figures A.7 and A.8 of the IGR paper: ResNets trained at several learning rates."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.evidence import rank_correlation
from paper_figures.figure import Claim, Drawing

_COLOURS = (style.PURPLE, style.BLUE, style.GREEN, style.ORANGE, style.RED)
_SMALL = "A narrow network on few images of 8 by 8 is at its best within a few examples' chance."


def figure_a7(conditions: Conditions) -> Drawing:
    """Test accuracy, R, slope, norm and the fit of the training set on the way, by rate."""
    table = measured(conditions)
    picture = style.picture(style.PAGE, 4.0)
    panels = picture.subplots(2, 3, sharex=True)
    shows = {
        "test accuracy": "test accuracy (%)",
        "R": r"$R_{IG}$",
        "slope": r"slope, $|\nabla E|$",
        "norm": "norm of the parameters",
        "train loss": "training loss",
        "train accuracy": "training accuracy (%)",
    }
    for axes, (what, label) in zip(panels.flat, shows.items(), strict=True):
        for (h, rows), colour in zip(table.groupby("h"), _COLOURS, strict=False):
            runs = rows.groupby("step")[what]
            axes.plot(runs.median().index, runs.median(), color=colour, label=f"h = {h:g}",
                      linewidth=1.1)  # fmt: skip
            axes.fill_between(runs.min().index, runs.min(), runs.max(), color=colour, alpha=0.12,
                              linewidth=0)  # fmt: skip
        axes.set_ylabel(label)
        if what in ("R", "slope", "train loss"):
            axes.set_yscale("log")
    picture.supxlabel("steps of SGD", fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=5, title=_title(table))
    return Drawing(picture, table, claims_on_the_way(table))


def figure_a8(conditions: Conditions) -> Drawing:
    """Accuracy and R at the maximum of test accuracy: by rate, and one against the other."""
    table = at_maximum(measured(conditions))
    picture = style.picture(style.PAGE, 2.4)
    panels = picture.subplots(1, 3)
    for axes, (x, y) in zip(
        panels, (("h", "test accuracy"), ("h", "R"), ("test accuracy", "R")), strict=True
    ):
        for (_, rows), colour in zip(table.groupby("h"), _COLOURS, strict=False):
            axes.plot(rows[x], rows[y], "o", color=colour, markersize=3.5)
        if x == "h":
            means = table.groupby("h")[y].mean()
            axes.plot(means.index, means, color=style.GREY, linewidth=0.8)
            axes.set(xscale="log", xlabel="learning rate")
        else:
            axes.set_xlabel("test accuracy (%)")
        axes.set_ylabel(r"$R_{IG}$" if y == "R" else "test accuracy (%)")
        if y == "R":
            axes.set_yscale("log")
    picture.suptitle(_title(table), fontsize=8)
    return Drawing(picture, table, claims_at_maximum(table))


def measured(conditions: Conditions) -> pd.DataFrame:
    """A row a run and sample; accuracies in percent."""
    frames = []
    for cell, result in computed("igr-resnet-rates", conditions).results.items():
        for i, h in enumerate(cell.learning_rates):
            for j, seed in enumerate(cell.seeds):
                run = {
                    "test accuracy": 100 * np.asarray(result["test_accuracy"][i, j], float),
                    "train accuracy": 100 * np.asarray(result["train_accuracy"][i, j], float),
                    "train loss": np.asarray(result["train_loss"][i, j], float),
                    "R": np.asarray(result["R"][i, j], float),
                    "norm": np.asarray(result["norm"][i, j], float),
                }
                run["slope"] = np.sqrt(int(result["parameters"]) * run["R"])
                here = {"h": h, "seed": seed, "step": np.asarray(result["step"][i])}
                about = {"parameters": int(result["parameters"]), "data": result["source"]}
                frames.append(pd.DataFrame(here | run | about))
    return pd.concat(frames, ignore_index=True)


def at_maximum(table: pd.DataFrame) -> pd.DataFrame:
    """The row of each run with its highest test accuracy, the first of equal ones."""
    best = table.groupby(["h", "seed"])["test accuracy"].idxmax()
    return table.loc[best].reset_index(drop=True)


def claims_on_the_way(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What the caption of Figure A.7 says.

    Args:
        table: As `measured` gives it.
    """
    groups = table.groupby(["h", "seed"])
    mean_test = groups["test accuracy"].mean()
    slopes = np.log(groups["slope"].last())
    fitted = groups["train accuracy"].max()
    return (
        _by_rate(mean_test, 1, "test accuracy, in the mean over training, increases with the "
                 "learning rate", "Figure A.7 (a)"),
        _by_rate(np.log(groups["R"].last()), -1, "R at the end decreases as the learning rate "
                 "increases", "Figure A.7 (b)", logs=True),
        _by_rate(slopes, -1, "the slope at the end is shallower where the learning rate is larger",
                 "Figure A.7 (c)", logs=True),
        Claim(
            "every run reaches the interpolation regime: all training examples fitted",
            f"{(fitted == 100).sum()} of {len(fitted)} runs, the others from "
            f"{fitted.min():.1f} % on",
            bool((fitted == 100).all()),
            paper="Figure A.7 (e, f), after a few thousand iterations",
            otherwise="The smallest rates have not got there in so few steps.",
        ),
    )  # fmt: skip


def claims_at_maximum(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What the caption of Figure A.8 says.

    Args:
        table: As `at_maximum` gives it.
    """
    by_run = table.set_index(["h", "seed"])
    order = spearmanr(table["R"], table["test accuracy"]).statistic
    return (
        _by_rate(np.log(by_run["R"]), -1, "R at the maximum of test accuracy decreases as the "
                 "learning rate increases", "Figure A.8", logs=True),
        _by_rate(by_run["test accuracy"], 1, "the maximum of test accuracy increases with the "
                 "learning rate", "Figure A.8: from about 55 to 77 %"),
        Claim(
            "test accuracy is strongly correlated with R: the smaller R the higher",
            f"Spearman {order:.2f} over {len(table)} runs",
            bool(order < -0.7),
            paper="Figure A.8, in words",
            otherwise=_SMALL,
        ),
    )  # fmt: skip


def _by_rate(values: pd.Series, sign: int, says: str, paper: str, logs: bool = False) -> Claim:
    """The rank correlation of the rate and the mean over seeds, and its interval over seeds."""
    rates = sorted(values.index.get_level_values("h").unique())
    runs = [values.loc[h].to_numpy(float) for h in rates]
    found = rank_correlation(np.array(rates), runs)
    shown = [np.exp(run.mean()) if logs else run.mean() for run in runs]
    said = ", ".join(f"{value:.3g} at {h:g}" for h, value in zip(rates, shown, strict=True))
    held = found.low > 0 if sign > 0 else found.high < 0
    return Claim(says, f"{said}; {found}", bool(held), paper=paper, otherwise=_SMALL)


def _title(table: pd.DataFrame) -> str:
    return (
        f"a ResNet of 18 layers, {table['parameters'].iloc[0]:,} parameters, on "
        f"{table['data'].iloc[0]}; {table['seed'].nunique()} seeds"
    )
