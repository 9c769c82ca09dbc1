"""Figure 5.2 of the dissertation on Metric regularization: eigenvalues with and without a matrix.

Section 5.2 trains a network of layers 100, 10, 5 on the middle 10 by 10 pixels of MNIST's first
five digits and finds the top 15 eigenvalues of its Hessian twice. Where MNIST is not at hand the
8 by 8 pixels of scikit-learn's digits stand in for the middle of MNIST's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures import style
from paper_figures.figure import Claim, Drawing

PAPER_DISTANCE = "0.00002146"


def figure_5_2(conditions: Conditions) -> Drawing:
    """Both sets of eigenvalues as bars side by side."""
    (result,) = computed("metric-power-method", conditions).results.values()
    found = result.values
    picture = style.picture(style.COLUMN, 2.5)
    axes = picture.subplots()
    number = np.arange(1, len(found["exact"]) + 1)
    axes.bar(number - 0.2, np.abs(found["standard"]), 0.38, color=style.BLUE,
             edgecolor="white", label="power method on the full Hessian")  # fmt: skip
    axes.bar(number + 0.2, np.abs(found["matrix_free"]), 0.38, color=style.ORANGE, hatch="////",
             edgecolor="white", label="matrix-free (Algorithm 1, mended)")  # fmt: skip
    for at, value in zip(number, found["exact"], strict=True):
        if value < 0:
            axes.annotate("–", (at, abs(value)), (0, 1), textcoords="offset points", ha="center")
    note = "\n– : negative" if (found["exact"] < 0).any() else ""
    axes.set(xlabel="eigenvalue, largest in magnitude first", ylabel="magnitude")
    axes.set_xticks([1, 5, 10, 15])
    what = f"{found['source']},\n{found['parameters']:,} parameters{note}"
    axes.legend(title=what, title_fontsize=7)
    table = pd.DataFrame(
        {
            "rank": number,
            "full Hessian, power method": found["standard"],
            "matrix-free": found["matrix_free"],
            "full Hessian, LAPACK": found["exact"],
            "data": found["source"],
        }
    )
    return Drawing(picture, table, claims(found))


def claims(found: Mapping[str, Any]) -> tuple[Claim, ...]:
    """The two ways agree, on a network that fits its data.

    Args:
        found: The eigenvalues by each way and how they were found, as the study has them.
    """
    free, standard, exact = found["matrix_free"], found["standard"], found["exact"]
    distance = float(np.linalg.norm(free - standard))
    to_exact = float(np.linalg.norm(free - exact))
    error = np.abs(free - standard) / np.abs(standard)
    return (
        Claim(
            "the matrix-free method finds the same top 15 eigenvalues as the power method on the "
            "full Hessian",
            f"distance {distance:.1e}, its square root {np.sqrt(distance):.1e}; at most "
            f"{error.max():.1e} of an eigenvalue; converged: {found['converged']}, "
            f"{found['products']} products, {found['iterations']} steps of the standard method",
            bool(found["converged"] and error.max() <= 1e-3),
            paper=f"{PAPER_DISTANCE} (square root of the L2 norm)",
            otherwise="Eigenvalues of nearly one size trade places in a power method.",
        ),
        Claim(
            "they are those of the full Hessian by LAPACK",
            f"distance {to_exact:.1e} (matrix-free), "
            f"{np.linalg.norm(standard - exact):.1e} (power method)",
            bool(np.allclose(free, exact, rtol=1e-3)),
            paper="not in the paper",
            otherwise="Eigenvalues of nearly one size trade places in a power method.",
        ),
        Claim(
            "the small network can fit the data",
            f"training accuracy {found['accuracy']:.1%}",
            found["accuracy"] >= 0.95,
            paper="section 5.2, in words",
            otherwise="It is trained too briefly.",
        ),
    )
