"""Reads what a traced program computes as sympy expressions."""
