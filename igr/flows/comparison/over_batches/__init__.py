"""Compares runs on mini-batches with the flows of their equation."""
