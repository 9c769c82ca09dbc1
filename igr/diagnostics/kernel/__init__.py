"""The tangent kernel: what it is, its spectrum, its alignment, and the features behind it."""
