"""Rules that take the gradients of all examples, and give outlying ones less to say."""
