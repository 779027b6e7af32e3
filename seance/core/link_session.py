"""Makes the yamux session of a link, with the same limits and close codes on the relay and on the agent.

The keepalive of a carrier is the WebSocket ping (``seance.carrier.carrier_heartbeat``): every WebSocket
library answers it, with any yamux library above. yamux pings only measure the round trip. If no yamux byte
arrives within ``PING_SECONDS`` after one, the peer no longer serves its session, and the session ends.
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
"""Timeout for the answer to a yamux ping. Any other yamux frame counts as an answer."""

WINDOW_BYTES: Final = 16 * MIB
"""Largest receive window of one stream, if the peer is a Seance program: 437 Mbit/s at 300 ms."""

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
    """Return the session of a new link, not yet connected to a carrier.

    Args:
        reactor: Provides the timers.
        role: SERVER for the relay, CLIENT for the agent.
        streams: Maximum number of open streams; each client is one.
        is_plain: Whether the peer negotiated no subprotocol. Windows then keep the size that every yamux
            library accepts, and at most 256 streams wait for an acknowledgement, as hashicorp/yamux allows
            (docs/protocol.md).
        windows: The budget that the windows of all sessions of this process share.
        on_lost: Called once with a message when the session has ended.
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
            receive_window_max_bytes=WINDOW_BYTES,
            window_budget=windows,
        )
    return Mux(reactor, role, limits=limits, on_lost=on_lost, close_carrier=_close_carrier)


def _close_carrier(carrier: ITransport, ending: Ending, reason: str) -> None:
    cast("Carrier | ResumableTransport", carrier).close(CLOSE_CODES[ending], reason)
