"""Figures and tables of "Gradient regularization of discriminative models"."""
