"""Joins two transports: data that arrives on one is written to the other, until both have ended.

A splice does not parse the data. It carries over three facts, each unchanged (docs/protocol.md, "Ends"):

- *data*, with back-pressure: neither side is read faster than the other accepts;
- *end of data* (a half-close), after the last byte;
- *loss* without an end (a reset), after the last byte too and within a bounded time.

chisel, frp and Twisted's own ``portforward`` close both sides when either ends. A client that shuts down its
writing side and waits for the response then never gets it.

``release_near`` takes the near side out again, for an owner that has to write to it after the far side
failed.

The relay splices a client and a stream; the agent splices a stream and the local server.
"""

from __future__ import annotations

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

from seance.core.flow_gate import FlowGate, RateLimit
from seance.net import Leg, LingeringReset, end, is_orderly, take_undelivered, unsent_bytes
from seance.net.lingering_reset import LINGER_SECONDS

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from seance.yamux import Bytes

__all__ = ["Splice", "SpliceOwner", "SpliceSide", "StreamWatcher"]


class SpliceOwner(Protocol):
    """Interface of the object that makes a splice and handles its end."""

    def near_lost(self) -> None:
        """The near leg is gone. Not called after ``Splice.release_near``."""

    def far_cut(self) -> bool:
        """The far leg was reset.

        Returns:
            True if the owner takes the near leg with ``Splice.release_near``; False to reset it as well.
        """

    def closes_far_in_order(self) -> bool:
        """The near leg was reset.

        Returns:
            Whether to close the far leg gracefully all the same, because it has not answered 101 yet.
        """

    def splice_ended(self, reason: str) -> None:
        """Both legs are gone. Called once.

        Args:
            reason: ``"ended"``, ``"near_gone"``, ``"far_gone"``, ``"half_close_timeout"``, ``"stalled"``,
                or the reason given to ``Splice.abort`` or ``Splice.release_near``.
        """


class StreamWatcher(Protocol):
    """Interface of an object that sees the data of one side after it was passed on."""

    def receive(self, data: bytes | memoryview) -> None:
        """Process the next bytes; a view is not to be kept."""


