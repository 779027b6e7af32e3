"""Two transports, joined: what arrives on one leaves on the other, until both have ended.

Not a parser: no byte is looked at. Three facts are carried over, each as itself (docs/protocol.md,
"Ends"): *data*, under back-pressure, so that neither side is read faster than the other takes;
*end of data* as end of data, after the last byte; *gone* as gone, at once. chisel, frp and
Twisted's own ``portforward`` close both sides when either ends, and lose the answer to whoever
shuts down its writing side first.

The near side can be taken out again, by whoever has something to say to it that the far side did not:
``release_near``.

Used with the client and a stream on the relay, and with a stream and the local server on the agent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.net import Leg, end, is_orderly, unsent_bytes
from seance.tunnel.gate import Gate, Pace

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["Splice", "SpliceReport"]


@dataclass(frozen=True, slots=True)
class SpliceReport:
    """How a splice ended.

    Attributes:
        near_bytes: What the near side sent.
        far_bytes: What the far side sent.
        reason: ``"ended"``, ``"near_gone"``, ``"far_gone"``, ``"half_close_timeout"``, ``"stalled"``,
            or what ``Splice.abort`` or ``Splice.release_near`` was told.
    """

    near_bytes: int
    far_bytes: int
    reason: str


class Splice:
    """Joins two legs. Give ``near`` and ``far`` to the two transports as protocols, then ``start``.

    Args:
        reactor: Where time comes from.
        half_close_seconds: After one direction has ended, the other may be silent for so long
            before both are cut.
        on_end: Called once, when both legs are gone.
        stalled_seconds: A near side that takes nothing for so long is cut; None if it may.
        pace: How fast both may talk together; None for as fast as they can.
        watch: Called with all that passes from the far side to the near one.
        on_far_cut: Called when the far side is gone without an end. Returns whether the near side is
            the caller's now, to ``release_near``; otherwise it is cut as well.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        half_close_seconds: float,
        on_end: Callable[[SpliceReport], None],
        stalled_seconds: float | None = None,
        pace: Pace | None = None,
        watch: Callable[[bytes], None] | None = None,
        on_far_cut: Callable[[], bool] = lambda: False,
    ) -> None:
        self._reactor = reactor
        self._half_close_seconds = half_close_seconds
        self._on_end = on_end
        self._stalled_seconds = stalled_seconds
        self._pace = pace
        self._gates: list[Gate] = []
        self.near = Side(self, "near_gone") if pace is None else PacedSide(self, "near_gone", pace)
        self.far = Side(self, "far_gone") if pace is None else PacedSide(self, "far_gone", pace)
        self.near.other, self.far.other = self.far, self.near
        self.far.watch = watch
        self._on_far_cut = on_far_cut
        self._reason = "ended"
        self._is_over = False
        self._timer: IDelayedCall | None = None
        self._bytes_at_timer = 0

    def start(self) -> None:
        """Begin, once both sides have their transport."""
        if self.near.is_lost or self.far.is_lost:
            return
        near, far = self.near.leg, self.far.leg
        if self._stalled_seconds is None and self._pace is None and self.far.watch is None:
            near.registerProducer(cast(IPushProducer, far), True)
            far.registerProducer(cast(IPushProducer, near), True)
            return
        from_far = Gate(
            self._reactor,
            far,
            on_stalled=None if self._stalled_seconds is None else self._stalled,
            stalled_seconds=self._stalled_seconds or 0.0,
            unsent_bytes=lambda: unsent_bytes(near),
        )
        from_near = Gate(self._reactor, near)
        self._gates = [from_near, from_far]
        self.near.gate, self.far.gate = from_near, from_far
        near.registerProducer(from_far, True)
        far.registerProducer(from_near, True)

    def abort(self, reason: str) -> None:
        """Cut both legs."""
        self.note(reason)
        for side in (self.near, self.far):
            if not side.is_lost:
                side.leg.abortConnection()

    def release_near(self, reason: str) -> None:
        """Take the near leg out, reading: it is the caller's from now on, with another protocol.

        What the near side has said still leaves on the far leg, which then ends; what the far side
        still says is for nobody.
        """
        self.note(reason)
        near, far = self.near, self.far
        near.is_lost = True
        near.leg.unregisterProducer()
        for gate in self._gates:
            gate.close()
        if not far.is_lost:
            far.leg.unregisterProducer()
            far.leg.loseConnection()
        near.leg.resumeProducing()
        self.side_lost()

    # -- from the sides --------------------------------------------------------------------

    def cut_arrived(self, side: Side) -> None:
        """A leg is gone without an end: so is the other, unless somebody takes care of it."""
        if side.other.is_lost:
            return
        if side is self.far and self._on_far_cut():
            return
        side.other.leg.abortConnection()

    def note(self, reason: str) -> None:
        """Keep the first thing that went wrong, for the report."""
        if self._reason == "ended":
            self._reason = reason

    def half_closed(self) -> None:
        """One direction has ended: bound how long the other may stay silent."""
        if self._timer is None and not (self.near.is_lost or self.far.is_lost):
            self._bytes_at_timer = self._total_bytes()
            self._timer = self._reactor.callLater(self._half_close_seconds, self._look)

    def side_lost(self) -> None:
        """A leg is gone for good."""
        if self.near.is_lost and self.far.is_lost and not self._is_over:
            self._is_over = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            for gate in self._gates:
                gate.close()
            self._on_end(SpliceReport(self.near.received_bytes, self.far.received_bytes, self._reason))

    # -- inside ----------------------------------------------------------------------------

    def _look(self) -> None:
        self._timer = None
        if self._total_bytes() != self._bytes_at_timer:
            self.half_closed()
            return
        self.abort("half_close_timeout")

    def _stalled(self) -> None:
        self.abort("stalled")

    def _total_bytes(self) -> int:
        return self.near.received_bytes + self.far.received_bytes


