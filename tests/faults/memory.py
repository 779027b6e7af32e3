"""A reactor in memory: relay, agent, local server and clients on one clock, without an operating system.

``MemoryReactor`` has the parts of Twisted's reactor that the programs use (time, ``listenTCP``,
``connectTCP``, names). The real ``Relay`` and ``Agent`` run on it unchanged, from the first byte of the
upgrade, and every run is the same. Connections are ``tests.wire.Wire`` objects, which behave as TCP with
buffers, half-close and reset.

A ``Weather`` causes faults on the connections of a port: it cuts them after an exact number of bytes, or
makes them silent. This takes milliseconds, where a proxy between real processes takes seconds.
"""

# ruff: noqa: N802, N803  # Twisted's names
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionRefusedError, UserError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IHostResolution,
    IListeningPort,
    IProtocol,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.wire import Wire, WireEnd

__all__ = ["MemoryReactor", "Weather"]

LOOPBACK = "127.0.0.1"


@dataclass
class Weather:
    """The faults of the connections of one port.

    Attributes:
        cuts: For each connection in order, the number of bytes, both directions together, after which it is
            reset. Later connections are not cut. Carried bytes arrive; bytes still in a send buffer are lost.
        is_quiet: Whether nothing is carried at present, without any error.
        bend: Function of the connection's number, whether the dialling end sends, the piece's number and the
            piece (the bytes written in one turn). The piece is replaced by its result.
        carried: The number of bytes that each connection has carried.
    """

    cuts: tuple[int, ...] = ()
    bend: Callable[[int, bool, int, bytes], bytes] | None = None
    is_quiet: bool = False
    carried: list[int] = field(default_factory=list)
    wires: list[Wire] = field(default_factory=list)

    def clear(self) -> None:
        """Carry everything again, including the waiting bytes."""
        self.is_quiet = False
        for wire in self.wires:
            for end in wire.ends:
                end._stir()


class RoughWire(Wire):
    """A wire with faults."""

    __slots__ = ("index", "weather")

    def join(self, near: IProtocol, far: IProtocol) -> None:
        ends = [RoughEnd(self, 1), RoughEnd(self, 2)]
        self.ends.extend(ends)
        ends[0].peer, ends[1].peer = ends[1], ends[0]
        ends[0].protocol, ends[1].protocol = near, far
        far.makeConnection(ends[1])
        near.makeConnection(ends[0])


class RoughEnd(WireEnd):
    """An end that carries no more than its weather allows."""

    _pieces = 0

    def _send(self) -> None:
        wire = cast(RoughWire, self._wire)
        weather, index = wire.weather, wire.index
        if weather.is_quiet:
            return
        if weather.bend is not None and self.unsent:
            self.unsent[:] = weather.bend(index, self._number == 1, self._pieces, bytes(self.unsent))
            self._pieces += 1
        if index >= len(weather.cuts):
            before = len(self.unsent)
            super()._send()
            weather.carried[index] += before - len(self.unsent)
            return
        left = weather.cuts[index] - weather.carried[index]
        beyond = self.unsent[left:]
        del self.unsent[left:]
        before = len(self.unsent)
        super()._send()
        weather.carried[index] += before - len(self.unsent)
        self.unsent += beyond
        if weather.carried[index] == weather.cuts[index]:
            self.cut()
            self.peer.cut()  # type: ignore[attr-defined]

    def _receive(self) -> None:
        if not cast(RoughWire, self._wire).weather.is_quiet:
            super()._receive()

    def cut(self) -> None:
        """Reset it, after the carried bytes have been read."""
        self.unsent.clear()
        self._got_reset = True
        self._stir()


