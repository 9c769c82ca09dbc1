"""Figures that cost nothing, for the tests of the engine; the catalogue entries name them."""

import os
import sys
import time
from pathlib import Path

import pandas as pd

from analysis.scale import Conditions
from analysis.studies import computed
from paper_figures.figure import Claim, Drawing
from paper_figures.style import picture


def draw_line(conditions: Conditions) -> Drawing:
    table = pd.DataFrame({"x": [0.0, 1.0, 2.0], "y": [0.0, 1.0, 4.0]})
    drawn = picture()
    drawn.subplots().plot(table["x"], table["y"], label="$x^2$")
    rise = table["y"].iloc[-1] - table["y"].iloc[0]
    return Drawing(
        drawn,
        table,
        (
            Claim("the line rises", f"by {rise:g}", rise > 0, paper="4"),
            Claim("the line is straight", "0, 1, 4", rise == 2, otherwise="It is a parabola."),
        ),
    )


def draw_error(conditions: Conditions) -> Drawing:
    raise RuntimeError("no such network")


def draw_unwritable_table(conditions: Conditions) -> Drawing:
    return Drawing(picture(), None)  # type: ignore[arg-type]


def draw_conditions(here: Conditions) -> Drawing:
    return Drawing(picture(), pd.DataFrame([(here.scale, here.engine, str(here.results))]))


def draw_from_a_study(conditions: Conditions) -> Drawing:
    (result,) = computed("spectreg-sin", conditions).results.values()
    return Drawing(picture(), pd.DataFrame({"answer": [result["answer"]]}))


def draw_dying(conditions: Conditions) -> Drawing:
    os._exit(3)  # as a process that the system kills, for its memory


def draw_process(conditions: Conditions) -> Drawing:
    return Drawing(picture(), pd.DataFrame({"process": [os.getpid()]}))


def draw_told(conditions: Conditions) -> Drawing:
    assert conditions.told is not None
    conditions.told("a-study", 1, 2)
    return draw_process(conditions)


def draw_slowly(conditions: Conditions) -> Drawing:
    time.sleep(1.0)
    return draw_process(conditions)


def draw_told_and_slowly(conditions: Conditions) -> Drawing:
    draw_told(conditions)
    return draw_slowly(conditions)


def draw_for_ever(conditions: Conditions) -> Drawing:
    Path(sys.argv[1], f"{os.getpid()}.pid").touch()
    time.sleep(3600)
    raise AssertionError("nobody ended it")
