"""Figures A.3 to A.6 of the IGR paper: what R does while MLPs train, by learning rate and size."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter
from scipy.stats import spearmanr

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.evidence import difference, mean, rank_correlation
from paper_figures.figure import Claim, Drawing
from paper_figures.igr.width_and_rate import measured as at_moments

_COLOURS = (style.BLUE, style.RED, style.GREEN, style.ORANGE, style.PURPLE, style.SKY, style.BLACK)
_TINY = "Losses this near to 0 are in single precision, and their ratios noise."


def figure_a3(conditions: Conditions) -> Drawing:
    """Loss, R, their ratio and the norm of the parameters on the training set."""
    table = measured(conditions)
    panels = {"E": "training loss E", "R": r"$R_{IG}$", "lambda R/E": r"$\lambda R_{IG}/E$",
              "norm": "norm of the parameters"}  # fmt: skip
    picture = _four(table, panels, "step", "steps of SGD")
    return Drawing(picture, table, claims_of_training(table))


def figure_a4(conditions: Conditions) -> Drawing:
    """The same of the test set, and its accuracy."""
    table = measured(conditions)
    panels = {
        "test E": "test loss E",
        "test R": r"$R_{IG}$ of the test loss",
        "test R/E": r"$R_{IG}/E$ of the test loss",
        "test accuracy": "test accuracy",
    }
    picture = _four(table, panels, "step", "steps of SGD")
    return Drawing(picture, table, claims_of_tests(table))


def figure_a5(conditions: Conditions) -> Drawing:
    """R/E of the training and the test set against the physical time, steps times rate."""
    table = measured(conditions)
    last = table.groupby("h")["time"].max().min()
    panels = {"R/E": "$R_{IG}/E$, training", "test R/E": "$R_{IG}/E$, test",
              "E": "training loss E", "test accuracy": "test accuracy"}  # fmt: skip
    picture = _four(table[table["time"] <= 1.001 * last], panels, "time", "time $i h$")
    return Drawing(picture, table, claims_of_equal_time(table))


def figure_a6(conditions: Conditions) -> Drawing:
    """R and accuracy at the maximum of accuracy: by rate, by size, and one against the other."""
    table = at_moments(conditions)
    table = table[table["when"] == "max accuracy"].drop(columns="when")
    picture = style.picture(style.PAGE, 4.2)
    panels = picture.subplots(2, 3)
    for row, (what, label) in zip(
        panels, (("R", r"$R_{IG}$"), ("test accuracy", "test accuracy")), strict=True
    ):
        _by(row[0], table, "h", "parameters", what, "{:,} parameters")
        _by(row[1], table, "parameters", "h", what, "h = {:g}")
        row[0].set(xscale="log", xlabel="learning rate", ylabel=label)
        row[1].set(xscale="log", xlabel="parameters")
        if what == "R":
            for axes in row[:2]:
                axes.set_yscale("log")
    error = 1 - table["test accuracy"]
    for axes, key in zip(panels[:, 2], ("parameters", "h"), strict=True):
        for (value, rows), colour in zip(table.groupby(key), _COLOURS, strict=False):
            axes.plot(rows["R"], 100 * error[rows.index], ".", color=colour, label=f"{value:,g}")
        axes.set(xscale="log", xlabel=r"$R_{IG}$", ylabel="test error (%)",
                 title=f"coloured by {'size' if key == 'parameters' else 'rate'}")  # fmt: skip
    for axes in panels[0, :2]:
        axes.legend(fontsize=5.5, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    for axes in panels[:, :2].flat:  # whole decades alone have room for a number
        axes.xaxis.set_minor_formatter(NullFormatter())
    return Drawing(picture, table, claims_of_sizes(table))


def measured(conditions: Conditions) -> pd.DataFrame:
    """A row a run and sample of the widest network, for the runs that fit all examples."""
    results = computed("igr-width-and-rate", conditions).results
    widest = max(cell.width for cell in results)
    frames = []
    for cell, result in results.items():
        if cell.width != min(widest, 400):  # the paper's has 400 units a layer
            continue
        for i, rate in enumerate(cell.learning_rates):
            for j, seed in enumerate(cell.seeds):
                if not (np.asarray(result["train_accuracy"])[i, j] == 1).any():
                    continue
                run = {name: np.asarray(result[key][i, j], float) for name, key in _COLUMNS.items()}
                step = np.asarray(result["step"][i], float)
                run |= {
                    "R/E": run["R"] / run["E"],
                    "lambda R/E": rate * result["parameters"] / 4 * run["R"] / run["E"],
                    "test R/E": run["test R"] / run["test E"],
                }
                here = {"h": rate, "seed": seed, "step": step, "time": step * rate}
                frames.append(pd.DataFrame(here | run | {"data": result["source"]}))
    return pd.concat(frames, ignore_index=True)


_COLUMNS = {
    "E": "train_loss", "R": "R", "norm": "norm", "test E": "test_loss", "test R": "test_R",
    "test accuracy": "test_accuracy",
}  # fmt: skip


def claims_of_training(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What the caption of Figure A.3 says.

    Args:
        table: As `measured` gives it.
    """
    groups = table.groupby(["h", "seed"])
    falls = {what: (groups[what].last() < groups[what].first()).mean() for what in ("E", "R")}
    growth = groups["norm"].last() - groups["norm"].first()
    plateau = _when_settled(table, "norm") - _when_settled(table, "E")
    return (
        Claim(
            "E and R both decrease during training",
            f"from the first sample to the last in {falls['E']:.0%} and {falls['R']:.0%} of runs",
            min(falls.values()) == 1,
            paper="Figure A.3 (a, b)",
            otherwise="Where the rate is large a run can end on a spike.",
        ),
        _falls_with_rate(
            table, "R/E", "at the end R/E is smaller where the learning rate is larger",
            "Figure A.3 (c), of lambda R/E and 400 units",
        ),
        Claim(
            "the norm of the parameters grows during training",
            f"in {(growth > 0).mean():.0%} of runs, on average by {growth.mean():.2f} from "
            f"{groups['norm'].first().mean():.2f}",
            bool((growth > 0).all()),
            paper="Figure A.3 (d)",
            otherwise="A large rate can throw weights to smaller norms at the start.",
        ),
        Claim(
            "and plateaus before the training loss does",
            f"nine tenths of its growth are done {-plateau.mean():.2f} of the run before nine "
            "tenths of the fall of log E",
            mean(plateau).below(),
            paper="Figure A.3 (d), Proposition A.9",
            otherwise="Cross entropy lets a fitted network's weights grow as its loss falls.",
        ),
    )  # fmt: skip


