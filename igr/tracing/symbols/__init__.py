"""What a traced program computes, read in sympy."""
