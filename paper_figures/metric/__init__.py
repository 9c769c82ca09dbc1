"""Figures and tables of "Regularization of correlated parameter spaces"."""
