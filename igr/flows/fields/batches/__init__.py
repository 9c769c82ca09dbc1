"""Fields of optimizers on random batches: for the mean of a run, and for its distribution."""
