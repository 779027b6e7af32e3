"""One request head: bytes in, a `Request` or a `Refusal` out.

The relay reads every connection with this, whatever it will turn out to be (/agent, /client,
/health), and the agent reads each stream with it again. So it judges syntax alone: any method, any
path. Whether the request is a WebSocket upgrade is asked by `check_upgrade`, where it leads by
`resolve_target`. A request with a body is refused here, since none of ours has one and a body is
what smuggling needs (RFC 9112, 11.2).

h11 parses; `HeadBuffer` before it and the checks after it refuse what h11 lets pass.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import cast

import h11

from seance.errors import LocalProtocolError, Refusal, RemoteProtocolError
from seance.heads.boundary import DEFAULT_HEAD_BYTES, FIELD_LIMIT, HeadBuffer
from seance.heads.fields import Fields, field_values, is_valid_host

__all__ = ["Request", "RequestReader"]

_START_LINE = re.compile(rb"[!-~]+ [!-~]+ HTTP/([0-9]+(?:\.[0-9]+)?)")


@dataclass(frozen=True, slots=True)
class Request:
    """A request head that is sound HTTP, with exactly one valid Host and without a body.

    Attributes:
        method: Any token; case matters.
        target: Starts with a slash; raw bytes, never decoded.
        headers: Names and values in wire order and wire case.
        http_version: ``b"1.1"``, or ``b"1.0"`` from a reader that accepts it. An HTTP/1.0 request
            may have no Host.
    """

    method: bytes
    target: bytes
    headers: Fields
    http_version: bytes = b"1.1"

    def values(self, name_lowercase: bytes) -> list[bytes]:
        """Return the values of every field of that name, in order."""
        return field_values(self.headers, name_lowercase)


class RequestReader:
    """Reads one request head and keeps what was glued to it.

    Args:
        limit_bytes: The greatest length of the head, empty line included.
        accept_http_10: Accept HTTP/1.0 as well. Health checks of load balancers use it, often without
            a Host. `check_upgrade` refuses such a request (RFC 9110, 7.8).
    """

    def __init__(self, limit_bytes: int = DEFAULT_HEAD_BYTES, *, accept_http_10: bool = False) -> None:
        self._limit_bytes = limit_bytes
        check = _check_start_line_or_http_10 if accept_http_10 else _check_start_line
        self._head = HeadBuffer(limit_bytes, check_start_line=check)
        self._is_over = False

    @property
    def trailing(self) -> bytes:
        """What followed the head in the same input; to be passed on, or the client loses data."""
        return self._head.trailing

    def receive(self, data: bytes) -> Request | None:
        """Take the next bytes of the connection.

        After a `Request` read `trailing` and do not call this again.

        Args:
            data: Bytes as they came, cut anywhere.

        Returns:
            The request, or None while its head is incomplete.

        Raises:
            Refusal: 400 for anything that is not a sound HTTP/1.1 head without a body, 431 for a
                head over the limit.
            LocalProtocolError: ``"reader_over"``: a request or a refusal was already given.
        """
        if self._is_over:
            raise LocalProtocolError("This reader has already read its request.", code="reader_over")
        self._is_over = True
        try:
            head = self._head.receive(data)
            request = None if head is None else _parsed(head)
        except (RemoteProtocolError, h11.RemoteProtocolError) as error:
            raise self._refusal(error) from error
        self._is_over = request is not None
        return request

    def _refusal(self, error: RemoteProtocolError | h11.RemoteProtocolError) -> Refusal:
        if isinstance(error, RemoteProtocolError) and error.code == "head_too_long":
            return Refusal(
                431,
                f"The request head is too large: {self._limit_bytes} bytes"
                f" and {FIELD_LIMIT} header fields are the limits.",
                code="head_too_long",
            )
        return _malformed()


def _parsed(head: bytes) -> Request:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head))
    connection.receive_data(head)
    # A head that is whole is one event or an error, never a wish for more.
    event = cast(h11.Request, connection.next_event())
    fields = tuple(event.headers.raw_items())
    if not event.target.startswith(b"/") or b"#" in event.target:
        raise Refusal(
            400,
            "The request target must be a path, such as /client?room=ID, without host or fragment.",
            code="malformed_target",
        )
    if not all(is_valid_host(host) for host in field_values(fields, b"host")):
        raise Refusal(400, "The Host header is not a valid host name.", code="malformed_host")
    lengths = field_values(fields, b"content-length")
    if field_values(fields, b"transfer-encoding") or lengths not in ([], [b"0"]):
        raise Refusal(400, "A request with a body cannot be served here; send none.", code="body_not_allowed")
    return Request(event.method, event.target, fields, event.http_version)


def _check_start_line_or_http_10(line: bytes) -> None:
    _check_start_line(line, (b"1.1", b"1.0"))


def _check_start_line(line: bytes, versions: tuple[bytes, ...] = (b"1.1",)) -> None:
    match = _START_LINE.fullmatch(line)
    if match is None:
        raise _malformed()
    if match[1] not in versions:
        raise Refusal(400, "HTTP/1.1 is needed; this request uses another version.", code="http_version")


def _malformed() -> Refusal:
    return Refusal(400, "This is not a well-formed HTTP/1.1 request.", code="malformed_request")
