"""The code of the page on SGD runs, and prints what it says."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "sgd.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_page_runs(capsys):
    code = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))
    exec(compile(code, "sgd.md", "exec"), {"__name__": "page"})
    shown = capsys.readouterr().out
    for promised in re.findall(r"print\(.*\)  # (.*)", code):
        assert promised in shown
