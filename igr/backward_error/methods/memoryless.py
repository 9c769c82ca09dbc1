"""What methods without a memory of gradients have in common."""

from __future__ import annotations

from igr.backward_error.protocols import LinearResponse, Memory


class Memoryless:
    """A method whose step depends on nothing but where it stands, and, drawn, on its batch."""

    @property
    def kept(self) -> tuple[str, ...]:
        """No state stays a variable of the flow."""
        return ()

    def memory(self) -> Memory:
        """None of gradients."""
        return Memory()

    def response(self) -> LinearResponse | None:
        """None: players and batches have no common quadratic."""
        return None
