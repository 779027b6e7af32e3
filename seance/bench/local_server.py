"""The local server of a benchmark: it echoes every frame, or broadcasts it to all clients.

It runs as a process of its own (``seance bench --serve PORT``), so that its CPU time is not counted for
anything else. The first segment of the path selects the behaviour: ``/fan`` sends each message to every
client of ``/fan``; any other path echoes frames one for one. ``seance check`` adds paths.

For tests on one machine: it listens on loopback and accepts every client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import parse_qs

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.errors import Refusal, RemoteProtocolError
from seance.heads import Request, RequestReader, accept_for_key, check_upgrade, refusal_response
from seance.heads.fields import written_head
from seance.net import HandOver, end, tune
from seance.wsclient.frames import CLOSE, PING, PONG, Frame, FrameReader, encode

__all__ = ["BENCH_PATHS", "SERVER_FIELD", "EchoConnection", "Handshake", "LocalServerFactory", "PathTable"]

SERVER_FIELD = b"Seance-Check"
"""A header field of its 101 by which ``seance bench`` and ``check`` recognize their own local servers."""


@implementer(IHalfCloseableProtocol)
class EchoConnection(Protocol):
    """A connection after its handshake: echoes frames and answers pings.

    Args:
        server: The factory, which has all connections.
        request: The upgrade request.
    """

    greeting: tuple[Frame, ...] = ()
    """Frames to send in the same write as the 101."""

    def __init__(self, server: LocalServerFactory, request: Request) -> None:
        self.server = server
        self._reader = FrameReader()
        self.request = request

    @property
    def tcp(self) -> Any:  # noqa: ANN401  # ITCPTransport and IConsumer
        """The transport."""
        return cast(Any, self.transport)

    def parameter(self, name: str) -> str:
        """Return a parameter of the request's query; empty if it is missing."""
        query = self.request.target.decode("latin-1").partition("?")[2]
        return parse_qs(query).get(name, [""])[0]

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        """Return the frames that answer a frame."""
        if frame.opcode == PING:
            return (Frame(PONG, frame.payload),)
        return () if frame.opcode == PONG else (frame,)

    def send(self, *frames: Frame) -> None:
        """Send frames in one write."""
        self.tcp.write(b"".join(map(encode, frames)))

    def connectionMade(self) -> None:
        """Register with the server, and have the transport pause itself while the client does not read."""
        self.server.connections.add(self)
        self.tcp.registerProducer(self.tcp, True)

    def dataReceived(self, data: bytes) -> None:
        """Answer all received frames in one write."""
        try:
            frames = self._reader.receive(data)
        except RemoteProtocolError:
            self.tcp.abortConnection()
            return
        replies = [encode(reply) for frame in frames for reply in self.reply(frame)]
        if replies:
            self.tcp.write(replies[0] if len(replies) == 1 else b"".join(replies))
        if any(frame.opcode == CLOSE for frame in frames):
            end(self.tcp)

    def readConnectionLost(self) -> None:
        """Close after the client's FIN."""
        self.tcp.loseConnection()

    def writeConnectionLost(self) -> None:
        """Do nothing: this side has ended its direction itself."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Unregister."""
        self.server.connections.discard(self)


class _Broadcast(EchoConnection):
    """Sends each message to every client of the same path, the sender included."""

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        if frame.opcode in (PING, PONG, CLOSE):
            return super().reply(frame)
        encoded = encode(frame)
        for connection in self.server.connections:
            if isinstance(connection, _Broadcast):
                connection.tcp.write(encoded)
        return ()


PathTable = Mapping[str, Callable[["LocalServerFactory", Request], EchoConnection]]
"""What serves a connection, by the first segment of its path."""

BENCH_PATHS: PathTable = {"fan": _Broadcast}


class LocalServerFactory(Factory):
    """Accepts connections.

    Args:
        paths: The behaviours; any other path is an echo.

    Attributes:
        connections: The open WebSockets.
        kind: The value of ``SERVER_FIELD``.
    """

    noisy = False
    kind = b"bench"

    def __init__(self, paths: PathTable = BENCH_PATHS) -> None:
        self.paths = paths
        self.connections: set[EchoConnection] = set()

    def buildProtocol(self, addr: IAddress | None) -> Handshake:
        """Return a protocol for the handshake."""
        return Handshake(self)


class Handshake(HandOver):
    """Reads one request, responds, and gives the connection to an ``EchoConnection``.

    Args:
        server: The factory.
    """

    def __init__(self, server: LocalServerFactory) -> None:
        self.server = server
        self._reader = RequestReader()

    def connectionMade(self) -> None:
        """Disable Nagle's algorithm."""
        tune(self.transport)

    def divert(self, request: Request) -> bool:
        """Give the connection to another protocol, if a subclass has one for this request.

        Raises:
            Refusal: The response.
        """
        return False

    def dataReceived(self, data: bytes) -> None:
        """Collect the request's head, then respond."""
        tcp: Any = self.transport
        try:
            request = self._reader.receive(data)
            if request is None:
                return
            key = check_upgrade(request)
            if self.divert(request):
                return
        except Refusal as refusal:
            tcp.write(refusal_response(refusal))
            tcp.loseConnection()
            return
        path = request.target.decode("latin-1").lstrip("/").partition("?")[0].partition("/")[0]
        connection = self.server.paths.get(path, EchoConnection)(self.server, request)
        fields = [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", accept_for_key(key)),
            (SERVER_FIELD, self.server.kind),
        ]
        if offered := request.values(b"sec-websocket-protocol"):
            fields.append((b"Sec-WebSocket-Protocol", offered[0].split(b",")[0].strip()))
        greeting = b"".join(map(encode, connection.greeting))
        tcp.write(written_head(b"HTTP/1.1 101 Switching Protocols", fields) + greeting)
        self.hand_over(connection)
        if self._reader.trailing:
            connection.dataReceived(self._reader.trailing)
