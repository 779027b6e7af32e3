"""The local server of a check: every way of talking that a tunnel must not change, each at a path of its own.

Runs as a process of its own, or on the machine of a tunnel that is there already (``seance check --serve
PORT``). It says what it has seen, so that the check, on the other side of the tunnel, can compare. ``/yjs``
is a real Y-WebSocket server (``seance.yserver``), where the extra ``demo`` is installed.

For loopback and for tests: it remembers a bounded number of small things and serves whoever comes.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress, IProtocol

from seance.bench.frames import BINARY, CLOSE, PING, PONG, TEXT, Frame, close_payload
from seance.bench.local_server import (
    BENCH_PLACES,
    Conversation,
    Door,
    LocalServerFactory,
    MakeConversation,
)
from seance.errors import Refusal
from seance.heads import Request
from seance.net import HandOver, end

if TYPE_CHECKING:
    from seance.yserver.service import YServer

__all__ = ["CHECK_MARK", "PLACES", "CheckServerFactory"]

CHECK_MARK = b"check"
"""What its 101 says in ``Seance-Check``; a bench's local server, which can do less, says ``bench``."""

REMEMBERED = 100
"""Notes of what was heard after the server had ended its own direction; the oldest are forgotten."""

HEARD_BYTES = 1024

GREETING = "hello from the local server"


class Notes:
    """What was heard, by name: bounded in number and in size."""

    def __init__(self) -> None:
        self._heard: OrderedDict[str, bytes] = OrderedDict()

    def keep(self, name: str, payload: bytes) -> None:
        """Remember."""
        self._heard[name] = payload[:HEARD_BYTES]
        while len(self._heard) > REMEMBERED:
            self._heard.popitem(last=False)

    def of(self, name: str) -> bytes:
        """Return what was heard; nothing if nothing was."""
        return self._heard.get(name, b"")


class First(Conversation):
    """Speaks first: its greeting is in the same write as its 101."""

    @property
    def greeting(self) -> tuple[Frame, ...]:
        """What is glued to the 101."""
        return (Frame(TEXT, GREETING.encode()),)


class Asked(Conversation):
    """Tells what it was asked for, whatever it is told: the target and the header fields."""

    def answers(self, frame: Frame) -> tuple[Frame, ...]:
        """The request, as JSON."""
        if frame.opcode != TEXT:
            return super().answers(frame)
        fields = [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self.request.headers]
        seen = {"target": self.request.target.decode("latin-1"), "fields": fields}
        return (Frame(BINARY, json.dumps(seen).encode()),)


class Gathering(Conversation):
    """Keeps binary messages and tells them, joined, when it is asked with text."""

    def __init__(self, server: LocalServerFactory, request: Request) -> None:
        super().__init__(server, request)
        self._gathered = b""

    def answers(self, frame: Frame) -> tuple[Frame, ...]:
        """Keep, or tell."""
        if frame.opcode == BINARY:
            self._gathered = (self._gathered + frame.payload)[:HEARD_BYTES]
            return ()
        return (Frame(BINARY, self._gathered),) if frame.opcode == TEXT else super().answers(frame)


class Closing(Conversation):
    """Closes as it is told in the query, with ``code`` and ``reason``, at the first message."""

    def answers(self, frame: Frame) -> tuple[Frame, ...]:
        """Close, once; the client's own close frame ends the connection."""
        if frame.opcode != TEXT:
            return ()
        code = int(self.server.asked(self, "code") or 1000)
        return (Frame(CLOSE, close_payload(code, self.server.asked(self, "reason"))),)


class Pinging(Conversation):
    """Pings with what it is sent, and tells what the pong said."""

    def answers(self, frame: Frame) -> tuple[Frame, ...]:
        """Ask, or tell."""
        if frame.opcode == BINARY:
            return (Frame(PING, frame.payload),)
        if frame.opcode == PONG:
            return (Frame(BINARY, frame.payload),)
        return super().answers(frame)


class Finishing(Conversation):
    """Answers only when the client has said all: how many messages there were."""

    heard = 0

    def answers(self, frame: Frame) -> tuple[Frame, ...]:
        """Count."""
        self.heard += 1
        return ()

    def readConnectionLost(self) -> None:
        """The client has ended its direction; ours still stands."""
        self.send(Frame(TEXT, str(self.heard).encode()))
        super().readConnectionLost()


