"""The papers' rules as optax transformations, one rule a file."""

from igr.transforms.explicit_gradient_regularization import (
    AddGradientNormPenaltyState,
    add_gradient_norm_penalty,
    egr,
    egr_value_and_grad,
)

__all__ = [
    "AddGradientNormPenaltyState",
    "add_gradient_norm_penalty",
    "egr",
    "egr_value_and_grad",
]
