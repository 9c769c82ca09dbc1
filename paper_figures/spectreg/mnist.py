"""Tables 1 and 6 of the SpectReg paper: penalties on input Jacobians, small training sets."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.stats import ttest_rel

from analysis.scale import Conditions
from analysis.studies import computed
from analysis.studies.spectreg.mnist import PAPER_DECAY, Cell, Timing
from paper_figures import style
from paper_figures.evidence import difference
from paper_figures.figure import Claim, Drawing

PLAIN, DECAY, TUNED = "baseline", "weight decay 0.0005", "weight decay, tuned"
SPECTREG, BOTH = "SpectReg", "SpectReg and decay"
TABLE_1 = (PLAIN, DECAY, TUNED, SPECTREG, BOTH)
TABLE_6 = (DECAY, BOTH, "FrobReg and decay", "JacReg and decay", "DoubleBack and decay")

# Accuracy in percent and its standard deviation over ten training sets.
PAPER_1 = {PLAIN: (97.25, 0.22), DECAY: (97.40, 0.15), SPECTREG: (97.69, 0.11), BOTH: (97.73, 0.13)}
PAPER_6 = {
    DECAY: (97.39, 0.11),  # Table 3
    BOTH: (97.79, 0.12),
    "FrobReg and decay": (97.76, 0.13),
    "JacReg and decay": (97.63, 0.15),
    "DoubleBack and decay": (97.89, 0.12),  # Table 3
}
PAPER_DRAWS = 10
COLOURS = {
    "SpectReg": (style.BLUE, "o"),
    "FrobReg": (style.GREEN, "s"),
    "JacReg": (style.ORANGE, "^"),
    "DoubleBack": (style.PURPLE, "D"),
}


def table_1(conditions: Conditions) -> Drawing:
    """What SpectReg and weight decay gain over neither, beside the paper's."""
    table = measured(conditions)
    accuracies = chosen(table)[list(TABLE_1)]
    picture = style.picture(style.COLUMN, 2.5)
    axes = picture.subplots()
    _rows(axes, accuracies, PAPER_1, _learned(conditions))
    picture.legend(*axes.get_legend_handles_labels(), loc="outside upper left")
    return Drawing(
        picture, _summary(accuracies, PAPER_1, _choice(table)), claims_of_decay(accuracies)
    )


def table_6(conditions: Conditions) -> Drawing:
    """What each penalty gains over weight decay alone, what a step costs, the choice of lambda."""
    table, times = measured(conditions), measured_times(conditions)
    accuracies = chosen(table)[list(TABLE_6)]
    picture = style.picture(style.PAGE, 2.7)
    gains, costs, weights = picture.subplots(1, 3, width_ratios=(1.5, 1, 1.4))
    _rows(gains, accuracies, PAPER_6, _learned(conditions))
    picture.legend(*gains.get_legend_handles_labels(), loc="outside upper left")
    _costs(costs, times)
    by_weight = _weights(weights, table)
    picture.legend(*weights.get_legend_handles_labels(), loc="outside upper right", ncols=2)
    shown = pd.concat(
        [_summary(accuracies, PAPER_6, _choice(table)), by_weight, times.reset_index()]
    )
    claims = (*claims_of_penalties(accuracies), *claims_of_cost(times))
    return Drawing(picture, shown, claims)


def measured(conditions: Conditions) -> pd.DataFrame:
    """A row a rule, weight decay, lambda and draw: accuracies in percent."""
    rows = []
    for cell, result in computed("spectreg-mnist", conditions).results.items():
        if not isinstance(cell, Cell):
            continue
        for i, decay in enumerate(cell.decays):
            for j, weight in enumerate(cell.weights):
                row = {"rule": cell.rule, "decay": decay, "weight": weight, "draw": cell.draw}
                parts = ("train", "validation", "test")
                accuracies = {part: 100 * float(result[part][i, j]) for part in parts}
                rows.append(row | {"tuning": cell.tuning} | accuracies)
    return pd.DataFrame(rows)


