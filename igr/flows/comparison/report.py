"""A comparison in words: as printed text, in one line, and as HTML."""

from __future__ import annotations

import html as escaping
from typing import TYPE_CHECKING, Any

import numpy as np

from igr.checks import Number

if TYPE_CHECKING:
    from igr.flows.comparison.result import Comparison


def text(cmp: Comparison) -> str:
    """The whole report, with a line for each flow and each remark."""
    return "\n".join([_heading(cmp), *(_of_flow(cmp, p) for p in cmp.distance), *_remarks(cmp)])


def short(cmp: Comparison) -> str:
    """The comparison in one line, its `repr`."""
    names = ", ".join(map(flow_title, cmp.distance))
    return (
        f"<Comparison of {cmp.method}, h = {cmp.learning_rate:g}, {cmp.step[-1]} steps: {names}; "
        f"trusted at {int(np.sum(cmp.trusted))} of {cmp.step.size} records>"
    )


def html(cmp: Comparison) -> str:
    """The comparison as HTML: a table of its flows, and remarks below it."""
    end = cmp.travelled[-1]
    rows = []
    for p, distance in cmp.distance.items():
        cells = [flow_title(p), f"{distance[-1]:.3e}", f"{_share(distance[-1], end):.2e}"]
        if cmp.standard_error:
            cells.append(f"{cmp.standard_error[p][-1]:.1e}")
        rows.append("".join(f"<td>{escaping.escape(c)}</td>" for c in cells))
    titles = ["flow", "distance at the end", "of the way"] + ["standard error"] * bool(
        cmp.standard_error
    )
    head = "".join(f"<th>{title}</th>" for title in titles)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    said = "<br>".join(escaping.escape(line) for line in _remarks(cmp))
    return (
        f"<div><b>{escaping.escape(_heading(cmp))}</b>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{said}</p></div>"
    )


def flow_title(p: Any) -> str:
    """A flow's name in print, such as "order 1"."""
    return p if isinstance(p, str) else f"order {p}"


def _heading(cmp: Comparison) -> str:
    many = f", mean of {cmp.runs} runs" if cmp.runs > 1 else ""
    return (
        f"{cmp.method}, h = {cmp.learning_rate:g}, {cmp.step[-1]} steps{many}, {cmp.start_up}\n"
        f"travelled {cmp.travelled[-1]:.3e}"
    )


def _of_flow(cmp: Comparison, p: Any) -> str:
    name, end, last = flow_title(p), cmp.travelled[-1], cmp.distance[p][-1]
    if p in cmp.failures:
        return f"{name}: could not be followed, {cmp.failures[p]}"
    if not np.isfinite(last):
        last = _last_reached(cmp, p)
        return f"{name}: the flow stopped after step {cmp.step[last]}{_why(cmp, p, last)}"
    error = cmp.standard_error.get(p)
    note = "  (at rounding)" if cmp.at_rounding[p][-1] else ""
    if error is not None:
        within = ", within what the spread of the runs makes" if last <= 2 * error[-1] else ""
        note = f"  (standard error {error[-1]:.1e}{within})" + note
    line = f"{name}: distance at the end {last:.3e}, {_share(last, end):.2e} of it{note}"
    off = cmp.left(p)
    if off is not None:
        line += (
            f"\n  from step {cmp.step[off]} on it is further off than the run has travelled"
            f"{_why(cmp, p, off)}"
        )
    own = cmp.solver_error.get(p, np.nan)
    if own > 0.1 * last:
        line += f"\n  of which the solver's own error is up to {own:.1e}"
    if p in cmp.amplitude:
        line += (
            f"\n  amplitude {_beside(cmp.amplitude, p)}, mean loss {_beside(cmp.mean_value, p)} of "
            "the run, at the end"
        )
    return line


def _beside(table: Any, p: Any) -> str:
    return f"{table[p][-1]:.3g} against {table['run'][-1]:.3g}"


def _share(distance: Number, travelled: Number) -> float:
    return distance / travelled if travelled > 0 else float("nan")


def _last_reached(cmp: Comparison, p: Any) -> int:
    reached = np.flatnonzero(np.isfinite(cmp.distance[p]))
    return int(reached[-1]) if reached.size else 0


def _why(cmp: Comparison, p: Any, record: int) -> str:
    """The reason, as text, why a flow left the run: its correction where that is large."""
    ratio = cmp.correction[record]
    if p == 0 or not ratio > 1:
        return ""
    return f": there h|F1|/|F0| is {ratio:.3g}"


def _remarks(cmp: Comparison) -> list[str]:
    lines = []
    ends = {p: cmp.distance[p][-1] for p in (0, 1) if p in cmp.distance}
    beyond = 2 * cmp.standard_error[0][-1] if 0 in cmp.standard_error else 0.0
    if len(ends) == 2 and ends[1] > 0.9 * ends[0] > beyond and not cmp.at_rounding[0][-1]:
        lines.append("order 1 is no closer than order 0: the correction explains nothing here")
    lines.append(_limits(cmp))
    untrusted = cmp.step[~cmp.trusted]
    if untrusted.size == 0:
        lines.append("the expansion is to be trusted at every recorded step")
    else:
        why = ", ".join(f"{name} at {sum(at)}" for name, at in cmp.failed.items() if any(at))
        lines.append(
            f"not to be trusted at {untrusted.size} of {cmp.step.size} recorded steps, "
            f"the first at step {untrusted[0]} ({why})"
        )
    lines += [f"{what}: {why}" for what, why in cmp.failures.items() if what not in cmp.distance]
    return lines + list(cmp.notes)


def _limits(cmp: Comparison) -> str:
    parts = []
    if np.any(np.isfinite(cmp.correction)):
        parts.append(f"h|F1|/|F0| up to {np.nanmax(cmp.correction):.3g}")
    if np.any(np.isfinite(cmp.remainder)):
        parts.append(f"kinks up to {np.nanmax(cmp.remainder):.3g} of the change of the gradient")
    said = ", ".join(parts) or "neither h|F1|/|F0| nor kinks were measured"
    if not np.any(np.isfinite(cmp.sharpness)):
        return said
    h_sharpness = cmp.h_sharpness
    said = (
        f"h * sharpness {np.nanmin(h_sharpness):.3g} to {np.nanmax(h_sharpness):.3g} "
        f"(expansion to {cmp.convergence_radius:.3g}, stable to {cmp.stability_limit:.3g}); "
    ) + said
    if np.nanmax(np.abs(h_sharpness)) > cmp.convergence_radius:
        said += (
            "\nin the sharpest directions the expansion does not converge: higher orders need "
            "not be closer, and the lower ones hold while little of the motion is along them, "
            "as h|F1|/|F0| says"
        )
    return said
