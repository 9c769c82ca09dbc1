"""What all kinds of equations share: Taylor coefficients, parsing, checks and names of methods."""
