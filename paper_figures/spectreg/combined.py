"""Table 3 and Figure 5 of the SpectReg paper: with a confidence penalty; DoubleBack's weight."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.evidence import Mean, difference
from paper_figures.evidence import mean as mean_of
from paper_figures.figure import Claim, Drawing

RULES = ("baseline", "SpectReg", "DoubleBack")
CP = "CP"
NAMES = tuple(
    f"{rule}{with_cp}" for with_cp in ("", f" and {CP}") for rule in RULES
)  # the baseline with the confidence penalty is that penalty alone
PAPER_3 = dict(zip(NAMES, ((97.39, 0.11), (97.79, 0.12), (97.89, 0.12),
                           (97.57, 0.15), (97.89, 0.12), (98.07, 0.09)), strict=True))  # fmt: skip
_ALONE = "baseline and CP"
_COLOURS = (style.BLUE, style.ORANGE, style.GREEN, style.RED)
_NEAR = (
    "The draws of the training set move the accuracy by more than the penalties do; at smaller "
    "scales the network, the images or the steps are fewer than the paper's."
)


def figure_5(conditions: Conditions) -> Drawing:
    """Weight loss and test accuracy over DoubleBack's weight, a colour a weight decay."""
    table = measured(conditions, "5")
    picture = style.picture(style.PAGE, 2.6)
    loss, accuracy = picture.subplots(1, 2)
    for colour, (decay, rows) in zip(_COLOURS, table.groupby("decay"), strict=False):
        _over_weight(accuracy, rows, "test", float(decay), colour)
        _over_weight(loss, rows, "weight loss", float(decay), colour)
    weights = sorted(table["weight"].unique())
    for axes in (loss, accuracy):
        axes.set_xticks(range(len(weights)), [f"{weight:g}" for weight in weights])
        axes.set_xlabel(r"DoubleBack's $\lambda$")
    loss.set(ylabel=r"weight loss, $|W|^2 / 2$", yscale="log")
    accuracy.set(ylabel="test accuracy (%)", ylim=(0, 102))
    handles, labels = accuracy.get_legend_handles_labels()
    title = f"weight decay; {table['data'].iloc[0]}, mean and standard error"
    picture.legend(handles, labels, loc="outside upper center", ncols=4, title=title)
    return Drawing(picture, table, claims_of_weights(table))


def table_3(conditions: Conditions) -> Drawing:
    """Test accuracies with and without the confidence penalty, the paper's beside ours."""
    table = measured(conditions, "table-3")
    accuracies, settings = chosen(table)
    picture = style.picture(style.PAGE, 2.4)
    ours, theirs = picture.subplots(1, 2)
    _bars(ours, {name: mean_of(accuracies[name]) for name in NAMES})
    _bars(theirs, {name: Mean(v, sd / np.sqrt(10), 10) for name, (v, sd) in PAPER_3.items()})
    ours.set(title=f"ours: {table['data'].iloc[0]}", ylabel="test accuracy (%)")
    theirs.set(title="the paper: small MNIST")
    picture.legend(*ours.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    shown = accuracies.reset_index().melt("draw", var_name="rule", value_name="test accuracy")
    shown = shown.join(pd.DataFrame(settings).T.rename_axis("rule"), on="rule")
    return Drawing(picture, shown, claims_of_confidence(accuracies))


def measured(conditions: Conditions, figure: str) -> pd.DataFrame:
    """A row a setting and draw: accuracies in percent, the weight loss, where the data are from."""
    rows = []
    swept = computed("spectreg-combined", conditions, lambda cell: cell.figure == figure)
    for cell, result in swept.results.items():
        small = cell.small
        for i, decay in enumerate(small.decays):
            for j, weight in enumerate(small.weights):
                for k, confidence in enumerate(cell.confidences):
                    rows.append(
                        {"rule": small.rule, "decay": decay, "weight": weight,
                         "confidence": confidence, "draw": small.draw, "tuning": small.tuning,
                         "validation": 100 * float(result["validation"][i, j, k]),
                         "test": 100 * float(result["test"][i, j, k]),
                         "weight loss": float(result["weight loss"][i, j, k]),
                         "data": result["source"]}
                    )  # fmt: skip
    return pd.DataFrame(rows)


def chosen(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, dict[str, float]]]:
    """Test accuracies of the draws reported, with the weights that the tuning draws choose.

    Args:
        table: What `measured` gives.

    Returns:
        A row a draw and a column for each of `NAMES`; and by name the weights.
    """
    tuning, reported = table[table["tuning"]], table[~table["tuning"]]
    validation = tuning.groupby(["rule", "weight", "confidence"])["validation"].mean()
    columns, settings = {}, {}
    for name in NAMES:
        rule = name.partition(" ")[0]
        sure = validation[rule].reset_index()
        sure = sure[(sure["confidence"] > 0) == name.endswith(CP)]
        best = sure.loc[sure["validation"].idxmax()]
        settings[name] = {"weight": float(best["weight"]), "confidence": float(best["confidence"])}
        rows = reported[
            (reported["rule"] == rule)
            & (reported["weight"] == best["weight"])
            & (reported["confidence"] == best["confidence"])
        ]
        columns[name] = rows.set_index("draw")["test"]
    return pd.DataFrame(columns), settings


