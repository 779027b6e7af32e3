"""The data received over a link, as two numbers: the count of bytes and their checksum.

A byte counts at the moment it is passed on, wherever a carrier was cut. So there are no partial messages: if
the beginning of a message was passed on, the peer sends it again from the next byte.
"""

from __future__ import annotations

from seance.resume.checksum import crc32

__all__ = ["ACK_AFTER_BYTES", "ACK_AFTER_SECONDS", "Incoming"]

ACK_AFTER_BYTES = 256 * 1024
"""Unacknowledged bytes that trigger an acknowledgement: a sixteenth of what the other side keeps."""

ACK_AFTER_SECONDS = 0.25
"""Interval of acknowledgements for fewer bytes: at most four small text messages a second."""


class Incoming:
    """The receiving half of a link.

    Args:
        origin: Initial count; other than 0 only in tests.

    Attributes:
        count: Bytes passed on since the link began.
        crc: Their CRC-32.
    """

    __slots__ = ("_acked", "count", "crc")

    def __init__(self, *, origin: int = 0) -> None:
        self.count = origin
        self.crc = 0
        self._acked = origin

    @property
    def unacked_bytes(self) -> int:
        """Bytes received and not acknowledged."""
        return self.count - self._acked

    def take(self, data: bytes) -> int:
        """Count bytes that are passed on now.

        Returns:
            ``unacked_bytes``. From ``ACK_AFTER_BYTES`` on, send an acknowledgement immediately.
        """
        self.crc = crc32(data, self.crc)
        self.count += len(data)
        return self.count - self._acked

    def make_ack(self) -> tuple[int, int]:
        """Return ``count`` and ``crc`` for an acknowledgement, and set ``unacked_bytes`` to 0."""
        self._acked = self.count
        return self.count, self.crc
