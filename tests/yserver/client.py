"""A WebSocket client in the test's own reactor, with a pycrdt document behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from pycrdt import Decoder, Doc, Encoder, Text
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import deferLater

from seance.yserver.messages import (
    AwarenessUpdate,
    Message,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
    decode,
    encode,
)

__all__ = ["GONE", "Client", "Editor", "awareness", "connect", "reactor", "until"]

reactor: Any = _reactor

GONE = "null"
"""The awareness state of an editor that has left."""


async def until(condition: Callable[[], object]) -> None:
    """Let the reactor turn until something holds; the test's own deadline bounds it."""
    while not condition():
        await deferLater(reactor, 0.002)


def awareness(*states: tuple[int, int, str]) -> AwarenessUpdate:
    """A message with states: client id, clock, JSON."""
    encoder = Encoder()
    encoder.write_var_uint(len(states))
    for client_id, clock, state in states:
        encoder.write_var_uint(client_id)
        encoder.write_var_uint(clock)
        encoder.write_var_string(state)
    return AwarenessUpdate(encoder.to_bytes())


class Editor:
    """A client's document and what it received. Subclasses send."""

    def __init__(self) -> None:
        self.doc: Doc[Text] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.received: list[Message] = []
        self.others: dict[int, str] = {}

    def send(self, message: Message) -> None:
        raise NotImplementedError

    @property
    def is_synced(self) -> bool:
        return self.count(SyncStep2) > 0

    def count(self, kind: type[Message]) -> int:
        """How many messages of a kind it received."""
        return sum(isinstance(message, kind) for message in self.received)

    def receive(self, payload: bytes) -> None:
        message = decode(payload)
        assert message is not None
        self.received.append(message)
        match message:
            case SyncStep1(state_vector):
                self.send(SyncStep2(self.doc.get_update(state_vector)))
            case SyncStep2(update) | SyncUpdate(update):
                self.doc.apply_update(update)
            case AwarenessUpdate(states):
                decoder = Decoder(states)
                for _ in range(decoder.read_var_uint()):
                    client_id, _clock = decoder.read_var_uint(), decoder.read_var_uint()
                    self.others[client_id] = decoder.read_var_string()

    def synchronize(self) -> None:
        self.send(SyncStep1(self.doc.get_state()))

    def write(self, text: str) -> None:
        before = self.doc.get_state()
        self.text += text
        self.send(SyncUpdate(self.doc.get_update(before)))

    def delete(self, count: int) -> None:
        """Delete the first characters."""
        before = self.doc.get_state()
        del self.text[0:count]
        self.send(SyncUpdate(self.doc.get_update(before)))

    def announce(self, client_id: int, clock: int, state: str) -> None:
        self.send(awareness((client_id, clock, state)))


class Client(Editor, WebSocketClientProtocol):  # type: ignore[misc]  # Autobahn is untyped here
    """Speaks y-protocols as a stock client does."""

    def __init__(self) -> None:
        Editor.__init__(self)
        WebSocketClientProtocol.__init__(self)
        self.closed: tuple[int, str] | None = None
        self.answers_pings = True
        self.opened: Deferred[None] = Deferred()

    def send(self, message: Message) -> None:
        self.sendMessage(encode(message), isBinary=True)

    def onOpen(self) -> None:
        self.synchronize()
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803  # Autobahn's name
        self.receive(payload)

    def onPing(self, payload: bytes) -> None:
        if self.answers_pings:
            super().onPing(payload)

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:  # noqa: N803
        self.closed = code, reason

    def cut(self) -> None:
        """Go without a close frame."""
        self.transport.abortConnection()

    async def goes(self) -> tuple[int, str]:
        await until(lambda: self.closed)
        assert self.closed is not None
        return self.closed


async def connect(port: int, path: str = "/pad", **headers: str) -> Client:
    """Open a connection; one that is refused has ``closed`` set when this returns."""
    factory = WebSocketClientFactory(
        f"ws://127.0.0.1:{port}{path}",
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        reactor=reactor,
    )
    factory.protocol = Client
    factory.noisy = False
    # Autobahn's timers would run on in the reactor after the test; the client needs none here.
    factory.setProtocolOptions(
        openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0, failByDrop=False
    )
    client: Client = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)  # type: ignore[assignment]
    await until(lambda: client.opened.called or client.closed)
    return client
