"""Data sent over a link and not acknowledged yet: the bytes that a new carrier has to send again.

Nothing is dropped from it; when it is full, the writer has to pause. A bounded buffer that drops data instead
would lose the session when it is needed most (Eternal Terminal's 64 MiB ring does). Whole messages are added,
but an acknowledgement may end inside one, because the peer counts bytes.

The checksum covers everything that the peer says it has. It is computed over the kept bytes when they are
acknowledged, not when they are sent, so sending costs one append.
"""

from __future__ import annotations

from collections import deque

from seance.errors import RemoteProtocolError
from seance.resume.checksum import crc32

__all__ = ["Outgoing"]

RESENT_MESSAGE_BYTES = 64 * 1024
"""Length of the messages in which data is sent again; the speed of the new carrier is unknown."""


class Outgoing:
    """The sending half of a link.

    Args:
        limit_bytes: Kept bytes from which it is full. One message may exceed it.
        origin: Initial count; other than 0 only in tests of large counts.

    Attributes:
        base: Bytes that the peer has acknowledged since the link began.
        sent: Bytes given to the current carrier, or acknowledged.
        end: Bytes added.
    """

    __slots__ = ("_base_crc", "_kept", "_limit_bytes", "_skipped", "_unsent_at", "base", "end", "sent")

    def __init__(self, limit_bytes: int, *, origin: int = 0) -> None:
        self._limit_bytes = limit_bytes
        self._kept: deque[bytes] = deque()
        self._skipped = 0  # acknowledged bytes of the first message
        self._unsent_at = 0  # index of the first message that is not wholly in ``sent``
        self._base_crc = 0
        self.base = self.sent = self.end = origin

    @property
    def kept_bytes(self) -> int:
        """Bytes kept in case the carrier is lost."""
        return self.end - self.base

    @property
    def is_full(self) -> bool:
        """Whether the writer should pause."""
        return self.end - self.base >= self._limit_bytes

    def add(self, message: bytes) -> bool:
        """Keep a message that is sent now; everything before it must have been sent. Return ``is_full``."""
        kept = self._kept
        kept.append(message)
        self._unsent_at = len(kept)
        end = self.sent = self.end = self.end + len(message)
        return end - self.base >= self._limit_bytes

    def hold(self, message: bytes) -> bool:
        """Keep a message to send later, on this carrier or the next one. Return ``is_full``."""
        self._kept.append(message)
        self.end += len(message)
        return self.is_full

    def next_unsent(self) -> bytes | None:
        """Return the next bytes for the current carrier and count them as sent; None if there are none."""
        if self._unsent_at >= len(self._kept):
            return None
        message = self._kept[self._unsent_at]
        self._unsent_at += 1
        self.sent += len(message)
        return message

    def acknowledge(self, count: int, crc: int) -> int:
        """Free the data that the peer has received.

        Args:
            count: Total bytes that the peer has received.
            crc: Their checksum, CRC-32.

        Returns:
            How many bytes were freed; 0 for an outdated acknowledgement.

        Raises:
            RemoteProtocolError: The peer acknowledges more than was sent ("ack_ahead"), or other bytes than
                were sent ("ack_mismatch"). The link cannot continue.
        """
        if count > self.sent:
            msg = f"The peer acknowledged {count} bytes, but only {self.sent} were sent."
            raise RemoteProtocolError(msg, code="ack_ahead")
        return self._forget(count, crc) if count >= self.base else 0

    def _forget(self, count: int, crc: int) -> int:
        freed = count - self.base
        left, kept, skipped, checksum, whole = freed, self._kept, self._skipped, self._base_crc, 0
        while left:
            message = kept[whole]
            size = len(message) - skipped
            if left >= size:
                checksum = crc32(memoryview(message)[skipped:] if skipped else message, checksum)
                left -= size
                skipped = 0
                whole += 1
            else:
                checksum = crc32(memoryview(message)[skipped : skipped + left], checksum)
                skipped += left
                left = 0
        if checksum != crc:
            msg = f"The peer's checksum of the first {count} bytes differs from the data sent."
            raise RemoteProtocolError(msg, code="ack_mismatch")
        for _ in range(whole):
            kept.popleft()
        self._unsent_at -= whole
        self._skipped, self._base_crc, self.base = skipped, checksum, count
        return freed

    def rewind(self, count: int, crc: int) -> None:
        """Start again after the bytes that the peer has; a new carrier sends the rest.

        ``count`` may exceed ``sent``: the peer may never have seen the carrier between this one and the one
        that delivered its bytes.

        Raises:
            RemoteProtocolError: The peer has more bytes than were added ("ack_ahead"), other bytes
                ("ack_mismatch"), or fewer than it acknowledged before ("ack_gap"). The state is unchanged.
        """
        if count < self.base:
            msg = f"The peer reports {count} bytes received but had acknowledged {self.base}."
            raise RemoteProtocolError(msg, code="ack_gap")
        if count > self.end:
            msg = f"The peer acknowledged {count} bytes, but only {self.end} exist."
            raise RemoteProtocolError(msg, code="ack_ahead")
        self._forget(count, crc)
        # Many small messages are sent again as few large ones; a peer that resumes accepts any cut.
        rest = b"".join(self._kept)[self._skipped :]
        size = RESENT_MESSAGE_BYTES
        self._kept = deque(rest[at : at + size] for at in range(0, len(rest), size))
        self._skipped = self._unsent_at = 0
        self.sent = self.base

    def clear(self) -> None:
        """Drop all data; the link is over."""
        self._kept.clear()
        self._skipped = self._unsent_at = 0
        self.base = self.sent = self.end