def claims_of_tests(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What the caption of Figure A.4 says.

    Args:
        table: As `measured` gives it.
    """
    groups = table.groupby(["h", "seed"])
    whole = {what: groups[what].apply(_turns).mean() for what in ("test E", "test R")}
    later = {what: groups[what].apply(_from_highest).mean() for what in ("test E", "test R")}
    lost = groups["test accuracy"].max() - groups["test accuracy"].last()
    return (
        Claim(
            "test loss and its R decrease at first and increase again",
            f"from the start on, by a tenth over their least in {whole['test E']:.0%} and "
            f"{whole['test R']:.0%} of runs",
            min(whole.values()) == 1,
            paper="Figure A.4 (a, b)",
            otherwise="R starts near 0, as weights at the start have small gradients, and rises "
            "before it falls.",
        ),
        Claim(
            "once they have been highest test loss and its R decrease and increase again",
            f"by a tenth over what is least then in {later['test E']:.0%} and "
            f"{later['test R']:.0%} of runs",
            min(later.values()) == 1,
            paper="not in these words: Figure A.4 (a, b) without its first steps",
            otherwise="Runs this short do not all turn.",
        ),
        _falls_with_rate(
            table, "test R/E", "at the end R/E of the test loss is smaller where the learning rate "
            "is larger", "Figure A.4 (c)",
        ),
        Claim(
            "test accuracy reaches a maximum and falls again slightly",
            f"by {100 * mean(lost).value:.2f} ± {100 * mean(lost).error:.2f} points by the end",
            mean(lost).above() and float(lost.mean()) < 0.02,
            paper="Figure A.4 (d)",
            otherwise="The highest of many samples is above the last by chance, too.",
        ),
    )  # fmt: skip


def _turns(run: pd.Series) -> bool:
    """Whether it falls below its start and rises by a tenth again."""
    return bool(run.min() < run.iloc[0] and run.iloc[-1] > 1.1 * run.min())


def _from_highest(run: pd.Series) -> bool:
    """The same from its highest on: R starts near zero."""
    return _turns(run.iloc[int(np.argmax(run)) :])


def claims_of_equal_time(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What the caption of Figure A.5 says.

    Args:
        table: As `measured` gives it.
    """
    last = float(table.groupby("h")["time"].max().min())
    rows = []
    for (h, seed), run in table.groupby(["h", "seed"]):  # pyright: ignore
        logs = np.interp(last, run["time"], np.log(run["R/E"]))
        tests = np.interp(last, run["time"], np.log(run["test R/E"]))
        rows.append({"h": h, "seed": seed, "step": 0, "R/E": np.exp(logs),
                     "test R/E": np.exp(tests)})  # fmt: skip
    then = pd.DataFrame(rows)
    return tuple(
        _falls_with_rate(
            then, what, f"after equal time {says} is smaller where the learning rate is larger",
            "Figure A.5", f"i h = {last:g}: ", "In the same time a large rate takes few steps, and "
            "its loss has yet to fall; near 0 losses are in single precision, and ratios noise.",
        )
        for what, says in (("R/E", "R/E"), ("test R/E", "R/E of the test loss"))
    )  # fmt: skip


def claims_of_sizes(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What the caption of Figure A.6 says.

    Args:
        table: A row a run, at the time of maximum test accuracy.
    """
    found = []
    for what, sign, verb in (("R", -1, "decreases"), ("test accuracy", 1, "increases")):
        for by, fixed, name in (("h", "parameters", "learning rate"), ("parameters", "h", "size")):
            ranks = {
                value: rank_correlation(
                    np.array(sorted(rows[by].unique()), float),
                    [g[what].to_numpy(float) for _, g in rows.groupby(by)],
                )
                for value, rows in table.groupby(fixed)
                if rows[by].nunique() >= 3
            }
            held = [(one.high < 0) if sign < 0 else (one.low > 0) for one in ranks.values()]
            said = "; ".join(f"{value:g}: {one.rho:.2f} in [{one.low:.2f}, {one.high:.2f}]"
                             for value, one in ranks.items())  # fmt: skip
            found.append(
                Claim(
                    f"{'R' if what == 'R' else what} {verb} as the {name} increases",
                    f"beyond the seeds' spread for {sum(held)} of {len(held)} of what is kept "
                    f"fixed; Spearman {said}",
                    bool(held and all(held)),
                    paper="Figure A.6, in words: typically",
                    otherwise="Typically is not always: for some of them seeds decide the order.",
                )
            )
    points = table.groupby(["parameters", "h"])[["R", "test accuracy"]].mean()
    strong = float(spearmanr(points["R"], 1 - points["test accuracy"]).statistic)
    return (
        *found,
        Claim(
            "test error is strongly correlated with R",
            f"Spearman {strong:.2f} over {len(points)} models",
            strong > 0.7,
            paper="Figure A.6, in words",
            otherwise="Accuracies of such models are close, and seeds decide their order.",
        ),
    )


def _falls_with_rate(
    table: pd.DataFrame, what: str, says: str, paper: str, when: str = "", otherwise: str = _TINY
) -> Claim:
    """Ranks of the rate and the geometric mean over seeds, at the last sample."""
    ends = np.log(table.groupby(["h", "seed"])[what].last())
    rates = sorted(ends.index.get_level_values("h").unique())
    found = rank_correlation(np.array(rates), [ends.loc[h].to_numpy(float) for h in rates])
    lowest, largest = (float(np.exp(ends.loc[h].mean())) for h in (rates[0], rates[-1]))
    shared = ends.loc[rates[-1]].index.intersection(ends.loc[rates[0]].index)
    apart = difference(ends.loc[rates[-1]][shared], ends.loc[rates[0]][shared])
    return Claim(
        says,
        f"{when}{found}; {lowest:.3g} at the smallest rate and {largest:.3g} at the largest, of "
        f"which the logarithms differ by {apart:.2f}",
        found.high < 0,
        paper=paper,
        otherwise=otherwise,
    )


def _when_settled(table: pd.DataFrame, what: str) -> pd.Series:
    """The part of a run at which nine tenths of a quantity's change are done."""

    def of_one(run: pd.DataFrame) -> float:
        values = np.log(run[what]) if what == "E" else run[what]
        change = (values - values.iloc[0]) / (values.iloc[-1] - values.iloc[0])
        return float(run["step"].iloc[int(np.argmax(change.to_numpy() >= 0.9))])

    groups = table.groupby(["h", "seed"])
    return groups[[what, "step"]].apply(of_one) / groups["step"].last()


def _four(table: pd.DataFrame, panels: dict[str, str], along: str, label: str):
    """Four panels of means over seeds by learning rate."""
    picture = style.picture(style.PAGE, 4.0)
    grid = picture.subplots(2, 2, sharex=True)
    for axes, (what, name) in zip(grid.flat, panels.items(), strict=True):
        for (h, rows), colour in zip(table.groupby("h"), _COLOURS, strict=False):
            means = rows.groupby(along)[what].agg(np.median if "accuracy" in what else _geometric)
            axes.plot(means.index, means, color=colour, label=f"h = {h:g}", linewidth=1.1)
        axes.set_ylabel(name)
        if "accuracy" not in what and what != "norm":
            axes.set_yscale("log")
    for axes in grid[1]:
        axes.set_xlabel(label)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    title = f"MLP on {table['data'].iloc[0]}; mean over {table['seed'].nunique()} seeds"
    picture.legend(handles, labels, loc="outside upper center", ncols=7, title=title)
    return picture


def _geometric(values: pd.Series) -> float:
    return float(np.exp(np.log(values).mean()))


def _by(axes: Axes, table: pd.DataFrame, x: str, lines: str, what: str, label: str) -> None:
    for (value, rows), colour in zip(table.groupby(lines), _COLOURS, strict=False):
        groups = rows.groupby(x)[what]
        axes.errorbar(groups.mean().index, groups.mean(), groups.sem(), color=colour, marker="o",
                      markersize=3, label=label.format(value))  # fmt: skip
