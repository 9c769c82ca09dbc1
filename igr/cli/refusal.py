"""What is wrong with what was typed."""


class BadInput(Exception):
    """What the user typed cannot be meant; the text says why."""
