"""The papers' penalties, scalars to add to a loss, one to a file."""

from igr.penalties.confidence_penalty import confidence_penalty
from igr.penalties.double_backprop import double_backprop
from igr.penalties.frobenius_penalty import frobenius_penalty
from igr.penalties.gradient_similarity_logdet import gradient_similarity_logdet
from igr.penalties.gradient_similarity_trace import gradient_similarity_trace
from igr.penalties.jacobian_penalty import jacobian_penalty
from igr.penalties.loss_gradient_penalty import loss_gradient_penalty
from igr.penalties.spectral_penalty import spectral_penalty
from igr.penalties.weight_penalty import weight_penalty

__all__ = [
    "confidence_penalty",
    "double_backprop",
    "frobenius_penalty",
    "gradient_similarity_logdet",
    "gradient_similarity_trace",
    "jacobian_penalty",
    "loss_gradient_penalty",
    "spectral_penalty",
    "weight_penalty",
]
