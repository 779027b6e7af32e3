"""One end of a link that may outlive its carriers: what counts, and what is too late.

Each carrier belongs to an *epoch*. Whatever an older one still brings is not for us: its bytes come
again on the newer one, and counting them twice would tear the stream. That is why every call that
speaks for a carrier names its epoch.

::

               attach                     end
    DETACHED ---------> ATTACHED ------------------> OVER
       ^                   |  ^__attach (takeover)     ^
       |______detach_______|                           |
       |___________________end_________________________|

Both sides use the same class; that the agent dials and the relay judges (who may come back, and
for how long) is decided above, in ``seance.tunnel``.
"""

from __future__ import annotations

from seance.errors import LocalProtocolError
from seance.resume.incoming import Incoming
from seance.resume.outgoing import Outgoing

__all__ = ["KEPT_BYTES", "Continuity"]

KEPT_BYTES = 4 * 1024 * 1024
"""What a side keeps unacknowledged before it pauses; 320 Mbit/s at 100 ms (reliability.md 2.3, rule 1)."""


class Continuity:
    """Begins detached. ``attach`` with each carrier; ``end`` once and for all.

    Args:
        limit_bytes: See ``Outgoing``.

    Attributes:
        epoch: The number of the latest carrier, from 1 on; 0 before the first.
        is_attached: Whether that carrier is still there.
        is_over: Whether there will be no other.
        outgoing: What the peer may lack.
        incoming: What we have.
    """

    __slots__ = ("epoch", "incoming", "is_attached", "is_over", "outgoing")

    def __init__(self, limit_bytes: int = KEPT_BYTES, *, origin: int = 0) -> None:
        self.outgoing = Outgoing(limit_bytes, origin=origin)
        self.incoming = Incoming(origin=origin)
        self.epoch = 0
        self.is_attached = False
        self.is_over = False

    def attach(self, peer_count: int, peer_crc: int) -> int:
        """Go on with a new carrier; an older one is dead from now on, whatever it believes.

        Next: ``outgoing.next_unsent`` until it is empty or the carrier is full.

        Args:
            peer_count: Bytes that the peer has received on this link.
            peer_crc: Their checksum.

        Returns:
            The epoch of the new carrier.

        Raises:
            LocalProtocolError: The link is over ("link_over").
            RemoteProtocolError: See ``Outgoing.rewind``. Nothing has changed: an older carrier goes on.
        """
        if self.is_over:
            raise LocalProtocolError("The link is over and takes no further carrier.", code="link_over")
        self.outgoing.rewind(peer_count, peer_crc)
        self.epoch += 1
        self.is_attached = True
        return self.epoch

    def detach(self, epoch: int) -> bool:
        """Take note that a carrier is lost; False if it was not the present one."""
        if epoch != self.epoch or not self.is_attached:
            return False
        self.is_attached = False
        return True

    def is_current(self, epoch: int) -> bool:
        """Whether what a carrier brings counts."""
        return self.is_attached and epoch == self.epoch

    def receive(self, epoch: int, data: bytes) -> int:
        """Count bytes that are handed on now; one at least.

        Returns:
            What ``Incoming.take`` does; 0 if they are too late and must not be handed on.
        """
        if not self.is_attached or epoch != self.epoch:  # is_current, for one call less a message
            return 0
        return self.incoming.take(data)

    def acknowledge(self, epoch: int, count: int, crc: int) -> int:
        """Take an acknowledgement; see ``Outgoing.acknowledge``. One of an older carrier is ignored."""
        if not self.is_current(epoch):
            return 0
        return self.outgoing.acknowledge(count, crc)

    def end(self) -> None:
        """It is over: keep nothing."""
        self.is_over = True
        self.is_attached = False
        self.outgoing.clear()
