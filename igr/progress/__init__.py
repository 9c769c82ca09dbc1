"""Progress bars with the time left, for calls that take longer than a few seconds."""
