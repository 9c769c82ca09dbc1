"""Measures of the complexity of a network's function, from its data and weights."""
