"""Connections to one server, time and again: where it was found before, and with nothing in between.

Twisted's ``HostnameEndpoint`` asks the system's resolver in a thread and makes a class for every
connection, even where the host is an address, and every endpoint leaves a wrapper between transport and
protocol for as long as the connection lives. For one connection that is nothing. An agent makes one for
each client: ``LocalServer`` does it with this.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Redial"]

ATTEMPT_DELAY_SECONDS = 0.1
"""Between a name's addresses; whoever is dialled here is near."""


@implementer(IStreamClientEndpoint)
class Redial:
    """Connects to a host and port: at the address that took the last connection, else where the name leads.

    A name is tried on all its addresses: ``localhost`` may be listening on 127.0.0.1 or on ::1
    alone, depending on what the resolver told the local server first (yjs.md 1.6). When the address that
    it was does not take a connection any more, the name is asked again.

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
        self._timeout_seconds = timeout_seconds
        self._by_name: IStreamClientEndpoint | None = None
        self._by_address: IStreamClientEndpoint | None = None
        if isIPAddress(host) or isIPv6Address(host):
            self._by_address = self._at(host, is_six=isIPv6Address(host))
        else:
            self._by_name = HostnameEndpoint(
                reactor, host, port, timeout=timeout_seconds, attemptDelay=ATTEMPT_DELAY_SECONDS
            )

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, as every endpoint does."""
        if self._by_address is None:
            return self._look_up(factory)
        connecting: Deferred[IProtocol] = self._by_address.connect(factory)
        if self._by_name is not None:
            connecting.addErrback(self._moved, factory)
        return connecting.addCallback(_unwrapped)

    def _look_up(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        assert self._by_name is not None, "what has no address has a name"
        connecting: Deferred[IProtocol] = self._by_name.connect(factory)
        return connecting.addCallback(self._found)

    def _moved(self, failure: Failure, factory: IProtocolFactory) -> Deferred[IProtocol]:
        failure.trap(ConnectError)
        self._by_address = None
        return self._look_up(factory)

    def _found(self, protocol: IProtocol) -> IProtocol:
        peer = protocol.transport.getPeer()  # type: ignore[attr-defined]  # it has connected
        self._by_address = self._at(peer.host, is_six=isinstance(peer, IPv6Address))
        return _unwrapped(protocol)

    def _at(self, address: str, *, is_six: bool) -> IStreamClientEndpoint:
        kind = TCP6ClientEndpoint if is_six else TCP4ClientEndpoint
        return kind(self._reactor, address, self._port, timeout=self._timeout_seconds)


def _unwrapped(protocol: IProtocol) -> IProtocol:
    """Let the connection deliver to its protocol itself, and not to the endpoint's wrapper around it."""
    transport = protocol.transport  # type: ignore[attr-defined]  # it has connected
    if isinstance(transport, Connection):
        transport.protocol = protocol
    return protocol
