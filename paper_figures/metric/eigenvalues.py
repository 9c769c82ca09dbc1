"""Figures 5.35 to 5.39 of the dissertation: curvature and norm where its rules end."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from analysis.scale import Conditions
from paper_figures import style
from paper_figures.evidence import difference, mean
from paper_figures.figure import Claim, Drawing
from paper_figures.metric.looks import LOOKS
from paper_figures.metric.runs import GENERALIZING, SETS, Activation, ends, name, runs

_FLAT = "Their Hessians differ by less than seeds do, where all fit the training set alike."


def figure_eigenvalues(conditions: Conditions, task: str, activation: Activation) -> Drawing:
    """The largest eigenvalues of the Hessian at the end, two standard deviations about them."""
    rows = []
    for cell, result in runs(conditions, activation, task):
        rule = name(cell.rule, cell.regime)
        if rule not in LOOKS:
            continue
        for j, seed in enumerate(cell.seeds):
            values = np.sort(np.asarray(result["eigenvalues"][j], float))[::-1]
            rows += [
                {"rule": rule, "seed": seed, "rank": i + 1, "eigenvalue": value,
                 "data": result["source"]}
                for i, value in enumerate(values)
            ]  # fmt: skip
    table = pd.DataFrame(rows)
    picture = style.picture(style.PAGE, 3.4)
    panels = picture.subplots(2, 4, sharex=True)
    for axes, (rule, (colour, _)) in zip(panels.flat, LOOKS.items(), strict=True):
        groups = table[table["rule"] == rule].groupby("rank")["eigenvalue"]
        axes.bar(groups.mean().index, groups.mean(), color=colour, yerr=2 * groups.std(),
                 error_kw={"linewidth": 0.8})  # fmt: skip
        axes.set_title(rule)
        axes.set_ylim(0, None)
    picture.supxlabel("eigenvalue, largest first", fontsize=8)
    picture.supylabel("mean over runs", fontsize=8)
    return Drawing(picture, table, claims(table, task))


def claims(table: pd.DataFrame, task: str) -> tuple[Claim, ...]:
    """What section 5.7 says of a task.

    Args:
        table: Columns rule, seed, rank, eigenvalue.
        task: "xor", "mnist", "synthetic" or "cifar10".
    """
    grid = table.pivot(index=["rule", "seed"], columns="rank", values="eigenvalue")
    top = {rule: grid.loc[rule][1] for rule in LOOKS}
    said = ", ".join(f"{rule} {mean(one):.3g}" for rule, one in top.items())
    words = "section 5.7, in words"
    regimes = [(f"{kind} small", f"{kind} large") for kind in ("SGD", "Metric")]
    apart = {large: difference(top[large], top[small]) for small, large in regimes}
    if task == "synthetic":
        second = grid[2] / grid[1]
        sgd, metric = top["SGD large"], top["Metric large"]
        return (
            Claim(
                "one eigenvalue dominates with every rule: as many as there are outputs",
                f"the second over the first at most {second.groupby('rule').mean().max():.2f} in "
                "the mean of a rule",
                bool(second.groupby("rule").mean().max() < 0.5),
                paper=words,
                otherwise="Several directions are as curved, on a set and a network this small.",
            ),
            Claim(
                "the regimes have the same largest eigenvalue with SGD",
                f"{said}; large less small {apart['SGD large']:.2g}",
                not (apart["SGD large"].above() or apart["SGD large"].below()),
                paper=words,
                otherwise="Beyond two standard errors they differ here.",
            ),
            Claim(
                "Metric makes eigenvalues vary more from run to run than SGD",
                f"standard deviation of the largest, large regime: {metric.std():.3g} against "
                f"{sgd.std():.3g}",
                bool(metric.std() > sgd.std()),
                paper=words,
                otherwise=_FLAT,
            ),
        )
    if task == "cifar10":
        spread = {rule: float(one.std() / one.mean()) for rule, one in top.items()}
        decays = [rule for rule in LOOKS if "L2" in rule]
        larger = [difference(top[rule], top["SGD large"]).above() for rule in decays]
        return (
            Claim(
                "the largest eigenvalue varies most from run to run with Metric from the large "
                "regime",
                "standard deviation over mean: "
                + ", ".join(f"{rule} {value:.2f}" for rule, value in spread.items()),
                max(spread, key=lambda rule: spread[rule]) == "Metric large",
                paper=words,
                otherwise="Three runs a rule tell a spread poorly.",
            ),
            Claim(
                "the decays increase the eigenvalues over those of SGD from the same regime",
                f"{said}; beyond two standard errors with {sum(larger)} of {len(larger)}",
                all(larger),
                paper="section 5.7, in words: tends to",
                otherwise=_FLAT,
            ),
        )
    found = [
        Claim(
            "networks from the small regime have smaller eigenvalues than those from the large one",
            f"largest: {said}",
            all(one.above() for one in apart.values()),
            paper=words,
            otherwise="Large weights leave less loss, and with it less curvature, behind.",
        )
    ]
    large = [rule for rule in LOOKS if not rule.endswith("small")]
    order = sorted(large, key=lambda rule: -float(np.nan_to_num(top[rule].mean(), nan=np.inf)))
    said_order = ", ".join(f"{rule} {mean(top[rule]):.3g}" for rule in order)
    expected = {"xor": {"SGD large", "Metric large"}, "mnist": {"Metric large", "Selective L2"}}
    found.append(
        Claim(
            f"{' and '.join(sorted(expected[task]))} have the largest of all",
            f"largest first: {said_order}",
            set(order[:2]) == expected[task],
            paper=words,
            otherwise=_FLAT,
        )
    )
    return tuple(found)


def figure_norms(conditions: Conditions) -> Drawing:
    """Figure 5.39: test performance against the norm, relative to the largest of a set."""
    rows = []
    for activation in ("tanh", "relu"):
        means = ends(conditions, activation).groupby(["set", "rule"])[["test", "norm"]].mean()
        for of in GENERALIZING:
            here = means.loc[of].reindex(list(LOOKS)).dropna()
            performance = here["test"] if SETS[of][1] else -here["test"]
            shown = performance / performance.abs().max() + (0 if SETS[of][1] else 1)
            relative = here["norm"] / here["norm"].max()
            rows += [
                {"set": of, "activation": activation, "rule": rule, "norm": relative[rule],
                 "performance": shown[rule]}
                for rule in here.index
            ]  # fmt: skip
    table = pd.DataFrame(rows)
    picture = style.picture(style.PAGE, 4.2)
    panels = picture.subplots(2, len(GENERALIZING), sharex=True)
    for row, activation in zip(panels, ("tanh", "relu"), strict=True):
        for axes, of in zip(row, GENERALIZING, strict=True):
            here = table[(table["set"] == of) & (table["activation"] == activation)]
            for one in here.itertuples():
                colour, line = LOOKS[str(one.rule)]
                axes.plot(one.norm, one.performance, "o", color=colour, label=one.rule,
                          fillstyle="none" if line == "--" else "full", markersize=5)  # fmt: skip
            axes.set_title(f"{SETS[of][0]}, {activation}")
    picture.supxlabel("norm of the parameters, of the largest", fontsize=8)
    picture.supylabel("test performance, of the best", fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=4)
    return Drawing(picture, table, claims_of_norms(table))


def claims_of_norms(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What the caption and section 5.8 say.

    Args:
        table: Columns set, activation, rule, norm, performance.
    """
    ranks = {
        f"{SETS[str(of)][0]} {activation}": float(spearmanr(g["norm"], g["performance"]).statistic)
        for (of, activation), g in table.groupby(["set", "activation"], sort=False)  # pyright: ignore
    }
    said = ", ".join(f"{where} {rank:.2f}" for where, rank in ranks.items())
    accuracies = ("MNIST", "CIFAR-10")
    regression = [rank for where, rank in ranks.items() if not where.startswith(accuracies)]
    classes = [rank for where, rank in ranks.items() if where.startswith(accuracies)]
    return (
        Claim(
            "rules that end at a smaller norm do better on the test set, on every set",
            f"Spearman over the rules: {said}",
            max(ranks.values()) < 0,
            paper="Figure 5.39, from the top left to the bottom right",
            otherwise="The norm is an incomplete measure, as the dissertation says itself.",
        ),
        Claim(
            "the relation is clearer for errors than for accuracies",
            f"mean Spearman {np.mean(regression):.2f} against {np.mean(classes):.2f}",
            bool(np.mean(regression) < np.mean(classes)),
            paper="section 5.8, in words",
            otherwise="Eight rules a set are few.",
        ),
    )