def measured_times(conditions: Conditions) -> pd.DataFrame:
    """A row a network and rule: time and operations of a step over those without a penalty."""
    rows = []
    for cell, result in computed("spectreg-mnist", conditions).results.items():
        if not isinstance(cell, Timing):
            continue
        seconds = np.asarray(result["seconds"])
        # Ratios within a round, which whatever else the machine does slows down together.
        ratios = np.median(seconds / seconds[:1], axis=1)
        over = np.median(seconds / seconds[result["rules"].index("SpectReg")], axis=1)
        counted = np.asarray(result["operations"]) / result["operations"][0]
        network = "LeNet-5" if cell.data == "mnist" else "MLP"
        for i, rule in enumerate(result["rules"]):
            row = {"network": network, "rule": rule, "time": ratios[i], "over SpectReg": over[i]}
            rows.append(row | {"operations": counted[i], "seconds": np.median(seconds[i])})
    return pd.DataFrame(rows).set_index(["network", "rule"])


def chosen(table: pd.DataFrame) -> pd.DataFrame:
    """Test accuracies of the draws reported, a row a draw, with what the tuning draws chose.

    Args:
        table: What `measured` gives. The lambda of a rule and weight decay is the one of the best
            mean validation accuracy over the tuning draws, and so is the tuned weight decay.

    Returns:
        A column for each name in `TABLE_1` and `TABLE_6`.
    """
    reported = table[~table["tuning"]].set_index(["rule", "decay", "weight"])
    return pd.DataFrame(
        {
            name: reported.loc[[setting]].set_index("draw")["test"]
            for name, setting in _choice(table).items()
        }
    )


def _choice(table: pd.DataFrame) -> dict[str, tuple[str, float, float]]:
    """Rule, weight decay and lambda of every name."""
    tuning = table[table["tuning"]]
    validation = tuning.groupby(["rule", "decay", "weight"])["validation"].mean()

    def best(rule: str, decay: float) -> tuple[str, float, float]:
        weights = table.loc[(table["rule"] == rule) & (table["decay"] == decay), "weight"]
        if weights.nunique() == 1:  # the paper's, and no draw was spent on it
            return rule, decay, float(weights.iloc[0])
        return rule, decay, float(validation[rule, decay].idxmax())

    decays = validation["baseline"].droplevel("weight")
    rules = ("FrobReg", "JacReg", "DoubleBack")
    return {
        PLAIN: best("baseline", 0.0),
        DECAY: best("baseline", PAPER_DECAY),
        TUNED: best("baseline", float(decays[decays.index > 0].idxmax())),
        SPECTREG: best("SpectReg", 0.0),
        BOTH: best("SpectReg", PAPER_DECAY),
    } | {f"{rule} and decay": best(rule, PAPER_DECAY) for rule in rules}


def claims_of_decay(accuracies: pd.DataFrame) -> tuple[Claim, ...]:
    """What section 4.1 says of Table 1's first row.

    Args:
        accuracies: In percent, a row a draw, a column for each name in `TABLE_1`.
    """
    small = (
        "The differences are of the size of their standard errors: draws of the training set move "
        "the accuracy by more than penalties do."
    )
    return (
        _gain("SpectReg gains over the baseline without weight decay", accuracies, SPECTREG, PLAIN,
              "97.69 (0.11) against 97.25 (0.22)", small),
        _gain("SpectReg gains over the baseline with weight decay 0.0005", accuracies, BOTH, DECAY,
              "97.73 (0.13) against 97.40 (0.15)", small),
        _gain("SpectReg alone gains more than the paper's weight decay", accuracies, SPECTREG,
              DECAY, "97.69 (0.11) against 97.40 (0.15)", small),
        _gain("SpectReg alone gains more than a tuned weight decay", accuracies, SPECTREG, TUNED,
              "97.69 (0.11) against 97.40 (0.15), tuned to 0.0005", small),
    )  # fmt: skip


