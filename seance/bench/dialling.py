"""The client's side: from a URL to a WebSocket connection in the hands of a protocol of the caller's.

``dial`` writes the upgrade, reads the answer, checks it and hands the connection over; what it hands over
is raw: no frame has been looked at, and what was glued to the answer comes first. The checks put a
``Talk`` behind it, with which a coroutine sends and receives frames; the loads of a benchmark bring
protocols of their own that do as little as they can.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote, urlsplit

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from seance.errors import ConfigError, Gone, Refusal, RemoteProtocolError, SeanceError
from seance.heads.boundary import HeadBuffer
from seance.heads.fields import Fields, field_values, written_head
from seance.heads.redaction import redact
from seance.heads.upgrade import accept_for_key
from seance.net import ClientTls, HandOver, TlsEndpoint, tune

__all__ = ["Target", "dial"]

DIAL_SECONDS = 20.0
"""From the first packet to the 101, as in Firefox; a relay may hold an upgrade for 15 s."""

BODY_BYTES = 2048
DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}

_STATUS = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2})(?: .*)?")


@dataclass(frozen=True, slots=True)
class Target:
    """A WebSocket server, perhaps behind a tunnel.

    Attributes:
        is_secure: Whether it is ``wss``.
        host: A name or an address, without brackets.
        port: Its port.
        path: What stands before the place, without a slash at its end.
        query: Without the question mark; may hold the room.
        token: What to show to the relay; None for nothing.
        ca_file: The only authorities to believe; those of the system if None.
    """

    is_secure: bool
    host: str
    port: int
    path: str = ""
    query: str = ""
    token: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @classmethod
    def from_url(cls, url: str, *, token: str | None = None, ca_file: Path | None = None) -> Target:
        """Read ``ws://HOST[:PORT][/PATH][?QUERY]`` or ``wss://...``; ``http`` and ``https`` mean the same.

        Raises:
            ConfigError: It is none of these.
        """
        form = "use ws://HOST:PORT/PATH or wss://HOST/PATH"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"The URL cannot be read ({error}); {form}.") from error
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname or not url.isascii():
            raise ConfigError(f"The URL is not a WebSocket address; {form}.")
        return cls(
            parts.scheme in ("wss", "https"),
            parts.hostname,
            port or DEFAULT_PORTS[parts.scheme],
            quote(parts.path.rstrip("/"), safe="/%:@!$&'()*+,;=~"),
            parts.query,
            token,
            ca_file,
        )

    def at(self, place: str, query: str = "") -> Target:
        """Return the target one step further down its path."""
        joined = "&".join(part for part in (self.query, query) if part)
        return replace(self, path=f"{self.path}/{place}" if place else self.path, query=joined)

    @property
    def request_target(self) -> str:
        """What stands in the request line."""
        return (self.path or "/") + (f"?{self.query}" if self.query else "")

    def __str__(self) -> str:
        """Write it without its query, which may hold a token."""
        return f"{'wss' if self.is_secure else 'ws'}://{self.host_header}{self.path}"

    @property
    def host_header(self) -> str:
        """Host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:  # noqa: ANN401  # of endpoints: no common type
        """Return what connects to it."""
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            reactor, self.host, self.port, timeout=DIAL_SECONDS, attemptDelay=0.1
        )
        if self.is_secure:
            tls = ClientTls(self.host, ca_file=self.ca_file)
            endpoint = TlsEndpoint(reactor, endpoint, tls, self.host)
        return endpoint


