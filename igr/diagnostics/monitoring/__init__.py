"""Measures taken while a network trains: the monitor, its named measures, and their records."""