def claims_of_penalties(accuracies: pd.DataFrame) -> tuple[Claim, ...]:
    """What sections 4.1 and 4.6 say of Table 6.

    Args:
        accuracies: In percent, a row a draw, a column for each name in `TABLE_6`.
    """
    _, spectreg, frobreg, jacreg, doubleback = TABLE_6
    three = accuracies[[spectreg, frobreg, jacreg]].mean()
    shown = ", ".join(f"{name.split()[0]} {value:.2f}" for name, value in three.items())
    pairs = ((spectreg, jacreg), (spectreg, frobreg), (frobreg, jacreg))
    p = {(a, b): min(3 * _difference(accuracies, a, b)[2], 1.0) for a, b in pairs}
    ps = ", ".join(f"{a.split()[0]}-{b.split()[0]} {value:.2g}" for (a, b), value in p.items())
    mean, error, _ = _difference(accuracies, spectreg, frobreg)
    return (
        Claim(
            "of SpectReg, FrobReg and JacReg, SpectReg performs best",
            shown,
            three.idxmax() == spectreg,
            paper="97.79, 97.76, 97.63",
            otherwise="The order of penalties this alike changes with the draws.",
        ),
        Claim(
            "after Bonferroni correction the only significant difference is between SpectReg and "
            "JacReg",
            f"three times p, paired over {len(accuracies)} draws: {ps}",
            p[spectreg, jacreg] < 0.05
            and p[spectreg, frobreg] >= 0.05
            and p[frobreg, jacreg] >= 0.05,
            paper="97.79 (0.12) against 97.63 (0.15)",
            otherwise="Differences of a few tenths of a percent need more draws of more test "
            "images than these to be significant.",
        ),
        Claim(
            "a random projection loses no accuracy against the full Jacobian of the logits",
            f"{mean:+.2f} ± {error:.2f}",
            mean > -2 * error,
            paper="97.79 (0.12) against 97.76 (0.13)",
            otherwise="The noise of the projection, one draw a batch, is felt with batches this "
            "few and small.",
        ),
        Claim(
            "it is better to control the Jacobian of the logits than of the probabilities",
            shown,
            min(three[spectreg], three[frobreg]) > three[jacreg],
            paper="97.79 and 97.76 against 97.63",
            otherwise="With a weight tuned as freely as the others', a penalty that fades as the "
            "network becomes sure of itself is made up for by its weight.",
        ),
        _gain("DoubleBack slightly outperforms SpectReg on digits (section 4.1)", accuracies,
              doubleback, spectreg, "97.89 (0.12) against 97.79 (0.12), Table 3",
              "On this network and these images the two do not differ beyond their errors."),
    )  # fmt: skip


def claims_of_cost(times: pd.DataFrame) -> tuple[Claim, ...]:
    """What sections 2.4 and 4.6 say of the cost, on the network of the paper.

    Args:
        times: `over SpectReg`, the time of a step over that with SpectReg, and `operations`, by
            network and rule.
    """
    lenet = times.loc["LeNet-5"]
    over = lenet["over SpectReg"]
    operations = lenet["operations"] / lenet["operations"]["SpectReg"]
    return (
        Claim(
            "a random projection significantly reduces the cost: a step with the full Jacobian "
            "takes at least three times as long",
            f"LeNet-5: FrobReg {over['FrobReg']:.1f}, JacReg {over['JacReg']:.1f} times SpectReg "
            f"(operations {operations['FrobReg']:.1f}, {operations['JacReg']:.1f})",
            min(over["FrobReg"], over["JacReg"]) >= 3,
            paper="vastly slower, in proportion to the number of classes (10)",
            otherwise="The ten backward passes of a full Jacobian run side by side, and here a "
            "device with room for them hides most of what they cost.",
        ),
    )


def _difference(accuracies: pd.DataFrame, a: str, b: str) -> tuple[float, float, float]:
    """The mean over draws of a - b, its standard error, and p of the paired t-test."""
    found = difference(accuracies[a], accuracies[b])
    if found.error == 0:
        return found.value, 0.0, float(found.value == 0)
    p = float(ttest_rel(accuracies[a], accuracies[b]).pvalue)  # pyright: ignore
    return found.value, found.error, p


def _gain(
    claim: str, accuracies: pd.DataFrame, a: str, b: str, paper: str, otherwise: str
) -> Claim:
    """That a gains over b, by more than two standard errors of the paired difference."""
    mean, error, _ = _difference(accuracies, a, b)
    measured = (
        f"{accuracies[a].mean():.2f} against {accuracies[b].mean():.2f}: {mean:+.2f} ± "
        f"{error:.2f} over {len(accuracies)} draws"
    )
    return Claim(claim, measured, mean > 2 * error, paper, otherwise)


def _summary(
    accuracies: pd.DataFrame,
    paper: dict[str, tuple[float, float]],
    choice: dict[str, tuple[str, float, float]],
) -> pd.DataFrame:
    rows = []
    for name in accuracies:
        gain, error, p = _difference(accuracies, str(name), accuracies.columns[0])
        rule, decay, weight = choice[str(name)]
        mean, deviation = paper.get(str(name), (np.nan, np.nan))
        row = {"name": name, "rule": rule, "decay": decay, "weight": weight}
        column = accuracies[name]
        row |= {"test": column.mean(), "deviation": column.std(), "error": column.sem()}
        row |= {"draws": len(column), "gain": gain, "gain's error": error, "p": p}
        rows.append(row | {"paper": mean, "paper's deviation": deviation})
    return pd.DataFrame(rows)


