"""The papers' learning rules as optax transformations, one to a file."""

from igr.transforms.decay import DecayState
from igr.transforms.drift_adjusted import (
    DriftAdjustedState,
    drift_adjusted,
    scale_by_drift_adjusted_rate,
)
from igr.transforms.explicit_gradient_regularization import (
    AddGradientNormPenaltyState,
    add_gradient_norm_penalty,
    egr,
    egr_value_and_grad,
)
from igr.transforms.metric_decay import metric_decay, metric_sgd, metric_value_and_grad
from igr.transforms.regularization_by_design import cancel_implicit, match_implicit
from igr.transforms.robust.median_of_means import median_of_means, median_of_means_sgd
from igr.transforms.robust.winsorization import winsorize, winsorized_sgd
from igr.transforms.robust.winsorized_gradient import winsorized_gradient
from igr.transforms.selective_decay import (
    selective_decay,
    selective_l2_sgd,
    selective_value_and_grad,
)
from igr.transforms.stopped_decay import (
    decay_until,
    decay_until_then_selective,
    l2_stopped_selective_sgd,
    l2_stopped_sgd,
    stopped_selective_value_and_grad,
)

__all__ = [
    "AddGradientNormPenaltyState",
    "DecayState",
    "DriftAdjustedState",
    "add_gradient_norm_penalty",
    "cancel_implicit",
    "decay_until",
    "decay_until_then_selective",
    "drift_adjusted",
    "egr",
    "egr_value_and_grad",
    "l2_stopped_selective_sgd",
    "l2_stopped_sgd",
    "match_implicit",
    "median_of_means",
    "median_of_means_sgd",
    "metric_decay",
    "metric_sgd",
    "metric_value_and_grad",
    "scale_by_drift_adjusted_rate",
    "selective_decay",
    "selective_l2_sgd",
    "selective_value_and_grad",
    "stopped_selective_value_and_grad",
    "winsorize",
    "winsorized_gradient",
    "winsorized_sgd",
]
