"""The page on penalties: its code runs, and every penalty is in its table."""

import re
from pathlib import Path

import numpy as np

from igr import penalties

PAGE = (Path(__file__).parents[2] / "docs" / "penalties.md").read_text(encoding="utf-8")


def test_the_example_trains():
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names = {"__name__": "page"}
    exec(compile(code, "penalties.md", "exec"), names)
    assert np.isfinite(names["value"])


def test_every_penalty_is_in_the_table():
    named = set(re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE))
    assert named == set(penalties.__all__)
