"""Header fields: lookup functions, the parser of usual heads, and the function that writes a head.

Fields are pairs of name and value, in wire order and wire case. `rebuild` decides which fields are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from seance.errors import LocalProtocolError

__all__ = [
    "SWITCHING",
    "Fields",
    "field_values",
    "format_head",
    "is_valid_host",
    "list_tokens",
    "split_fields",
]

Fields = tuple[tuple[bytes, bytes], ...]
"""Names and values in wire order and wire case."""

SWITCHING: Fields = ((b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))
"""The only hop-by-hop fields that are written into a handshake."""

_NAME = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_FIELD = re.compile(
    rb"\r\n([-!#$%&'*+.^_`|~0-9A-Za-z]+):[ \t]*+((?:[^\r]*[^\r \t])?)[ \t]*+(?=\r)",
)
"""One line of a head. The possessive parts keep a value of many spaces linear."""

_BODY = (b"content-length", b"transfer-encoding")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_START_LINE = re.compile(rb"[!-~][\t -~\x80-\xff]*")
_HOST = re.compile(rb"(?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


def split_fields(head: bytes) -> Fields | None:
    """Return the fields of a usual head, as h11 would; None if only h11 can tell.

    h11 takes 0.1 ms for a head, this function 6 us. It leaves heads with a malformed field, or with a field
    that describes a body, to h11.

    Args:
        head: A head that `HeadBuffer` has accepted: every line ends in CR LF, and none is folded.
    """
    fields = tuple(_FIELD.findall(head))
    is_usual = len(fields) == head.count(b"\r\n") - 2 and not any(name.lower() in _BODY for name, _ in fields)
    return fields if is_usual else None


def field_values(fields: Iterable[tuple[bytes, bytes]], name_lowercase: bytes) -> list[bytes]:
    """Return the values of all fields with that name, in order."""
    return [value for name, value in fields if name.lower() == name_lowercase]


def list_tokens(values: Iterable[bytes]) -> list[bytes]:
    """Return the elements of a comma separated list, in lower case (RFC 9110, 5.6.1)."""
    elements = (element.strip(b" \t").lower() for value in values for element in value.split(b","))
    return [element for element in elements if element]


def is_valid_host(host: bytes) -> bool:
    """Return whether ``host`` is allowed in a Host field.

    Accepted are a name, an IPv4 address, or an IPv6 address in brackets, each with an optional port. RFC
    3986 also allows punctuation and percent escapes. No browser sends these, and the next parser may
    read them differently.
    """
    return _HOST.fullmatch(host) is not None


def format_head(start_line: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a head as bytes, including the empty line.

    Each name and value is checked here, so that no value can contain a line break.

    Raises:
        LocalProtocolError: ``"field_invalid"``: a name, a value or the start line is not legal.
    """
    pieces, names, values = [start_line], [], []
    for name, value in fields:
        pieces.append(name + b": " + value)
        names.append(name or b" ")  # not legal
        values.append(value)
    # One match for all names and one for all values, because each call costs more than the match itself.
    if (
        _START_LINE.fullmatch(start_line) is None
        or _NAME.fullmatch(b"".join(names) or b"-") is None
        or _VALUE.fullmatch(b"".join(values)) is None
    ):
        raise LocalProtocolError(
            "The head to be written has a name, value or start line that is not legal HTTP.",
            code="field_invalid",
        )
    return b"\r\n".join(pieces) + b"\r\n\r\n"
