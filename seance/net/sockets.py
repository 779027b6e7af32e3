"""Socket options for a tunnel.

* ``TCP_NODELAY``: frames are collected once per reactor turn already; Nagle's algorithm adds up to 40 ms.
* Keepalive and ``TCP_USER_TIMEOUT``: the kernel detects a peer that vanished without a FIN, whether the
  connection is idle or has unacknowledged data.
* ``TCP_NOTSENT_LOWAT``: without it Linux accepts 2.6 MB before the socket is full (measured), which is 21 s
  of a 1 Mbit/s uplink in which no stream can overtake. With it, 120 KB.

An option that the system lacks is skipped. The options improve behaviour; correctness does not depend on
them.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from twisted.protocols.policies import ProtocolWrapper

from seance.net.immediate_write import write_immediately
from seance.net.send_queue import SendQueueMonitor
from seance.net.unread import read_before_loss

__all__ = ["tune"]

KEEPALIVE_IDLE_SECONDS = 15
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_PROBES = 15
UNACKNOWLEDGED_SECONDS = 90
"""A network outage of 30 s must not end a client's connection. Linux doubles the time between
retransmissions, so the first one after the outage is sent after at most 61 s, and none after this time. With
60 s, an outage of 30 s ended 9 of 50 connections."""

NOT_SENT_BYTES = 128 * 1024

OPTIONS: tuple[tuple[int, str, int], ...] = (
    (socket.IPPROTO_TCP, "TCP_NODELAY", 1),
    (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
    (socket.IPPROTO_TCP, "TCP_KEEPIDLE", KEEPALIVE_IDLE_SECONDS),
    (socket.IPPROTO_TCP, "TCP_KEEPINTVL", KEEPALIVE_INTERVAL_SECONDS),
    (socket.IPPROTO_TCP, "TCP_KEEPCNT", KEEPALIVE_PROBES),
    (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", UNACKNOWLEDGED_SECONDS * 1000),
    (socket.IPPROTO_TCP, "TCP_NOTSENT_LOWAT", NOT_SENT_BYTES),
)

CARRIER_OPTIONS = {"TCP_USER_TIMEOUT": 10_000}
"""For carriers. ``seance.carrier.CarrierHeartbeat`` detects a dead peer earlier; this covers the cases that
it does not see. ``seance.net.send_queue`` sets ``TCP_NOTSENT_LOWAT`` of a carrier."""


def tune(holder: Any, *, is_carrier: bool = False) -> None:  # noqa: ANN401  # no common type
    """Set the options above on a socket, and let its transport write immediately.

    On Linux, accepted sockets inherit the options of the listening socket. UNIX sockets, in-memory transports
    and yamux streams have no such options and are not changed.

    Args:
        holder: A transport or a listening port.
        is_carrier: Whether it is the connection below a carrier, which many streams share: see
            ``CARRIER_OPTIONS``.
    """
    # Below carriers, TLS and the PROXY protocol the socket belongs to an inner transport. A ProtocolWrapper
    # shows the attributes of that transport as its own.
    while isinstance(holder, ProtocolWrapper) or not _has_socket(holder):
        holder = getattr(holder, "transport", None)
        if holder is None:
            return
    sock = holder.socket
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        read_before_loss(holder)
        return
    write_immediately(holder)
    for level, name, default in OPTIONS:
        value = CARRIER_OPTIONS.get(name, default) if is_carrier else default
        option = getattr(socket, name, None)
        if option is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(level, option, value)
    if is_carrier and hasattr(holder, "full_above_bytes"):
        holder.full_above_bytes = 0
        holder.send_queue = SendQueueMonitor(sock)


def _has_socket(holder: object) -> bool:
    return isinstance(getattr(holder, "socket", None), socket.socket)
