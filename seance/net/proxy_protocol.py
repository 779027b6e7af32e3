"""The PROXY protocol for a listener: connections have the addresses that a proxy has sent.

``ProxyProtocolFactory`` wraps the factory of a listening port (``--listen haproxy:...``). Each connection
must begin with a header (``seance.heads.proxy_protocol``) and come from a trusted address. Others are cut and
logged. The wrapped protocol is connected at accept, so its timeout also limits the wait for the header.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import (
    IAddress,
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    ITCPTransport,
    ITransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import alsoProvides

from seance.errors import RemoteProtocolError
from seance.heads import ProxyHeaderReader
from seance.net.log_limiter import REFUSED_SECONDS, LogLimiter

if TYPE_CHECKING:
    from ipaddress import IPv4Address as Ipv4
    from ipaddress import IPv6Address as Ipv6

    from twisted.python.failure import Failure

__all__ = ["ProxyProtocolFactory", "host_of"]

THIS_MACHINE = "127.0.0.1"
"""The host of a connection over a UNIX socket."""


def host_of(address: IAddress | None) -> str:
    """Return the host of an address; 127.0.0.1 for a UNIX socket."""
    return str(getattr(address, "host", THIS_MACHINE))


class ProxyProtocolFactory(WrappingFactory[Any]):
    """Reads a PROXY header on each connection before the wrapped factory's protocol receives data.

    Args:
        reactor: Provides the time.
        factory: Makes the protocols behind the header.
        trusts: Whether a header from this address is accepted; None accepts all.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, factory: IProtocolFactory, trusts: Callable[[str], bool] | None = None
    ) -> None:
        super().__init__(factory)
        self._trusts = trusts
        self._limit = LogLimiter(reactor, interval_seconds=REFUSED_SECONDS)

    def buildProtocol(self, addr: IAddress | None) -> Any:  # noqa: ANN401  # one of two classes
        """Make the protocol of one connection."""
        peer = host_of(addr)
        if self._trusts is not None and not self._trusts(peer):
            self.note_refused(peer, "its address is not in --trusted-proxy")
            return _Refused()
        return ProxyProtocol(self, cast(IProtocol, self.wrappedFactory.buildProtocol(addr)))

    def note_refused(self, peer: str, why: str) -> None:
        """Log that a connection was refused, at most once in ``REFUSED_SECONDS``."""
        suppressed = self._limit.admit("refused")
        if suppressed is not None:
            self._log.warn(
                "A connection from {peer} to a PROXY protocol listener was refused: {why} "
                "({suppressed} more since the last such line)",
                peer=peer,
                why=why,
                suppressed=suppressed,
                event="proxy.refused",
            )


class ProxyProtocol(ProtocolWrapper):
    """One connection: a header, then the wrapped protocol's data."""

    factory: ProxyProtocolFactory
    transport: ITransport

    def __init__(self, factory: ProxyProtocolFactory, wrapped: IProtocol) -> None:
        super().__init__(factory, wrapped)
        self._reader: ProxyHeaderReader | None = ProxyHeaderReader()
        self._peer: IAddress | None = None
        self._host: IAddress | None = None

    def makeConnection(self, transport: ITransport) -> None:
        """Connect the wrapped protocol, with this as its transport."""
        super().makeConnection(transport)
        # A FIN stays a FIN, except under TLS, which has no half-close.
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            alsoProvides(self, IHalfCloseableProtocol)

    def dataReceived(self, data: bytes) -> None:
        """Read the header; pass on what follows it."""
        reader = self._reader
        if reader is None:
            self.wrappedProtocol.dataReceived(data)
            return
        try:
            header = reader.receive(data)
        except RemoteProtocolError as error:
            self._refuse(error.message)
            return
        if header is None:
            return
        self._reader = None
        if header.source is not None and header.destination is not None:
            self._peer, self._host = _twisted_address(*header.source), _twisted_address(*header.destination)
        if reader.trailing:
            self.wrappedProtocol.dataReceived(reader.trailing)

    def getPeer(self) -> IAddress:
        """Return the client's address from the header, or else the connection's."""
        return self._peer or self.transport.getPeer()

    def getHost(self) -> IAddress:
        """Return the address that the client connected to, from the header, or else the connection's."""
        return self._host or self.transport.getHost()

    def readConnectionLost(self) -> None:
        """Forward a half-close; close if there was no header."""
        half = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if self._reader is not None or half is None:
            self.transport.loseConnection()
        else:
            half.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """Forward the end of our data."""
        half = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if half is not None:
            half.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Log a missing or incomplete header, except for a health check that only connects."""
        reader, self._reader = self._reader, None
        if reader is not None and (reader.has_begun or reason.check(ConnectionAborted)):
            what = "the PROXY header was incomplete" if reader.has_begun else "there was no PROXY header"
            self.factory.note_refused(host_of(self.transport.getPeer()), f"{what} when the connection ended")
        super().connectionLost(reason)

    def _refuse(self, why: str) -> None:
        self._reader = None
        self.dataReceived = _ignore  # type: ignore[method-assign]  # drop further data
        self.factory.note_refused(host_of(self.transport.getPeer()), why)
        cast(ITCPTransport, self.transport).abortConnection()


class _Refused(Protocol):
    def connectionMade(self) -> None:
        cast(ITCPTransport, self.transport).abortConnection()


def _ignore(data: bytes) -> None:
    """Drop data after an error."""


def _twisted_address(address: Ipv4 | Ipv6, port: int) -> IAddress:
    kind = IPv4Address if address.version == 4 else IPv6Address
    return kind("TCP", str(address), port)
