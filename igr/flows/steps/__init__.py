"""The discrete step of a method, as an optax transformation."""
