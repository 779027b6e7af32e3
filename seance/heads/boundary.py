r"""Where a head ends: collects bytes up to the empty line, strictly and within a limit.

h11 is generous at this point: it takes a bare LF for the end of a line, joins folded lines and
lets control characters through. A proxy must not be generous, for the next parser may draw the
lines elsewhere. So this file accepts only what every parser reads alike (RFC 9112, 2.2 and 5.2):
lines end in CR LF and nowhere else, none is folded, no control character but the tab. What passes
goes to h11 in one piece; what follows the empty line is kept apart and is never looked at.

This is not a parser: it knows lines, not fields. `RequestReader` and `LocalAnswer` call it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from seance.errors import RemoteProtocolError

__all__ = ["DEFAULT_HEAD_BYTES", "FIELD_LIMIT", "FORWARDED_FIELDS", "HeadBuffer"]

DEFAULT_HEAD_BYTES = 16 * 1024
"""A head's bound, empty line included; Node and h11 use the same."""

FIELD_LIMIT = 100
"""Fields of one head; Apache's default. Browsers send about 15."""

FORWARDED_FIELDS = 3
"""Fields that the relay adds to a client's: ``X-Forwarded-For``, ``-Proto`` and ``-Host``."""

_FAULT = re.compile(rb"[^\t\r\n -~\x80-\xff]|\r[^\n]|(?<!\r)\n|\n[ \t]")
"""A control character, a CR alone, an LF alone, a folded line. At most two bytes long."""


class HeadBuffer:
    """Collects one head.

    The verdict depends on the bytes alone, never on how they were cut: whatever comes first in
    the input is what is complained about. The work is linear in the input, byte by byte too.

    Args:
        limit_bytes: The greatest length of the head, empty line included.
        check_start_line: Is called once with the first line, without CR LF, as soon as it is
            whole; what it raises passes through. It turns garbage away early.
        limit_fields: The greatest number of fields.
    """

    def __init__(
        self,
        limit_bytes: int = DEFAULT_HEAD_BYTES,
        *,
        check_start_line: Callable[[bytes], None] | None = None,
        limit_fields: int = FIELD_LIMIT,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._limit_fields = limit_fields
        self._check_start_line = check_start_line
        self._buffer = bytearray()
        self._scanned_bytes = 0
        self.trailing = b""
        """What followed the head in the same input; filled when `receive` returns the head."""

    def receive(self, data: bytes) -> bytes | None:
        """Take the next bytes; do not call it again once it returned a head or raised.

        Args:
            data: Bytes as they came, cut anywhere.

        Returns:
            The whole head with its empty line, or None while it is incomplete.

        Raises:
            RemoteProtocolError: ``"head_malformed"``, or ``"head_too_long"`` for too many bytes
                and for too many fields.
        """
        buffer = self._buffer
        buffer += data
        stop = min(len(buffer), self._limit_bytes)
        fault = _FAULT.search(buffer, max(self._scanned_bytes - 1, 0), stop)
        # The last byte of a fault is the one that makes it a fault: all before it stands.
        sound = fault.end() - 1 if fault else stop
        self._look_at_start_line(sound)
        end = buffer.find(b"\r\n\r\n", max(self._scanned_bytes - 3, 0), sound)
        if end >= 0:
            return self._split(end + 4)
        if fault:
            raise RemoteProtocolError(_named(bytes(fault[0])), code="head_malformed")
        if len(buffer) >= self._limit_bytes:
            raise RemoteProtocolError(
                f"The head is longer than {self._limit_bytes} bytes.", code="head_too_long"
            )
        self._scanned_bytes = stop
        return None

    def _look_at_start_line(self, sound: int) -> None:
        if self._check_start_line is None:
            return
        end = self._buffer.find(b"\r\n", max(self._scanned_bytes - 1, 0), sound)
        if end >= 0:
            check, self._check_start_line = self._check_start_line, None
            check(bytes(self._buffer[:end]))

    def _split(self, length: int) -> bytes:
        head = bytes(self._buffer[:length])
        # One CR LF closes the start line and one is the empty line.
        if head.count(b"\r\n") - 2 > self._limit_fields:
            raise RemoteProtocolError(
                f"The head has more than {self._limit_fields} fields.", code="head_too_long"
            )
        self.trailing = bytes(self._buffer[length:])
        self._buffer = bytearray()
        return head


def _named(fault: bytes) -> str:
    """Return what is wrong, for a match of ``_FAULT``."""
    if fault == b"\n":
        return "a line ends in LF without CR"
    if fault.startswith(b"\n"):
        return "a field is folded over two lines"
    if fault.startswith(b"\r"):
        return "there is a CR without LF"
    return f"there is a control character (0x{fault[0]:02x})"