def _rows(
    axes: Axes, accuracies: pd.DataFrame, paper: dict[str, tuple[float, float]], learned: str
) -> None:
    """A row a name: gains over the first with standard errors, and the accuracies in print."""
    names = [str(name) for name in accuracies]
    first = names[0]
    axes.axvline(0, color=style.GREY, linewidth=0.8)

    def printed(row: float, points: int, text: str, colour: str) -> None:
        place = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        axes.annotate(text, (1, row), (points, 0), **place, color=colour, va="center", fontsize=7)

    printed(-0.65, 6, "ours", style.BLUE)
    printed(-0.65, 34, "paper", style.RED)
    for row, name in enumerate(names):
        gain, error, _ = _difference(accuracies, name, first)
        axes.errorbar(gain, row - 0.13, xerr=error, fmt="o", color=style.BLUE, markersize=4,
                      label=None if row else learned)  # fmt: skip
        printed(row, 6, f"{accuracies[name].mean():.2f}", style.BLUE)
        if name not in paper:
            continue
        (mean, deviation), (base, base_deviation) = paper[name], paper[first]
        both = np.hypot(deviation, base_deviation) / np.sqrt(PAPER_DRAWS) if row else 0.0
        axes.errorbar(mean - base, row + 0.13, xerr=both, fmt="s", color=style.RED, markersize=4,
                      mfc="white", label=None if row else "the paper: 2,000 of MNIST")  # fmt: skip
        printed(row, 34, f"{mean:.2f}", style.RED)
    labels = [name.replace(" and decay", "") if first == DECAY else name for name in names]
    axes.set_yticks(range(len(names)), labels)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlabel="gain in accuracy (points ± s.e.)")


def _learned(conditions: Conditions) -> str:
    """What ours were trained on."""
    cells = computed("spectreg-mnist", conditions).results.items()
    cell, result = next((c, r) for c, r in cells if isinstance(c, Cell))
    return f"ours: {10 * cell.per_class:,} of {result['source']}"


def _costs(axes: Axes, times: pd.DataFrame) -> None:
    rules = [name.split()[0] for name in TABLE_6[1:]]
    for network, marker, fill in (("LeNet-5", "o", style.BLACK), ("MLP", "s", "white")):
        if network in times.index.get_level_values("network"):
            values = times.loc[network, "time"][rules]
            axes.plot(values, np.arange(1, len(rules) + 1), marker, color=style.BLACK, mfc=fill,
                      markersize=4, label=network)  # fmt: skip
    axes.axvline(1, color=style.GREY, linewidth=0.8)
    axes.set_yticks([])
    axes.set(ylim=(len(TABLE_6) - 0.5, -0.5), xscale="log", xlabel="time of a step (no penalty: 1)")
    ticks = (1, 2, 5, 10, 20, 40)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.legend(loc="upper right", bbox_to_anchor=(1, 1.02))


def _weights(axes: Axes, table: pd.DataFrame) -> pd.DataFrame:
    """Test accuracy over weight decay alone, by rule and lambda, on the draws reported."""
    reported = table[~table["tuning"] & (table["decay"] == PAPER_DECAY)]
    plain = reported[reported["rule"] == "baseline"].set_index("draw")["test"]
    rows = []
    axes.axhline(0, color=style.GREY, linewidth=0.8)
    for rule, (colour, marker) in COLOURS.items():
        for weight, group in reported[reported["rule"] == rule].groupby("weight"):
            gains = group.set_index("draw")["test"] - plain
            row = {"rule": rule, "decay": PAPER_DECAY, "weight": weight, "draws": len(gains)}
            rows.append(row | {"gain": gains.mean(), "gain's error": gains.sem()})
        drawn = pd.DataFrame([row for row in rows if row["rule"] == rule])
        axes.errorbar(drawn["weight"], drawn["gain"], drawn["gain's error"], color=colour,
                      marker=marker, markersize=3.5, label=rule)  # fmt: skip
    axes.set(xscale="log", xlabel=r"weight $\lambda$", ylabel="gain (points)")
    lowest = min(row["gain"] for row in rows)
    axes.set_ylim(bottom=max(lowest, -1.5) - 0.1)
    return pd.DataFrame(rows)
