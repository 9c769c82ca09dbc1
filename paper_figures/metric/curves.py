"""Figures 5.3 to 5.34 of the dissertation on Metric regularization: what its rules do on the way.

For each task and activation: training and test performance, norms, and for the two tasks with two
inputs to a unit the weights of the first layer. One function draws a kind of figure for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.scale import Conditions
from paper_figures import style
from paper_figures.evidence import Mean, difference, mean
from paper_figures.figure import Claim, Drawing
from paper_figures.metric.looks import LOOKS
from paper_figures.metric.runs import SETS, Activation, name, runs

What = Literal["train", "test", "norm"]

SIGNIFICANT = 0.5  # of the longest vector of a network; a shorter one is not counted
_SECTIONS = {"xor": "5.3", "xord": "5.3", "mnist": "5.4", "synthetic": "5.5", "cifar10": "5.6"}
_SEEDS = "Seeds differ by as much as the rules do."


def figure_curves(conditions: Conditions, task: str, activation: Activation, what: What) -> Drawing:
    """The mean over runs against the steps, two standard deviations about it, by rule."""
    table = measured(conditions, task, activation)
    accuracy = SETS[task][1]
    picture = style.picture(style.PAGE, 3.1)
    axes = picture.subplots()
    for rule, (colour, line) in LOOKS.items():
        grid = table[table["rule"] == rule].pivot(index="step", columns="seed", values=what)
        means, spread = grid.mean(axis=1), 2 * grid.std(axis=1)
        # Where a rule changes next to nothing, SGD's line shows below it.
        width = 3.0 if rule.startswith("SGD") else 1.3
        axes.plot(means.index, means, line, color=colour, linewidth=width,
                  label=_ranked(table, task, rule))  # fmt: skip
        low, high = means - spread, means + spread
        if what != "norm" and accuracy:
            low, high = low.clip(0, 1), high.clip(0, 1)
        axes.fill_between(means.index, low, high, color=colour, alpha=0.07, linewidth=0)
    kind = "norm" if what == "norm" else "accuracy" if accuracy else "error"
    label = {"train": f"training {kind}", "test": f"test {kind}", "norm": "norm of the parameters"}
    axes.set(xlabel="steps", ylabel=label[what], xlim=(0, table["step"].max()))
    _scaled(axes, table, what, accuracy)
    title = f"{SETS[task][0]}, {activation}; {table['data'].iloc[0]}".replace("; ", "\n")
    picture.legend(loc="outside right upper", title=title, fontsize=6.5, alignment="left")
    return Drawing(picture, table, claims(table, task, activation, what))


def figure_first_layer(conditions: Conditions, task: str, activation: Activation) -> Drawing:
    """The weights from both inputs to every hidden unit, of the first run, by rule."""
    rows = []
    for cell, result in runs(conditions, activation, task):
        rule = name(cell.rule, cell.regime)
        if rule not in LOOKS:
            continue
        for j, seed in enumerate(cell.seeds):
            first, second = np.asarray(result["first_layer"])[j]
            units = {"rule": rule, "seed": seed, "unit": np.arange(len(first))}
            rows.append(pd.DataFrame(units | {"w1": first, "w2": second, "data": result["source"]}))
    table = pd.concat(rows, ignore_index=True)
    picture = style.picture(style.PAGE, 3.6)
    panels = picture.subplots(2, 4)
    for axes, rule in zip(panels.flat, LOOKS, strict=True):
        shown = table[(table["rule"] == rule) & (table["seed"] == table["seed"].min())]
        size = 1.15 * float(np.nanmax(np.abs(shown[["w1", "w2"]].to_numpy()), initial=1e-3))
        if not np.isfinite(size):
            axes.set_axis_off()
            continue
        for sign in ((1, 1), (1, -1), (-1, 1), (-1, -1)):  # the four patterns of inputs
            axes.plot([0, sign[0] * size], [0, sign[1] * size], color="0.85", linewidth=0.8)
        look = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.006}
        zeros = np.zeros(len(shown))
        axes.quiver(zeros, zeros, shown["w1"], shown["w2"], color=LOOKS[rule][0], **look)
        axes.set(xlim=(-size, size), ylim=(-size, size), aspect="equal", title=rule)
        axes.tick_params(labelsize=6)
    picture.supxlabel("weight of the first input", fontsize=8)
    picture.supylabel("of the second", fontsize=8)
    return Drawing(picture, table, claims_of_vectors(table))


def measured(conditions: Conditions, task: str, activation: Activation) -> pd.DataFrame:
    """A row a run and sample: training, test and norm; errors of XORD are sums."""
    rows = []
    for cell, result in runs(conditions, activation, task):
        rule = name(cell.rule, cell.regime)
        if rule not in LOOKS:
            continue
        kind = "accuracy" if SETS[task][1] else "loss"
        for j, seed in enumerate(cell.seeds):
            norm = np.asarray(result["norm"][j], float)
            columns = {"norm": np.where(np.isfinite(norm), norm, np.nan)}
            for part in ("train", "test"):
                values = np.asarray(result[f"{part}_{kind}"][j], float)
                number = int(result[f"{part}_number"]) if task == "xord" else 1
                columns[part] = np.where(np.isfinite(norm), values * number, np.nan)
            here = {"rule": rule, "seed": seed, "step": result["step"]}
            rows.append(pd.DataFrame(here | columns | {"data": result["source"]}))
    return pd.concat(rows, ignore_index=True)


def claims(table: pd.DataFrame, task: str, activation: Activation, what: What) -> tuple[Claim, ...]:
    """What sections 5.3 to 5.6 say of a figure.

    Args:
        table: As `measured` gives it.
        task: One of `SETS`.
        activation: Of the hidden units.
        what: The figure's quantity.
    """
    runs_of = _Runs(table, SETS[task][1])
    if what == "norm":
        return _of_norms(runs_of, task, activation)
    return _of_test(runs_of, task) if what == "test" else _of_training(runs_of, task, activation)


def claims_of_vectors(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What section 5.3 says of the first layer.

    Args:
        table: Columns rule, seed, unit, w1, w2.
    """
    length = np.hypot(table["w1"], table["w2"])
    longest = length.groupby([table["rule"], table["seed"]]).transform("max")
    share = (length > SIGNIFICANT * longest).groupby([table["rule"], table["seed"]]).mean()
    by_rule = {rule: share[rule] for rule in LOOKS if rule in share.index}
    said = ", ".join(f"{rule} {100 * one.mean():.0f} %" for rule, one in by_rule.items())
    counted = f"vectors longer than half of the longest: {said}"
    small = difference(by_rule["SGD large"], by_rule["SGD small"])
    others = ("SGD large", "Metric large", "L2", "L2 Stopped")
    fewer = [
        difference(by_rule[other], by_rule[rule]).above()
        for rule in ("Selective L2", "L2 Stopped Selective")
        for other in others
    ]
    return (
        Claim(
            "the small regime learns fewer significant vectors than the large one",
            f"{counted}; SGD large less small {100 * small.value:.0f} ± {100 * small.error:.0f} "
            "points",
            small.above(),
            paper="section 5.3, in words, of the pictures",
            otherwise="Relative to its own longest vector a small network has as many as a large.",
        ),
        Claim(
            "selective rules keep fewer significant vectors than SGD, Metric, L2 and L2 Stopped "
            "from the large regime",
            f"in {sum(fewer)} of {len(fewer)} comparisons beyond two standard errors; {counted}",
            all(fewer),
            paper="section 5.3, in words, of the pictures",
            otherwise="What is significant is ours to say: half of the longest vector.",
        ),
    )


