"""Fields of black boxes, from the iterates of a step or of a run alone."""
