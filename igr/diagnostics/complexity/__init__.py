"""How complex a network's function is, on its data and by its weights."""
