"""The base class of methods that do not remember earlier gradients."""

from __future__ import annotations

from igr.backward_error.protocols import LinearResponse, Memory


class Memoryless:
    """A method whose step depends only on the current parameters and the batch drawn."""

    @property
    def kept(self) -> tuple[str, ...]:
        """The empty tuple: no optimizer state is a variable of the flow."""
        return ()

    def memory(self) -> Memory:
        """An empty `Memory`: no earlier gradient enters a step."""
        return Memory()

    def response(self) -> LinearResponse | None:
        """None: players and batches have no common quadratic to respond to."""
        return None