class _Runs:
    """The ends and the means on the way of a table's runs, by rule, seed by seed."""

    def __init__(self, table: pd.DataFrame, accuracy: bool):
        self.sign = 1 if accuracy else -1
        groups = table.groupby(["rule", "seed"])
        self.last = groups[["train", "test", "norm"]].last()
        self.first = groups[["norm"]].first()
        self.along = groups[["train"]].mean()
        means = table.groupby(["rule", "step"])["train"].mean().groupby("rule").max()
        self.highest = {rule: float(means[rule]) for rule in LOOKS if rule in means.index}

    def end(self, rule: str, what: str) -> pd.Series:
        return self.last.loc[rule][what]

    def better(self, good: str, bad: str, what: str) -> tuple[bool, str]:
        """Whether a rule ends better than another, seed by seed, beyond two standard errors."""
        ahead = difference(self.end(good, what), self.end(bad, what))
        held = ahead.above() if self.sign > 0 else ahead.below()
        values = " against ".join(f"{self.end(rule, what).mean():.3g}" for rule in (good, bad))
        return held, f"{good} {values} {bad} (± {ahead.error:.2g})"


def _of_training(runs_of: _Runs, task: str, activation: Activation) -> tuple[Claim, ...]:
    fast = difference(
        runs_of.along.loc["SGD large"]["train"], runs_of.along.loc["SGD small"]["train"]
    )
    # Section 5.3: with ReLU the small regime is faster on XOR. Section 5.4: with tanh on MNIST.
    small_first = (task, activation) in (("xor", "relu"), ("mnist", "tanh"))
    ahead = fast.value * runs_of.sign
    beyond = abs(ahead) > 2 * fast.error
    winner, loser = ("small", "large") if small_first else ("large", "small")
    found = [
        Claim(
            f"SGD learns faster from the {winner} regime than from the {loser} one",
            f"mean over training, large less small: {fast:.3g}",
            bool(beyond and (ahead < 0) == small_first),
            paper=f"section {_SECTIONS[task]}, in words",
            otherwise="The rates of Table 4.2, and twenty samples a run, decide which is ahead.",
        )
    ]
    ends = {rule: mean(runs_of.end(rule, "train")) for rule in LOOKS}
    said = _each(ends)
    if task in ("xor", "mnist"):
        level = 0.95 if task == "xor" else 0.94
        excepted = (
            ("Metric small", "Metric large") if (task, activation) == ("mnist", "tanh") else ()
        )
        kept = {rule: one.value for rule, one in ends.items() if rule not in excepted}
        found.append(
            Claim(
                f"rules reach a mean training accuracy of at least {level:.0%}"
                + (", Metric aside" if excepted else ""),
                said,
                min(kept.values()) >= level,
                paper="roughly 100 % (section 5.3)" if task == "xor" else "over 94 % (section 5.4)",
                otherwise="Where a step's decay outweighs what the learning rate takes from the "
                "loss, nothing is learned.",
            )
        )
    if (task, activation) == ("mnist", "tanh"):
        found.append(
            Claim(
                "Metric from the large regime ends below every other rule's training accuracy",
                said,
                ends["Metric large"].value == min(one.value for one in ends.values()),
                paper="72.4 %, where others have at least 93.7 % (Table 5.1)",
                otherwise="At a rate this far below the learning rate it is SGD but for little.",
            )
        )
    if task == "xord":
        found.append(
            Claim(
                "all rules come near an error of 0" if activation == "tanh" else
                "the small regime comes near an error of 0 and the large one does not",
                said,
                max(one.value for one in ends.values()) < 2
                if activation == "tanh"
                else ends["SGD small"].value < 0.5 < ends["SGD large"].value,
                paper="section 5.3, in words; Tables 5.1 and 5.2",
                otherwise="Twelve strings: their draw decides what is hard to fit.",
            )
        )  # fmt: skip
    if task == "cifar10":
        excepted = ("SGD large",) if activation == "relu" else ()
        best = {r: one for r, one in runs_of.highest.items() if r not in excepted}
        found.append(
            Claim(
                "at some point of training every rule's mean accuracy is 100 %"
                + (", SGD's from the large regime aside" if excepted else ""),
                ", ".join(f"{rule} {value:.3f}" for rule, value in runs_of.highest.items()),
                min(best.values()) > 0.999,
                paper="section 5.6, in words",
                otherwise="Images averaged to 8 by 8, and so few steps, do not fit in full.",
            )
        )
    if task == "synthetic":
        worse = [runs_of.better(f"SGD {r}", f"Metric {r}", "train") for r in ("small", "large")]
        found.append(
            Claim(
                "Metric harms the training error from either regime",
                "; ".join(text for _, text in worse),
                all(held for held, _ in worse),
                paper="section 5.5, in words; Tables 5.1 and 5.2",
                otherwise="At a rate this far below the learning rate it is SGD but for little.",
            )
        )
    return tuple(found)


