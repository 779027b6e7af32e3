"""The HTTP side of the embedded server: reads one head, and says who may come in.

The name of a document is the path without its first slash and without the query, as it came:
never decoded, because ``@y/websocket-server`` does not either and two names for one document
would split its editors (yjs.md 1.6, rule 1).

Any web page may open a WebSocket to 127.0.0.1, so a page from elsewhere is refused unless it
comes through a tunnel. What tells is ``X-Forwarded-Host``: a relay sets it, the link that led to
the relay is a secret, and a browser does not let a page set it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from twisted.internet.interfaces import IReactorTime, ITCPTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from seance.errors import Refusal
from seance.heads import Request, RequestReader, check_upgrade, refusal_response
from seance.net import HandOver, tune
from seance.tunnel.farewell import Farewell

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IProtocol

__all__ = ["Door"]

HEAD_SECONDS = 10.0
"""A connection must have sent its whole head by then."""

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")

PASSED_ON = (b"sec-websocket-key", b"sec-websocket-version")
"""What Autobahn has to see. No subprotocol is ever chosen, so none is shown."""


class Door(HandOver):
    """Reads the head of one connection.

    Args:
        reactor: Where time comes from.
        admit: Called with the name of a document; returns the protocol that serves the
            connection, or raises ``Refusal``.
        forget: Called when the connection is gone.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        admit: Callable[[str], IProtocol],
        forget: Callable[[Door], None],
    ) -> None:
        self._reactor = reactor
        self._admit = admit
        self._forget = forget
        self._reader = RequestReader()
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Start the time that a head may take."""
        tune(self.transport)
        self._timer = self._reactor.callLater(HEAD_SECONDS, self.cut)

    def dataReceived(self, data: bytes) -> None:
        """Take bytes until the head is whole."""
        try:
            request = self._reader.receive(data)
            if request is None:
                return
            self._stop_waiting()
            check_upgrade(request)
            _check_origin(request)
            socket = self._admit(name_from_target(request.target))
        except Refusal as refusal:
            self._stop_waiting()
            self._go_to(Farewell(self._reactor, refusal_response(refusal)))
            return
        self._go_to(socket)
        socket.dataReceived(_rebuilt(request) + self._reader.trailing)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It went before it said what it wanted."""
        self._stop_waiting()
        self._forget(self)

    def cut(self) -> None:
        """End the connection at once."""
        self._stop_waiting()
        cast(ITCPTransport, self.transport).abortConnection()

    def _go_to(self, successor: IProtocol) -> None:
        self.hand_over(successor)
        self.connectionLost = self._both_lost  # type: ignore[method-assign]  # as HandOver does

    def _both_lost(self, reason: Failure = connectionDone) -> None:
        if self._successor is not None:
            self._successor.connectionLost(reason)
        self._forget(self)

    def _stop_waiting(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()


def name_from_target(target: bytes) -> str:
    """Return the name of the document that a request target asks for."""
    return target.partition(b"?")[0][1:].decode("latin-1")


def _check_origin(request: Request) -> None:
    origins = request.values(b"origin")
    if not origins or request.values(b"x-forwarded-host"):
        return
    origin = _split_origin(origins[0].decode("latin-1"))
    if origin is not None and origin[0] in LOOPBACK_HOSTS:
        return
    host = request.values(b"host")[0].decode("latin-1").lower()
    if origin is None or origin[1] != host:
        sentence = "This web page may not open documents here: it comes from somewhere else."
        raise Refusal(403, sentence, code="origin")


def _split_origin(origin: str) -> tuple[str, str] | None:
    """Return host name and ``host:port`` of an origin, or None if it has none (``null``)."""
    try:
        parts = urlsplit(origin.lower())
        return (parts.hostname, parts.netloc) if parts.hostname else None
    except ValueError:
        return None


def _rebuilt(request: Request) -> bytes:
    lines = [
        b"GET / HTTP/1.1",
        b"Host: localhost",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        *(name + b": " + value for name in PASSED_ON for value in request.values(name)),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"
