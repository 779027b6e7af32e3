"""A WebSocket connection for coroutines: send frames, wait for the next frame, wait for the end.

``seance doctor`` and ``check`` use it. The loads of ``seance bench`` have their own protocols, because a
queue and a Deferred for each frame would dominate their measurements.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.errors import Gone, RemoteProtocolError
from seance.heads.fields import Fields
from seance.net import end
from seance.wsclient.dial import DIAL_SECONDS, Reactor, Target, dial
from seance.wsclient.frames import Frame, FrameReader, encode

__all__ = ["RECEIVE_SECONDS", "WsConnection"]

RECEIVE_SECONDS = 20.0
"""Default time limit for a frame; below the 30 s after which Yjs clients drop a silent connection."""


@implementer(IHalfCloseableProtocol)
class WsConnection(Protocol):
    """A client's connection. Create it with ``await WsConnection.open(...)``.

    Attributes:
        fields: The header fields of the 101.
        has_eof: Whether the peer has ended its direction (FIN), or the connection is lost.
        is_lost: Whether the connection has ended in both directions.
    """

    def __init__(self, reactor: Reactor) -> None:
        self._reactor = reactor
        self._reader = FrameReader()
        self._frames: deque[Frame] = deque()
        self._waiting: Deferred[None] | None = None
        self._mask = os.urandom(4)
        self._error: RemoteProtocolError | None = None
        self.fields: Fields = ()
        self.has_eof = False
        self.is_lost = False

    @classmethod
    async def open(
        cls,
        reactor: Reactor,
        target: Target,
        *,
        first: Sequence[Frame] = (),
        subprotocols: Sequence[str] = (),
        deadline_seconds: float = DIAL_SECONDS,
    ) -> WsConnection:
        """Open a connection and send the frames of ``first`` in the same write as the request.

        Raises:
            Refusal: The server responded with another status than 101.
            SeanceError: See ``dial``.
        """
        connection = cls(reactor)
        connection.fields = await dial(
            reactor,
            target,
            connection,
            first=connection._encode(first),
            subprotocols=subprotocols,
            deadline_seconds=deadline_seconds,
        )
        return connection

    def send(self, *frames: Frame) -> None:
        """Send frames in one write."""
        self._tcp.write(self._encode(frames))

    async def receive(self, timeout_seconds: float = RECEIVE_SECONDS) -> Frame:
        """Return the next frame.

        Raises:
            Gone: The connection ended (``ended``), its bytes are not valid frames (``frames``), or the
                time is up (``timeout``).
        """
        await self._until(lambda: bool(self._frames) or self.has_eof, timeout_seconds, "frame")
        if not self._frames:
            how = "was reset or closed" if self.is_lost else "ended"
            raise Gone(f"the connection {how} instead", code="ended")
        return self._frames.popleft()

    async def when_eof(self, timeout_seconds: float = RECEIVE_SECONDS) -> None:
        """Wait until the peer has ended its direction (FIN) or the connection is lost.

        Raises:
            Gone: The time is up (``timeout``), or the received bytes are not valid frames (``frames``).
        """
        await self._until(lambda: self.has_eof, timeout_seconds, "end of data")

    def send_eof(self) -> None:
        """End this direction (FIN) and keep receiving."""
        end(self._tcp)

    def close(self) -> None:
        """Close both directions once everything is sent."""
        if not self.is_lost:
            self._tcp.loseConnection()

    def abort(self) -> None:
        """Close both directions immediately; the peer sees a reset."""
        if not self.is_lost:
            self._tcp.abortConnection()

    # -- IProtocol ---------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Queue the decoded frames for ``receive``."""
        try:
            self._frames.extend(self._reader.receive(data))
        except RemoteProtocolError as error:
            self._error = error
            self.abort()
        self._wake()

    def readConnectionLost(self) -> None:
        """Record the peer's FIN."""
        self.has_eof = True
        self._wake()

    def writeConnectionLost(self) -> None:
        """Do nothing: ``send_eof`` has ended this direction."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Record the end of the connection."""
        self.has_eof = self.is_lost = True
        self._wake()

    @property
    def _tcp(self) -> Any:  # noqa: ANN401  # ITCPTransport or a TLS one: no common type
        return cast(Any, self.transport)

    def _encode(self, frames: Sequence[Frame]) -> bytes:
        return b"".join(encode(frame, mask=self._mask) for frame in frames)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def _until(self, holds: Callable[[], bool], timeout_seconds: float, what: str) -> None:
        give_up_at = self._reactor.seconds() + timeout_seconds
        while not holds() or self._error is not None:
            if self._error is not None:
                raise Gone(str(self._error), code="frames") from self._error
            self._waiting = Deferred()
            self._waiting.addTimeout(max(give_up_at - self._reactor.seconds(), 0), self._reactor)
            try:
                await self._waiting
            except DeferredTimeout:
                self._waiting = None
                raise Gone(f"no {what} came within {timeout_seconds:g} s", code="timeout") from None
