"""Figures and tables of "Implicit gradient regularization" and of our own about the same."""
