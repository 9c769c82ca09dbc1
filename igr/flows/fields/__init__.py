"""From an equation, a rule or an interpolation to a vector field."""
