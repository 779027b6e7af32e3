"""Ways to connect two protocols, one for each kind of transport of ``tests/contract.py``.

A rig connects any number of pairs of protocols, and lets time pass until a condition holds. The rigs on a
``Clock`` finish without waiting; the rig on real TCP takes a few turns of the reactor.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.internet import task
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort, IProtocol, IReactorTime
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock

from seance.carrier import CarrierAnswerer, RelayAddress, dial
from seance.errors import CarrierLost, Refusal
from seance.heads import RequestReader, refusal_response
from seance.mux import Mux
from seance.net import ProtocolSwitch
from seance.net.immediate_write import write_immediately
from seance.yamux import Limits, Role
from tests.wire import Wire, WireEndpoint, run, run_until

__all__ = [
    "ROOM",
    "AgentFrontend",
    "CarrierRig",
    "ClockRig",
    "MuxRig",
    "OneByOne",
    "Rig",
    "TcpRig",
    "WireRig",
    "join_muxes",
]

ROOM = "room-1"
SOCKET_BYTES = 128 * 1024
"""Size of socket buffers on the loopback, which otherwise take megabytes before a writer is paused."""


class OneByOne(Factory):
    """Returns the protocols in ``coming`` in order, and refuses when there are none."""

    noisy = False

    def __init__(self) -> None:
        self.coming: list[IProtocol] = []

    def buildProtocol(self, addr: object) -> Any:
        return self.coming.pop(0) if self.coming else None


class Rig:
    """The interface of all rigs. With ``flipped`` the protocols change places."""

    can_half_close = True

    def __init__(self, *, flipped: bool = False) -> None:
        self._flipped = flipped

    async def connect(self, near: IProtocol, far: IProtocol) -> None:
        """Connect two protocols; both have a transport then."""
        await self._connect(*((far, near) if self._flipped else (near, far)))

    async def _connect(self, near: IProtocol, far: IProtocol) -> None:
        raise NotImplementedError

    async def until(self, condition: Callable[[], object]) -> None:
        """Run events until ``condition`` is true; fail if it does not become true."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Run all pending events."""
        raise NotImplementedError

    async def stop(self) -> None:
        """End what the test left, and check that nothing remains."""
        raise NotImplementedError


class TcpRig(Rig):
    """Real TCP on the loopback; the others are compared with it."""

    def __init__(self, *, flipped: bool = False, is_eager: bool = False) -> None:
        super().__init__(flipped=flipped)
        from twisted.internet import reactor

        self._reactor: Any = reactor
        self._is_eager = is_eager
        self._factory = OneByOne()
        self._port: IListeningPort | None = None

    async def _connect(self, near: IProtocol, far: IProtocol) -> None:
        if self._port is None:
            endpoint = TCP4ServerEndpoint(self._reactor, 0, interface="127.0.0.1")
            self._port = await endpoint.listen(self._factory)
            cast(Any, self._port).socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
            cast(Any, self._port).socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        self._factory.coming.append(far)
        client = OneByOne()
        client.coming.append(near)
        number = cast(Any, self._port.getHost()).port
        await TCP4ClientEndpoint(self._reactor, "127.0.0.1", number).connect(client)
        await self.until(lambda: cast(Protocol, far).transport)
        for protocol in (near, far):
            transport = cast(Any, protocol).transport
            if getattr(transport, "socket", None) is not None:
                transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
            if self._is_eager:
                write_immediately(transport)

    async def until(self, condition: Callable[[], object]) -> None:
        give_up_at = self._reactor.seconds() + 10
        while not condition():
            if self._reactor.seconds() > give_up_at:
                pytest.fail("the condition did not become true")
            await task.deferLater(self._reactor, 0)

    async def settle(self) -> None:
        for _ in range(10):
            await task.deferLater(self._reactor, 0.002)

    async def stop(self) -> None:
        for selectable in [*self._reactor.getReaders(), *self._reactor.getWriters()]:
            if getattr(selectable, "abortConnection", None) is not None:
                selectable.abortConnection()
        if self._port is not None:
            await self._port.stopListening()


