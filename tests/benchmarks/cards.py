"""Cards for the run on a GPU that hang, die and break; a process of its own imports them."""

import ctypes
import os

from benchmarks.measure import Row


class Hanging:
    """A card whose second piece never ends, and whose third takes its process along."""

    def __init__(self, tiny):
        self.tiny = tiny
        self.flops = float("nan")

    def about(self):
        return {"device": "a card"}

    def pieces(self):
        names = "first", "hangs", "dies", "raises", "last"
        return {name: getattr(self, name) for name in names}

    def first(self):
        self.flops = 41.0
        yield Row("a", 1.0, "s")

    def hangs(self):
        yield Row("b", 2.0, "s")
        ctypes.PyDLL(None).sleep(600)  # with Python's lock held
        yield Row("never", 3.0, "s")

    def dies(self):
        os._exit(7)
        yield Row("never", 3.0, "s")

    def raises(self):
        raise MemoryError("too large")
        yield Row("never", 3.0, "s")

    def last(self):
        yield Row("z", self.flops, "s")


def broken(tiny):
    """A card that is not there."""
    raise OSError("no driver")