def claims_of_confidence(accuracies: pd.DataFrame) -> tuple[Claim, ...]:
    """What section 4.3 says of Table 3, draw by draw.

    Args:
        accuracies: In percent, a row a draw, a column for each of `NAMES`.
    """
    singles = ("SpectReg", "DoubleBack", _ALONE)
    return (
        _all_gain("all regularizers improve upon the baseline", accuracies,
                  [(name, "baseline") for name in singles]),
        _all_gain("gradient regularization performs better than the confidence penalty",
                  accuracies, [(name, _ALONE) for name in RULES[1:]]),
        _all_gain("DoubleBack performs best", accuracies,
                  [("DoubleBack", name) for name in ("SpectReg", _ALONE)]),
        _all_gain("the benefits of gradient regularization and of the confidence penalty add up",
                  accuracies, [(f"{rule} and CP", without) for rule in RULES[1:]
                               for without in (rule, _ALONE)]),
    )  # fmt: skip


def claims_of_weights(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What appendix D says of Figure 5.

    Args:
        table: A row a weight decay, weight and draw, with `test` and `weight loss`.
    """
    by_decay = {float(decay): rows for decay, rows in table.groupby("decay")}
    accuracy = {d: rows.pivot_table("test", "draw", "weight") for d, rows in by_decay.items()}
    norms = {d: rows.pivot_table("weight loss", "draw", "weight") for d, rows in by_decay.items()}
    best = {d: float(a.mean().idxmax()) for d, a in accuracy.items()}
    last = {d: float(a.columns[-1]) for d, a in accuracy.items()}
    collapse = {d: _collapse(a) for d, a in accuracy.items()}
    plain, decayed = 0.0, [d for d in by_decay if d > 0]
    gains = {d: difference(a[best[d]], a[0.0]) for d, a in accuracy.items()}
    below = {d: difference(n[best[d]], n[0.0]) for d, n in norms.items()}
    above = {d: difference(n[last[d]], n[0.0]) for d, n in norms.items()}
    places = [collapse[d] for d in by_decay]
    grid = [float(weight) for weight in next(iter(accuracy.values())).columns]
    near = None not in places and np.ptp([grid.index(p) for p in places if p is not None]) <= 1
    return (
        Claim(
            "accuracy rises with DoubleBack's weight, whatever the weight decay",
            _listed({d: f"{gains[d]:+.2f} points at {best[d]:g}" for d in by_decay}),
            all(gain.above() for gain in gains.values()),
            paper="appendix D, in words: a positive correlation",
            otherwise=_NEAR,
        ),
        Claim(
            "beyond some weight accuracy collapses: to less than half of its best",
            _listed({d: "never" if collapse[d] is None else f"at {collapse[d]:g}"
                     for d in by_decay}),
            all(place is not None for place in places),
            paper="around 20",
            otherwise="The weights tried do not go far enough for this network.",
        ),
        Claim(
            "where it collapses does not depend on the weight decay: by a step of the grid at most",
            _listed({d: "never" if collapse[d] is None else f"{collapse[d]:g}" for d in by_decay}),
            bool(near),
            paper="around 20, regardless of the amount of weight decay",
            otherwise="A weight decay strong enough to matter moves it.",
        ),
        Claim(
            "without weight decay DoubleBack takes its role: the weight loss falls",
            f"by {-1 * below[plain].value:.3g} ± {below[plain].error:.2g} of "
            f"{norms[plain][0.0].mean():.3g}, at {best[plain]:g}, of the best accuracy",
            below[plain].below(),
            paper="Figure 5, in words",
            otherwise="A penalty on the gradient by the inputs is also met by larger weights that "
            "fit each training point with a flat loss.",
        ),
        Claim(
            "with weight decay DoubleBack counteracts it below the transition: the weight loss "
            "rises",
            _listed({d: f"{below[d]:+.3g} of {norms[d][0.0].mean():.3g} at {best[d]:g}"
                     for d in decayed}),
            all(below[d].above() for d in decayed),
            paper="Figure 5, in words",
            otherwise="Where the decay is weak the penalty itself shrinks the weights, as it does "
            "without any.",
        ),
        Claim(
            "above the transition it reinforces weight decay: the weight loss falls below that "
            "without DoubleBack",
            _listed({d: f"{above[d]:+.3g} of {norms[d][0.0].mean():.3g} at {last[d]:g}"
                     for d in decayed}),
            all(above[d].below() for d in decayed),
            paper="Figure 5, in words",
            otherwise="The weights tried do not go far enough beyond it.",
        ),
    )  # fmt: skip


def _collapse(accuracy: pd.DataFrame) -> float | None:
    """The first weight from which on the mean accuracy is under half of its best."""
    means = accuracy.mean()
    after = means[means.index >= means.idxmax()]
    under = after[after < means.max() / 2]
    return float(under.index[0]) if len(under) else None


def _all_gain(says: str, accuracies: pd.DataFrame, pairs: list[tuple[str, str]]) -> Claim:
    """Each first of a pair is ahead of its second by more than two standard errors."""
    gains = {pair: difference(accuracies[pair[0]], accuracies[pair[1]]) for pair in pairs}
    return Claim(
        says,
        "; ".join(f"{a} over {b} {gain:+.2f}" for (a, b), gain in gains.items())
        + f" points, paired over {len(accuracies)} draws",
        all(gain.above() for gain in gains.values()),
        paper="; ".join(f"{PAPER_3[a][0] - PAPER_3[b][0]:+.2f}" for a, b in pairs),
        otherwise=_NEAR,
    )


def _listed(by_decay: dict[float, str]) -> str:
    return "; ".join(f"decay {decay:g}: {text}" for decay, text in by_decay.items())


def _over_weight(axes: Axes, rows: pd.DataFrame, what: str, decay: float, colour: str) -> None:
    """Weights at equal distances, for one of them is 0."""
    runs = rows.groupby("weight")[what]
    middle, error = runs.mean(), runs.sem()
    axes.errorbar(range(len(middle)), middle, error, marker="o", markersize=3, color=colour,
                  capsize=1.5, label=f"{decay:g}")  # fmt: skip


def _bars(axes: Axes, values: dict[str, Mean]) -> None:
    """Without and with the confidence penalty, beside each other."""
    for i, (label, colour, end) in enumerate(
        (("without CP", style.BLUE, ""), ("with CP", style.RED, " and CP"))
    ):
        found = [values[f"{rule}{end}"] for rule in RULES]
        axes.errorbar(np.arange(3) + 0.16 * (i - 0.5), [v.value for v in found],
                      [v.error for v in found], fmt="os"[i], color=colour, markersize=4,
                      capsize=2, label=f"{label}, standard error")  # fmt: skip
    axes.set_xticks(range(3), RULES)
    axes.set_xlim(-0.5, 2.5)
