"""The kind *rules*: an optimizer as memories and a function, its equation by Taylor mode."""
