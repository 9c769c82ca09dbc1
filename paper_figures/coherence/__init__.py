"""Figures and tables of "Appealing to gradients"."""
