"""One end of a link that may use several carriers in turn: counts bytes and rejects what arrives too late.

Each carrier has an *epoch*. Data from an older carrier is ignored: the peer sends the same bytes
again on the newer carrier, and counting them twice would corrupt the stream. Therefore each call on behalf of
a carrier passes its epoch.

::

               attach                     end
    DETACHED ---------> ATTACHED ------------------> OVER
       ^                   |  ^__attach (takeover)     ^
       |______detach_______|                           |
       |___________________end_________________________|

Both sides use the same class. The agent dials, and the relay decides who may resume and for how long; both
are decided in higher layers.
"""

from __future__ import annotations

from seance.errors import LocalProtocolError
from seance.resume.incoming import Incoming
from seance.resume.outgoing import Outgoing

__all__ = ["KEPT_BYTES", "Continuity"]

KEPT_BYTES = 4 * 1024 * 1024
"""Unacknowledged bytes after which a side pauses. Allows 320 Mbit/s at a round trip of 100 ms."""


class Continuity:
    """One end of a link. It starts detached: call ``attach`` for each carrier, and ``end`` once.

    Args:
        limit_bytes: See ``Outgoing``.
        origin: See ``Outgoing``.

    Attributes:
        epoch: The number of the latest carrier, from 1; 0 before the first.
        is_attached: Whether the latest carrier is connected.
        is_over: Whether the link has ended.
        outgoing: Data sent to the peer and not acknowledged.
        incoming: Count and checksum of the data received.
    """

    __slots__ = ("epoch", "incoming", "is_attached", "is_over", "outgoing")

    def __init__(self, limit_bytes: int = KEPT_BYTES, *, origin: int = 0) -> None:
        self.outgoing = Outgoing(limit_bytes, origin=origin)
        self.incoming = Incoming(origin=origin)
        self.epoch = 0
        self.is_attached = False
        self.is_over = False

    def attach(self, peer_count: int, peer_crc: int) -> int:
        """Start a new carrier. An older carrier is ignored from now on.

        Next: ``outgoing.next_unsent`` until it returns None or the carrier is full.

        Args:
            peer_count: Bytes that the peer has received on this link.
            peer_crc: Their checksum.

        Returns:
            The epoch of the new carrier.

        Raises:
            LocalProtocolError: The link is over ("link_over").
            RemoteProtocolError: See ``Outgoing.rewind``. The state is unchanged, and an older carrier stays
                attached.
        """
        if self.is_over:
            raise LocalProtocolError("The link is over and takes no further carrier.", code="link_over")
        self.outgoing.rewind(peer_count, peer_crc)
        self.epoch += 1
        self.is_attached = True
        return self.epoch

    def detach(self, epoch: int) -> bool:
        """Record that a carrier is lost. Return False if it was not the current one."""
        if epoch != self.epoch or not self.is_attached:
            return False
        self.is_attached = False
        return True

    def is_current(self, epoch: int) -> bool:
        """Return whether data from the carrier with this epoch is accepted."""
        return self.is_attached and epoch == self.epoch

    def receive(self, epoch: int, data: bytes) -> int:
        """Count received bytes, at least one, that are passed on now.

        Returns:
            The result of ``Incoming.take``; 0 if the bytes are too late and must be dropped.
        """
        if not self.is_attached or epoch != self.epoch:  # is_current, for one call less a message
            return 0
        return self.incoming.take(data)

    def acknowledge(self, epoch: int, count: int, crc: int) -> int:
        """Apply an acknowledgement, unless it comes from an older carrier. See ``Outgoing.acknowledge``."""
        if not self.is_current(epoch):
            return 0
        return self.outgoing.acknowledge(count, crc)

    def end(self) -> None:
        """End the link and free the kept data."""
        self.is_over = True
        self.is_attached = False
        self.outgoing.clear()
