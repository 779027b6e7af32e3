"""Credit arithmetic: how much may be sent on a stream, in each direction. Nothing else.

Called by :mod:`seance.yamux.session`, which decides what a refusal means. Windows never raise on
what a peer does: they answer whether it fits. What must always hold is written in ``check()``, which the
tests call after every step of theirs.

Credit goes back only for bytes that the application *took*. Giving it back on arrival is what
rust-yamux once called ``OnReceive`` and removed: the sender then never learns that nobody reads.
"""

from __future__ import annotations

from seance.errors import LocalProtocolError
from seance.yamux.constants import INITIAL_WINDOW_BYTES, WINDOW_CEILING_BYTES

__all__ = ["ReceiveWindow", "SendWindow"]


class SendWindow:
    """How many bytes the peer still lets us send on one stream."""

    __slots__ = ("available_bytes",)

    def __init__(self) -> None:
        self.available_bytes = INITIAL_WINDOW_BYTES
        """What may be sent now."""

    def spend(self, count: int) -> None:
        """Take ``count`` bytes off, which were just written into a frame; never more than there are."""
        self.available_bytes -= count
        assert self.available_bytes >= 0, "we send only what the window allows"

    def grow(self, delta_bytes: int) -> bool:
        """Add what the peer granted.

        Returns:
            Whether the sum can be a window at all; if not, the window is unchanged. hashicorp lets the
            number wrap, and a stream whose window wraps to zero is mute for ever.
        """
        if self.available_bytes + delta_bytes > WINDOW_CEILING_BYTES:
            return False
        self.available_bytes += delta_bytes
        return True

    def check(self) -> None:
        """Assert what always holds."""
        assert 0 <= self.available_bytes <= WINDOW_CEILING_BYTES, "a send window fits its field"

    def __repr__(self) -> str:
        return f"<SendWindow {self.available_bytes} available>"


class ReceiveWindow:
    """How many bytes the peer may still send us on one stream, and how many it gets back.

    Every byte of the window is in one of three places, so they always add up to ``size_bytes``:
    with the peer (``remaining_bytes``), with our application (``held_bytes``), or on its way back
    (``taken_bytes``).
    """

    __slots__ = ("held_bytes", "remaining_bytes", "size_bytes", "taken_bytes")

    def __init__(self) -> None:
        self.size_bytes = INITIAL_WINDOW_BYTES
        """What the peer may have sent ahead of the application at most."""
        self.remaining_bytes = INITIAL_WINDOW_BYTES
        """What it may send now. A frame that announces more breaks the protocol."""
        self.held_bytes = 0
        """What was handed to the application and not yet taken by it."""
        self.taken_bytes = 0
        """What was taken and not yet given back."""

    def widen(self, size_bytes: int) -> int:
        """Raise the size to ``size_bytes``; a window never shrinks.

        Returns:
            The delta that the peer has to be told, 0 when nothing changed.
        """
        delta_bytes = max(0, size_bytes - self.size_bytes)
        self.size_bytes += delta_bytes
        self.remaining_bytes += delta_bytes
        return delta_bytes

    def receive(self, count: int) -> None:
        """Account for ``count`` bytes that arrived; the caller has checked ``remaining_bytes``."""
        self.remaining_bytes -= count
        self.held_bytes += count
        assert self.remaining_bytes >= 0, "what does not fit is refused at its header"

    def take(self, count: int) -> bool:
        """Account for ``count`` bytes that the application has consumed.

        Returns:
            Whether a grant is now due: half of the window was taken, as in hashicorp and rust-yamux. Sooner
            would be a frame per read, later would stall the sender.

        Raises:
            LocalProtocolError: More was taken than was ever delivered ("taken_too_much").
        """
        if not 0 <= count <= self.held_bytes:
            msg = f"The application says it took {count} bytes, but holds {self.held_bytes}."
            raise LocalProtocolError(msg, code="taken_too_much")
        self.held_bytes -= count
        self.taken_bytes += count
        return self.taken_bytes * 2 >= self.size_bytes

    def grant(self) -> int:
        """Give back everything that was taken.

        Returns:
            The delta of the window update that has to be sent.
        """
        delta_bytes = self.taken_bytes
        self.taken_bytes = 0
        self.remaining_bytes += delta_bytes
        return delta_bytes

    def check(self) -> None:
        """Assert what always holds."""
        places = (self.remaining_bytes, self.held_bytes, self.taken_bytes)
        assert min(places) >= 0, "no place owes bytes"
        assert sum(places) == self.size_bytes, "credit is conserved"

    def __repr__(self) -> str:
        return (
            f"<ReceiveWindow {self.remaining_bytes} of {self.size_bytes} remaining, "
            f"{self.held_bytes} held, {self.taken_bytes} taken>"
        )
