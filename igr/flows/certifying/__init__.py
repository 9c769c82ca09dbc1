"""Tests whether an equation is that of an optimizer, on the steps the optimizer really takes."""
