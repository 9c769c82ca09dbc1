"""The kind *rules*: optimizers given as a function and its memories, expanded by Taylor mode."""
