"""Opens a WebSocket for a protocol of the caller, or reports the HTTP response that was sent instead.

``exchange`` sends one request to an endpoint, and ``dial`` opens a WebSocket to a ``Target``. After a valid
101, the caller's protocol gets the connection and the bytes that followed the 101. Frames are not decoded
here: ``WsConnection`` decodes every frame, and the loads of ``seance bench`` count bytes.
"""

from __future__ import annotations

import base64
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, cast
from urllib.parse import quote, urlsplit

import h11
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from seance.errors import ConfigError, Gone, LocalProtocolError, Refusal, SeanceError
from seance.heads import accept_for_key, redact
from seance.heads.boundary import DEFAULT_HEAD_BYTES
from seance.heads.fields import Fields
from seance.net import ClientTls, ProtocolSwitch, TlsEndpoint, tune

__all__ = ["DIAL_SECONDS", "HttpResponse", "Reactor", "Target", "dial", "exchange", "upgrade_fields"]

DIAL_SECONDS = 20.0
"""Default deadline for the 101, as in Firefox. A relay without its agent holds an upgrade for up to 15 s."""

Reactor = Any
"""A Twisted reactor. Its interfaces for time, TCP and processes have no common type."""

BODY_BYTES = 4096
DEFAULT_PORTS = {"ws": 80, "wss": 443, "http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Target:
    """The address of a WebSocket server, or of one behind a tunnel.

    Attributes:
        is_secure: Whether to use TLS (``wss``).
        host: A host name or address, without brackets.
        port: The TCP port.
        path: The path without a trailing slash.
        query: The query string without the question mark.
        token: Bearer token for the relay.
        ca_file: PEM file of the trusted authorities; None for the system's.
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
        """Parse ``ws://HOST[:PORT][/PATH][?QUERY]`` or ``wss://...``; ``http`` and ``https`` are synonyms.

        Raises:
            ConfigError: The URL is invalid.
        """
        form = "use ws://HOST:PORT/PATH or wss://HOST/PATH"
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"The URL cannot be parsed ({error}); {form}.") from error
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

    def at(self, path: str, query: str = "") -> Target:
        """Return the target with ``path`` and ``query`` appended to its own."""
        joined = "&".join(part for part in (self.query, query) if part)
        return replace(self, path=f"{self.path}/{path}" if path else self.path, query=joined)

    @property
    def request_target(self) -> str:
        """Path and query for the request line."""
        return (self.path or "/") + (f"?{self.query}" if self.query else "")

    def __str__(self) -> str:
        """Return the URL without its query, which may hold a token."""
        return f"{'wss' if self.is_secure else 'ws'}://{self.host_header}{self.path}"

    @property
    def host_header(self) -> str:
        """The value of the ``Host`` header field."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def endpoint(self, reactor: Reactor) -> IStreamClientEndpoint:
        """Return the endpoint that connects to the target."""
        endpoint: IStreamClientEndpoint = HostnameEndpoint(
            reactor, self.host, self.port, timeout=DIAL_SECONDS, attemptDelay=0.1
        )
        if self.is_secure:
            tls = _client_tls(self.host, self.port, self.ca_file)
            endpoint = TlsEndpoint(reactor, endpoint, tls, self.host)
        return endpoint


@lru_cache(maxsize=8)
def _client_tls(host: str, port: int, ca_file: Path | None) -> ClientTls:
    """Return the settings for a server, which read the authorities once and resume the last session."""
    return ClientTls(host, ca_file=ca_file)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An HTTP response.

    Attributes:
        status: The status code; 101 if the connection is a WebSocket now.
        fields: The header fields in order.
        body: The first 4,096 bytes of the body.
        seconds: Time from the start of connecting to the end of the response.
    """

    status: int
    fields: Fields
    body: bytes
    seconds: float


def upgrade_fields(key: str | None = None) -> dict[str, str]:
    """Return the header fields of an upgrade; ``key`` replaces a random ``Sec-WebSocket-Key``."""
    return {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key or base64.b64encode(os.urandom(16)).decode(),
    }


async def dial(
    reactor: Reactor,
    target: Target,
    protocol: IProtocol,
    *,
    first: bytes = b"",
    subprotocols: Sequence[str] = (),
    deadline_seconds: float = DIAL_SECONDS,
) -> Fields:
    """Open a WebSocket and give its connection to ``protocol``.

    Args:
        reactor: Twisted's reactor.
        target: The server.
        protocol: Receives the connection after the 101.
        first: Bytes to send in the same write as the request.
        subprotocols: The subprotocols to offer.
        deadline_seconds: Time limit for connecting and the handshake.

    Returns:
        The header fields of the 101.

    Raises:
        Refusal: The server responded with another status than 101.
        LocalProtocolError: The target has characters that a request must not contain.
        SeanceError: See ``exchange``.
    """
    fields = upgrade_fields()
    if subprotocols:
        fields["Sec-WebSocket-Protocol"] = ", ".join(subprotocols)
    if target.token is not None:
        fields["Authorization"] = f"Bearer {target.token}"
    response = await exchange(
        reactor,
        target.endpoint(reactor),
        target.request_target,
        {"Host": target.host_header, **fields},
        protocol,
        name=str(target),
        first=first,
        deadline_seconds=deadline_seconds,
    )
    if response.status != 101:
        text = redact(response.body.decode("utf-8", "replace")).strip()
        message = text if text.isprintable() and text else f"HTTP status {response.status}."
        raise Refusal(response.status, message, code="refused")
    return response.fields


async def exchange(
    reactor: Reactor,
    endpoint: IStreamClientEndpoint,
    request_target: str,
    fields: Mapping[str, str],
    protocol: IProtocol | None,
    *,
    name: str,
    first: bytes = b"",
    deadline_seconds: float,
) -> HttpResponse:
    """Send a GET request and return the response.

    Args:
        reactor: Twisted's reactor.
        endpoint: Connects to the server.
        request_target: Path and query.
        fields: All header fields, ``Host`` included.
        protocol: Receives the connection after a 101; None if the request is not an upgrade.
        name: The server's name in error messages.
        first: Bytes to send in the same write as the request.
        deadline_seconds: Time limit for connecting and the response.

    Raises:
        LocalProtocolError: ``field_invalid``: the request is not legal HTTP.
        Gone: There is no response: ``unreachable`` (its ``__cause__`` is the endpoint's error), ``timeout``,
            ``hung_up`` or ``not_http``, the last also for a 101 with a wrong ``Sec-WebSocket-Accept``.
        SeanceError: The TLS handshake failed.
    """
    attempt = _Exchange(request_target, fields, protocol, name, first)
    factory = Factory.forProtocol(lambda: attempt)
    factory.noisy = False
    is_cancelled = False

    def cancel(_: object) -> None:
        nonlocal is_cancelled
        is_cancelled = True
        connecting.cancel()

    connecting: Deferred[Any] = endpoint.connect(factory)
    connecting.addCallback(lambda _: attempt.done)
    connecting.addTimeout(deadline_seconds, reactor, attempt.time_out)
    waiting: Deferred[HttpResponse] = Deferred(cancel)
    connecting.chainDeferred(waiting)
    try:
        return await waiting
    except Exception as error:
        if is_cancelled:
            # A cancelled endpoint fails with various errors, even with "no such host".
            raise CancelledError from None
        if isinstance(error, SeanceError):
            raise
        reason = str(error).rstrip(".") or type(error).__name__
        raise Gone(f"{name} cannot be reached: {reason}", code="unreachable") from error
    finally:
        attempt.close()


class _Exchange(ProtocolSwitch):
    """Sends one request, reads its response and gives the connection away after a 101."""

    def __init__(
        self, target: str, fields: Mapping[str, str], protocol: IProtocol | None, name: str, first: bytes
    ) -> None:
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=DEFAULT_HEAD_BYTES)
        try:
            request = h11.Request(method="GET", target=target, headers=list(fields.items()))
            head = self._http.send(request) or b""
        except h11.LocalProtocolError as error:
            raise LocalProtocolError(
                f"The request to {name} is not legal HTTP: {error}.", code="field_invalid"
            ) from error
        self._request = head + (self._http.send(h11.EndOfMessage()) or b"") + first
        self._accept = accept_for_key(fields.get("Sec-WebSocket-Key", "").encode())
        self._protocol = protocol
        self._name = name
        self._response: h11.Response | None = None
        self._body = b""
        self._began = time.perf_counter()
        self._is_done = False
        self._is_lost = False
        self._has_received = False
        self.done: Deferred[HttpResponse] = Deferred()

    def connectionMade(self) -> None:
        tune(self.transport)
        cast(Any, self.transport).write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if not self._is_done:
            self._read(data)

    def readConnectionLost(self) -> None:
        if self._successor is not None:
            super().readConnectionLost()
        elif not self._is_done:
            self._read(b"")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        if self._successor is not None:
            super().connectionLost(reason)
        elif not self._is_done:
            if isinstance(reason.value, SeanceError):
                # In TLS 1.3, a server rejects the client's certificate after the handshake.
                self._fail(reason.value)
            else:
                self._read(b"")

    def time_out(self, _: object, seconds: float) -> NoReturn:
        if self._has_received:
            raise Gone(f"{self._name} does not speak HTTP, or its response never ends", code="not_http")
        missing = "take the connection" if self.transport is None else "answer"
        raise Gone(f"{self._name} did not {missing} within {seconds:g} s", code="timeout")

    def close(self) -> None:
        """Drop the connection, unless it has been given away."""
        self._is_done = True
        if self._successor is None and self.transport is not None and not self._is_lost:
            cast(Any, self.transport).abortConnection()

    def _read(self, data: bytes) -> None:
        self._has_received = self._has_received or bool(data)
        try:
            self._http.receive_data(data)
            while (event := self._http.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                    self._switch(event)
                    return
                if isinstance(event, h11.Response):
                    self._response = event
                elif isinstance(event, h11.Data):
                    self._body = (self._body + bytes(event.data))[:BODY_BYTES]
                elif isinstance(event, h11.ConnectionClosed):
                    self._fail(self._closed())
                    return
                if isinstance(event, h11.EndOfMessage) or len(self._body) == BODY_BYTES:
                    self._finish(cast(h11.Response, self._response))
                    return
        except h11.RemoteProtocolError as error:
            if self._response is not None:
                self._finish(self._response)
            elif self._has_received:
                why = str(error)[:200]
                self._fail(Gone(f"{self._name} does not speak HTTP ({why})", code="not_http"))
            else:
                self._fail(self._closed())

    def _switch(self, event: h11.InformationalResponse) -> None:
        accept = dict(event.headers).get(b"sec-websocket-accept")
        if self._protocol is None or accept != self._accept:
            message = f"{self._name} sent a 101 that does not match the request's key"
            self._fail(Gone(message, code="not_http"))
            return
        trailing = self._http.trailing_data[0]
        self.hand_over(self._protocol)
        if trailing:
            self._protocol.dataReceived(trailing)
        self._finish(event)

    def _finish(self, response: h11.Response | h11.InformationalResponse) -> None:
        self._is_done = True
        seconds = time.perf_counter() - self._began
        fields = tuple((bytes(name), bytes(value)) for name, value in response.headers.raw_items())
        self.done.callback(HttpResponse(response.status_code, fields, self._body, seconds))

    def _closed(self) -> Gone:
        return Gone(f"{self._name} closed the connection instead of answering", code="hung_up")

    def _fail(self, error: SeanceError) -> None:
        if not self._is_done:
            self._is_done = True
            self.done.errback(Failure(error))
