"""Measures taken while a network trains: the monitor, what it knows by name, where rows go."""
