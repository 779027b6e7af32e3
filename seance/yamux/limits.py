"""Every limit of a session: its unit, its default, and the source of the default.

All limits of a session are here, and each has a test that reaches it (``tests/yamux/test_limits.py``). They
are not part of the wire format, except that the peer is sent ``receive_window_bytes``.

A peer can make us hold ``streams * receive_window_bytes`` in the application's buffers (64 MiB with the
defaults; the session itself keeps no received bytes), as much again on streams that have grown and were idle
since, 32 pongs, and some thousands of twelve-byte frames. All peers together can use the ``window_budget``.
Our own application can make us hold ``streams * send_queue_bytes``.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from seance.errors import ConfigError
from seance.yamux.budget import WindowBudget
from seance.yamux.constants import INITIAL_WINDOW_BYTES, KIB, MIB

__all__ = ["Limits"]


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one session; pass a changed copy to ``Session(limits=...)``.

    The limits of a running session may be replaced: ``session.limits = dataclasses.replace(...)``. Open
    streams are not reset and keep their windows; everything else applies from then on (``stray_bytes``,
    ``id_gaps`` and ``window_budget`` are read once).

    Raises:
        ConfigError: The numbers contradict each other or the protocol.
    """

    streams: int = 256
    """Streams open at the same time, in both directions together. Further streams of the peer are reset,
    further ones of ours refused. yamux-js resets beyond 256 in all, and rust-yamux ends the session beyond
    512."""

    unacknowledged: int = 256
    """Streams that we opened and the peer has not answered. hashicorp/yamux, go-yamux and rust-yamux queue as
    many, and hashicorp/yamux resets further ones."""

    accept_backlog: int = 256
    """Streams that the peer opened and our application has neither accepted nor reset; hashicorp's
    ``AcceptBacklog``."""

    receive_window_bytes: int = INITIAL_WINDOW_BYTES
    """Initial receive window of a stream, 256 KiB to 16 MiB. The protocol starts at 256 KiB; the difference
    is sent as the delta on our SYN or ACK."""

    receive_window_max_bytes: int = 1 * MIB
    """Size up to which a window grows while the application reads as fast as the path delivers, 256 KiB to 16
    MiB. Windows do not grow unless it exceeds ``receive_window_bytes``. Above 1 MiB only for known peers:
    hashicorp/yamux sends frames as large as the window, and rust-yamux ends a session over a frame above 1
    MiB."""

    window_budget: WindowBudget = field(default_factory=WindowBudget, compare=False, repr=False)
    """Budget from which windows grow: one for all sessions of a process. By default each ``Limits()`` has its
    own."""

    send_queue_bytes: int = 16 * MIB
    """Bytes that the application may queue on one stream; more resets the stream. A splice pauses its source
    at 64 KiB; an application that writes a whole document in one call needs room for the document."""

    send_high_water_bytes: int = 64 * KIB
    """Queued bytes above which a stream is congested and will report ``StreamWritable``; Twisted's own
    high-water mark."""

    send_low_water_bytes: int = 48 * KIB
    """Queued bytes at or below which a congested stream is writable again: three frames, the share of the
    first stream in a message. (Twisted's transports wait until the queue is empty.)"""

    pongs: int = 32
    """Answers to the peer's pings in the send queue; further pings are dropped. The number of
    libp2p/go-yamux."""

    control_frames: int = 4096
    """Twelve-byte frames (SYN, ACK, FIN, RST) in the send queue, in addition to three for each possible
    stream. More means that the peer causes answers and does not read them, as in the reset flood of HTTP/2
    (CVE-2019-9514); the session ends. 4096 frames are 48 KiB on the wire."""

    stray_bytes: int = 1 * MIB
    """Data for streams that do not exist, in addition to the data in flight when we reset a stream. It costs
    no memory, only the carrier's time. Four windows may arrive by mistake; more ends the session."""

    id_gaps: int = 256
    """Ranges of ids that the peer skipped and may still open. hashicorp/yamux numbers a stream before it
    sends the SYN, so concurrent opens arrive out of order, up to its backlog of 256."""

    open_timeout_seconds: float = 30.0
    """Time for the peer to answer an open; then only this stream is reset. hashicorp/yamux ends the whole
    session after 75 s; Firefox gives up on an upgrade at 20 s."""

    ping_after_seconds: float | None = 5.0
    """Time without inbound bytes after which a ping is sent; None for never. 5 s here and 5 s below detect a
    dead carrier within 10 s (y-websocket drops its socket at 30 s). The tunnel sets None, because its
    carriers have a keepalive of their own."""

    dead_after_seconds: float = 5.0
    """Time without inbound bytes after that ping until the session ends."""

    def __post_init__(self) -> None:
        """Reject numbers that cannot work."""
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
            msg = "Yamux send limits must be in this order: 0, low water, high water, send queue."
            raise ConfigError(msg, code="yamux_limits")
        if self.open_timeout_seconds <= 0 or self.dead_after_seconds <= 0:
            raise ConfigError("Yamux timeouts must be positive numbers of seconds.", code="yamux_limits")
        if self.ping_after_seconds is not None and self.ping_after_seconds <= 0:
            raise ConfigError("ping_after_seconds must be positive, or None for never.", code="yamux_limits")
