"""Whether an equation is that of an optimizer, by the steps the optimizer really takes."""
