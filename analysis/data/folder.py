"""Where the user keeps data files: the folder that `IGR_DATA` names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def data_folder() -> Path | None:
    """The folder of `IGR_DATA`, or None where the variable is not set.

    Raises:
        ValueError: If it is set to something that is no folder.
    """
    named = os.environ.get("IGR_DATA")
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise ValueError(f"IGR_DATA is {named!r}, which is no folder")
    return folder


def find(names: Sequence[str], below: Sequence[str] = ("",)) -> Path | None:
    """The first of these files that is in the data folder or one of its subfolders `below`."""
    folder = data_folder()
    if folder is None:
        return None
    for subfolder in ("", *below):
        for name in names:
            path = folder / subfolder / name
            if path.is_file():
                return path
    return None
