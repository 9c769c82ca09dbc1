"""The extension that shows doctests as Python sessions in the API reference."""

import runpy
from pathlib import Path


def test_a_session_is_fenced_up_to_the_empty_line():
    module = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "doctests.py"))
    docstring = "A sum.\n\nReturns:\n    It.\n\n>>> 1 + 1\n2\n\nReferences:\n    Peano.\n"
    assert module["fenced"](docstring) == (
        "A sum.\n\nReturns:\n    It.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nReferences:\n    Peano.\n"
    )