class Splice:
    """Joins two legs. Give ``near`` and ``far`` to the two transports as protocols, then call ``start``.

    A splice and its parts exist as long as the client is connected. Thousands of clients may be idle, so
    these objects are small: slots, and a ``FlowGate`` only where one is needed.

    Args:
        reactor: Provides the timers.
        owner: Handles the end.
        half_close_seconds: After one direction has ended, both legs are aborted if no byte arrives for
            this time.
        stalled_seconds: The splice is aborted if the near side accepts no bytes for this time; None for no
            limit.
        rate_limit: Limit for both directions together; None for none.
        watch: Sees all data that is passed from the far side to the near side.
    """

    __deletable__ = ("_owner",)  # for mypyc
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
        owner: SpliceOwner,
        *,
        half_close_seconds: float,
        stalled_seconds: float | None = None,
        rate_limit: RateLimit | None = None,
        watch: StreamWatcher | None = None,
    ) -> None:
        self._reactor = reactor
        self._owner = owner
        self._half_close_seconds = half_close_seconds
        self._stalled_seconds = stalled_seconds
        self.near = SpliceSide(self) if rate_limit is None else RateLimitedSide(self, rate_limit)
        self.far = SpliceSide(self) if rate_limit is None else RateLimitedSide(self, rate_limit)
        self.near.other, self.far.other = self.far, self.near
        self.far.watch = watch
        self._reason = "ended"
        self._is_over = False
        # The half-close timeout; once a side is gone, the timer that ends the other side.
        self._timer: IDelayedCall | LingeringReset | None = None
        self._bytes_at_timer = 0

    def start(self) -> None:
        """Start, once both sides have their transport."""
        if self.near.is_lost or self.far.is_lost:
            return
        near, far = self.near, self.far
        # The producers are the sides, not the legs: a lost transport calls stopProducing, which closes a leg.
        near.leg.registerProducer(cast(IPushProducer, far), True)
        far.leg.registerProducer(cast(IPushProducer, near), True)

    def abort(self, reason: str) -> None:
        """Abort both legs now and drop what is queued.

        For ends that must not wait: a stalled side, a timeout, a token that has ended, the end of a drain.
        """
        self._set_reason(reason)
        for side in (self.near, self.far):
            if not side.is_lost:
                side.leg.abortConnection()

    def release_near(self, reason: str) -> None:
        """Take the near leg out, unpaused. The caller then gives it another protocol.

        Data already received from the near side still leaves on the far leg, which then closes. Further data
        from the far side is dropped.
        """
        self._set_reason(reason)
        near, far = self.near, self.far
        near.is_lost = True
        near.leg.unregisterProducer()
        near.close_gate()
        far.close_gate()
        if not far.is_lost:
            far.leg.unregisterProducer()
            far.leg.loseConnection()
        near.leg.resumeProducing()
        self.finish_if_both_are_lost()

    # -- called by the sides ---------------------------------------------------------------

    def side_reset(self, side: SpliceSide) -> None:
        """A leg was reset: reset the other one after its last byte, unless the owner takes it."""
        self._set_reason("near_gone" if side is self.near else "far_gone")
        other = side.other
        if other.is_lost:
            return
        if undelivered := take_undelivered(side.leg):
            side.dataReceived(undelivered)
        if side is self.far and self._owner.far_cut():
            return
        other.leg.unregisterProducer()
        side.close_gate()
        other.close_gate()
        if side.has_ended:
            # The end of data was passed on before. A connection that the peer has closed in full also looks
            # like this as soon as data is sent to it. So close the other leg in full as well.
            self._close(other)
            return
        if side is self.near and self._owner.closes_far_in_order():
            other.leg.resumeProducing()
            self._close(other)
            return
        self._stop_timer()
        # Keep reading the other leg, and drop the data: its peer may read only after it has written
        # everything.
        other.leg.resumeProducing()
        self._timer = LingeringReset(self._reactor, other.leg)

    def half_closed(self) -> None:
        """One direction has ended: start the timeout for the other one."""
        if self._timer is None and not (self.near.is_lost or self.far.is_lost):
            self._bytes_at_timer = self._total_bytes()
            self._timer = self._reactor.callLater(self._half_close_seconds, self._check_half_close)

    def side_lost(self, side: SpliceSide) -> None:
        """A leg is gone. ``finish_if_both_are_lost`` follows."""
        if side is self.near:
            self._owner.near_lost()

    def finish_if_both_are_lost(self) -> None:
        """End the splice once."""
        if self.near.is_lost and self.far.is_lost and not self._is_over:
            self._is_over = True
            self._stop_timer()
            self.near.close_gate()
            self.far.close_gate()
            self._owner.splice_ended(self._reason)
            # Free the client now: these are the cycles that would leave it to the garbage collector.
            del self._owner
            for side in (self.near, self.far):
                del side._splice, side.other

    def needs_gate(self, side: SpliceSide) -> bool:
        """Return whether ``side`` pauses for more reasons than a full consumer."""
        return isinstance(side, RateLimitedSide) or (side is self.far and self._stalled_seconds is not None)

    def make_gate(self, side: SpliceSide) -> FlowGate:
        """Make the gate of ``side``. Most sides never need one."""
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

    def _set_reason(self, reason: str) -> None:
        # The first abnormal event is the reason.
        if self._reason == "ended":
            self._reason = reason

    def _close(self, side: SpliceSide) -> None:
        """Close a leg gracefully, and abort it if that takes longer than ``LINGER_SECONDS``."""
        self._stop_timer()
        self._timer = self._reactor.callLater(LINGER_SECONDS, self._abort_side, side)
        side.leg.loseConnection()

    def _abort_side(self, side: SpliceSide) -> None:
        self._timer = None
        if not side.is_lost:
            side.leg.abortConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _check_half_close(self) -> None:
        self._timer = None
        if self._total_bytes() != self._bytes_at_timer:
            self.half_closed()
            return
        self.abort("half_close_timeout")

    def _total_bytes(self) -> int:
        return self.near.received_bytes + self.far.received_bytes


