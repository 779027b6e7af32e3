"""Two ways to end a connection without losing the bytes that were written last.

If a socket is closed while received bytes are still unread, the kernel sends a reset, and the reset discards
a response that the peer has not read yet: a client with too long a request head would never see the 431.
``LingeringClose`` therefore writes the response, ends its own direction, and drops what still arrives, within
a bound of bytes and of time. nginx does the same (``lingering_close``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.net import Leg, LingeringReset, end

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["LingeringClose", "ResetAfterFlush"]

LINGER_SECONDS = 2.0
LINGER_BYTES = 1024 * 1024


@implementer(IHalfCloseableProtocol)
class LingeringClose(Protocol):
    """Writes one response and closes the connection gracefully.

    Args:
        reactor: Provides the time.
        response: The whole response, or the last bytes of one that was written before.
        seconds: Timeout after which the connection is aborted.
        on_end: Called once, when the connection is gone.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        response: bytes,
        *,
        seconds: float = LINGER_SECONDS,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._response = response
        self._seconds = seconds
        self._on_end = on_end
        self._left_bytes = LINGER_BYTES
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Write the response and end our direction."""
        leg = cast(Leg, self.transport)
        self._timer = self._reactor.callLater(self._seconds, self._abort)
        leg.write(self._response)
        end(leg)

    def dataReceived(self, data: bytes) -> None:
        """Drop what still arrives; abort the connection when it exceeds ``LINGER_BYTES``."""
        self._left_bytes -= len(data)
        if self._left_bytes < 0 and self._timer is not None:
            self._timer.cancel()
            self._abort()

    def readConnectionLost(self) -> None:
        """The peer has ended its direction too, so the response has arrived."""
        cast(Leg, self.transport).loseConnection()

    def writeConnectionLost(self) -> None:
        """Our direction has ended, as ``connectionMade`` asked."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the timeout and call ``on_end``."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._on_end()

    def _abort(self) -> None:
        self._timer = None
        cast(ITCPTransport, self.transport).abortConnection()


@implementer(IHalfCloseableProtocol)
class ResetAfterFlush(Protocol):
    """Resets a connection once all data written to it has been sent; drops the data that still arrives.

    Args:
        reactor: Provides the time.
        on_end: Called once, when the connection is gone.
    """

    def __init__(self, reactor: IReactorTime, *, on_end: Callable[[], None]) -> None:
        self._reactor = reactor
        self._on_end = on_end
        self._reset: LingeringReset | None = None

    def connectionMade(self) -> None:
        """Start to wait for the write buffer to empty."""
        leg = cast(Leg, self.transport)
        leg.unregisterProducer()
        leg.resumeProducing()
        self._reset = LingeringReset(self._reactor, leg)

    def dataReceived(self, data: bytes) -> None:
        """Drop what still arrives."""

    def readConnectionLost(self) -> None:
        """The peer has ended its direction; the reset follows."""

    def writeConnectionLost(self) -> None:
        """Not used: this direction ends with the reset."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the reset and call ``on_end``."""
        if self._reset is not None:
            self._reset.cancel()
        self._on_end()
