"""The yamux session of a link, the same on both sides: its bounds, and the close code of each failure.

A carrier has one keepalive, WebSocket pings (``CarrierHeartbeat``), because every WebSocket answers them,
with any yamux library above it. A session sends yamux pings only to measure the path. If no yamux byte comes
within ``PING_SECONDS`` after such a ping, the peer has stopped serving its session, and the session ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from twisted.internet.interfaces import IReactorTime, ITransport

from seance.carrier import Carrier, CloseCode, ResumableTransport
from seance.mux import Ending, Mux
from seance.yamux import MIB, Limits, Role, WindowBudget

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["link_session"]

PING_SECONDS: Final = 60.0
"""How long the answer to a yamux ping may take; any other yamux frame counts as well."""

WINDOW_BYTES: Final = 16 * MIB
"""How far the window of one stream may grow towards a peer of ours: 437 Mbit/s at 300 ms."""

CLOSE_CODES: Final[Mapping[Ending, CloseCode]] = {
    Ending.PEER_BROKE_RULES: CloseCode.YAMUX_ERROR,
    Ending.PEER_IS_SILENT: CloseCode.PING_TIMEOUT,
    Ending.PEER_ENDED: CloseCode.PEER_ENDED,
}


def link_session(
    reactor: IReactorTime,
    role: Role,
    *,
    streams: int,
    is_plain: bool,
    windows: WindowBudget,
    on_lost: Callable[[str], None],
) -> Mux:
    """Return the session of a new link, without a carrier.

    Args:
        reactor: For timers.
        role: SERVER for the relay, CLIENT for the agent.
        streams: Clients at a time.
        is_plain: Whether the peer negotiated nothing. Its streams keep the windows that every library takes,
            and its usual backlog of 256 bounds the streams that wait for an answer (yamux.md 1.2, rows 6 and
            7). A relay bounds ``streams`` too: rust-yamux ends a session over 512 (yamux.md 1.2, row 7).
        windows: The budget from which the windows of all sessions of the process grow.
        on_lost: Called once with a sentence when the session is over.
    """
    if is_plain:
        limits = Limits(
            streams=streams,
            accept_backlog=streams,
            ping_after_seconds=None,
            dead_after_seconds=PING_SECONDS,
            window_budget=windows,
        )
    else:
        limits = Limits(
            streams=streams,
            unacknowledged=streams,
            accept_backlog=streams,
            ping_after_seconds=None,
            dead_after_seconds=PING_SECONDS,
            receive_window_most_bytes=WINDOW_BYTES,
            window_budget=windows,
        )
    return Mux(reactor, role, limits=limits, on_lost=on_lost, close_carrier=_close_carrier)


def _close_carrier(carrier: ITransport, ending: Ending, reason: str) -> None:
    cast("Carrier | ResumableTransport", carrier).close(CLOSE_CODES[ending], reason)
