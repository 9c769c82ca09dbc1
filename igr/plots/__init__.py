"""Pictures of what igr computes, drawn on matplotlib Axes.

Every function draws on the Axes it is given, or on new ones, and returns them. It needs the extra
`figures`: `pip install 'igr[figures]'`.
"""

from igr.plots.comparison import certificate, comparison
from igr.plots.loss_plane import loss_plane
from igr.plots.monitor import monitor, read_record
from igr.plots.sgd_region import sgd_region
from igr.plots.spectra import eigenpairs, kernel_spectrum, spectrum
from igr.plots.style import style

__all__ = [
    "certificate",
    "comparison",
    "eigenpairs",
    "kernel_spectrum",
    "loss_plane",
    "monitor",
    "read_record",
    "sgd_region",
    "spectrum",
    "style",
]
