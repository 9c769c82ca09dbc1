"""Measures of a network's training from its gradients, one to a file."""

from igr.diagnostics.adversarial import (
    ROC,
    AdversarialDetection,
    adversarial_detection,
    example_kernel_traces,
    roc_curve,
    sign_perturbed,
)
from igr.diagnostics.coherence import (
    Coherence,
    coherence,
    coherence_from_batches,
    generalization_gap_bound,
)
from igr.diagnostics.complexity.geometric_complexity import geometric_complexity
from igr.diagnostics.complexity.linear_pieces import LinearPieces, linear_pieces
from igr.diagnostics.complexity.lipschitz import LipschitzBound, lipschitz_bound, spectral_product
from igr.diagnostics.complexity.path_complexity import path_complexity
from igr.diagnostics.complexity.rademacher import rademacher_bound, rademacher_bound_of_path
from igr.diagnostics.kernel.feature_covariance import (
    FeatureEigenpairs,
    feature_covariance_eigenpairs,
)
from igr.diagnostics.kernel.function_update import FunctionSpaceUpdate, function_space_update
from igr.diagnostics.kernel.kernel_alignment import tangent_kernel_alignment
from igr.diagnostics.kernel.kernel_spectrum import KernelSpectrum, tangent_kernel_spectrum
from igr.diagnostics.kernel.tangent_kernel import (
    TraceEstimate,
    tangent_kernel,
    tangent_kernel_logdet,
    tangent_kernel_trace,
    tangent_kernel_trace_estimate,
)
from igr.diagnostics.monitoring.monitor import Cost, Monitor
from igr.diagnostics.monitoring.records import ReportOptions
from igr.diagnostics.noise_robustness import NoiseRobustness, accuracy, noise_robustness
from igr.diagnostics.sharpness.batch_sharpness import BatchSharpness, batch_sharpness
from igr.diagnostics.sharpness.preconditioned_sharpness import (
    PreconditionedSharpness,
    adam_preconditioner,
    adam_stability_limit,
    preconditioned_sharpness,
)
from igr.diagnostics.sharpness.root_diagonal_trace import RootDiagonalTrace, root_diagonal_trace
from igr.diagnostics.sharpness.sgd_region import SGDRegion, sgd_learning_rate_limit, sgd_region
from igr.diagnostics.slope import (
    ModifiedLossShare,
    implicit_gradient_regularizer,
    loss_surface_slope,
    modified_loss_share,
)
from igr.diagnostics.stiffness import ClassStiffness, class_stiffness, stiffness
from igr.per_example.kernel import KernelTooLargeError

__all__ = [
    "ROC",
    "AdversarialDetection",
    "BatchSharpness",
    "ClassStiffness",
    "Coherence",
    "Cost",
    "FeatureEigenpairs",
    "FunctionSpaceUpdate",
    "KernelSpectrum",
    "KernelTooLargeError",
    "LinearPieces",
    "LipschitzBound",
    "ModifiedLossShare",
    "Monitor",
    "NoiseRobustness",
    "PreconditionedSharpness",
    "ReportOptions",
    "RootDiagonalTrace",
    "SGDRegion",
    "TraceEstimate",
    "accuracy",
    "adam_preconditioner",
    "adam_stability_limit",
    "adversarial_detection",
    "batch_sharpness",
    "class_stiffness",
    "coherence",
    "coherence_from_batches",
    "example_kernel_traces",
    "feature_covariance_eigenpairs",
    "function_space_update",
    "generalization_gap_bound",
    "geometric_complexity",
    "implicit_gradient_regularizer",
    "linear_pieces",
    "lipschitz_bound",
    "loss_surface_slope",
    "modified_loss_share",
    "noise_robustness",
    "path_complexity",
    "preconditioned_sharpness",
    "rademacher_bound",
    "rademacher_bound_of_path",
    "roc_curve",
    "root_diagonal_trace",
    "sgd_learning_rate_limit",
    "sgd_region",
    "sign_perturbed",
    "spectral_product",
    "stiffness",
    "tangent_kernel",
    "tangent_kernel_alignment",
    "tangent_kernel_logdet",
    "tangent_kernel_spectrum",
    "tangent_kernel_trace",
    "tangent_kernel_trace_estimate",
]
