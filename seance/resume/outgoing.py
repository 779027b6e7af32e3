"""What was sent over a link and is not acknowledged yet: the bytes that a new carrier has to bring again.

Nothing is ever dropped from it. When it is full, whoever writes has to pause; a bound that evicts
instead loses the session at the worst moment (Eternal Terminal's ring of 64 MiB does, reliability.md
2.1). Whole messages go in; acknowledgements may cut anywhere, because the peer counts bytes.

The checksum runs over everything the peer says it has. It is taken over the kept bytes when they are
acknowledged, not when they are sent, so that sending costs one append.
"""

from __future__ import annotations

from collections import deque

from seance.errors import RemoteProtocolError
from seance.resume.checksum import crc32

__all__ = ["Outgoing"]

MESSAGE_BYTES = 64 * 1024
"""The longest message on a carrier."""


class Outgoing:
    """The sending half of a link.

    Args:
        limit_bytes: From here on it is full; one message may lie above it.
        origin: Where counting starts; 0 but in tests of large counts.

    Attributes:
        base: Bytes that the peer has acknowledged, since the link began.
        sent: Bytes that the present carrier was given, or an earlier one and the peer has them.
        end: Bytes that were added.
    """

    __slots__ = ("_base_crc", "_kept", "_limit_bytes", "_skipped", "_unsent_at", "base", "end", "sent")

    def __init__(self, limit_bytes: int, *, origin: int = 0) -> None:
        self._limit_bytes = limit_bytes
        self._kept: deque[bytes] = deque()
        self._skipped = 0  # bytes of the first message that are acknowledged
        self._unsent_at = 0  # index of the first message that ``sent`` does not cover whole
        self._base_crc = 0
        self.base = self.sent = self.end = origin

    @property
    def kept_bytes(self) -> int:
        """What is kept for the case that the carrier is lost."""
        return self.end - self.base

    @property
    def is_full(self) -> bool:
        """Whether nothing more should be added now."""
        return self.end - self.base >= self._limit_bytes

    def add(self, message: bytes) -> bool:
        """Keep a message that leaves at once, only while everything before it has left; ``is_full``."""
        kept = self._kept
        kept.append(message)
        self._unsent_at = len(kept)
        end = self.sent = self.end = self.end + len(message)
        return end - self.base >= self._limit_bytes

    def hold(self, message: bytes) -> bool:
        """Keep a message for the next carrier, or until the present one has caught up; ``is_full``."""
        self._kept.append(message)
        self.end += len(message)
        return self.is_full

    def next_unsent(self) -> bytes | None:
        """Return the next bytes for the present carrier, which then count as sent; None if there are none."""
        if self._unsent_at >= len(self._kept):
            return None
        message = self._kept[self._unsent_at]
        self._unsent_at += 1
        self.sent += len(message)
        return message

    def acknowledge(self, count: int, crc: int) -> int:
        """Forget what the peer has.

        Args:
            count: Bytes it has received in all.
            crc: Their checksum, CRC-32.

        Returns:
            How many bytes were freed; 0 for news that are old.

        Raises:
            RemoteProtocolError: It claims more than was sent ("ack_ahead"), or has other bytes than
                were sent ("ack_mismatch"). The link cannot go on.
        """
        if count > self.sent:
            sentence = f"The peer acknowledged {count} bytes, of which only {self.sent} were sent."
            raise RemoteProtocolError(sentence, code="ack_ahead")
        return self._forget(count, crc) if count >= self.base else 0

    def _forget(self, count: int, crc: int) -> int:
        freed = count - self.base
        left, kept, skipped, checksum, gone = freed, self._kept, self._skipped, self._base_crc, 0
        while left:
            message = kept[gone]
            there = len(message) - skipped
            if left >= there:
                checksum = crc32(memoryview(message)[skipped:] if skipped else message, checksum)
                left -= there
                skipped = 0
                gone += 1
            else:
                checksum = crc32(memoryview(message)[skipped : skipped + left], checksum)
                skipped += left
                left = 0
        if checksum != crc:
            sentence = f"The peer has received other bytes than were sent, somewhere in the first {count}."
            raise RemoteProtocolError(sentence, code="ack_mismatch")
        for _ in range(gone):
            kept.popleft()
        self._unsent_at -= gone
        self._skipped, self._base_crc, self.base = skipped, checksum, count
        return freed

    def rewind(self, count: int, crc: int) -> None:
        """Begin again behind what the peer has: a new carrier brings the rest.

        The peer may have more than ``sent``, if a carrier that it never heard of stood between this one
        and that which brought it its bytes.

        Raises:
            RemoteProtocolError: It claims more than there is ("ack_ahead"), has other bytes
                ("ack_mismatch"), or lacks what it had before ("ack_gap"). Nothing has changed.
        """
        if count < self.base:
            sentence = f"The peer has {count} bytes and had acknowledged {self.base}."
            raise RemoteProtocolError(sentence, code="ack_gap")
        if count > self.end:
            sentence = f"The peer acknowledged {count} bytes, of which there are only {self.end}."
            raise RemoteProtocolError(sentence, code="ack_ahead")
        self._forget(count, crc)
        # Many small messages leave again as few large ones; a peer that resumes takes any cut.
        rest = b"".join(self._kept)[self._skipped :]
        self._kept = deque(rest[at : at + MESSAGE_BYTES] for at in range(0, len(rest), MESSAGE_BYTES))
        self._skipped = self._unsent_at = 0
        self.sent = self.base

    def clear(self) -> None:
        """Forget everything; the link is over."""
        self._kept.clear()
        self._skipped = self._unsent_at = 0
        self.base = self.sent = self.end
