"""The kind terms: sympy expressions with contractions of derivatives of the loss."""
