r"""Finds the end of a head: collects bytes up to the empty line, strictly and within a limit.

h11 accepts a bare LF as the end of a line, joins folded lines and allows control characters. A proxy
must not accept these, because the next parser may read them differently. So this module accepts only
heads that every parser reads in the same way (RFC 9112, 2.2 and 5.2): lines end in CR LF, no line is
folded, and the tab is the only control character. h11 gets the accepted head in one piece. Bytes
after the empty line are returned separately and not examined.

This is not a parser: it handles lines, not fields. `RequestReader` and `LocalResponse` call it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from seance.errors import RemoteProtocolError

__all__ = ["DEFAULT_HEAD_BYTES", "FIELD_LIMIT", "FORWARDED_FIELDS", "HeadBuffer"]

DEFAULT_HEAD_BYTES = 16 * 1024
"""Default limit of a head, including the empty line. Node and h11 use the same."""

FIELD_LIMIT = 100
"""Default limit of fields in one head, as in Apache. Browsers send about 15."""

FORWARDED_FIELDS = 3
"""Fields that the relay adds to a client's: ``X-Forwarded-For``, ``-Proto`` and ``-Host``."""

_FAULT = re.compile(rb"[^\t\r\n -~\x80-\xff]|\r[^\n]|(?<!\r)\n|\n[ \t]")
"""A control character, a bare CR, a bare LF, or a folded line. At most two bytes long."""

_LEGAL = bytes(byte for byte in range(256) if byte in b"\t\r\n" or (byte >= 0x20 and byte != 0x7F))


class HeadBuffer:
    """Collects one head.

    The result depends only on the bytes, not on the boundaries of the chunks: the first fault in the
    input is reported. The time is linear in the input, even if it arrives byte by byte.

    Args:
        limit_bytes: Maximum length of the head, including the empty line.
        check_start_line: Called once with the first line, without CR LF, as soon as it is complete.
            Its exceptions propagate, so garbage is rejected early.
        limit_fields: Maximum number of fields.
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
        """Bytes after the head in the same input; set when `receive` returns the head."""

    def receive(self, data: bytes) -> bytes | None:
        """Add bytes. Do not call it again after it has returned a head or raised.

        Args:
            data: Received bytes; the boundaries of the chunks do not matter.

        Returns:
            The complete head with its empty line, or None while it is incomplete.

        Raises:
            RemoteProtocolError: ``"head_malformed"``, or ``"head_too_long"`` for too many bytes
                and for too many fields.
        """
        buffer = self._buffer
        buffer += data
        stop = min(len(buffer), self._limit_bytes)
        fault = _first_fault(buffer, max(self._scanned_bytes - 1, 0), stop)
        # Only the last byte of a fault is wrong: bytes before it may complete a line or the head.
        valid_bytes = fault.end() - 1 if fault else stop
        self._call_start_line_check(valid_bytes)
        end = buffer.find(b"\r\n\r\n", max(self._scanned_bytes - 3, 0), valid_bytes)
        if end >= 0:
            return self._split(end + 4)
        if fault:
            raise RemoteProtocolError(_describe(bytes(fault[0])), code="head_malformed")
        if len(buffer) >= self._limit_bytes:
            raise RemoteProtocolError(
                f"The head is longer than {self._limit_bytes} bytes.", code="head_too_long"
            )
        self._scanned_bytes = stop
        return None

    def _call_start_line_check(self, valid_bytes: int) -> None:
        if self._check_start_line is None:
            return
        end = self._buffer.find(b"\r\n", max(self._scanned_bytes - 1, 0), valid_bytes)
        if end >= 0:
            check, self._check_start_line = self._check_start_line, None
            check(bytes(self._buffer[:end]))

    def _split(self, length: int) -> bytes:
        head = bytes(self._buffer[:length])
        # One CR LF ends the start line, and one is the empty line.
        if head.count(b"\r\n") - 2 > self._limit_fields:
            raise RemoteProtocolError(
                f"The head has more than {self._limit_fields} fields.", code="head_too_long"
            )
        self.trailing = bytes(self._buffer[length:])
        self._buffer = bytearray()
        return head


def _first_fault(buffer: bytearray, start: int, stop: int) -> re.Match[bytes] | None:
    data = buffer[start:stop]
    ends = data.count(b"\r\n")
    if (
        data.count(b"\r") == ends == data.count(b"\n")
        and b"\n " not in data
        and b"\n\t" not in data
        and not data.translate(None, _LEGAL)
    ):
        return None  # seen at a twentieth of the cost of the pattern, which has four branches per byte
    return _FAULT.search(buffer, start, stop)


def _describe(fault: bytes) -> str:
    """Return a description of a match of ``_FAULT``."""
    if fault == b"\n":
        return "a line ends in LF without CR"
    if fault.startswith(b"\n"):
        return "a field is folded over two lines"
    if fault.startswith(b"\r"):
        return "there is a CR without LF"
    return f"there is a control character (0x{fault[0]:02x})"