async def dial(
    reactor: Any,  # noqa: ANN401  # what endpoints want: no common type
    target: Target,
    protocol: IProtocol,
    *,
    first: bytes = b"",
    subprotocols: Sequence[str] = (),
    deadline_seconds: float = DIAL_SECONDS,
) -> Fields:
    """Open a WebSocket and hand the connection to ``protocol``.

    Args:
        reactor: Where time and connections come from.
        target: Whom to dial.
        protocol: Gets the connection after the 101, and at once what was glued to it.
        first: What to send in the same write as the request.
        subprotocols: What to offer.
        deadline_seconds: From the first packet to the 101.

    Returns:
        The header fields of the 101.

    Raises:
        Refusal: The answer was another status.
        LocalProtocolError: The target cannot stand in a request.
        SeanceError: It could not be reached, hung up, or answered something else.
    """
    opening = _Opening(target, protocol, first, subprotocols)
    factory = Factory.forProtocol(lambda: opening)
    factory.noisy = False
    is_cancelled = False

    def cancel(_: object) -> None:
        nonlocal is_cancelled
        is_cancelled = True
        connecting.cancel()

    connecting: Deferred[IProtocol] = target.endpoint(reactor).connect(factory)
    connecting.addCallback(lambda _: opening.opened)

    def give_up(_: object, seconds: float) -> None:
        raise Gone(f"{target} did not answer within {seconds:g} s.", code="timeout")

    connecting.addTimeout(deadline_seconds, reactor, give_up)
    waiting: Deferred[IProtocol] = Deferred(cancel)
    connecting.chainDeferred(waiting)
    try:
        await waiting
    except Exception as error:  # whatever connecting failed with: Twisted has a dozen types
        opening.cut()
        if is_cancelled:
            # An endpoint that is cancelled says anything, even that it knows no such host.
            raise CancelledError from None
        if isinstance(error, SeanceError):
            raise
        words = str(error).rstrip(".") or type(error).__name__
        raise Gone(f"{target} cannot be reached: {words}.", code="unreachable") from error
    return opening.fields


class _Opening(HandOver):
    """Asks, reads the answer, and steps aside."""

    def __init__(
        self, target: Target, protocol: IProtocol, first: bytes, subprotocols: Sequence[str]
    ) -> None:
        self._target = target
        self._protocol = protocol
        self._key = base64.b64encode(os.urandom(16))
        self._request = self._written_request(subprotocols) + first
        self._head = HeadBuffer()
        self._refusal = bytearray()
        self._status = 0
        self._is_over = False
        self._is_lost = False
        self.fields: Fields = ()
        self.opened: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        tune(self.transport)
        assert self.transport is not None, "Twisted has set it"
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if self._status:
            self._refusal += data[: BODY_BYTES - len(self._refusal)]
            return
        try:
            head = self._head.receive(data)
            if head is None:
                return
            self._read(head)
        except RemoteProtocolError as error:
            self._fail(Gone(f"{self._target} does not answer in HTTP: {error}", code="not_http"))
            return
        if self._status:
            self._refusal += self._head.trailing[:BODY_BYTES]
            return
        self._is_over = True
        self.hand_over(self._protocol)
        if self._head.trailing:
            self._protocol.dataReceived(self._head.trailing)
        self.opened.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        if self._is_over:
            super().connectionLost(reason)
        elif self._status:
            words = redact(bytes(self._refusal).decode("utf-8", "replace")).strip()
            sentence = words if words.isprintable() and words else f"HTTP status {self._status}."
            self._fail(Refusal(self._status, sentence, code="refused"))
        else:
            self._fail(Gone(f"{self._target} hung up instead of answering.", code="hung_up"))

    def readConnectionLost(self) -> None:
        if self._is_over:
            super().readConnectionLost()
        elif self.transport is not None:
            self.transport.loseConnection()

    def cut(self) -> None:
        """Drop the connection if nobody waits for it any more."""
        if not self._is_over:
            self._is_over = True
            if self.transport is not None and not self._is_lost:
                cast(Any, self.transport).abortConnection()

    def _fail(self, error: SeanceError) -> None:
        if not self._is_over:
            self.cut()
            self.opened.errback(Failure(error))

    def _written_request(self, subprotocols: Sequence[str]) -> bytes:
        target = self._target
        fields = [
            (b"Host", target.host_header.encode()),
            (b"Connection", b"Upgrade"),
            (b"Upgrade", b"websocket"),
            (b"Sec-WebSocket-Version", b"13"),
            (b"Sec-WebSocket-Key", self._key),
        ]
        if subprotocols:
            fields.append((b"Sec-WebSocket-Protocol", ", ".join(subprotocols).encode()))
        if target.token is not None:
            fields.append((b"Authorization", b"Bearer " + target.token.encode()))
        return written_head(b"GET " + target.request_target.encode() + b" HTTP/1.1", fields)

    def _read(self, head: bytes) -> None:
        line, *lines = head[:-4].split(b"\r\n")
        match = _STATUS.fullmatch(line)
        if match is None:
            raise RemoteProtocolError("its first line is no status line.", code="status_line")
        pairs = [one.partition(b":") for one in lines]
        self.fields = tuple((name, value.strip(b" \t")) for name, _, value in pairs)
        if match[1] != b"101":
            self._status = int(match[1])
        elif field_values(self.fields, b"sec-websocket-accept") != [accept_for_key(self._key)]:
            raise RemoteProtocolError("its 101 does not answer this request.", code="accept_mismatch")
