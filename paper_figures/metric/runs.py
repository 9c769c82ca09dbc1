"""The learning rules of the dissertation on Metric regularization: its numbers, our runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from analysis.studies.metric.rules import DECIDING, READ_TWICE, Reading

Activation = Literal["tanh", "relu"]

RULES = (
    "SGD small",
    "SGD large",
    "Metric small",
    "Metric large",
    "Gauss-Newton Metric small",
    "Gauss-Newton Metric large",
    "Shrinking Metric small",
    "Shrinking Metric large",
    "L2",
    "Selective L2",
    "L2 Stopped",
    "L2 Stopped Selective",
)
SETS = {  # by task: heading, and whether the numbers are accuracies
    "xor": ("XOR", True),
    "xord": ("XORD", False),
    "mnist": ("MNIST", True),
    "synthetic": ("Synthetic", False),
    "cifar10": ("CIFAR-10", True),
}
TABLED = tuple(SETS)
GENERALIZING = ("xord", "mnist", "synthetic", "cifar10")  # XOR has nothing to test on

# Tables 5.1 and 5.2: train, test, norm, of the rules but for ours, in the order of RULES.
PRINTED: dict[tuple[Activation, str], tuple[tuple[float, float, float], ...]] = {
    ("tanh", "xor"): (
        (1.0, np.nan, 7.18), (1.0, np.nan, 27.08), (1.0, np.nan, 6.83), (1.0, np.nan, 24.12),
        (1.0, np.nan, 18.44), (0.975, np.nan, 16.41), (1.0, np.nan, 20.7), (1.0, np.nan, 15.23),
    ),
    ("tanh", "xord"): (
        (0.74, 17.64, 12.18), (0.0001, 60.8, 90.88), (1.675, 16.9, 11.59), (0.0004, 43.36, 95.05),
        (1.0, 73.3, 92.41), (0.75, 19.31, 34.61), (0.0025, 78.53, 89.72), (0.62, 28.33, 47.09),
    ),
    ("tanh", "mnist"): (
        (0.995, 0.97, 209.89), (0.96, 0.703, 4170.87), (0.976, 0.96, 187.21),
        (0.724, 0.706, 3041.36), (0.937, 0.934, 98.82), (0.968, 0.96, 101.9),
        (0.992, 0.949, 301.89), (0.968, 0.959, 124.78),
    ),
    ("tanh", "synthetic"): (
        (0.107, 15.22, 23.49), (0.252, 48.64, 146.22), (27.57, 29.09, 12.46),
        (27.56, 29.09, 110.02), (17.41, 22.67, 5.38), (0.189, 17.68, 29.69), (8.46, 15.23, 15.91),
        (11.36, 16.59, 11.24),
    ),
    ("tanh", "cifar10"): (
        (1.0, 0.673, 71.35), (1.0, 0.6, 172.3), (1.0, 0.6751, 71.23), (1.0, 0.6, 171.53),
        (1.0, 0.658, 42.79), (0.9375, 0.66, 59.59), (1.0, 0.675, 52.79), (0.859, 0.62, 50.13),
    ),
    ("relu", "xor"): (
        (1.0, np.nan, 5.0), (1.0, np.nan, 24.49), (1.0, np.nan, 4.84), (0.95, np.nan, 22.16),
        (1.0, np.nan, 16.77), (1.0, np.nan, 14.85), (1.0, np.nan, 18.80), (1.0, np.nan, 12.63),
    ),
    ("relu", "xord"): (
        (0.0, 6.60, 8.35), (17.87, 8.56, 31.89), (0.20, 5.50, 7.3), (38.65, 10.32, 25.53),
        (21.28, 8.30, 21.52), (22.30, 8.80, 18.39), (19.26, 8.37, 26.21), (22.79, 8.54, 16.49),
    ),
    ("relu", "mnist"): (
        (0.998, 0.97, 209.39), (1.0, 0.95, 4160.49), (0.96, 0.96, 181.96), (0.99, 0.92, 3706.94),
        (0.95, 0.95, 98.86), (0.99, 0.95, 377.67), (1.0, 0.96, 301.13), (1.0, 0.96, 212.54),
    ),
    ("relu", "synthetic"): (
        (0.0, 23.41, 16.99), (0.002, 34.09, 60.29), (22.58, 24.31, 20.36), (6.06, 30.58, 41.57),
        (0.42, 24.83, 26.17), (1.41, 23.60, 21.60), (0.02, 27.88, 36.0), (1.42, 23.75, 20.75),
    ),
    ("relu", "cifar10"): (
        (1.0, 0.66, 65.96), (0.9, 0.49, 169.67), (1.0, 0.65, 66.38), (1.0, 0.54, 178.02),
        (0.99, 0.62, 40.03), (0.97, 0.63, 55.41), (1.0, 0.62, 50.47), (0.97, 0.62, 48.75),
    ),
}  # fmt: skip
THEIRS = tuple(rule for rule in RULES if not rule.startswith(("Gauss", "Shrinking")))


def runs(
    conditions: Conditions, activation: Activation, task: str | None = None
) -> Iterator[tuple[Any, Any]]:
    """Cells and results, each rule in the reading of its rates that is nearer to the tables.

    Args:
        conditions: Under which the studies are computed.
        activation: Of the hidden units.
        task: One of `SETS`; all of them by default. CIFAR-10 has one reading.
    """
    if task != "cifar10":
        yield from _in_the_better_reading(conditions, activation, task)
    if task in (None, "cifar10"):
        for cell, result in computed("metric-cifar10", conditions).results.items():
            if (cell.task, cell.activation) == ("cifar10", activation):
                yield cell, result


def _in_the_better_reading(
    conditions: Conditions, activation: Activation, task: str | None
) -> Iterator[tuple[Any, Any]]:
    results = computed("metric-rules", conditions).results
    better = nearer(distances(every_end(results)))
    for cell, result in results.items():
        if cell.activation != activation or task not in (None, cell.task):
            continue
        if cell.reading == better.get(cell.rule, "a step") or (
            cell.reading == "a step" and cell.task not in DECIDING and cell.rule in READ_TWICE
        ):
            yield cell, result


def ends(conditions: Conditions, activation: Activation) -> pd.DataFrame:
    """A row a run: what Tables 5.1 and 5.2 have a column for, at the end of training.

    XORD's errors are sums over the examples, as there; the synthetic set's are means. A run whose
    parameters are no longer finite has NaNs.
    """
    return _ends(runs(conditions, activation))


def every_end(results: Any) -> pd.DataFrame:
    """The same of all runs, in both readings."""
    return _ends(results.items())


def _ends(found: Any) -> pd.DataFrame:
    rows = []
    for cell, result in found:
        what = "accuracy" if SETS[cell.task][1] else "loss"
        for j, seed in enumerate(cell.seeds):
            norm = float(result["norm"][j, -1])
            row = {"set": cell.task, "rule": name(cell.rule, cell.regime), "seed": seed}
            for part in ("train", "test"):
                value = float(result[f"{part}_{what}"][j, -1])
                value *= int(result[f"{part}_number"]) if cell.task == "xord" else 1
                row[part] = value if np.isfinite(norm) else np.nan
            row["test"] = np.nan if cell.task == "xor" else row["test"]
            row["norm"] = norm if np.isfinite(norm) else np.nan
            size = f", {cell.examples} by {cell.inputs}" if cell.task == "synthetic" else ""
            row |= {"steps": cell.steps, "data": result["source"] + size}
            rows.append(row | {"activation": cell.activation, "family": cell.rule,
                               "reading": cell.reading})  # fmt: skip
    return pd.DataFrame(rows)


def distances(table: pd.DataFrame) -> pd.DataFrame:
    """How far each rule of two readings ends from the tables, by set and activation.

    Args:
        table: As `every_end` gives it.

    Returns:
        A row a set, activation, rule and reading, with `distance`: the mean over training, test and
        norm of the difference of accuracies, or of the logarithms to base 10 of errors (at least
        1e-3) and of norms over that of SGD from the same regime, which depends less on the width;
        at most 1 each, which is also that of a run that diverged.
    """
    rows = []
    twice = table[table["family"].isin(READ_TWICE) & table["set"].isin(DECIDING)]
    for keys, group in twice.groupby(["set", "activation", "rule", "family", "reading"]):
        of, activation, rule, family, reading = keys  # pyright: ignore
        regime = "small" if rule.endswith("small") else "large"
        paper = printed(activation).set_index(["set", "rule"])
        theirs, theirs_sgd = paper.loc[(of, rule)], paper.loc[(of, f"SGD {regime}")]
        is_sgd = (table["set"] == of) & (table["activation"] == activation)
        sgd = table[is_sgd & (table["rule"] == f"SGD {regime}")]["norm"].mean()
        apart = []
        for column in ("train", "test", "norm"):
            if np.isnan(theirs[column]):
                continue
            ours, goal = group[column].to_numpy(float), float(theirs[column])
            if column == "norm":
                each = np.abs(np.log10(ours / sgd) - np.log10(goal / theirs_sgd["norm"]))
            elif SETS[of][1]:
                each = np.abs(ours - goal)
            else:
                each = np.abs(np.log10(np.maximum(ours, 1e-3)) - np.log10(max(goal, 1e-3)))
            apart.append(np.minimum(np.nan_to_num(each, nan=1.0), 1.0).mean())
        rows.append({"set": of, "activation": activation, "rule": rule, "family": family,
                     "reading": reading, "distance": float(np.mean(apart))})  # fmt: skip
    columns = ["set", "activation", "rule", "family", "reading", "distance"]
    return pd.DataFrame(rows, columns=columns)


def nearer(table: pd.DataFrame) -> dict[str, Reading]:
    """By rule, the reading with the smaller mean distance over sets, activations and regimes."""
    means = table.groupby(["family", "reading"])["distance"].mean()
    return {family: one.droplevel("family").idxmin() for family, one in means.groupby("family")}


def name(rule: str, regime: str) -> str:
    """A rule as the tables call it; those from large weights alone go without a regime."""
    words = {"sgd": "SGD", "metric": "Metric", "gauss-newton": "Gauss-Newton", "l2": "L2"}
    text = " ".join(words.get(word, word.capitalize()) for word in rule.split())
    return f"{text} {regime}" if text.endswith(("SGD", "Metric")) else text


def printed(activation: Activation) -> pd.DataFrame:
    """The dissertation's numbers, one run a rule; its spreads are left out."""
    rows = [
        {"set": of, "rule": rule, "seed": 0, "train": train, "test": test, "norm": norm}
        for (function, of), numbers in PRINTED.items()
        if function == activation
        for rule, (train, test, norm) in zip(THEIRS, numbers, strict=True)
    ]
    return pd.DataFrame(rows)
