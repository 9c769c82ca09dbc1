"""Sharpness as an optimizer meets it: of a batch, preconditioned, of SGD's region of stability."""
