"""The local server of ``seance bench`` and ``seance check``: an echo, and special paths for some exchanges.

It runs in a separate process, so that its CPU time is not part of any figure, or beside the agent of an
existing tunnel (``seance check --serve PORT``). The first segment of the path selects the behaviour: any
path echoes frames one for one, except for those in ``PATHS``. Several report what was received, so that a
check can compare that through the tunnel. ``/yjs`` is a Y-WebSocket server (``seance.yserver``) if the
extra ``demo`` is installed.

For tests on one machine: it listens on loopback and accepts every client, and what it stores is limited.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qs

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.errors import Refusal, RemoteProtocolError
from seance.heads import Request, RequestReader, accept_for_key, check_upgrade, refusal_response
from seance.heads.fields import SWITCHING, format_head
from seance.net import ProtocolSwitch, end, tune
from seance.wsclient import Reactor
from seance.wsclient.frames import BINARY, CLOSE, PING, PONG, TEXT, Frame, FrameReader, close_payload, encode

if TYPE_CHECKING:
    from seance.yserver.service import YServer

__all__ = ["GREETING", "PATHS", "SERVER_FIELD", "SERVER_KIND", "EchoConnection", "LocalServerFactory"]

SERVER_FIELD = b"Seance-Check"
"""A header field of its 101 by which ``seance bench`` and ``check`` recognize it."""

SERVER_KIND = b"check"
"""The value of that field. Version 0.1 of ``seance bench --serve`` sends ``bench`` and has only ``/fan``."""

MAX_NOTES = 100
"""Number of notes that are kept; the oldest ones are removed."""

MAX_NOTE_BYTES = 1024

GREETING = "hello from the local server"


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


class _Greeting(EchoConnection):
    """Sends a frame in the same write as its 101."""

    greeting = (Frame(TEXT, GREETING.encode()),)


class _Collecting(EchoConnection):
    """Stores binary messages without an answer, and answers text with all of them joined."""

    collected = b""

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        if frame.opcode == TEXT:
            return (Frame(BINARY, self.collected),)
        if frame.opcode != BINARY:
            return super().reply(frame)
        self.collected = (self.collected + frame.payload)[:MAX_NOTE_BYTES]
        return ()


class _Closing(EchoConnection):
    """Answers text with a close frame that has the ``code`` and ``reason`` of its query."""

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        if frame.opcode != TEXT:
            return ()
        code = int(self.parameter("code") or 1000)
        return (Frame(CLOSE, close_payload(code, self.parameter("reason"))),)


class _Pinging(EchoConnection):
    """Answers a binary message with a ping of its payload, and the pong with a binary message."""

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        opcode = {BINARY: PING, PONG: BINARY}.get(frame.opcode)
        return super().reply(frame) if opcode is None else (Frame(opcode, frame.payload),)


class _Counting(EchoConnection):
    """Answers only after the client's FIN, with the number of its messages."""

    count = 0

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        self.count += 1
        return ()

    def readConnectionLost(self) -> None:
        self.send(Frame(TEXT, str(self.count).encode()))
        super().readConnectionLost()


class _HalfClosing(EchoConnection):
    """Ends its direction after the first message; notes later ones under the ``name`` of its query."""

    has_ended = False

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        if self.has_ended:
            self.server.note(self.parameter("name"), frame.payload)
        else:
            self.has_ended = True
            self.send(frame)
            end(self.tcp)
        return ()


class _Visiting(EchoConnection):
    """An echo; ``_visits`` counts its open connections."""


def _request(connection: EchoConnection) -> Frame:
    """Return the target and the header fields of the request, as JSON."""
    request = connection.request
    fields = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in request.headers]
    return Frame(BINARY, json.dumps({"target": request.target.decode("latin-1"), "fields": fields}).encode())


def _noted(connection: EchoConnection) -> Frame:
    """Return the note under the ``name`` of the query, empty if there is none."""
    return Frame(BINARY, connection.server.notes.get(connection.parameter("name"), b""))


def _visits(connection: EchoConnection) -> Frame:
    """Return the number of open visits with the same ``name`` in their query."""
    visits = [one for one in connection.server.connections if isinstance(one, _Visiting)]
    count = sum(one.parameter("name") == connection.parameter("name") for one in visits)
    return Frame(TEXT, str(count).encode())


