"""Solves a field for its trajectory by diffrax: step-size controllers and a progress bar."""
