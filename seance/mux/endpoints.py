"""Endpoints over a link: any Twisted client or server runs through it unchanged."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError, ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from seance.errors import LocalProtocolError
from seance.mux.address import StreamAddress
from seance.mux.protocol import Mux

__all__ = ["StreamClientEndpoint", "StreamPort", "StreamServerEndpoint"]


@implementer(IStreamClientEndpoint)
class StreamClientEndpoint:
    """Connects by opening a stream.

    ``connect`` fires immediately, before the peer has accepted or rejected the stream (see
    ``Mux.open_stream``). It fails with ``ConnectError`` if the session cannot open a stream.
    """

    def __init__(self, mux: Mux) -> None:
        self._mux = mux

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # Twisted's name
        """Open a stream for a protocol from ``protocolFactory``. The result cannot be cancelled."""
        protocol = protocolFactory.buildProtocol(StreamAddress(self._mux.link, 0))
        if protocol is None:
            return fail(ConnectError(string="the factory made no protocol"))
        try:
            self._mux.open_stream(protocol)
        except LocalProtocolError as error:
            return fail(ConnectError(string=error.message.removesuffix(".")))
        return succeed(protocol)


@implementer(IListeningPort)
class StreamPort:
    """The port that ``StreamServerEndpoint.listen`` returns."""

    def __init__(self, mux: Mux, factory: IProtocolFactory) -> None:
        self._mux = mux
        self._factory = factory
        self._is_listening = False

    def startListening(self) -> None:
        """Start to accept streams."""
        self._is_listening = True
        self._factory.doStart()
        self._mux.listen(self._factory)

    def stopListening(self) -> Deferred[None]:
        """Reset further streams of the peer; open ones continue."""
        if self._is_listening:
            self._is_listening = False
            self._mux.listen(None)
            self._factory.doStop()
        return succeed(None)

    def getHost(self) -> IAddress:
        """Return the address of the link, with stream 0."""
        return StreamAddress(self._mux.link, 0)


@implementer(IStreamServerEndpoint)
class StreamServerEndpoint:
    """Listens for the streams that the peer opens. One listener at a time per link."""

    def __init__(self, mux: Mux) -> None:
        self._mux = mux

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:  # Twisted's name
        """Give the peer's streams to ``protocolFactory`` until the port is stopped."""
        if self._mux.is_listening:
            return fail(CannotListenError("", 0, "another factory listens on this link"))
        port = StreamPort(self._mux, protocolFactory)
        port.startListening()
        return succeed(port)
