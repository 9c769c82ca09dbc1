"""Stochastic equations: the drift, the diffusion, and a solver for small noise."""
