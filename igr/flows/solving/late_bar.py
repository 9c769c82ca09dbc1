"""A progress bar with the time left, that shows itself once a call has taken some seconds."""

from __future__ import annotations

import time
from typing import Any

import diffrax
from tqdm import tqdm

PATIENCE = 3.0  # seconds before a bar is shown


def bar_options(progress: bool | None) -> dict[str, Any]:
    """For `tqdm`: a bar at once, never, or, if None, once it has taken some seconds."""
    return {"disable": progress is False, "delay": 0 if progress else PATIENCE}


class LateBar(diffrax.TqdmProgressMeter):
    """diffrax's bar, but not before `PATIENCE` seconds have passed."""

    @staticmethod
    def _init_bar() -> Any:
        form = "flow {percentage:.0f}%|{bar}| [{elapsed}<{remaining}]"
        return tqdm(total=100, bar_format=form, delay=PATIENCE)

    @staticmethod
    def _step_bar(bar: Any, progress: Any) -> None:
        bar.n = min(round(100 * float(progress), 2), 100)
        if time.time() - bar.start_t > PATIENCE:
            bar.last_print_t = time.time()
            bar.refresh()

    @staticmethod
    def _close_bar(bar: Any) -> None:
        bar.n = 100
        bar.close()