class ClockRig(Rig):
    """The common part of the rigs on a clock. No second passes unless the test says so."""

    def __init__(self, *, flipped: bool = False, **shape: int) -> None:
        super().__init__(flipped=flipped)
        self.clock = Clock()
        self.shape = shape
        self.wires: list[Wire] = []

    async def until(self, condition: Callable[[], object]) -> None:
        run_until(self.clock, lambda: condition() or self._is_quiet())
        if not condition():
            pytest.fail("the condition is false, and no event is pending")

    async def settle(self) -> None:
        run_until(self.clock, self._is_quiet)

    def _is_quiet(self) -> bool:
        # A call in a second or more is a timer, which the contract does not cover.
        return all(call.getTime() > self.clock.seconds() for call in self.clock.getDelayedCalls())

    async def stop(self) -> None:
        for wire in self.wires:
            wire.near.abortConnection()
        run(self.clock)
        assert self.clock.getDelayedCalls() == [], "a delayed call remains"


class WireRig(ClockRig):
    """The in-memory wire itself."""

    async def _connect(self, near: IProtocol, far: IProtocol) -> None:
        wire = Wire(self.clock, **self.shape)
        self.wires.append(wire)
        wire.join(near, far)


class AgentFrontend(ProtocolSwitch):
    """The relay's end of a carrier, reduced to what ``CarrierAnswerer`` needs."""

    def __init__(self, answerer: CarrierAnswerer, make_protocol: Callable[[str | None], IProtocol]) -> None:
        self._reader = RequestReader()
        self._answerer = answerer
        self._make_protocol = make_protocol

    def dataReceived(self, data: bytes) -> None:
        try:
            request = self._reader.receive(data)
        except Refusal as refusal:
            cast(Any, self.transport).write(refusal_response(refusal))
            cast(Any, self.transport).loseConnection()
            return
        if request is not None:
            self._answerer.answer(request, self._reader.trailing, self.hand_over, self._make_protocol)


class CarrierRig(ClockRig):
    """A WebSocket over the wire, with the far protocol on the relay's side."""

    can_half_close = False

    async def _connect(self, near: IProtocol, far: IProtocol) -> None:
        relay_factory = OneByOne()
        relay_factory.coming.append(AgentFrontend(CarrierAnswerer(self.clock), lambda _: far))
        endpoint = WireEndpoint(self.clock, relay_factory, **self.shape)
        address = RelayAddress.from_url("ws://127.0.0.1:1")
        dialled: list[object] = []
        dialling = dial(self.clock, address, ROOM, lambda _: near, deadline_seconds=5, endpoint=endpoint)
        dialling.addErrback(lambda failure: failure.trap(CarrierLost)).addCallback(dialled.append)
        self.wires += endpoint.wires
        await self.until(lambda: dialled)
        # The far protocol may abort as soon as it is connected, before any of its bytes have arrived.
        assert dialled in ([near], [CarrierLost])


def join_muxes(clock: Clock, wire: Wire, limits: Limits | None = None, **options: Any) -> tuple[Mux, Mux]:
    """Connects an agent's mux (near) and a relay's mux (far)."""
    agent = Mux(cast(IReactorTime, clock), Role.CLIENT, limits=limits, **options)
    relay = Mux(cast(IReactorTime, clock), Role.SERVER, limits=limits, **options)
    wire.join(agent, relay)
    return agent, relay


class MuxRig(ClockRig):
    """Streams over one link, opened by the relay as for clients, or, flipped, by the agent."""

    async def _connect(self, near: IProtocol, far: IProtocol) -> None:
        if not self.wires:
            self.wires.append(Wire(self.clock, **self.shape))
            self._agent, self._relay = join_muxes(self.clock, self.wires[0])
        opener, other = (self._agent, self._relay) if self._flipped else (self._relay, self._agent)
        factory = OneByOne()
        factory.coming.append(far)
        other.listen(factory)
        opener.open_stream(near)
        await self.until(lambda: cast(Protocol, far).transport)
