"""Fields of order 1 by differences of gradients or steps, which see kinks, without derivatives."""
