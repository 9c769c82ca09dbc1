"""Studies of "Appealing to gradients"."""
