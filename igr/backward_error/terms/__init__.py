"""The kind *terms*: fields as elementwise sympy expressions in the derivatives of the loss."""