def _answering(answer: Callable[[EchoConnection], Frame]) -> type[EchoConnection]:
    """Return a connection that answers text with ``answer`` and echoes the rest."""

    class Answering(EchoConnection):
        def reply(self, frame: Frame) -> tuple[Frame, ...]:
            return (answer(self),) if frame.opcode == TEXT else super().reply(frame)

    return Answering


PATHS: Mapping[str, type[EchoConnection]] = {
    "fan": _Broadcast,
    "first": _Greeting,
    "asked": _answering(_request),
    "gathering": _Collecting,
    "closing": _Closing,
    "pinging": _Pinging,
    "finishing": _Counting,
    "leaving": _HalfClosing,
    "heard": _answering(_noted),
    "visiting": _Visiting,
    "visits": _answering(_visits),
}
"""What serves a connection, by the first segment of its path. Any other path is an echo."""


class LocalServerFactory(Factory):
    """Accepts connections.

    Args:
        reactor: Twisted's reactor.
        paths: What serves a connection, by the first segment of its path.

    Attributes:
        connections: The open WebSockets.
        notes: The last 100 notes by name.
    """

    noisy = False

    def __init__(self, reactor: Reactor, paths: Mapping[str, type[EchoConnection]] = PATHS) -> None:
        self.paths = paths
        self.connections: set[EchoConnection] = set()
        self.notes: OrderedDict[str, bytes] = OrderedDict()
        self._reactor = reactor
        self._documents: YServer | None = None

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        """Return a protocol for the handshake."""
        return _ServerHandshake(self)

    def stopFactory(self) -> None:
        """Stop the Y-WebSocket server."""
        documents, self._documents = self._documents, None
        if documents is not None:
            documents.stopService()

    def note(self, name: str, payload: bytes) -> None:
        """Store the first 1,024 bytes of a payload."""
        self.notes[name] = payload[:MAX_NOTE_BYTES]
        while len(self.notes) > MAX_NOTES:
            self.notes.popitem(last=False)

    def open_document(self) -> IProtocol:
        """Return a protocol of the Y-WebSocket server, which is started on first use.

        Raises:
            Refusal: ``no_documents``: its packages are not installed, or it has too many connections.
        """
        if self._documents is None and find_spec("pycrdt") is not None:
            from seance.yserver.service import YServer  # noqa: PLC0415  # needs an extra

            self._documents = YServer(self._reactor)
            self._documents.startService()
        protocol = None if self._documents is None else self._documents.build_connection()
        if protocol is None:
            message = "No Yjs documents here: pip install 'seance-tunnel[demo]' beside the local server."
            raise Refusal(501, message, code="no_documents")
        return protocol


class _ServerHandshake(ProtocolSwitch):
    """Reads one request, responds, and gives the connection to the protocol for its path."""

    def __init__(self, server: LocalServerFactory) -> None:
        self._server = server
        self._reader = RequestReader()
        self._received = b""

    def connectionMade(self) -> None:
        tune(self.transport)

    def dataReceived(self, data: bytes) -> None:
        tcp: Any = self.transport
        self._received += data
        try:
            request = self._reader.receive(data)
            if request is None:
                return
            key = check_upgrade(request)
            path = request.target.decode("latin-1").lstrip("/").partition("?")[0].partition("/")[0]
            if path == "yjs":
                document = self._server.open_document()
                self.hand_over(document)
                document.dataReceived(self._received)  # it reads the request itself
                return
        except Refusal as refusal:
            tcp.write(refusal_response(refusal))
            tcp.loseConnection()
            return
        connection = self._server.paths.get(path, EchoConnection)(self._server, request)
        fields = [
            *SWITCHING,
            (b"Sec-WebSocket-Accept", accept_for_key(key)),
            (SERVER_FIELD, SERVER_KIND),
        ]
        if offered := request.values(b"sec-websocket-protocol"):
            fields.append((b"Sec-WebSocket-Protocol", offered[0].split(b",")[0].strip()))
        greeting = b"".join(map(encode, connection.greeting))
        tcp.write(format_head(b"HTTP/1.1 101 Switching Protocols", fields) + greeting)
        self.hand_over(connection)
        if self._reader.trailing:
            connection.dataReceived(self._reader.trailing)
