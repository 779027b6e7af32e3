"""What was received over a link, as two numbers: how many bytes, and their checksum.

Bytes are counted when they are handed on, neither earlier nor later and to the byte, wherever a
carrier was cut. So there is no such thing as half a message here: a message whose beginning was
handed on is asked for again from the byte after.
"""

from __future__ import annotations

from seance.resume.checksum import crc32

__all__ = ["ACK_AFTER_BYTES", "ACK_AFTER_SECONDS", "Incoming"]

ACK_AFTER_BYTES = 256 * 1024
"""So many bytes are acknowledged at once: a sixteenth of what the other side keeps ..."""

ACK_AFTER_SECONDS = 0.25
"""... and fewer after so long: four small text messages a second at most (reliability.md 2.3, rule 2)."""


class Incoming:
    """The receiving half of a link.

    Attributes:
        count: Bytes handed on since the link began.
        crc: Their CRC-32.
    """

    __slots__ = ("_told", "count", "crc")

    def __init__(self, *, origin: int = 0) -> None:
        self.count = origin
        self.crc = 0
        self._told = origin

    @property
    def unacked_bytes(self) -> int:
        """What the peer does not know to have arrived."""
        return self.count - self._told

    def take(self, data: bytes) -> int:
        """Count what is handed on now.

        Returns:
            ``unacked_bytes``; from ``ACK_AFTER_BYTES`` on, tell the peer at once.
        """
        self.crc = crc32(data, self.crc)
        self.count += len(data)
        return self.count - self._told

    def make_ack(self) -> tuple[int, int]:
        """Return ``count`` and ``crc`` for the peer, who knows them from now on."""
        self._told = self.count
        return self.count, self.crc
