"""Rules that reduce the gradients of all examples robustly, so that outliers count less."""
