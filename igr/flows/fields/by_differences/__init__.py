"""Fields of order 1 from differences of gradients or of steps, which see kinks; no derivatives."""
