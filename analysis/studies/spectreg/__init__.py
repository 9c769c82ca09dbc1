"""Studies of "Gradient regularization of discriminative models"."""
