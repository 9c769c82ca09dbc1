"""Studies of "Regularization of correlated parameter spaces"."""
