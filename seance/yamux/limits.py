"""Every bound of a session: its unit, its default, and where the default comes from.

A bound that is not here does not exist, and one that is here has a test that reaches it
(``tests/yamux/test_limits.py``). Nothing here is on the wire, except that ``receive_window_bytes``
is told to the peer.

What a peer can make us hold is ``streams * receive_window_bytes`` in the application's buffers (64
MiB with the defaults; the session itself keeps no received bytes), as much again on streams that have
grown and were quiet since, and all peers together what the ``window_budget`` has on top; 32 pongs and some
thousands of twelve-byte frames. What our own application can make us hold is ``streams * send_queue_bytes``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from seance.errors import ConfigError
from seance.yamux.budget import WindowBudget
from seance.yamux.constants import INITIAL_WINDOW_BYTES, KIB, MIB

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one session; give a changed copy to ``Session(limits=...)``.

    A running session takes new ones by assignment, ``session.limits = dataclasses.replace(...)``:
    streams that are open keep their windows and nothing is cut, the rest holds from then on
    (``stray_bytes``, ``id_gaps`` and ``window_budget`` are read once).

    Raises:
        ConfigError: The numbers contradict each other or the protocol.
    """

    streams: int = 256
    """Streams alive at once, both directions together. More from the peer are reset, more from us
    refused. yamux-js resets beyond 256 in all and rust-yamux ends the session beyond 512."""

    unacknowledged: int = 256
    """Streams that we opened and the peer has not answered in any way; the backlog that hashicorp,
    go-yamux and rust-yamux keep for us. hashicorp resets what does not fit."""

    accept_backlog: int = 256
    """Streams that the peer opened and our application has neither accepted nor reset; the
    number of hashicorp's ``AcceptBacklog``."""

    receive_window_bytes: int = INITIAL_WINDOW_BYTES
    """What the peer may send on one stream ahead of the application, 256 KiB to 16 MiB. The protocol starts
    at 256 KiB; what is above rides as the delta on our SYN or ACK."""

    receive_window_max_bytes: int = 1 * MIB
    """What a window may grow to while the application takes as fast as the path brings, 256 KiB to 16
    MiB; it does not grow where this is not above ``receive_window_bytes``. hashicorp sends frames as large as
    the window, and rust-yamux ends a session over one above 1 MiB: more is for peers that we know."""

    window_budget: WindowBudget = field(default_factory=WindowBudget, compare=False, repr=False)
    """What windows grow out of: one for all sessions of a process. Each ``Limits()`` has one of its own."""

    send_queue_bytes: int = 16 * MIB
    """What the application may queue on one stream; more resets it. A splice pauses its source at
    64 KiB; an application that writes a whole document at once needs room for the document."""

    send_high_water_bytes: int = 64 * KIB
    """Above this a stream is congested and owes a ``StreamWritable``; Twisted's own high water."""

    send_low_water_bytes: int = 48 * KIB
    """At or below this a congested stream is writable again: three frames are still queued, what the first in
    line gets of a message. (Twisted's transports wait until they are empty.)"""

    pongs: int = 32
    """Answers to the peer's pings that wait to leave; further pings are dropped. The number of
    libp2p/go-yamux."""

    control_frames: int = 4096
    """Twelve-byte frames (SYN, ACK, FIN, RST) that wait to leave, over and above three for each stream
    that may be alive. More means that the peer makes us answer and does not read the answers, the
    reset flood of HTTP/2 (CVE-2019-9514): the session ends. 4096 are 48 KiB on the wire."""

    stray_bytes: int = 1 * MIB
    """Data for streams that do not exist, over and above what was in flight when we reset them. It costs no
    memory, only the carrier's time: four windows may come by mistake, more ends the session."""

    id_gaps: int = 256
    """Ranges of ids that the peer jumped over and may still open. hashicorp numbers a stream before it
    sends the SYN, so concurrent opens arrive out of order, up to the 256 that its backlog lets open."""

    open_timeout_seconds: float = 30.0
    """An open that the peer did not answer for so long is reset, it alone. hashicorp ends the whole session
    after 75 s; Firefox gives up on an upgrade at 20 s."""

    ping_after_seconds: float | None = 5.0
    """Without any inbound byte for so long we ask for a sign of life; None never asks. 5 and 5 make the
    10 s in which a dead carrier has to be noticed (y-websocket drops its socket at 30 s). Carriers have a
    keepalive below the session, so ``seance.tunnel`` sets None."""

    dead_after_seconds: float = 5.0
    """Without any inbound byte for so long after that ping the peer is dead."""

    def __post_init__(self) -> None:
        """Refuse numbers that could not work."""
        counts = (self.streams, self.unacknowledged, self.accept_backlog, self.pongs, self.id_gaps)
        if min(counts) < 1 or self.control_frames < 1 or self.stray_bytes < 0:
            raise ConfigError("Yamux limits must be positive numbers.", code="yamux_limits")
        if not INITIAL_WINDOW_BYTES <= self.receive_window_bytes <= 16 * MIB:
            msg = f"receive_window_bytes must be 256 KiB to 16 MiB, not {self.receive_window_bytes} bytes."
            raise ConfigError(msg, code="yamux_limits")
        if not INITIAL_WINDOW_BYTES <= self.receive_window_max_bytes <= 16 * MIB:
            max_bytes = self.receive_window_max_bytes
            msg = f"receive_window_max_bytes must be 256 KiB to 16 MiB, not {max_bytes} bytes."
            raise ConfigError(msg, code="yamux_limits")
        if not 0 <= self.send_low_water_bytes <= self.send_high_water_bytes <= self.send_queue_bytes:
            msg = "Yamux send marks must keep this order: 0, low water, high water, send queue."
            raise ConfigError(msg, code="yamux_limits")
        if self.open_timeout_seconds <= 0 or self.dead_after_seconds <= 0:
            raise ConfigError("Yamux timeouts must be positive numbers of seconds.", code="yamux_limits")
        if self.ping_after_seconds is not None and self.ping_after_seconds <= 0:
            raise ConfigError("ping_after_seconds must be positive, or None for never.", code="yamux_limits")
