"""A client endpoint that caches the resolved address, for many connections to one server.

Twisted's ``HostnameEndpoint`` calls the resolver in a thread and creates a class for every connection, even
if the host is an address. Every endpoint also leaves a wrapper between transport and protocol. This is too
expensive for an agent, which makes a connection to its local server for each client
(``seance.core.local_address.LocalAddress``).
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from math import inf
from typing import Any

from twisted.internet import tcp
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.posixbase import PosixReactorBase
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.net.immediate_write import IMMEDIATE, dial_immediately

__all__ = ["CachedEndpoint"]

ATTEMPT_DELAY_SECONDS = 0.1
"""Time between attempts at the addresses of a name; short, because the server is near."""

CACHE_SECONDS = 30.0
"""How long an address is cached. The name may change while the old address still answers."""

CACHED_TRY_SECONDS = 1.0
"""Timeout of an attempt at the cached address, after which the name is looked up again."""


@implementer(IStreamClientEndpoint)
class CachedEndpoint:
    """Connects to the cached address of a host, or else resolves its name.

    All addresses of a name are tried: a server on ``localhost`` may listen on 127.0.0.1 only or on ::1 only,
    depending on the order in which the resolver returned them to it.

    Args:
        reactor: Twisted's reactor.
        host: A host name or an IP address.
        port: The TCP port.
        timeout_seconds: Timeout of one attempt at one address.
    """

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # several interfaces, no common type
        host: str,
        port: int,
        timeout_seconds: float,
    ) -> None:
        self._reactor = reactor
        self._port = port
        self._host = host
        self._loopback: socket.AddressFamily | None = None
        is_six = isIPv6Address(host)
        self._named: IStreamClientEndpoint
        if is_six or isIPAddress(host):
            self._named = self._at(host, is_six, timeout_seconds)
            self._cached_until = inf
        else:
            self._named = HostnameEndpoint(
                reactor, host, port, timeout=timeout_seconds, attemptDelay=ATTEMPT_DELAY_SECONDS
            )
            self._cached_until = -inf
        self._cached = self._named

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; see ``IStreamClientEndpoint``."""
        if self._reactor.seconds() >= self._cached_until:
            return self._look_up(factory)
        sock = self._connect_now()
        if sock is not None:
            return succeed(self._made(sock, factory))
        connecting: Deferred[IProtocol] = self._cached.connect(factory)
        if self._cached is self._named:
            return connecting.addCallback(_unwrapped)
        return connecting.addCallbacks(_unwrapped, self._moved, errbackArgs=(factory,))

    def _connect_now(self) -> socket.socket | None:
        """Return a socket that is connected to the cached address, if that is a loopback address.

        The kernel has completed such a connection before ``connect`` returns, unless the server's backlog is
        full. Twisted takes two turns of the reactor, and a tenth of the agent's CPU time for a client that
        comes and goes. Any fault is left to Twisted, which tries again and reports it.
        """
        if self._loopback is None:
            return None
        try:
            sock = socket.socket(self._loopback)
        except OSError:
            return None
        sock.setblocking(False)
        try:
            result = sock.connect_ex((self._host, self._port))
            if result == errno.EINPROGRESS:
                result = sock.connect_ex((self._host, self._port))
        except OSError:  # an IPv6 scope that does not exist
            result = errno.EINVAL
        if result in (0, errno.EISCONN):
            return sock
        sock.close()
        return None

    def _made(self, sock: socket.socket, factory: IProtocolFactory) -> IProtocol:
        if self._loopback == socket.AF_INET6:
            client: tuple[Any, ...] = (self._host, self._port, 0, 0)
            protocol = factory.buildProtocol(IPv6Address("TCP", *client))
        else:
            client = (self._host, self._port)
            protocol = factory.buildProtocol(IPv4Address("TCP", *client))
        assert protocol is not None, "factories here make a protocol for each connection"
        protocol.makeConnection(IMMEDIATE[tcp.Server](sock, protocol, client, None, 0, self._reactor))
        return protocol

    def _look_up(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting: Deferred[IProtocol] = self._named.connect(factory)
        return connecting.addCallback(self._found)

    def _moved(self, failure: Failure, factory: IProtocolFactory) -> Deferred[IProtocol]:
        failure.trap(ConnectError)
        self._cached_until = -inf
        return self._look_up(factory)

    def _found(self, protocol: IProtocol) -> IProtocol:
        peer = protocol.transport.getPeer()  # type: ignore[attr-defined]  # it has connected
        self._cached = self._at(peer.host, isinstance(peer, IPv6Address), CACHED_TRY_SECONDS)
        self._cached_until = self._reactor.seconds() + CACHE_SECONDS
        return _unwrapped(protocol)

    def _at(self, address: str, is_six: bool, timeout_seconds: float) -> IStreamClientEndpoint:
        self._host = address
        self._loopback = None
        if isinstance(self._reactor, PosixReactorBase) and ip_address(address.partition("%")[0]).is_loopback:
            self._loopback = socket.AF_INET6 if is_six else socket.AF_INET
        kind = TCP6ClientEndpoint if is_six else TCP4ClientEndpoint
        return kind(dial_immediately(self._reactor), address, self._port, timeout=timeout_seconds)


def _unwrapped(protocol: IProtocol) -> IProtocol:
    """Let the transport deliver to its protocol directly, and free the objects that made the connection."""
    transport: Any = protocol.transport  # type: ignore[attr-defined]  # it has connected
    if isinstance(transport, tcp.Client):
        transport.protocol = protocol
        transport.connector.factory.doStop()
        transport.connector = _NULL_CONNECTOR
    return protocol


class _NullConnector:
    """Replaces Twisted's connector, which would reconnect or tell its factory."""

    def connectionLost(self, reason: Failure) -> None:
        pass


_NULL_CONNECTOR = _NullConnector()
