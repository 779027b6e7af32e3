r"""Parses a header of the PROXY protocol, versions 1 and 2.

The specification is https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt; section numbers below
refer to it. A header may arrive in any segmentation, and together with the bytes that follow it. A header
without usable addresses (``UNKNOWN``, ``LOCAL``, ``AF_UNSPEC``, UNIX sockets) is valid: the receiver then
uses the addresses of the connection. ``seance.net.proxy_protocol`` uses this for a listener.

Twisted's parser is not used: it rejects ``PROXY UNKNOWN\r\n`` and a header whose first 8 to 16 bytes come in
two segments.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from seance.errors import LocalProtocolError, RemoteProtocolError

__all__ = ["LONGEST_LINE", "ProxyHeader", "ProxyHeaderReader"]

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""The first 12 bytes of version 2 (section 2.2)."""

LINE_START = b"PROXY "
"""The first bytes of version 1 (section 2.1)."""

LONGEST_LINE = 107
"""The longest line of version 1, CR LF included (section 2.1)."""

FIXED_BYTES = 16
"""The fixed part of version 2: signature, version and command, family and transport, length."""

KEPT_BYTES = FIXED_BYTES + 216
"""Bytes of a version 2 header that are stored, enough for the longest addresses. Its TLVs are skipped, up to
the 65,535 bytes that the length field allows."""

LOCAL, PROXY = 0x0, 0x1

_PORT = re.compile(rb"0|[1-9][0-9]{0,4}")
_SHOWN_BYTES = 24


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A header.

    Attributes:
        version: 1 or 2.
        source: Address and port of the client, or None to use those of the connection.
        destination: Address and port that the client connected to; None together with ``source``.
    """

    version: int
    source: tuple[IPv4Address | IPv6Address, int] | None = None
    destination: tuple[IPv4Address | IPv6Address, int] | None = None


class ProxyHeaderReader:
    """Reads the header at the start of a connection.

    Attributes:
        trailing: Bytes after the header in the same input; set when `receive` returns the header.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._received = 0
        self._is_over = False
        self.trailing = b""

    @property
    def has_begun(self) -> bool:
        """Whether any byte was received."""
        return self._received > 0

    def receive(self, data: bytes) -> ProxyHeader | None:
        """Process bytes of the connection.

        Args:
            data: Received bytes; the boundaries of the chunks do not matter.

        Returns:
            The header, or None while it is incomplete.

        Raises:
            RemoteProtocolError: ``"proxy_header"``: the header is not valid; the message names the fault.
            LocalProtocolError: ``"reader_over"``: an earlier call returned a header or raised.
        """
        if self._is_over:
            raise LocalProtocolError("This reader has already read its header.", code="reader_over")
        self._is_over = True
        self._received += len(data)
        self._buffer += data[: KEPT_BYTES - len(self._buffer)]
        length = self._length()
        if length is None or self._received < length:
            self._is_over = False
            return None
        # The header was incomplete before this input, so all excess bytes are in this input.
        self.trailing = data[len(data) - (self._received - length) :]
        if self._buffer.startswith(LINE_START):
            return _header_of_line(bytes(self._buffer[: length - 2]))
        return _header_of_bytes(bytes(self._buffer[:length]), length - FIXED_BYTES)

    def _length(self) -> int | None:
        """Return the length of the header, or None while it is not known."""
        buffer = self._buffer
        if buffer.startswith(LINE_START[: len(buffer)]):
            end = buffer.find(b"\r\n", 0, LONGEST_LINE)
            if end < 0 and len(buffer) >= LONGEST_LINE:
                raise _fault(f"no CR LF among the first {LONGEST_LINE} bytes of version 1")
            return end + 2 if end >= 0 else None
        if buffer.startswith(SIGNATURE[: len(buffer)]):
            if len(buffer) > len(SIGNATURE):
                _check_command(buffer[len(SIGNATURE)])
            is_known = len(buffer) >= FIXED_BYTES
            return FIXED_BYTES + int.from_bytes(buffer[14:16], "big") if is_known else None
        raise _fault(f"it begins with {_shown(buffer)}, which is no PROXY header")


def _header_of_line(line: bytes) -> ProxyHeader:
    family, _, rest = line.removeprefix(LINE_START).partition(b" ")
    if family == b"UNKNOWN":
        return ProxyHeader(1)  # the rest of the line must be ignored
    if family not in (b"TCP4", b"TCP6"):
        raise _fault(f"{_shown(family)} is none of TCP4, TCP6 and UNKNOWN")
    words = rest.split(b" ")
    if len(words) != 4:
        raise _fault(f"{family.decode()} is not followed by two addresses and two ports")
    first, second = (_address_of_text(word, family) for word in words[:2])
    first_port, second_port = (_port_of_text(word) for word in words[2:])
    return ProxyHeader(1, (first, first_port), (second, second_port))


def _address_of_text(word: bytes, family: bytes) -> IPv4Address | IPv6Address:
    try:
        text = word.decode("ascii")
        if "%" not in text:  # a zone has a meaning on the proxy's machine only
            return IPv4Address(text) if family == b"TCP4" else IPv6Address(text)
    except ValueError:
        pass
    raise _fault(f"{_shown(word)} is no address for {family.decode()}")


def _port_of_text(word: bytes) -> int:
    if _PORT.fullmatch(word) is None or int(word) > 65535:
        raise _fault(f"{_shown(word)} is no port")
    return int(word)


def _check_command(byte: int) -> None:
    if byte >> 4 != 2:
        raise _fault(f"version {byte >> 4} follows the signature of version 2")
    if byte & 0xF not in (LOCAL, PROXY):
        raise _fault(f"command {byte & 0xF} of version 2 is unknown")


def _header_of_bytes(header: bytes, length: int) -> ProxyHeader:
    family, transport = header[13] >> 4, header[13] & 0xF
    if header[12] & 0xF == LOCAL:
        return ProxyHeader(2)  # the rest must be ignored, including the family
    if family > 3 or transport > 2:
        raise _fault(f"family {family} or transport {transport} of version 2 is unknown")
    size = (0, 4, 16, 108)[family] if transport else 0
    needed = 2 * size + (4 if family in (1, 2) and transport else 0)
    if length < needed:
        raise _fault(f"{length} bytes are too few for the addresses of family {family}")
    if family not in (1, 2) or not transport:
        return ProxyHeader(2)
    kind: type[IPv4Address | IPv6Address] = IPv4Address if family == 1 else IPv6Address
    source, destination, ports = (
        header[FIXED_BYTES : FIXED_BYTES + size],
        header[FIXED_BYTES + size : FIXED_BYTES + 2 * size],
        header[FIXED_BYTES + 2 * size : FIXED_BYTES + needed],
    )
    return ProxyHeader(
        2,
        (kind(source), int.from_bytes(ports[:2], "big")),
        (kind(destination), int.from_bytes(ports[2:], "big")),
    )


def _shown(word: bytes | bytearray) -> str:
    return repr(bytes(word[:_SHOWN_BYTES]))


def _fault(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"The PROXY header is not valid: {what}.", code="proxy_header")
