"""A WebSocket client in the test's own reactor, with a pycrdt document behind it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from pycrdt import Doc, Text
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import deferLater

from seance.yserver.messages import (
    AwarenessUpdate,
    ClientState,
    Message,
    SyncStep1,
    SyncStep2,
    SyncUpdate,
    decode,
    encode,
)

__all__ = ["Client", "connect", "reactor", "until"]

reactor: Any = _reactor


async def until(condition: Callable[[], object]) -> None:
    """Let the reactor turn until something holds; the test's own deadline bounds it."""
    while not condition():
        await deferLater(reactor, 0.002)


class Client(WebSocketClientProtocol):  # type: ignore[misc]  # Autobahn is untyped here
    """Speaks y-protocols as a stock client does, and takes notes."""

    def __init__(self) -> None:
        super().__init__()
        self.doc: Doc[Text] = Doc()
        self.text = self.doc.get("text", type=Text)
        self.others: dict[int, str] = {}
        self.is_synced = False
        self.closed: tuple[int, str] | None = None
        self.answers_pings = True
        self.pings = 0
        self.opened: Deferred[None] = Deferred()

    def onOpen(self) -> None:
        self.say(SyncStep1(self.doc.get_state()))
        self.opened.callback(None)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: N803  # Autobahn's name
        match decode(payload):
            case SyncStep1(state_vector):
                self.say(SyncStep2(self.doc.get_update(state_vector)))
            case SyncStep2(update):
                self.doc.apply_update(update)
                self.is_synced = True
            case SyncUpdate(update):
                self.doc.apply_update(update)
            case AwarenessUpdate(states):
                self.others.update({state.client_id: state.state for state in states})

    def onPing(self, payload: bytes) -> None:
        self.pings += 1
        if self.answers_pings:
            super().onPing(payload)

    def onClose(self, wasClean: bool, code: int, reason: str) -> None:  # noqa: N803
        self.closed = code, reason

    def say(self, message: Message) -> None:
        self.sendMessage(encode(message), isBinary=True)

    def write(self, text: str) -> None:
        before = self.doc.get_state()
        self.text += text
        self.say(SyncUpdate(self.doc.get_update(before)))

    def announce(self, client_id: int, clock: int, state: str) -> None:
        self.say(AwarenessUpdate((ClientState(client_id, clock, state),)))

    def cut(self) -> None:
        """Go without a word."""
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
    # Autobahn's timers run on in the reactor after the test; it needs none here.
    factory.setProtocolOptions(
        openHandshakeTimeout=0, closeHandshakeTimeout=0, serverConnectionDropTimeout=0, failByDrop=False
    )
    client: Client = await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)  # type: ignore[assignment]
    await until(lambda: client.opened.called or client.closed)
    return client
