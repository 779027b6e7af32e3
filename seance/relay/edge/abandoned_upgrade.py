"""Ends the stream of a client that disconnected before the local server answered its upgrade.

The local server is not reset for this, because it did nothing wrong: in Node, an upgrade socket without an
``error`` listener ends the whole process. It reads the request to its last byte and then the end of data. Its
answer decides how the stream ends:

* a 101 that fits: the bytes that the client sent behind its head are delivered first; then the local server
  sees a reset if the client was reset, else an end;
* anything else, and nothing for too long: an orderly end in both directions.

Used by :mod:`seance.relay.edge.client_connection`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.errors import Refusal
from seance.heads import LocalResponse
from seance.net import switch_protocol

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from seance.mux import StreamTransport

__all__ = ["ORDERLY_SECONDS", "AbandonedUpgrade"]

ORDERLY_SECONDS: Final = 5.0
"""How long a local server may take to answer an end of data with its own. Then the stream is reset, which our
agent passes on as a close, since an end of data came before it."""


EARLY_SECONDS: Final = 10.0
"""How long bytes behind the head wait for the answer. Until then only a stream of the room is held."""


@implementer(IHalfCloseableProtocol)
class AbandonedUpgrade(Protocol):
    """The protocol of a stream after its client has gone. Make it, then ``begin``.

    Args:
        reactor: Provides the time.
        answer: The local server's answer so far.
        early: The bytes that the client sent behind its head; they delay the end until the answer.
        is_reset: Whether the client was reset, not closed.
        seconds: How long the local server may still take to answer if ``early`` waits for that.
    """

    def __init__(
        self, reactor: IReactorTime, answer: LocalResponse, early: bytes, *, is_reset: bool, seconds: float
    ) -> None:
        self._reactor = reactor
        self._answer = answer
        self._early = early
        self._is_reset = is_reset
        self._seconds = min(seconds, EARLY_SECONDS)
        self._timer: IDelayedCall | None = None
        self._is_decided = False

    def begin(self, stream: StreamTransport) -> None:
        """Take the stream over."""
        self._stream = stream
        switch_protocol(stream, self)
        stream.linger_seconds = ORDERLY_SECONDS
        if self._answer.has_begun:
            self._end()
            return
        seconds = self._seconds
        if not self._early:
            stream.loseWriteConnection()
            seconds = min(seconds, ORDERLY_SECONDS)
        self._timer = self._reactor.callLater(seconds, self._too_late)
        stream.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        """The local server answers."""
        if self._is_decided:
            return
        try:
            self._answer.receive(data)
        except Refusal:
            self._end()
            return
        if self._answer.is_switched:
            self._stream.write(self._early)
            if self._is_reset:
                self._decide()
                self._stream.resetConnection()
            else:
                self._end()
        elif self._answer.has_begun:
            self._end()

    def readConnectionLost(self) -> None:
        """The local server has ended."""
        self._end()

    def writeConnectionLost(self) -> None:
        """The end of data has left, as asked."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The stream is over."""
        self._decide()

    def _too_late(self) -> None:
        self._timer = None
        if self._early:
            self._end()
        else:
            self._stream.abortConnection()  # our end of data has had its time

    def _end(self) -> None:
        self._decide()
        self._stream.loseConnection()

    def _decide(self) -> None:
        self._is_decided = True
        self._early = b""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
