"""The end of a connection that was refused: the answer must arrive, and nothing else happens.

Closing a socket while bytes of the peer are still unread makes the kernel send a reset, and the
reset destroys the answer in the peer's hands: whoever sent too long a head would never read
"431". So the answer is written, our side is ended, and what still comes is thrown away, within
bounds of bytes and time.
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
    """Writes one answer and sees the connection off.

    Args:
        reactor: Where time comes from.
        answer: The whole answer; or the last that is said, behind all that was written before.
        seconds: How long it may take to arrive before the connection is cut.
        on_end: Called once, when the connection is gone.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        answer: bytes,
        *,
        seconds: float = LINGER_SECONDS,
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._answer = answer
        self._seconds = seconds
        self._on_end = on_end
        self._left_bytes = LINGER_BYTES
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        """Write the answer and end our side."""
        leg = cast(Leg, self.transport)
        self._timer = self._reactor.callLater(self._seconds, self._cut)
        leg.write(self._answer)
        end(leg)

    def dataReceived(self, data: bytes) -> None:
        """Throw away what still comes, up to a bound."""
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            self._cut_now()

    def readConnectionLost(self) -> None:
        """The far side has ended too: the answer has arrived."""
        cast(Leg, self.transport).loseConnection()

    def writeConnectionLost(self) -> None:
        """Our side has ended, as asked."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over, one way or the other."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._on_end()

    def _cut_now(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._cut()

    def _cut(self) -> None:
        self._timer = None
        cast(ITCPTransport, self.transport).abortConnection()


@implementer(IHalfCloseableProtocol)
class ResetAfterFlush(Protocol):
    """Resets a connection once everything that was written to it has left; drops the data that still arrives.

    Args:
        reactor: Provides the time.
        on_end: Called once, when the connection is gone.
    """

    def __init__(self, reactor: IReactorTime, *, on_end: Callable[[], None]) -> None:
        self._reactor = reactor
        self._on_end = on_end
        self._reset: LingeringReset | None = None

    def connectionMade(self) -> None:
        """Begin to wait."""
        leg = cast(Leg, self.transport)
        leg.unregisterProducer()
        leg.resumeProducing()
        self._reset = LingeringReset(self._reactor, leg)

    def dataReceived(self, data: bytes) -> None:
        """Drop what still arrives."""

    def readConnectionLost(self) -> None:
        """The peer has ended; the reset follows."""

    def writeConnectionLost(self) -> None:
        """Not used: this direction ends with the reset."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        if self._reset is not None:
            self._reset.cancel()
        self._on_end()
