"""Polynomials on [-1, 1] by their values at Chebyshev nodes: interpolated, differentiated."""

import numpy as np

COUNT = 40
NODES = np.cos(np.pi * np.arange(COUNT) / (COUNT - 1))


def interpolation(at):
    """The values at other points, from those at the nodes, of the polynomial through these."""
    weights = (-1.0) ** np.arange(COUNT)
    weights[[0, -1]] /= 2
    apart = at[:, None] - NODES
    exact = np.isclose(apart, 0, atol=1e-15)
    terms = weights / np.where(exact, 1, apart)
    rows = terms / terms.sum(axis=1, keepdims=True)
    hit = exact.any(axis=1)
    rows[hit] = exact[hit]
    return rows


def differentiation():
    """The values at the nodes of the derivative of the polynomial through those given."""
    c = np.ones(COUNT) * (-1.0) ** np.arange(COUNT)
    c[[0, -1]] *= 2
    apart = NODES[:, None] - NODES + np.eye(COUNT)
    matrix = np.outer(c, 1 / c) / apart
    return matrix - np.diag(matrix.sum(axis=1))


def slope(hs, errors):
    """Of errors against steps, both logarithmic."""
    return np.polyfit(np.log(hs), np.log(errors), 1)[0]
