"""What the kinds share: Taylor coefficients, expressions by whitelist, naming."""