def _of_test(runs_of: _Runs, task: str) -> tuple[Claim, ...]:
    regimes = runs_of.better("SGD small", "SGD large", "test")
    selective = [
        runs_of.better(rule, "SGD large", "test")
        for rule in ("Selective L2", "L2 Stopped Selective")
    ]
    section = _SECTIONS[task]
    order = sorted(LOOKS, key=lambda r: -runs_of.sign * np.nan_to_num(
        runs_of.end(r, "test").mean(), nan=-runs_of.sign * np.inf))  # fmt: skip
    return (
        Claim(
            "SGD generalizes better from the small regime than from the large one",
            regimes[1],
            regimes[0],
            paper=f"section {section}, in words",
            otherwise=_SEEDS,
        ),
        Claim(
            "both selective rules generalize better than SGD from the large regime",
            "; ".join(text for _, text in selective),
            all(held for held, _ in selective),
            paper=f"section {section}, in words",
            otherwise="With a rate for another width they take too much or too little.",
        ),
        Claim(
            "Metric from the large regime is among the three worst on the test set",
            f"best first: {_each({rule: mean(runs_of.end(rule, 'test')) for rule in order})}",
            "Metric large" in order[-3:],
            paper=f"section {section}, in words",
            otherwise="At a rate this far below the learning rate it is SGD but for little.",
        ),
    )


