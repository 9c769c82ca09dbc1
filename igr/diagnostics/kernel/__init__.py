"""The tangent kernel: its matrix, trace, spectrum and alignment, and its features' covariance."""
