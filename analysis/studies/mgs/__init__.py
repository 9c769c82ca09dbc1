"""Studies of "Model gradient similarity"."""
