"""Two transports, joined: what arrives on one leaves on the other, until both have ended.

Not a parser: no byte is looked at. Three facts are carried over, each as itself (docs/protocol.md,
"Ends"): *data*, under back-pressure, so that neither side is read faster than the other takes;
*end of data* as end of data, after the last byte; *gone* as gone, after the last byte too, within
a bounded time. chisel, frp and Twisted's own ``portforward`` close both sides when either ends, and
lose the answer to whoever shuts down its writing side first.

The near side can be taken out again, by whoever has something to say to it that the far side did not:
``release_near``.

Used with the client and a stream on the relay, and with a stream and the local server on the agent.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import classImplements

from seance.core.flow_gate import FlowGate, Pace
from seance.net import Leg, LingeringReset, end, is_orderly, take_undelivered, unsent_bytes
from seance.net.lingering_reset import LINGER_SECONDS

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["Splice", "SpliceReport", "Spliced", "Watcher"]


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


class Spliced(Protocol):
    """Whose two legs a splice joins."""

    def near_lost(self) -> None:
        """The near leg is gone, and was not taken out."""

    def far_cut(self) -> bool:
        """The far leg is gone without an end.

        Returns:
            Whether the near one is the caller's now, to ``Splice.release_near``; otherwise it is cut as well.
        """

    def closes_far_in_order(self) -> bool:
        """The near leg is gone without an end.

        Returns:
            Whether the far one sees an orderly end all the same: it has not agreed to a WebSocket yet.
        """

    def splice_ended(self, report: SpliceReport) -> None:
        """Both legs are gone. Called once."""


class Watcher(Protocol):
    """Who looks at what passes."""

    def receive(self, data: bytes) -> None:
        """Take what was passed on, as it came."""


class Splice:
    """Joins two legs. Give ``near`` and ``far`` to the two transports as protocols, then ``start``.

    It and what it is made of stay as long as the client does, and idle clients are many: so they are small.

    Args:
        reactor: Where time comes from.
        owner: Who is told what becomes of it.
        half_close_seconds: After one direction has ended, the other may be silent for so long
            before both are cut.
        stalled_seconds: A near side that takes nothing for so long is cut; None if it may.
        pace: How fast both may talk together; None for as fast as they can.
        watch: Who looks at all that passes from the far side to the near one.
    """

    __slots__ = (
        "_bytes_at_timer",
        "_half_close_seconds",
        "_is_over",
        "_owner",
        "_reactor",
        "_reason",
        "_stalled_seconds",
        "_timer",
        "far",
        "near",
    )

    def __init__(
        self,
        reactor: IReactorTime,
        owner: Spliced,
        *,
        half_close_seconds: float,
        stalled_seconds: float | None = None,
        pace: Pace | None = None,
        watch: Watcher | None = None,
    ) -> None:
        self._reactor = reactor
        self._owner = owner
        self._half_close_seconds = half_close_seconds
        self._stalled_seconds = stalled_seconds
        self.near = Side(self) if pace is None else PacedSide(self, pace)
        self.far = Side(self) if pace is None else PacedSide(self, pace)
        self.near.other, self.far.other = self.far, self.near
        self.far.watch = watch
        self._reason = "ended"
        self._is_over = False
        # The time of a half-close; once a side is gone, what resets the other one.
        self._timer: IDelayedCall | LingeringReset | None = None
        self._bytes_at_timer = 0

    def start(self) -> None:
        """Begin, once both sides have their transport."""
        if self.near.is_lost or self.far.is_lost:
            return
        near, far = self.near, self.far
        # The sides, not the legs: a transport that is lost stops its producer, and a leg would end by that.
        near.leg.registerProducer(cast(IPushProducer, far), True)
        far.leg.registerProducer(cast(IPushProducer, near), True)

    def abort(self, reason: str) -> None:
        """Cut both legs now, and drop what is queued.

        For decisions of ours, where waiting is what must not happen: a side that takes nothing or stays
        silent for too long, a token that has ended, the end of a drain.
        """
        self._note(reason)
        for side in (self.near, self.far):
            if not side.is_lost:
                side.leg.abortConnection()

    def release_near(self, reason: str) -> None:
        """Take the near leg out, reading: it is the caller's from now on, with another protocol.

        What the near side has said still leaves on the far leg, which then ends; what the far side
        still says is for nobody.
        """
        self._note(reason)
        near, far = self.near, self.far
        near.is_lost = True
        near.leg.unregisterProducer()
        near.close_gate()
        far.close_gate()
        if not far.is_lost:
            far.leg.unregisterProducer()
            far.leg.loseConnection()
        near.leg.resumeProducing()
        self._look_whether_over()

    # -- from the sides --------------------------------------------------------------------

    def cut_arrived(self, side: Side) -> None:
        """A leg is gone without an end: so is the other, after the last byte, unless the owner takes it."""
        other = side.other
        if other.is_lost:
            return
        if rest := take_undelivered(side.leg):
            side.dataReceived(rest)
        if side is self.far and self._owner.far_cut():
            return
        other.leg.unregisterProducer()
        side.close_gate()
        other.close_gate()
        if side.has_ended:
            # Its end of data has passed already, and a connection that was closed in full looks like this as
            # soon as anything is sent to it. So the other one is closed in full as well.
            self._close(other)
            return
        if side is self.near and self._owner.closes_far_in_order():
            other.leg.resumeProducing()
            self._close(other)
            return
        self._stop_timer()
        # What it still says is dropped, but read: a peer may read only when it has written everything.
        other.leg.resumeProducing()
        self._timer = LingeringReset(self._reactor, other.leg)

    def note_gone(self, side: Side) -> None:
        """Keep that this side went without an end, for the report."""
        self._note("near_gone" if side is self.near else "far_gone")

    def half_closed(self) -> None:
        """One direction has ended: bound how long the other may stay silent."""
        if self._timer is None and not (self.near.is_lost or self.far.is_lost):
            self._bytes_at_timer = self._total_bytes()
            self._timer = self._reactor.callLater(self._half_close_seconds, self._look)

    def side_lost(self, side: Side) -> None:
        """A leg is gone for good."""
        if side is self.near:
            self._owner.near_lost()
        self._look_whether_over()

    def needs_gate(self, side: Side) -> bool:
        """Whether a leg rests for more than the other one being full."""
        return isinstance(side, PacedSide) or (side is self.far and self._stalled_seconds is not None)

    def make_gate(self, side: Side) -> FlowGate:
        """Make what lets a leg rest; few ever have to."""
        if side is self.near or self._stalled_seconds is None:
            return FlowGate(self._reactor, side.leg)
        return FlowGate(
            self._reactor,
            side.leg,
            on_stalled=partial(self.abort, "stalled"),
            stalled_seconds=self._stalled_seconds,
            unsent_bytes=partial(unsent_bytes, self.near.leg),
        )

    # -- inside ----------------------------------------------------------------------------

    def _note(self, reason: str) -> None:
        # The first thing that went wrong is the reason.
        if self._reason == "ended":
            self._reason = reason

    def _look_whether_over(self) -> None:
        if self.near.is_lost and self.far.is_lost and not self._is_over:
            self._is_over = True
            self._stop_timer()
            self.near.close_gate()
            self.far.close_gate()
            report = SpliceReport(self.near.received_bytes, self.far.received_bytes, self._reason)
            self._owner.splice_ended(report)

    def _close(self, side: Side) -> None:
        """Close a leg in order, and cut it if that takes longer than ``LINGER_SECONDS``."""
        self._stop_timer()
        self._timer = self._reactor.callLater(LINGER_SECONDS, self._cut, side)
        side.leg.loseConnection()

    def _cut(self, side: Side) -> None:
        self._timer = None
        if not side.is_lost:
            side.leg.abortConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._total_bytes() != self._bytes_at_timer:
            self.half_closed()
            return
        self.abort("half_close_timeout")

    def _total_bytes(self) -> int:
        return self.near.received_bytes + self.far.received_bytes


class Side:
    """The protocol at one leg of a splice, and the producer of what is written to the other one.

    Attributes:
        leg: This side's transport.
        other: The other side.
        watch: Who is shown what arrives here, once it was passed on.
        received_bytes: What arrived here.
        has_ended: Whether this side has said all.
        is_lost: Whether the leg is gone, or somebody else's.
    """

    __slots__ = ("_gate", "_splice", "has_ended", "is_lost", "leg", "other", "received_bytes", "watch")

    leg: Leg
    other: Side

    def __init__(self, splice: Splice) -> None:
        self._splice = splice
        self._gate: FlowGate | None = None
        self.watch: Watcher | None = None
        self.has_ended = False
        self.received_bytes = 0
        self.is_lost = False

    # -- IProtocol -------------------------------------------------------------------------

    @property
    def transport(self) -> Leg:
        """The leg, by Twisted's name."""
        return self.leg

    def makeConnection(self, transport: ITransport) -> None:
        """Take the transport as this side's leg."""
        self.leg = cast(Leg, transport)

    def connectionMade(self) -> None:
        """Not used: there is nothing to begin before both legs are there."""

    def dataReceived(self, data: bytes) -> None:
        """Data leaves on the other leg."""
        self.received_bytes += len(data)
        self.other.leg.write(data)
        if self.watch is not None:
            self.watch.receive(data)

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
            self._splice.note_gone(self)
            self._splice.cut_arrived(self)
        elif not other.is_lost:
            # Both directions here are over, so whatever the other side still says is for nobody.
            other.leg.unregisterProducer()
            other.leg.loseConnection()
        self._splice.side_lost(self)

    # -- IPushProducer ---------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """The other leg is full."""
        if self._gate is not None or self._splice.needs_gate(self):
            self.gate.pauseProducing()
        else:
            self.leg.pauseProducing()

    def resumeProducing(self) -> None:
        """The other leg takes more."""
        if self._gate is not None:
            self._gate.resumeProducing()
        else:
            self.leg.resumeProducing()

    def stopProducing(self) -> None:
        """The other leg is gone; what becomes of this one then is the splice's to say."""
        self.close_gate()

    @property
    def gate(self) -> FlowGate:
        """What lets the leg rest."""
        if self._gate is None:
            self._gate = self._splice.make_gate(self)
        return self._gate

    def close_gate(self) -> None:
        """Cancel what is pending: the splice is over."""
        if self._gate is not None:
            self._gate.close()


class PacedSide(Side):
    """A side that rests when the two together have said more than their pace allows."""

    __slots__ = ("_pace",)

    def __init__(self, splice: Splice, pace: Pace) -> None:
        super().__init__(splice)
        self._pace = pace

    def dataReceived(self, data: bytes) -> None:
        """Data leaves on the other leg, and is counted."""
        super().dataReceived(data)
        seconds = self._pace.spend(len(data))
        if seconds and not self.is_lost:
            self.gate.rest(seconds)


# Not by the decorator: what has one stays interpreted in the compiled form (decision 20).
classImplements(Side, IProtocol, IHalfCloseableProtocol, IPushProducer)
