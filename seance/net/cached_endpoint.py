"""Connections to one server, time and again: where it was found before, and with nothing in between.

Twisted's ``HostnameEndpoint`` asks the system's resolver in a thread and makes a class for every
connection, even where the host is an address, and every endpoint leaves a wrapper between transport and
protocol for as long as the connection lives. For one connection that is nothing. An agent makes one for
each client: ``LocalAddress`` does it with this.
"""

from __future__ import annotations

from math import inf
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.tcp import Client
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.net.immediate_write import dial_immediately

__all__ = ["CachedEndpoint"]

ATTEMPT_DELAY_SECONDS = 0.1
"""Between a name's addresses; whoever is dialled here is near."""

KNOWN_FOR_SECONDS = 30.0
"""How long an address is tried before its name is asked again: that may move while the old one answers."""

KNOWN_TRY_SECONDS = 1.0
"""And how long one attempt at it may take; the rest of the time is for the name."""


@implementer(IStreamClientEndpoint)
class CachedEndpoint:
    """Connects to a host and port: where it was found lately, else where the name leads.

    A name is tried on all its addresses: ``localhost`` may be listening on 127.0.0.1 or on ::1
    alone, depending on what the resolver told the local server first (yjs.md 1.6).

    Args:
        reactor: Twisted's reactor.
        host: A name or an address.
        port: Where it listens.
        timeout_seconds: For one attempt at one address.
    """

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # what endpoints want: no common type
        host: str,
        port: int,
        timeout_seconds: float,
    ) -> None:
        self._reactor = reactor
        self._port = port
        is_six = isIPv6Address(host)
        self._named: IStreamClientEndpoint
        if is_six or isIPAddress(host):
            self._named = self._at(host, is_six, timeout_seconds)
            self._known_until = inf
        else:
            self._named = HostnameEndpoint(
                reactor, host, port, timeout=timeout_seconds, attemptDelay=ATTEMPT_DELAY_SECONDS
            )
            self._known_until = -inf
        self._known = self._named

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, as every endpoint does."""
        if self._reactor.seconds() >= self._known_until:
            return self._look_up(factory)
        connecting: Deferred[IProtocol] = self._known.connect(factory)
        if self._known is self._named:
            return connecting.addCallback(_unwrapped)
        return connecting.addCallbacks(_unwrapped, self._moved, errbackArgs=(factory,))

    def _look_up(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[IProtocol] = self._named.connect(factory)
        return connecting.addCallback(self._found)

    def _moved(self, failure: Failure, factory: IProtocolFactory) -> Deferred[IProtocol]:
        failure.trap(ConnectError)
        self._known_until = -inf
        return self._look_up(factory)

    def _found(self, protocol: IProtocol) -> IProtocol:
        peer = protocol.transport.getPeer()  # type: ignore[attr-defined]  # it has connected
        self._known = self._at(peer.host, isinstance(peer, IPv6Address), KNOWN_TRY_SECONDS)
        self._known_until = self._reactor.seconds() + KNOWN_FOR_SECONDS
        return _unwrapped(protocol)

    def _at(self, address: str, is_six: bool, timeout_seconds: float) -> IStreamClientEndpoint:
        kind = TCP6ClientEndpoint if is_six else TCP4ClientEndpoint
        return kind(dial_immediately(self._reactor), address, self._port, timeout=timeout_seconds)


def _unwrapped(protocol: IProtocol) -> IProtocol:
    """Let the connection deliver to its protocol itself, and keep nothing of what made it."""
    transport: Any = protocol.transport  # type: ignore[attr-defined]  # it has connected
    if isinstance(transport, Client):
        transport.protocol = protocol
        transport.connector.factory.doStop()
        transport.connector = _NOBODY
    return protocol


class _Nobody:
    """Who is told of a connection's end where nobody would connect again."""

    def connectionLost(self, reason: Failure) -> None:
        pass


_NOBODY = _Nobody()
