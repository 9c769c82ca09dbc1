"""What the gradients of a network tell about its training, one measure a file."""

from igr.diagnostics.slope import (
    ModifiedLossShare,
    implicit_gradient_regularizer,
    loss_surface_slope,
    modified_loss_share,
)

__all__ = [
    "ModifiedLossShare",
    "implicit_gradient_regularizer",
    "loss_surface_slope",
    "modified_loss_share",
]
