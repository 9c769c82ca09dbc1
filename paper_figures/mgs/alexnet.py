"""Figure 3 of the MGS paper: an AlexNet variant on wrong labels, accuracy and kernel."""

from __future__ import annotations

from textwrap import fill

import numpy as np
import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from analysis.studies.mgs.label_noise import LAST
from paper_figures import style
from paper_figures.evidence import difference, least, mean, resampled, spearman
from paper_figures.figure import Claim, Drawing

LOOKS = {
    "none": (style.GREY, "unregularized"),
    "dropout": (style.ORANGE, "dropout"),
    "weight": (style.BLUE, "weight"),
    "loss gradient": (style.GREEN, "loss gradient"),
    "MGS": (style.RED, "MGS (trace)"),
}
_FEW = "Two or three seeds of a narrow network, and factors from a coarse grid, which is ours."


def figure_3(conditions: Conditions) -> Drawing:
    """Test accuracy, trace and log-determinant of the tangent kernel while training."""
    table, about = measured(conditions)
    picture = style.picture(style.PAGE, 2.6)
    panels = picture.subplots(1, 3, sharex=True)
    shows = {
        "test accuracy": "test accuracy (%)",
        "trace": r"$\mathrm{tr}\, K_\theta$",
        "logdet": r"$\log \det (K_\theta + 0.01)$",
    }
    for axes, (what, label) in zip(panels, shows.items(), strict=True):
        for method, (colour, name) in LOOKS.items():
            rows = table[table["regularizer"] == method].groupby("step")[what]
            middle = rows.mean()
            axes.plot(middle.index, middle, color=colour, linewidth=1.2, label=name)
            axes.fill_between(middle.index, rows.min(), rows.max(), color=colour, alpha=0.12,
                              linewidth=0)  # fmt: skip
        axes.set_ylabel(label)
    panels[0].set_ylim(0, 102)
    panels[1].set_yscale("log")
    picture.supxlabel("steps", fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=5, title=fill(about, 75))
    return Drawing(picture, table, claims(table))


def measured(conditions: Conditions) -> tuple[pd.DataFrame, str]:
    """A row a regularizer, seed and sample; and what was trained on what."""
    frames, about = [], ""
    for cell, result in computed("mgs-alexnet", conditions).results.items():
        for j, seed in enumerate(cell.seeds):
            frames.append(pd.DataFrame({
                "regularizer": cell.method,
                "factor": float(result["factor"]),
                "seed": seed,
                "step": np.asarray(result["step"]),
                "test accuracy": 100 * np.asarray(result["test_accuracy"][j], float),
                "training loss": np.asarray(result["train_loss"][j], float),
                "trace": np.asarray(result["trace"][j], float),
                "logdet": np.asarray(result["logdet"][j], float),
            }))  # fmt: skip
        about = (
            f"five convolutions, {int(result['parameters']):,} parameters, on {cell.examples} of "
            f"{result['source']}"
        )
    return pd.concat(frames, ignore_index=True), about


def claims(table: pd.DataFrame) -> tuple[Claim, ...]:
    """What section 4 says of Figure 3.

    Args:
        table: As `measured` gives it.
    """
    groups = table.groupby(["regularizer", "seed"])
    final = groups["test accuracy"].apply(lambda run: run.iloc[-LAST:].mean())
    lost = groups["test accuracy"].max() - final
    trace, logdet = groups["trace"].last(), groups["logdet"].last()
    methods = [method for method in LOOKS if method != "none"]
    growth = {m: difference(np.log(trace["none"]), np.log(trace[m])) for m in methods}
    dets = {m: difference(logdet["none"], logdet[m]) for m in methods}
    order = {
        name: _ranks(values.unstack(), final.unstack())
        for name, values in (("trace", trace), ("log-determinant", logdet))
    }
    steadier = {m: difference(lost[m], lost["MGS"]) for m in LOOKS if m != "MGS"}
    said = _listed(final, "{:.1f}")
    return (
        Claim(
            "the unregularized network over-fits: its accuracy falls from its highest",
            f"by {mean(lost['none']):.1f} points, to {final['none'].mean():.1f} %",
            bool((lost["none"] > 5).all()),
            paper="section 4, in words",
            otherwise=_FEW,
        ),
        Claim(
            "with every regularizer the trace of the kernel ends smaller than without any",
            f"at the end {_listed(trace, '{:.3g}')}; its logarithm is smaller by "
            f"{least(growth, '.2f')}",
            all(one.above() for one in growth.values()),
            paper="section 4, in words: the rate of growth is decreased",
            otherwise="A small weight or rate of dropout changes the kernel by less than seeds do.",
        ),
        Claim(
            "with every regularizer the determinant of the kernel ends smaller than without any",
            f"its logarithm {_listed(logdet, '{:.4g}')}; smaller by {least(dets, '.0f')}",
            all(one.above() for one in dets.values()),
            paper="section 4, in words",
            otherwise="A small weight or rate of dropout changes the kernel by less than seeds do.",
        ),
        Claim(
            "methods with a smaller kernel at the end have a higher accuracy there",
            f"Spearman over the methods, and 95 % of its bootstrap over seeds: trace "
            f"{_interval(order['trace'])}, log-determinant {_interval(order['log-determinant'])}; "
            f"accuracy {said} %",
            max(value for value, _, _ in order.values()) <= -0.9,
            paper="section 4, in words: strongly correlated",
            otherwise=_FEW,
        ),
        Claim(
            "only MGS keeps its accuracy: every other method loses more of its highest",
            f"points lost {_listed(lost, '{:.1f}')}; more than MGS's by {least(steadier, '.1f')}",
            all(one.above() for one in steadier.values()),
            paper="section 4, in words",
            otherwise="A method that hardly learns has nothing to lose.",
        ),
    )


def _ranks(x: pd.DataFrame, y: pd.DataFrame, draws: int = 2000) -> tuple[float, float, float]:
    """Spearman's correlation of means over seeds, and 95 % of it where seeds are drawn anew.

    Args:
        x: A row a method, a column a seed.
        y: The same of the other quantity.
        draws: How often.
    """
    both = {"x": x.to_numpy(), "y": y.loc[x.index].to_numpy()}
    drawn = [_rank(**one) for one in resampled(both, draws)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return _rank(**both), float(low), float(high)


def _rank(x: np.ndarray, y: np.ndarray) -> float:
    (value,) = spearman(x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True))
    return float(value)


def _interval(found: tuple[float, float, float]) -> str:
    return "{:.2f} in [{:.2f}, {:.2f}]".format(*found)


def _listed(values: pd.Series, form: str) -> str:
    means = values.groupby("regularizer").mean()
    return ", ".join(f"{method} {form.format(means[method])}" for method in LOOKS)