class _Noting(Conversation):
    """Has to do with what was noted under its name."""

    @property
    def notes(self) -> Notes:
        server = self.server
        assert isinstance(server, CheckServerFactory), "the places of a check are its own"
        return server.notes


class Leaving(_Noting):
    """Ends its own direction at the first message, and notes what it hears after that."""

    has_left = False

    def answers(self, frame: Frame) -> tuple[Frame, ...]:
        """Leave, or listen."""
        if self.has_left:
            self.notes.keep(self.server.asked(self, "name"), frame.payload)
            return ()
        self.has_left = True
        self.send(frame)
        end(self.leg)
        return ()


class Heard(_Noting):
    """Tells what was noted."""

    def answers(self, frame: Frame) -> tuple[Frame, ...]:
        """One note, or an empty answer."""
        if frame.opcode != TEXT:
            return super().answers(frame)
        return (Frame(BINARY, self.notes.of(self.server.asked(self, "name"))),)


class Visiting(Conversation):
    """An echo, that is counted by its name while it is there."""


class Visits(Conversation):
    """Tells how many of a name are there."""

    def answers(self, frame: Frame) -> tuple[Frame, ...]:
        """Count them."""
        if frame.opcode != TEXT:
            return super().answers(frame)
        name = self.server.asked(self, "name")
        there = [one for one in self.server.conversations if isinstance(one, Visiting)]
        count = sum(self.server.asked(one, "name") == name for one in there)
        return (Frame(TEXT, str(count).encode()),)


PLACES: Mapping[str, MakeConversation] = {
    **BENCH_PLACES,
    "first": First,
    "asked": Asked,
    "gathering": Gathering,
    "closing": Closing,
    "pinging": Pinging,
    "finishing": Finishing,
    "leaving": Leaving,
    "heard": Heard,
    "visiting": Visiting,
    "visits": Visits,
}
"""By the first segment of the path; ``yjs`` is besides these."""


class CheckServerFactory(LocalServerFactory):
    """Makes a connection's protocol.

    Args:
        reactor: Twisted's reactor.

    Attributes:
        notes: What was heard after the server had ended its own direction.
    """

    mark = CHECK_MARK

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401  # Twisted's reactors have no common type
        super().__init__(PLACES)
        self._reactor = reactor
        self.notes = Notes()
        self._documents: YServer | None = None

    def startFactory(self) -> None:
        """Start the document server, where its packages are; Twisted calls us."""
        if find_spec("pycrdt") is None:
            return
        from seance.yserver.service import YServer  # noqa: PLC0415  # needs an extra

        self._documents = YServer(self._reactor)
        self._documents.startService()

    def stopFactory(self) -> None:
        """Stop it; Twisted calls us."""
        documents, self._documents = self._documents, None
        if documents is not None:
            documents.stopService()

    def buildProtocol(self, addr: IAddress | None) -> HandOver:
        """Return what reads the head."""
        return CheckDoor(self)

    def document_door(self) -> IProtocol:
        """Return what takes a connection for a document.

        Raises:
            Refusal: There is none.
        """
        if self._documents is None:
            sentence = (
                "No documents are served here: pip install 'seance-tunnel[demo]' beside the local server."
            )
            raise Refusal(501, sentence, code="no_documents")
        return self._documents.build_connection()


class CheckDoor(Door):
    """Reads a head; what asks for a document goes to the document server, head and all.

    Args:
        server: What it belongs to.
    """

    def __init__(self, server: CheckServerFactory) -> None:
        super().__init__(server)
        self._open_document = server.document_door
        self._before = b""

    def dataReceived(self, data: bytes) -> None:
        """Take bytes until the head is whole."""
        self._before += data
        super().dataReceived(data)

    def pass_on(self, request: Request) -> bool:
        """Give whoever asks for a document to the document server, with all that came."""
        if not request.target.startswith(b"/yjs/"):
            return False
        door = self._open_document()
        self.hand_over(door)
        door.dataReceived(self._before)
        # It has the whole head, so it has handed the connection on by now.
        self.dataReceived = door.dataReceived  # type: ignore[method-assign]  # as HandOver does
        return True
