"""The page of all optimizers, from the results of its study: `python -m analysis.zoo_page`."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optax
from optax import contrib

import igr
from analysis.studies import study
from analysis.studies.igr.zoo import OPTIMIZERS
from analysis.sweep import committed
from igr.tracing import UnreadableOptimizerError

RESULTS = Path("docs/results/quick/studies")
PAGE = Path("docs/zoo.md")
REFUSED = {
    "lbfgs": optax.lbfgs,
    "polyak_sgd": optax.polyak_sgd,
    "momo": contrib.momo,
    "momo_adam": contrib.momo_adam,
    "sophia": contrib.sophia,
    "noisy_sgd": lambda h: optax.noisy_sgd(h, key=0),
    "dpsgd": lambda h: contrib.dpsgd(h, 1.0, 0.1, 0),
    "galore": contrib.galore,
    "sam": lambda h: contrib.sam(
        optax.sgd(h), optax.chain(contrib.normalize(), optax.sgd(0.05))
    ),
    "rprop": optax.rprop,
}  # fmt: skip
_HEAD = """# The optimizer zoo

Every optimizer of `optax` and `optax.contrib`, handed over as it stands at its defaults,
`igr.from_optax(optax.adam)`, and what was read. This page is written by
`python -m analysis.zoo_page` from the study `igr-zoo`.

*Kind*: trees, linear in the gradient; terms, element by element; rule, code and no formula.
*Eliminated*: the factor by which the slowest memory fades that the equation sums up. *Kept*: states
that stay variables of the flow. *Slopes*: of the error of one step against the flow over the same
time, the optimizer's own code replayed with its clocks slowed as h falls; 2 and 3 are right.
*Stable to*: the largest h times curvature, preconditioned as the method does it, on a quadratic.
*Ratio*: |F₁|/|F₀| on a tanh network on digits after 50 steps at h = 10⁻³; the expansion is
trusted while h times it is below 0.3. A star: signs, maxima or conditions are read smoothed,
`smooth=1e-2`, and the slopes are those of the optimizer so changed. What is refused says why in the
last column.

| optimizer | kind | eliminated | kept | slopes | stable to | ratio | h⁰ | to h¹ | modified loss |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""
_SHORT = 80  # characters of a formula that stands in the table itself
_LONG = 4000  # .. of one that is not printed at all


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The page in Markdown.

    Args:
        found: What `analysis.studies.igr.zoo.run` returned, by optimizer.
    """
    rows = [_row(name, values) for name, values in found.items()]
    nothing = " | ".join(["-"] * 7)
    rows += [f"| {name} | refused | {nothing} | {why} |" for name, why in reasons().items()]
    equations = [_equation(name, values) for name, values in found.items()]
    return "".join(
        [_HEAD, "\n".join(rows), "\n\n## Equations to h\n\n", "\n\n".join(equations), "\n"]
    )


def reasons() -> dict[str, str]:
    """Why each optimizer that is not read is not."""
    found = {}
    for name, make in REFUSED.items():
        try:
            igr.from_optax(make, certify=False)
        except UnreadableOptimizerError as error:
            found[name] = str(error).split(". ")[0].rstrip(".")
    return found


def _row(name: str, values: Mapping[str, Any]) -> str:
    star = "\\*" if OPTIMIZERS[name].jumps else ""
    limit, ratio = float(values["stability_limit"]), float(values["ratio"])
    slopes = ", ".join(f"{float(s):.2f}" for s in values["slopes"])
    cells = [
        name + star,
        values["kind"],
        values["memories"],
        ", ".join(f"`{y}`" for y in values["kept"].split(", ") if y) or "none",
        slopes,
        f"{limit:.3g}" if math.isfinite(limit) else "no quadratic",
        f"{ratio:.3g}" if math.isfinite(ratio) else "not finite",
        _formula(name, values["order_0"]),
        _formula(name, values["order_1"]),
        _loss(name, str(values["loss"])),
    ]
    return "| " + " | ".join(cells) + " |"


def _loss(name: str, loss: str) -> str:
    if not loss.startswith("no"):
        return _formula(name, loss)
    if "is a function and no formula" in loss:
        return "none: code and no formula"
    return _below(name, "none: why")


def _formula(name: str, formula: str) -> str:
    if len(formula) > _SHORT or "\n" in formula:
        return _below(name, "below")
    return f"<code>{html.escape(formula, quote=False).replace('|', '&#124;')}</code>"


def _below(name: str, text: str) -> str:
    """A link to the section of an optimizer, by the name that MkDocs gives it."""
    return f"[{text}](#{re.sub(r'[^a-z0-9_-]', '', name.lower().replace(' ', '-'))})"


def _equation(name: str, values: Mapping[str, Any]) -> str:
    long = len(values["order_1"]) > _LONG
    order = "order_0" if long else "order_1"
    lines = [f"### {name}", "", "```text", values[order], "```"]
    if long:
        size = f"The formula to h¹ has {len(values['order_1']):,} characters"
        lines += ["", f"{size}: `igr.modified_equation` prints it."]
    loss = str(values["loss"])
    said = f"Modified loss: {loss}" if loss.startswith("no") else f"Modified loss: `{loss}`"
    first = said.partition(". ")[0].rstrip(".")
    return "\n".join([*lines, "", f"{first}."])


def main() -> None:
    """Writes the page from the results that are kept."""
    swept = committed(study("igr-zoo", "quick"), RESULTS)
    found = {cell.optimizer: swept[cell].values for cell in swept.study.cells}
    PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
