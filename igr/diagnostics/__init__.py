"""What the gradients of a network tell about its training, one measure a file."""

from igr.diagnostics.coherence import (
    Coherence,
    coherence,
    coherence_from_batches,
    generalization_gap_bound,
)
from igr.diagnostics.geometric_complexity import geometric_complexity
from igr.diagnostics.monitor import Cost, Monitor
from igr.diagnostics.noise_robustness import NoiseRobustness, accuracy, noise_robustness
from igr.diagnostics.slope import (
    ModifiedLossShare,
    implicit_gradient_regularizer,
    loss_surface_slope,
    modified_loss_share,
)
from igr.diagnostics.stiffness import ClassStiffness, class_stiffness, stiffness
from igr.diagnostics.tangent_kernel import (
    tangent_kernel,
    tangent_kernel_logdet,
    tangent_kernel_trace,
)
from igr.per_example.kernel import KernelTooLargeError

__all__ = [
    "ClassStiffness",
    "Coherence",
    "Cost",
    "KernelTooLargeError",
    "ModifiedLossShare",
    "Monitor",
    "NoiseRobustness",
    "accuracy",
    "class_stiffness",
    "coherence",
    "coherence_from_batches",
    "generalization_gap_bound",
    "geometric_complexity",
    "implicit_gradient_regularizer",
    "loss_surface_slope",
    "modified_loss_share",
    "noise_robustness",
    "stiffness",
    "tangent_kernel",
    "tangent_kernel_logdet",
    "tangent_kernel_trace",
]