class SpliceSide:
    """The protocol of one leg of a splice, and the producer of the data that is written to the other leg.

    Attributes:
        leg: The transport of this side.
        other: The other side.
        watch: Sees the data received here after it was passed on; None for no watcher.
        received_bytes: Number of bytes received here.
        has_ended: Whether this side has sent its end of data.
        is_lost: Whether the leg is gone or was released.
    """

    __deletable__ = ("_splice", "other")  # for mypyc
    __slots__ = ("_gate", "_splice", "has_ended", "is_lost", "leg", "other", "received_bytes", "watch")

    leg: Leg
    other: SpliceSide

    def __init__(self, splice: Splice) -> None:
        self._splice = splice
        self._gate: FlowGate | None = None
        self.watch: StreamWatcher | None = None
        self.has_ended = False
        self.received_bytes = 0
        self.is_lost = False

    # -- IProtocol -------------------------------------------------------------------------

    @property
    def transport(self) -> Leg:
        """The leg, by the name that Twisted uses."""
        return self.leg

    def makeConnection(self, transport: ITransport) -> None:
        """Take the transport as this side's leg."""
        self.leg = cast(Leg, transport)

    def connectionMade(self) -> None:
        """Not used: ``Splice.start`` is called when both legs are connected."""

    def dataReceived(self, data: bytes) -> None:
        """Write the data to the other leg."""
        self.received_bytes += len(data)
        self.other.leg.write(data)
        if self.watch is not None:
            self.watch.receive(data)

    def pieces_received(self, pieces: list[Bytes], count: int) -> None:
        """Write ``pieces`` of ``count`` bytes to the other leg; a stream calls it for large data."""
        self.received_bytes += count
        leg = self.other.leg
        if getattr(leg, "takes_buffers", False):
            leg.writeSequence(pieces)  # type: ignore[attr-defined]  # such a leg has it
        else:
            leg.write(b"".join(pieces))
        for piece in pieces:
            if self.watch is not None:
                self.watch.receive(piece)

    def readConnectionLost(self) -> None:
        """End of data: end the other leg's direction as well."""
        if not self.has_ended:
            self.has_ended = True
            if not self.other.is_lost:
                end(self.other.leg)
            self._splice.half_closed()

    def writeConnectionLost(self) -> None:
        """Not used: our end of data has left, and the peer sees it."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """End the other leg in the same way: gracefully, or by a reset."""
        if self.is_lost:
            return
        self.is_lost = True
        splice, other = self._splice, self.other
        splice.side_lost(self)
        if not is_orderly(reason):
            splice.side_reset(self)
        elif not other.is_lost:
            # Both directions of this leg have ended, so further data from the other side has no receiver.
            other.leg.unregisterProducer()
            other.leg.loseConnection()
        splice.finish_if_both_are_lost()

    # -- IPushProducer ---------------------------------------------------------------------

    def pauseProducing(self) -> None:
        """The other leg is full: pause this one."""
        if self._gate is not None or self._splice.needs_gate(self):
            self.gate.pauseProducing()
        else:
            self.leg.pauseProducing()

    def resumeProducing(self) -> None:
        """The other leg accepts data again: resume this one."""
        if self._gate is not None:
            self._gate.resumeProducing()
        else:
            self.leg.resumeProducing()

    def stopProducing(self) -> None:
        """The other leg is gone. The splice decides what happens to this one."""
        self.close_gate()

    @property
    def gate(self) -> FlowGate:
        """The gate of the leg, made on first use."""
        if self._gate is None:
            self._gate = self._splice.make_gate(self)
        return self._gate

    def close_gate(self) -> None:
        """Cancel the timers of the gate: the splice has ended."""
        if self._gate is not None:
            self._gate.close()


class RateLimitedSide(SpliceSide):
    """A side that pauses while both sides together exceed their rate limit."""

    __slots__ = ("_rate_limit",)

    def __init__(self, splice: Splice, rate_limit: RateLimit) -> None:
        super().__init__(splice)
        self._rate_limit = rate_limit

    def dataReceived(self, data: bytes) -> None:
        """Write the data to the other leg and charge it to the rate limit."""
        super().dataReceived(data)
        self._charge(len(data))

    def pieces_received(self, pieces: list[Bytes], count: int) -> None:
        """As ``dataReceived``."""
        super().pieces_received(pieces, count)
        self._charge(count)

    def _charge(self, count: int) -> None:
        seconds = self._rate_limit.spend(count)
        if seconds and not self.is_lost:
            self.gate.pause_for(seconds)


# Not by the decorator: mypyc does not compile a class that has one (decision 20).
classImplements(SpliceSide, IProtocol, IHalfCloseableProtocol, IPushProducer)
