"""Measurements against targets and named peers: `python -m benchmarks --help`."""