def _of_norms(runs_of: _Runs, task: str, activation: Activation) -> tuple[Claim, ...]:
    start, end = runs_of.first.loc["SGD large"]["norm"], runs_of.end("SGD large", "norm")
    changes = np.abs(end / start - 1)
    change = float(np.max(changes))
    smaller = difference(runs_of.end("SGD large", "norm"), runs_of.end("SGD small", "norm"))
    found_at_end = {rule: mean(runs_of.end(rule, "norm")) for rule in LOOKS}
    ends = {rule: one.value for rule, one in found_at_end.items()}
    said = _each(found_at_end)
    found = [
        Claim(
            "without regularization the norm from the large regime stays about as it was",
            f"it changes by {mean(100 * changes):.2g} %, by at most {change:.1%}",
            change < 0.1,
            paper="section 5.3, in words: relatively constant",
            otherwise="Training itself moves weights by a tenth and more at these rates.",
        ),
        Claim(
            "the small regime ends at a smaller norm than the large one",
            f"SGD small {found_at_end['SGD small']:.3g}, large {found_at_end['SGD large']:.3g}",
            smaller.above(),
            paper="section 5.3, in words",
            otherwise=_SEEDS,
        ),
        Claim(
            "every decay from the large regime ends at a smaller norm than SGD there",
            said,
            all(ends[r] < ends["SGD large"] for r in LOOKS if "L2" in r),
            paper=f"Table {'5.1' if activation == 'tanh' else '5.2'}",
            otherwise="What is selected may be nothing at these thresholds.",
        ),
    ]
    if task == "cifar10":
        decays = [rule for rule in LOOKS if "L2" in rule]
        shrunk = abs(ends["Metric large"] / ends["SGD large"] - 1)
        found += [
            Claim(
                "Metric has very little effect on the norm of the large regime",
                f"{ends['Metric large']:.4g} against SGD's {ends['SGD large']:.4g}",
                shrunk < 0.05,
                paper="171.53 against 172.3" if activation == "tanh" else "178.02 against 169.67",
                otherwise="A rate times fifty for fewer steps is not the same to a Hessian.",
            ),
            Claim(
                "L2 and the selective rules end below the norm of SGD from the small regime",
                said,
                all(ends[rule] < ends["SGD small"] for rule in decays),
                paper=f"section 5.6; Table {'5.1' if activation == 'tanh' else '5.2'}",
                otherwise="A threshold for another network selects less or nothing.",
            ),
        ]
    if task == "xor":
        both = [ends["Selective L2"], ends["L2 Stopped Selective"]]
        found.append(
            Claim(
                "Selective L2 and L2 Stopped Selective end at similar norms (within a fifth)",
                " and ".join(f"{value:.3g}" for value in both),
                max(both) <= 1.2 * min(both),
                paper="16.41 and 15.23" if activation == "tanh" else "14.85 and 12.63",
                otherwise="The one starts its selection 280 epochs later.",
            )
        )
    return tuple(found)


def _each(ends: Mapping[str, Mean]) -> str:
    """Means of rules with their standard errors over the runs."""
    return ", ".join(f"{rule} {one:.3g}" for rule, one in ends.items())


def _ranked(table: pd.DataFrame, task: str, rule: str) -> str:
    """A rule with its ranks on the training and the test set, as the dissertation's legends."""
    last = table.groupby(["rule", "seed"])[["train", "test"]].last().groupby("rule").mean()
    sign = -1 if SETS[task][1] else 1
    ranks = (sign * last).fillna(np.inf).rank(method="min").astype(int).loc[rule]
    return f"{rule} ({ranks['train']})" if task == "xor" else f"{rule} {(*ranks.tolist(),)}"


def _scaled(axes: Axes, table: pd.DataFrame, what: What, accuracy: bool) -> None:
    if what == "norm" or not accuracy:
        values = table[what][table[what] > 0]
        if len(values) and values.max() > 30 * values.quantile(0.02):
            axes.set_yscale("log")
            axes.set_ylim(max(values.min() / 1.5, 1e-4), None)
        else:
            axes.set_ylim(0, None)
    else:
        low = table.groupby(["rule", "step"])[what].mean()
        axes.set_ylim(max(0.0, float(low.quantile(0.1)) - 0.1), 1.01)
