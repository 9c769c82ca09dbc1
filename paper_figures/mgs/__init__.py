"""Figures and tables of "Model gradient similarity"."""
