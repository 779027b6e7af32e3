"""Header fields: the few questions we ask of them, and the one place that writes them.

Fields are pairs of name and value as they stood on the wire, in order, in their own case. Nothing
here parses a head (h11 does) or decides which field stays (`rebuild` does).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from seance.errors import LocalProtocolError

__all__ = ["Fields", "field_values", "is_valid_host", "list_tokens", "written_head"]

Fields = tuple[tuple[bytes, bytes], ...]
"""Names and values in wire order and wire case."""

_NAME = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_START_LINE = re.compile(rb"[!-~][\t -~\x80-\xff]*")
_HOST = re.compile(rb"(?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


def field_values(fields: Iterable[tuple[bytes, bytes]], name_lowercase: bytes) -> list[bytes]:
    """Return the values of every field of that name, in order."""
    return [value for name, value in fields if name.lower() == name_lowercase]


def list_tokens(values: Iterable[bytes]) -> list[bytes]:
    """Return the elements of a comma separated list, in lower case (RFC 9110, 5.6.1)."""
    elements = (element.strip(b" \t").lower() for value in values for element in value.split(b","))
    return [element for element in elements if element]


def is_valid_host(host: bytes) -> bool:
    """Return whether this may stand in a Host field.

    Names, IPv4, IPv6 in brackets, and a port: what browsers send. RFC 3986 would allow
    punctuation and percent escapes too; those serve only to confuse whoever reads the host next.
    """
    return _HOST.fullmatch(host) is not None


def written_head(start_line: bytes, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Write a head, empty line included.

    Every piece is looked at once more on its way out, so that no value, wherever it came from,
    can end a line.

    Raises:
        LocalProtocolError: ``"field_invalid"``: a name, a value or the start line is not legal.
    """
    pieces = [start_line]
    sound = _START_LINE.fullmatch(start_line) is not None
    for name, value in fields:
        sound = sound and _NAME.fullmatch(name) is not None and _VALUE.fullmatch(value) is not None
        pieces.append(name + b": " + value)
    if not sound:
        raise LocalProtocolError("A head that we were to write is not legal HTTP.", code="field_invalid")
    return b"\r\n".join(pieces) + b"\r\n\r\n"
