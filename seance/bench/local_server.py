"""The local server of a benchmark: it repeats what it is sent, or tells it to everybody.

Runs as a process of its own (``seance bench --serve PORT``), so that its work is nobody else's CPU time.
What a connection does depends on the first segment of its path: ``fan`` tells every message to all who are
on ``fan``; whatever is not a place repeats frames as they come, one for one. ``seance.check`` adds places.

A program for tests on one's own machine: it listens on loopback and serves whoever comes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import parse_qs

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.errors import Refusal, RemoteProtocolError
from seance.heads import Request, RequestReader, accept_for_key, check_upgrade, refusal_response
from seance.heads.fields import written_head
from seance.net import HandOver, end, tune
from seance.wsclient.frames import CLOSE, PING, PONG, Frame, FrameReader, encode

__all__ = ["BENCH_PLACES", "MARK", "Conversation", "Door", "Fan", "LocalServerFactory", "MakeConversation"]

MARK = b"Seance-Check"
"""A header field of its 101, by which a bench or a check knows that it has one of ours before it."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class Conversation(Protocol):
    """One connection after its handshake: repeats frames, answers pings and closes.

    It reads no faster than the client does, so nothing piles up here.

    Args:
        server: Its factory, where conversations find each other.
        request: What was asked for.
    """

    def __init__(self, server: LocalServerFactory, request: Request) -> None:
        self.server = server
        self.request = request
        self._reader = FrameReader()

    @property
    def leg(self) -> Any:  # noqa: ANN401  # ITCPTransport, and what a producer has
        """The connection."""
        return cast(Any, self.transport)

    @property
    def greeting(self) -> tuple[Frame, ...]:
        """What is said in the same write as the 101."""
        return ()

    def connectionMade(self) -> None:
        """Count, and have the connection say when it is full."""
        self.server.conversations.add(self)
        self.leg.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Answer frame by frame, in one write."""
        try:
            frames = self._reader.receive(data)
        except RemoteProtocolError:
            self.leg.abortConnection()
            return
        answers = [encode(answer) for frame in frames for answer in self.answers(frame)]
        if answers:
            self.leg.write(answers[0] if len(answers) == 1 else b"".join(answers))
        if any(frame.opcode == CLOSE for frame in frames):
            end(self.leg)

    def answers(self, frame: Frame) -> tuple[Frame, ...]:
        """Return what to say to a frame."""
        if frame.opcode == PING:
            return (Frame(PONG, frame.payload),)
        return () if frame.opcode == PONG else (frame,)

    def send(self, *frames: Frame) -> None:
        """Say something unasked."""
        self.leg.write(b"".join(map(encode, frames)))

    def readConnectionLost(self) -> None:
        """The client has said all; nothing is left to listen for."""
        self.leg.loseConnection()

    def writeConnectionLost(self) -> None:
        """We have."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        self.server.conversations.discard(self)

    def pauseProducing(self) -> None:
        """The client takes less than it sends."""
        self.leg.pauseProducing()

    def resumeProducing(self) -> None:
        """It has caught up."""
        self.leg.resumeProducing()

    def stopProducing(self) -> None:
        """It is gone."""


class Fan(Conversation):
    """Tells every message to all who are here."""

    def answers(self, frame: Frame) -> tuple[Frame, ...]:
        """Tell the others, and oneself."""
        if frame.opcode in (PING, PONG, CLOSE):
            return super().answers(frame)
        encoded = encode(frame)
        for other in self.server.conversations:
            if isinstance(other, Fan):
                other.leg.write(encoded)
        return ()


MakeConversation = Callable[["LocalServerFactory", Request], Conversation]

BENCH_PLACES: Mapping[str, MakeConversation] = {"fan": Fan}


class LocalServerFactory(Factory):
    """Makes a connection's protocol.

    Args:
        places: What else than an echo there is, by the first segment of the path.

    Attributes:
        conversations: Those that go on now.
        mark: What its 101 says in ``MARK``.
    """

    noisy = False
    mark = b"bench"

    def __init__(self, places: Mapping[str, MakeConversation] = BENCH_PLACES) -> None:
        self.places = places
        self.conversations: set[Conversation] = set()

    def buildProtocol(self, addr: IAddress | None) -> HandOver:
        """Return what reads the head."""
        return Door(self)

    def asked(self, conversation: Conversation, name: str) -> str:
        """Return what a conversation was asked for in its query; empty if nothing."""
        query = conversation.request.target.decode("latin-1").partition("?")[2]
        return parse_qs(query).get(name, [""])[0]

    def converse(self, request: Request) -> Conversation:
        """Return what follows a handshake."""
        place = request.target.decode("latin-1").lstrip("/").partition("?")[0].partition("/")[0]
        return self.places.get(place, Conversation)(self, request)


class Door(HandOver):
    """Reads one head, answers it, and steps aside.

    Args:
        server: What it belongs to.
    """

    def __init__(self, server: LocalServerFactory) -> None:
        self.server = server
        self.reader = RequestReader()

    def connectionMade(self) -> None:
        """Let small writes leave at once."""
        tune(self.transport)

    def pass_on(self, request: Request) -> bool:
        """Give the connection to somebody else; a subclass may.

        Raises:
            Refusal: To be answered with.
        """
        return False

    def dataReceived(self, data: bytes) -> None:
        """Take bytes until the head is whole, and answer it."""
        leg: Any = self.transport
        try:
            request = self.reader.receive(data)
            if request is None:
                return
            key = check_upgrade(request)
            if self.pass_on(request):
                return
        except Refusal as refusal:
            leg.write(refusal_response(refusal))
            leg.loseConnection()
            return
        conversation = self.server.converse(request)
        offers = [name for value in request.values(b"sec-websocket-protocol") for name in value.split(b",")]
        chosen = [(b"Sec-WebSocket-Protocol", offers[0].strip())] if offers else []
        fields = [
            (b"Upgrade", b"websocket"),
            (b"Connection", b"Upgrade"),
            (b"Sec-WebSocket-Accept", accept_for_key(key)),
            (MARK, self.server.mark),
        ]
        greeting = b"".join(map(encode, conversation.greeting))
        leg.write(written_head(b"HTTP/1.1 101 Switching Protocols", fields + chosen) + greeting)
        self.hand_over(conversation)
        if self.reader.trailing:
            conversation.dataReceived(self.reader.trailing)
