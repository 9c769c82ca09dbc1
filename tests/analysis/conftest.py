"""A folder of data for the tests that read files."""

import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """What IGR_DATA names; empty."""
    monkeypatch.setenv("IGR_DATA", str(tmp_path))
    return tmp_path
