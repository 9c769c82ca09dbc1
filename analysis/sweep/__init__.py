"""Studies as lists of cells: computed once, written whole, taken up again where they stopped."""

from analysis.sweep.gpus import leave_gpus_to_cells, visible_gpus
from analysis.sweep.identity import cell_name, code_version
from analysis.sweep.kept import committed, keep, present
from analysis.sweep.results import CellResult
from analysis.sweep.run import CellFailed, Engine, Failure, Study, Sweep, missing, sweep

__all__ = [
    "CellFailed",
    "CellResult",
    "Engine",
    "Failure",
    "Study",
    "Sweep",
    "cell_name",
    "code_version",
    "committed",
    "keep",
    "leave_gpus_to_cells",
    "missing",
    "present",
    "sweep",
    "visible_gpus",
]
