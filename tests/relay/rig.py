"""A whole tunnel in the test's own reactor; the test controls both ends byte by byte.

``Rig`` starts a relay and an agent on loopback, port 0. The local server and the clients are raw TCP
``Player`` objects. A test writes each byte, and sees what arrived, when each connection ended and how.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IListeningPort
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.agent.service import Agent
from seance.core.settings import AgentSettings, RelaySettings
from seance.heads import accept_for_key
from seance.net.immediate_write import IMMEDIATE
from seance.relay.service import Relay

__all__ = ["KEY", "Player", "Rig", "answer_101", "reactor", "request", "turn", "until"]

reactor: Any = _reactor
KEY = base64.b64encode(b"0123456789abcdef")


def request(target: str = "/client?room=r", *fields: str, host: str = "relay.example") -> bytes:
    """Return a valid upgrade request."""
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY.decode()}",
        *fields,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def answer_101(key: bytes = KEY) -> bytes:
    """Return the answer that accepts the upgrade."""
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept_for_key(key) + b"\r\n\r\n"
    )


def turn(seconds: float = 0.0) -> Deferred[None]:
    """Let the reactor run for some seconds; 0 for one turn."""
    return deferLater(reactor, seconds)


async def until(condition: Callable[[], object]) -> None:
    """Let the reactor turn until a condition holds; the test's own deadline bounds it."""
    while not condition():
        await turn(0.002)


@implementer(IHalfCloseableProtocol)
class Player(Protocol):
    """One end of a raw connection, controlled by the test."""

    def __init__(self) -> None:
        self._received = bytearray()
        self.has_ended = False
        self.lost: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self._received += data

    def readConnectionLost(self) -> None:
        self.has_ended = True

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = reason

    @property
    def received(self) -> bytearray:
        return self._received

    @received.setter
    def received(self, value: bytes) -> None:
        self._received = bytearray(value)

    @property
    def leg(self) -> Any:
        return self.transport

    def send(self, data: bytes) -> None:
        self.leg.write(data)

    async def receives(self, data: bytes) -> None:
        """Wait until ``data`` has arrived."""
        await until(lambda: data in self.received or self.lost)
        assert data in self.received, f"the connection went before: {self.lost}"

    async def ends(self) -> None:
        await until(lambda: self.has_ended or self.lost)

    async def closes_in_order(self) -> None:
        """Wait for the end of data, close, and check that no reset came, before or after the close."""
        await self.ends()
        assert self.lost is None, f"an end was expected: {self.lost}"
        await turn(0.02)
        self.leg.loseConnection()
        reason = await self.goes()
        assert reason.check(ConnectionDone), f"an orderly end was expected: {reason}"

    async def goes(self) -> Failure:
        await until(lambda: self.lost)
        return cast(Failure, self.lost)


def check_is_prompt(carrier: Any) -> None:
    """Check that the transport below a carrier writes immediately, and limits what the kernel buffers.

    Without this, under TLS, a keystroke waited for 1.6 s behind a transfer at 1 Mbit/s.
    """
    lowest = carrier
    while (below := getattr(lowest, "transport", None)) is not None:
        lowest = below
    assert type(lowest) in IMMEDIATE.values()
    assert lowest.full_above_bytes == 0
    assert lowest.send_queue is not None


class Rig:
    """A relay, an agent, a local server and any number of clients; use ``async with Rig() as rig``."""

    def __init__(
        self,
        *,
        relay: dict[str, Any] | None = None,
        agent: dict[str, Any] | None = None,
        with_agent: bool = True,
    ) -> None:
        self.relay = Relay(
            reactor, replace(RelaySettings(listen=("tcp:0:interface=127.0.0.1",)), **(relay or {}))
        )
        self._agent_options = agent or {}
        self._with_agent = with_agent
        self.locals: list[Player] = []
        self.clients: list[Player] = []
        self._agents: list[Agent] = []

    async def __aenter__(self) -> Rig:
        factory = Factory.forProtocol(Player)
        factory.noisy = False
        build = factory.buildProtocol

        def note(addr: object) -> Player:
            player = cast(Player, build(addr))
            self.locals.append(player)
            return player

        factory.buildProtocol = note  # type: ignore[method-assign]
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        self.local_port: IListeningPort = await endpoint.listen(factory)
        self.relay.startService()
        ports = await self.relay.when_listening()
        self.port = ports[0].getHost().port
        if self._with_agent:
            self.agent = await self.attach()
        return self

    async def __aexit__(self, *args: object) -> None:
        self._cut_all()
        for agent in self._agents:
            await agent.stopService()
        await self.relay.stopService()
        await self.local_port.stopListening()
        await until(self._cut_all)

    def _cut_all(self) -> bool:
        """Close every connection of the players; return whether all are closed.

        A local connection may be accepted after its dial was given up: it gets an end and would wait.
        """
        left = [player for player in self.clients + self.locals if player.transport and not player.lost]
        for player in left:
            player.leg.abortConnection()
        return not left

    @property
    def relay_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def make_agent(self, **options: Any) -> Agent:
        number = self.local_port.getHost().port
        settings = {"room": "r", "relay": self.relay_url, "local": f"127.0.0.1:{number}"}
        agent = Agent(reactor, AgentSettings(**{**settings, **self._agent_options, **options}))
        self._agents.append(agent)
        return agent

    async def attach(self, **options: Any) -> Agent:
        agent = self.make_agent(**options)
        agent.startService()
        await agent.when_connected()
        return agent

    async def connect(self, first: bytes = b"", *, bind: str = "127.0.0.1") -> Player:
        """Open a raw connection to the relay, from an address of this machine, and write ``first`` to it."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port, bindAddress=(bind, 0))
        player = Player()
        self.clients.append(player)
        await endpoint.connect(_One(player))
        if first:
            player.send(first)
        return player

    async def local(self, number: int = 0) -> Player:
        """Wait for the local server's connection of that number, and for its whole head."""
        await until(lambda: len(self.locals) > number and b"\r\n\r\n" in self.locals[number].received)
        return self.locals[number]

    async def while_local_server_is_away(self) -> None:
        """Let one client find no local server behind the agent; then listen again at the same port."""
        port: Any = self.local_port
        number = port.getHost().port
        await port.stopListening()
        client = await self.connect(request())
        await client.receives(b" 502 ")
        self.local_port = reactor.listenTCP(number, port.factory, interface="127.0.0.1")

    async def joined(self, target: str = "/client?room=r") -> tuple[Player, Player]:
        """Return an upgraded client and its local connection, with the handshake removed from the received
        bytes.
        """
        number = len(self.locals)
        client = await self.connect(request(target))
        local = await self.local(number)
        local.received = b""
        local.send(answer_101())
        await client.receives(b"\r\n\r\n")
        client.received = b""
        return client, local


class _One(Factory):
    noisy = False

    def __init__(self, player: Player) -> None:
        self._player = player

    def buildProtocol(self, addr: object) -> Player:
        return self._player