@implementer(IReactorTime, IReactorTCP, IReactorPluggableNameResolver)
class MemoryReactor(Clock):
    """The parts of Twisted's reactor that relay and agent use."""

    def __init__(self) -> None:
        super().__init__()
        self._ports: dict[int, _Port] = {}
        self._weather: dict[int, Weather] = {}
        self._next_port = 50_000
        self.nameResolver = _Names()

    def weather_at(self, port: int, weather: Weather) -> None:
        """Apply faults to the connections of a port, from now on."""
        self._weather[port] = weather

    def kill(self, *ports: int) -> None:
        """Do to these ports and their connections what a kernel does when their process is killed."""
        for number in ports:
            port = self._ports.pop(number, None)
            for wire in [] if port is None else port.wires:
                for end in wire.ends:
                    end.unsent.clear()
                    end._got_reset = True
                    end._stir()

    # -- IReactorTCP -----------------------------------------------------------------------

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> IListeningPort:
        if port == 0:
            self._next_port += 1
            port = self._next_port
        self._ports[port] = _Port(self._ports, port, factory)
        factory.doStart()
        return cast(IListeningPort, self._ports[port])

    def connectTCP(
        self, host: str, port: int, factory: Any, timeout: float = 30, bindAddress: object = None
    ) -> IConnector:
        connector = _Connector(host, port)
        factory.doStart()
        factory.startedConnecting(connector)
        self.callLater(0, self._connect, connector, factory)
        return cast(IConnector, connector)

    def _connect(self, connector: _Connector, factory: Any) -> None:
        port = self._ports.get(connector.port)
        if connector.is_stopped:
            factory.clientConnectionFailed(connector, Failure(UserError()))
            return
        if port is None:
            factory.clientConnectionFailed(connector, Failure(ConnectionRefusedError()))
            return
        near = factory.buildProtocol(connector.getDestination())
        far = port.factory.buildProtocol(IPv4Address("TCP", LOOPBACK, 1))
        weather = self._weather.get(connector.port)
        wire: Wire
        if weather is None:
            wire = Wire(self)
        else:
            wire = RoughWire(self)
            # The class is a frozen dataclass; these two attributes are no part of its behaviour.
            object.__setattr__(wire, "weather", weather)
            object.__setattr__(wire, "index", len(weather.wires))
            weather.wires.append(wire)
            weather.carried.append(0)
        port.wires.append(wire)
        wire.join(near, far)

    def adoptStreamConnection(self, *_: object) -> None:
        raise NotImplementedError

    # -- time ------------------------------------------------------------------------------

    def pass_until(self, condition: Callable[[], object], *, at_most_seconds: float = 60.0) -> None:
        """Advance the clock from one scheduled call to the next until a condition holds."""
        end = self.seconds() + at_most_seconds
        while not condition():
            due = [call.getTime() for call in self.getDelayedCalls()]
            if not due or min(due) > end:
                msg = f"the condition is false after {at_most_seconds} s, or no call is scheduled"
                raise AssertionError(msg)
            self.advance(max(0.0, min(due) - self.seconds()))

    def pass_seconds(self, seconds: float) -> None:
        """Advance the clock by this time; each call runs when it is due."""
        end = self.seconds() + seconds
        while (due := [call.getTime() for call in self.getDelayedCalls()]) and min(due) <= end:
            self.advance(max(0.0, min(due) - self.seconds()))
        self.advance(end - self.seconds())


class _Port:
    def __init__(self, ports: dict[int, _Port], number: int, factory: Any) -> None:
        self._ports = ports
        self._number = number
        self.factory = factory
        self.wires: list[Wire] = []

    def getHost(self) -> IAddress:
        return IPv4Address("TCP", LOOPBACK, self._number)

    def startListening(self) -> None:
        pass

    def stopListening(self) -> None:
        if self._ports.get(self._number) is self:
            del self._ports[self._number]
            self.factory.doStop()

    def startReading(self) -> None:
        pass

    def stopReading(self) -> None:
        pass


class _Connector:
    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        self.is_stopped = False

    def getDestination(self) -> IAddress:
        return IPv4Address("TCP", self.host, self.port)

    def stopConnecting(self) -> None:
        self.is_stopped = True

    def disconnect(self) -> None:
        self.is_stopped = True

    def connect(self) -> None:
        raise NotImplementedError


class _Names:
    """Resolves every name to this machine."""

    def resolveHostName(
        self, receiver: Any, hostName: str, portNumber: int = 0, *_: object, **__: object
    ) -> IHostResolution:
        receiver.resolutionBegan(None)
        receiver.addressResolved(IPv4Address("TCP", LOOPBACK, portNumber))
        receiver.resolutionComplete()
        return cast(IHostResolution, None)
