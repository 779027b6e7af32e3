"""Parses a request head: bytes in, a `Request` or a `Refusal` out.

The relay reads the head of every connection with this (/agent, /client, /health), and the agent reads the
head of each stream. Only the syntax is checked: any method and path are accepted. `check_upgrade` checks
whether the request is a WebSocket upgrade, `resolve_target` maps its target. Requests with a body are
refused, because no request to this service has one and request smuggling needs one (RFC 9112, 11.2).

h11 parses; `HeadBuffer` before it and the checks after it refuse heads that h11 accepts although other
parsers read them differently. `split_fields` reads a usual head instead of h11, with the same result
(`tests/heads/test_split_fields.py`) and at a tenth of the cost. All that it does not accept goes to h11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import cast

import h11

from seance.errors import LocalProtocolError, Refusal, RemoteProtocolError
from seance.heads.boundary import DEFAULT_HEAD_BYTES, FIELD_LIMIT, HeadBuffer
from seance.heads.fields import Fields, is_valid_host, split_fields
from seance.heads.refusals import refusal

__all__ = ["Request", "RequestReader"]

_START_LINE = re.compile(rb"[!-~]+ [!-~]+ HTTP/([0-9]+(?:\.[0-9]+)?)")
_VERSION = re.compile(rb"HTTP/[0-9]+(?:\.[0-9]+)?\Z")
_LOWER_CASE = re.compile(rb" (?!HTTP/)[Hh][Tt][Tt][Pp]/[0-9.]+\Z")
_ABSOLUTE = re.compile(rb"(?:https?|wss?)://([^/?]*)((?:[/?].*)?)", re.IGNORECASE)
_NAME = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_METHOD = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+ ")


@dataclass(frozen=True, slots=True)
class Request:
    """A well-formed request head with exactly one valid Host and without a body.

    Attributes:
        method: Any token, case-sensitive.
        target: Path and query as raw bytes; starts with a slash. If the request had an absolute target,
            its host has replaced the value of ``Host``.
        headers: Names and values in wire order and wire case.
        http_version: ``b"1.1"``, or ``b"1.0"`` if the reader accepts that. An HTTP/1.0 request may have
            no Host.
    """

    method: bytes
    target: bytes
    headers: Fields
    http_version: bytes = b"1.1"
    _values: dict[bytes, list[bytes]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def values(self, name_lowercase: bytes) -> list[bytes]:
        """Return the values of all fields with that name, in order. Do not change the list."""
        values = self._values
        if not values:  # the relay asks for a dozen names
            for name, value in self.headers:
                values.setdefault(name.lower(), []).append(value)
        return values.get(name_lowercase, [])


class RequestReader:
    """Reads one request head.

    Args:
        limit_bytes: Maximum length of the head, including the empty line.
        limit_fields: Maximum number of fields.
        accept_http_10: Accept HTTP/1.0 too. Health checks of load balancers use it, often without
            a Host. `check_upgrade` refuses such a request (RFC 9110, 7.8).
    """

    def __init__(
        self,
        limit_bytes: int = DEFAULT_HEAD_BYTES,
        limit_fields: int = FIELD_LIMIT,
        *,
        accept_http_10: bool = False,
    ) -> None:
        self._limit_bytes = limit_bytes
        self._limit_fields = limit_fields
        check = _check_start_line_or_http_10 if accept_http_10 else _check_start_line
        self._head = HeadBuffer(limit_bytes, check_start_line=check, limit_fields=limit_fields)
        self._is_over = False

    @property
    def trailing(self) -> bytes:
        """Bytes after the head in the same input. They are data of the client and must be passed on."""
        return self._head.trailing

    def receive(self, data: bytes) -> Request | None:
        """Process bytes of the connection.

        After it has returned a `Request`, read `trailing` and do not call this again.

        Args:
            data: Received bytes; the boundaries of the chunks do not matter.

        Returns:
            The request, or None while its head is incomplete.

        Raises:
            Refusal: 400 for a head that is not well-formed HTTP/1.1 or has a body, 431 for a head over
                the limit.
            LocalProtocolError: ``"reader_over"``: an earlier call returned a request or raised.
        """
        if self._is_over:
            raise LocalProtocolError("This reader has already read its request.", code="reader_over")
        self._is_over = True
        try:
            head = self._head.receive(data)
        except RemoteProtocolError as error:
            raise self._refusal(error) from error
        request = None if head is None else _parsed(head)
        self._is_over = request is not None
        return request

    def _refusal(self, error: RemoteProtocolError) -> Refusal:
        if error.code == "head_too_long":
            return refusal("head_too_long", limit_bytes=self._limit_bytes, limit_fields=self._limit_fields)
        return _malformed(error.message)


def _parsed(head: bytes) -> Request:
    request = _usual(head) or _parsed_by_h11(head)
    target, authority = _origin_form(request.target)
    if not all(map(is_valid_host, request.values(b"host"))):
        raise refusal("malformed_host")
    if request.values(b"transfer-encoding") or request.values(b"content-length") not in ([], [b"0"]):
        raise refusal("body_not_allowed")
    if authority is None:
        return request
    # The host in an absolute target overrides Host (RFC 9112, 3.2.2). Host is replaced here, so that no later
    # code can read the other value.
    fields = tuple((name, authority if name.lower() == b"host" else value) for name, value in request.headers)
    return Request(request.method, target, fields, request.http_version)


def _usual(head: bytes) -> Request | None:
    """Return the request, or None if h11 has to decide."""
    fields = split_fields(head)
    if fields is None:
        return None
    method, target, version = head[: head.index(b"\r\n")].split(b" ")  # `_check_start_line` has accepted it
    request = Request(method, target, fields, version.removeprefix(b"HTTP/"))
    is_usual = len(request.values(b"host")) == 1 and _NAME.fullmatch(method) is not None
    return request if is_usual else None


def _parsed_by_h11(head: bytes) -> Request:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head))
    connection.receive_data(head)
    try:
        # A complete head is one event or an error, never NEED_DATA.
        event = cast(h11.Request, connection.next_event())
    except h11.RemoteProtocolError as error:
        raise _refusal_of(head) from error
    return Request(event.method, event.target, tuple(event.headers.raw_items()), event.http_version)


def _origin_form(target: bytes) -> tuple[bytes, bytes | None]:
    """Return a target's path and query, and its host if it is absolute (RFC 9112, 3.2)."""
    if b"#" in target:
        raise _malformed_target("a request target must not contain a fragment (#)")
    if target.startswith(b"/"):
        return target, None
    if target == b"*":
        raise _malformed_target("* refers to the whole server, which is not supported")
    match = _ABSOLUTE.fullmatch(target)
    if match is None and b"/" not in target:
        raise _malformed_target("a host and port without a path are for proxies, and this is not one")
    if match is None:
        raise _malformed_target("it is neither a path nor an http, https, ws or wss address")
    authority, path = match.groups()
    if b"@" in authority:
        raise _malformed_target("an address in a request target must not contain a user name")
    if not is_valid_host(authority):
        raise _malformed_target("its host is not a valid host name")
    return path if path.startswith(b"/") else b"/" + path, authority


