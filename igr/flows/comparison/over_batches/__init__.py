"""The comparison of runs on mini-batches."""