@implementer(IHalfCloseableProtocol)
class Side(Protocol):
    """The protocol at one leg of a splice.

    Attributes:
        leg: This side's transport.
        other: The other side.
        watch: Called with what arrives here, once it was passed on.
        received_bytes: What arrived here.
        has_ended: Whether this side has said all.
        is_lost: Whether the leg is gone, or somebody else's.
    """

    leg: Leg
    other: Side
    gate: Gate | None = None
    watch: Callable[[bytes], None] | None = None

    def __init__(self, splice: Splice, gone: str) -> None:
        self._splice = splice
        self._gone = gone
        self.has_ended = False
        self.received_bytes = 0
        self.is_lost = False

    def connectionMade(self) -> None:
        """Take the transport as this side's leg."""
        self.leg = cast(Leg, self.transport)

    def dataReceived(self, data: bytes) -> None:
        """Data leaves on the other leg."""
        self.received_bytes += len(data)
        self.other.leg.write(data)
        if self.watch is not None:
            self.watch(data)

    def readConnectionLost(self) -> None:
        """End of data here is end of data there."""
        if not self.has_ended:
            self.has_ended = True
            if not self.other.is_lost:
                end(self.other.leg)
            self._splice.half_closed()

    def writeConnectionLost(self) -> None:
        """Our end of data has left; the far side knows."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Gone here is gone there, in the same manner."""
        if self.is_lost:
            return
        self.is_lost = True
        other = self.other
        if not is_orderly(reason):
            self._splice.note(self._gone)
            self._splice.cut_arrived(self)
        elif not other.is_lost:
            # Both directions here are over, so whatever the other side still says is for nobody.
            other.leg.unregisterProducer()
            other.leg.loseConnection()
        self._splice.side_lost()


class PacedSide(Side):
    """A side that rests when the two together have said more than their pace allows."""

    def __init__(self, splice: Splice, gone: str, pace: Pace) -> None:
        super().__init__(splice, gone)
        self._pace = pace

    def dataReceived(self, data: bytes) -> None:
        """Data leaves on the other leg, and is counted."""
        super().dataReceived(data)
        seconds = self._pace.spend(len(data))
        if seconds and self.gate is not None and not self.is_lost:
            self.gate.rest(seconds)