def _refusal_of(head: bytes) -> Refusal:
    """Return the refusal for a head that h11 rejects, with the reason."""
    start, *lines = head[:-4].split(b"\r\n")
    names = [line.partition(b":")[0].lower() for line in lines]
    for line, name in zip(lines, names, strict=True):
        if b":" not in line:
            return _malformed("a field has no colon")
        if _NAME.fullmatch(name) is None:
            what = "a space or another character" if name.isascii() else "a byte outside ASCII"
            return _malformed(f"the name of a field contains {what} that is not allowed in names")
    if _METHOD.match(start) is None:
        return _malformed("the method contains a character that is not allowed")
    hosts = names.count(b"host")
    if hosts != 1:
        return _malformed("there is no Host field" if not hosts else "there is more than one Host field")
    if b"transfer-encoding" in names:
        return _malformed("it has a Transfer-Encoding, so it has a body, and bodies are not supported")
    if b"content-length" in names:
        return _malformed("Content-Length is not one number")
    return _malformed("the value of a field contains a character that is not allowed")


def _malformed_target(why: str) -> Refusal:
    return refusal("malformed_target", reason=why)


def _check_start_line_or_http_10(line: bytes) -> None:
    _check_start_line(line, (b"1.1", b"1.0"))


def _check_start_line(line: bytes, versions: tuple[bytes, ...] = (b"1.1",)) -> None:
    match = _START_LINE.fullmatch(line)
    if match is None:
        raise _malformed(_wrong_with_start_line(line))
    if match[1] not in versions:
        raise refusal("http_version")


def _wrong_with_start_line(line: bytes) -> str:
    if not line:
        return "it begins with an empty line"
    if not line.isascii():
        return "its first line contains a byte that is not ASCII; write it as a percent escape (%C3%A9 for é)"
    if _LOWER_CASE.search(line) is not None:
        return "the name of the protocol must be in capitals, HTTP"
    if _VERSION.search(line) is None:
        return "its first line does not end in HTTP/1.1"
    return "its first line is not a method, a target and HTTP/1.1, separated by single spaces"


def _malformed(why: str) -> Refusal:
    return refusal("malformed_request", reason=why)
