"""One connection in the hands of a coroutine: send a frame, wait for the next one, wait for the end.

For the checks, where each frame matters and none is counted. Not for loads: a queue and a Deferred for each
frame would be most of what is measured.
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

from seance.bench.dialling import DIAL_SECONDS, Target, dial
from seance.bench.frames import Frame, FrameReader, encode
from seance.errors import Gone, RemoteProtocolError
from seance.heads.fields import Fields
from seance.net import end

__all__ = ["ANSWER_SECONDS", "Talk"]

ANSWER_SECONDS = 20.0
"""How long a frame may be waited for; below the 30 s after which Yjs clients give a socket up."""


@implementer(IHalfCloseableProtocol)
class Talk(Protocol):
    """A client's connection. Make one with ``await Talk.open(...)``.

    Attributes:
        fields: The header fields of the 101.
        has_ended: Whether the far side has said all.
        is_gone: Whether the connection has ended in both directions.
    """

    def __init__(self, reactor: Any) -> None:  # noqa: ANN401  # Twisted's reactors have no common type
        self._reactor = reactor
        self._reader = FrameReader()
        self._frames: deque[Frame] = deque()
        self._waiting: Deferred[None] | None = None
        self._mask = os.urandom(4)
        self._error: Exception | None = None
        self.fields: Fields = ()
        self.has_ended = False
        self.is_gone = False

    @classmethod
    async def open(
        cls,
        reactor: Any,  # noqa: ANN401  # Twisted's reactors have no common type
        target: Target,
        *,
        first: Sequence[Frame] = (),
        subprotocols: Sequence[str] = (),
        deadline_seconds: float = DIAL_SECONDS,
    ) -> Talk:
        """Dial, and send some frames together with the request.

        Raises:
            Refusal: The answer was another status than 101.
            SeanceError: It could not be reached, hung up, or answered something else.
        """
        talk = cls(reactor)
        glued = b"".join(encode(frame, mask=talk._mask) for frame in first)
        talk.fields = await dial(
            reactor,
            target,
            talk,
            first=glued,
            subprotocols=subprotocols,
            deadline_seconds=deadline_seconds,
        )
        return talk

    def send(self, *frames: Frame) -> None:
        """Send frames in one write."""
        self._leg.write(b"".join(encode(frame, mask=self._mask) for frame in frames))

    async def receive(self, timeout_seconds: float = ANSWER_SECONDS) -> Frame:
        """Wait for the next frame.

        Raises:
            Gone: The connection ended, or the time is over; the sentence says which.
        """
        await self._until(lambda: bool(self._frames) or self.has_ended, timeout_seconds, "frame")
        if not self._frames:
            words = "was cut" if self.is_gone else "ended"
            raise Gone(f"the connection {words} instead", code="ended")
        return self._frames.popleft()

    async def when_ended(self, timeout_seconds: float = ANSWER_SECONDS) -> None:
        """Wait until the far side has said all (FIN), or is gone.

        Raises:
            Gone: The time is over.
        """
        await self._until(lambda: self.has_ended, timeout_seconds, "end")

    async def when_gone(self, timeout_seconds: float = ANSWER_SECONDS) -> None:
        """Wait until both directions have ended.

        Raises:
            Gone: The time is over.
        """
        await self._until(lambda: self.is_gone, timeout_seconds, "end")

    def finish(self) -> None:
        """Say "end of data" and go on listening."""
        end(self._leg)

    def close(self) -> None:
        """Close both directions once all has left."""
        if not self.is_gone:
            self._leg.loseConnection()

    def cut(self) -> None:
        """Cut both directions now, which the far side sees as a reset; nothing if they have ended."""
        if not self.is_gone:
            self._leg.abortConnection()

    # -- IProtocol ---------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Keep the frames for whoever receives them."""
        try:
            self._frames.extend(self._reader.receive(data))
        except RemoteProtocolError as error:
            self._error = error
            self.cut()
        self._wake()

    def readConnectionLost(self) -> None:
        """The far side has said all."""
        self.has_ended = True
        self._wake()

    def writeConnectionLost(self) -> None:
        """We have."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        self.has_ended = self.is_gone = True
        self._wake()

    @property
    def _leg(self) -> Any:  # noqa: ANN401  # ITCPTransport or a TLS one: no common type
        return cast(Any, self.transport)

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
