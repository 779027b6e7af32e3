"""The local server of a check: each kind of exchange that a tunnel must not change has its own path.

It runs in a separate process, or beside the agent of an existing tunnel (``seance check --serve PORT``),
and reports what it has received, so that the check can compare that through the tunnel. ``/yjs`` is a
Y-WebSocket server (``seance.yserver``) if the extra ``demo`` is installed.

For tests on loopback: it accepts every client, and what it stores is limited.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.interfaces import IAddress

from seance.bench.local_server import BENCH_PATHS, EchoConnection, Handshake, LocalServerFactory, PathTable
from seance.errors import Refusal
from seance.heads import Request
from seance.net import end
from seance.wsclient.frames import BINARY, CLOSE, PING, PONG, TEXT, Frame, close_payload

if TYPE_CHECKING:
    from seance.yserver.service import YServer

__all__ = ["GREETING", "PATHS", "CheckServerFactory"]

MAX_NOTES = 100
"""Number of notes that are kept; the oldest ones are removed."""

MAX_NOTE_BYTES = 1024

GREETING = "hello from the local server"


class _Greeting(EchoConnection):
    """Sends a frame in the same write as its 101."""

    greeting = (Frame(TEXT, GREETING.encode()),)


class _Query(EchoConnection):
    """Answers each text message, and echoes the rest."""

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        return (self.answer(),) if frame.opcode == TEXT else super().reply(frame)

    def answer(self) -> Frame:
        raise NotImplementedError

    @property
    def check_server(self) -> CheckServerFactory:
        return cast("CheckServerFactory", self.server)


class _RequestEcho(_Query):
    """Answers with the target and the header fields of its request, as JSON."""

    def answer(self) -> Frame:
        fields = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self.request.headers]
        seen = {"target": self.request.target.decode("latin-1"), "fields": fields}
        return Frame(BINARY, json.dumps(seen).encode())


class _Collecting(_Query):
    """Stores binary messages, and answers with all of them joined."""

    def __init__(self, server: LocalServerFactory, request: Request) -> None:
        super().__init__(server, request)
        self._collected = b""

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        if frame.opcode != BINARY:
            return super().reply(frame)
        self._collected = (self._collected + frame.payload)[:MAX_NOTE_BYTES]
        return ()

    def answer(self) -> Frame:
        return Frame(BINARY, self._collected)


class _Closing(EchoConnection):
    """Answers a text message with a close frame that has the ``code`` and ``reason`` of its query."""

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


class _Ending(_Query):
    """Ends its direction after the first message; notes later ones under the ``name`` of its query."""

    has_ended = False

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        if self.has_ended:
            self.check_server.note(self.parameter("name"), frame.payload)
        else:
            self.has_ended = True
            self.send(frame)
            end(self.tcp)
        return ()


class _Noted(_Query):
    """Answers with the note under the ``name`` of its query, empty if there is none."""

    def answer(self) -> Frame:
        return Frame(BINARY, self.check_server.notes.get(self.parameter("name"), b""))


class _Visit(EchoConnection):
    """An echo; ``_Visits`` counts its open connections."""


class _Visits(_Query):
    """Answers with the number of open visits that have the same ``name`` in their query."""

    def answer(self) -> Frame:
        visits = [one for one in self.server.connections if isinstance(one, _Visit)]
        count = sum(one.parameter("name") == self.parameter("name") for one in visits)
        return Frame(TEXT, str(count).encode())


PATHS: PathTable = {
    **BENCH_PATHS,
    "first": _Greeting,
    "asked": _RequestEcho,
    "gathering": _Collecting,
    "closing": _Closing,
    "pinging": _Pinging,
    "finishing": _Counting,
    "leaving": _Ending,
    "heard": _Noted,
    "visiting": _Visit,
    "visits": _Visits,
}
"""By the first segment of the path. ``yjs`` is handled by ``_CheckHandshake``."""


class CheckServerFactory(LocalServerFactory):
    """Accepts connections.

    Args:
        reactor: Twisted's reactor.

    Attributes:
        notes: The last 100 notes by name.
    """

    kind = b"check"

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401  # Twisted's reactors have no common type
        super().__init__(PATHS)
        self._reactor = reactor
        self.notes: OrderedDict[str, bytes] = OrderedDict()
        self.documents: YServer | None = None

    def note(self, name: str, payload: bytes) -> None:
        """Store the first 1,024 bytes of a payload."""
        self.notes[name] = payload[:MAX_NOTE_BYTES]
        while len(self.notes) > MAX_NOTES:
            self.notes.popitem(last=False)

    def startFactory(self) -> None:
        """Start the Y-WebSocket server if its packages are installed."""
        if find_spec("pycrdt") is not None:
            from seance.yserver.service import YServer  # noqa: PLC0415  # needs an extra

            self.documents = YServer(self._reactor)
            self.documents.startService()

    def stopFactory(self) -> None:
        """Stop the Y-WebSocket server."""
        documents, self.documents = self.documents, None
        if documents is not None:
            documents.stopService()

    def buildProtocol(self, addr: IAddress | None) -> Handshake:
        """Return a protocol for the handshake."""
        return _CheckHandshake(self)


class _CheckHandshake(Handshake):
    """Gives connections for ``/yjs/`` to the Y-WebSocket server, which reads their request again."""

    server: CheckServerFactory
    _head = b""

    def dataReceived(self, data: bytes) -> None:
        self._head += data
        super().dataReceived(data)

    def divert(self, request: Request) -> bool:
        if not request.target.startswith(b"/yjs/"):
            return False
        documents = self.server.documents
        protocol = None if documents is None else documents.open_door()
        if protocol is None:
            message = "No Yjs documents here: pip install 'seance-tunnel[demo]' beside the local server."
            raise Refusal(501, message, code="no_documents")
        self.hand_over(protocol)
        protocol.dataReceived(self._head)
        return True
