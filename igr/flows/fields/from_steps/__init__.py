"""Fields of black boxes, from the iterates of a step function or of a run."""
