"""One HTTP request to a relay, a proxy or a local server: its response, or an open WebSocket.

``seance.wsclient`` sends and reads. The size of a response is limited, and only ``ServerResponse.summary``
shows parts of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint

from seance import __version__
from seance.doctor.connect import describe_error
from seance.errors import Gone
from seance.heads import redact
from seance.wsclient import WsConnection, exchange
from seance.wsclient.dial import upgrade_fields

__all__ = ["HttpServer", "ServerResponse", "open_websocket", "request"]

SUMMARY_CHARACTERS = 200

USER_AGENT = f"seance-doctor/{__version__}"


@dataclass(frozen=True, slots=True)
class HttpServer:
    """An HTTP server, and how to connect to it.

    Attributes:
        endpoint: Connects, TLS included.
        host: The value of ``Host``.
        name: The server's name in messages.
    """

    endpoint: IStreamClientEndpoint
    host: str
    name: str


@dataclass(frozen=True, slots=True)
class ServerResponse:
    """An HTTP response.

    Attributes:
        status: The status code, 100 to 599.
        body: The beginning of the body.
        seconds: Time from the start of connecting to the end of the response.
        fields: The header fields, names in lower case.
    """

    status: int
    body: bytes
    seconds: float
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def is_plain_text(self) -> bool:
        """Whether its type is ``text/plain``, as in every refusal of a relay or an agent."""
        return self.fields.get("content-type", "").startswith("text/plain")

    @property
    def summary(self) -> str:
        """The status, and a plain-text body as one printable line of at most 200 characters."""
        text = self.body.decode("utf-8", "replace") if self.is_plain_text else ""
        line = redact(" ".join("".join(char if char.isprintable() else " " for char in text).split()))
        return f'{self.status}, "{line[:SUMMARY_CHARACTERS]}"' if line else f"{self.status} ({self._kind})"

    @property
    def date(self) -> float | None:
        """The sender's clock when it wrote the response, in Unix seconds (RFC 9110, 6.6.1)."""
        try:
            return parsedate_to_datetime(self.fields["date"]).timestamp()
        except (KeyError, ValueError, OverflowError, OSError):
            return None

    @property
    def proxy(self) -> str:
        """The name of a proxy in front, from ``Server`` or ``Via``: a relay sends neither."""
        shown = self.fields.get("server") or self.fields.get("via") or ""
        return shown[:60] if shown.isprintable() else ""

    @property
    def _kind(self) -> str:
        kind = self.fields.get("content-type", "").partition(";")[0][:40]
        return kind if kind and kind.isprintable() else "no text"


async def request(
    reactor: Any,  # noqa: ANN401  # Twisted's reactors have no common type
    server: HttpServer,
    target: str,
    headers: dict[str, str],
    timeout_seconds: float,
) -> ServerResponse:
    """Send a GET request and return the response.

    Raises:
        Gone: There is no response: ``timeout``, ``unreachable``, ``hung_up`` or ``not_http``.
    """
    return await _exchange(reactor, server, target, {"Connection": "close", **headers}, None, timeout_seconds)


async def open_websocket(
    reactor: Any,  # noqa: ANN401  # as above
    server: HttpServer,
    target: str,
    headers: dict[str, str],
    timeout_seconds: float,
    *,
    key: str | None = None,
) -> WsConnection | ServerResponse:
    """Request a WebSocket.

    Args:
        reactor: Twisted's reactor.
        server: The server.
        target: The request target.
        headers: Further header fields.
        timeout_seconds: Time limit for connecting and the response.
        key: A ``Sec-WebSocket-Key``; an invalid one asks for a refusal.

    Returns:
        An open connection, which the caller aborts, or the response if it was no 101.

    Raises:
        Gone: There is no response, as for ``request``; ``not_http`` also for a 101 that does not match the
            key.
    """
    connection = WsConnection(reactor)
    fields = {**upgrade_fields(key), **headers}
    answer = await _exchange(reactor, server, target, fields, connection, timeout_seconds)
    return connection if answer.status == 101 else answer


async def _exchange(
    reactor: Any,  # noqa: ANN401  # as above
    server: HttpServer,
    target: str,
    fields: dict[str, str],
    protocol: IProtocol | None,
    timeout_seconds: float,
) -> ServerResponse:
    named = {"Host": server.host, "User-Agent": USER_AGENT, **fields}
    try:
        response = await exchange(
            reactor,
            server.endpoint,
            target,
            named,
            protocol,
            name=server.name,
            deadline_seconds=timeout_seconds,
        )
    except Gone as gone:
        if gone.code != "unreachable":
            raise
        cause = describe_error(gone.__cause__, timeout_seconds)
        raise Gone(f"{server.name} does not accept connections: {cause}", code="unreachable") from gone
    by_name = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.fields}
    return ServerResponse(response.status, response.body, response.seconds, by_name)
