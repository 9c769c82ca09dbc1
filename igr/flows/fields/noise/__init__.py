"""Stochastic modified equations for diffrax: drift, diffusion, and a solver for small noise."""
