"""Socket options that a tunnel needs and Twisted leaves to its users.

* ``TCP_NODELAY``: frames are small and already gathered once per reactor turn; Nagle on top
  shows as a flat 40 ms.
* Keepalive and ``TCP_USER_TIMEOUT``: a peer that vanished without a FIN is noticed by the
  kernel, also while we have nothing to say or nothing but unacknowledged data.
* ``TCP_NOTSENT_LOWAT``: Linux takes 2.6 MB from us before it first says "full", 21 s of a
  1 Mbit/s uplink in which nothing can overtake; with the low-water mark it is 120 KB
  (yamux.md 2.3, measured).

Systems that lack an option go without it: each makes things better, none makes them correct.
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
"""A hole of 30 s in a client's network must not end its connection. Linux doubles the time between two
repetitions: the first one after the hole comes after 61 s at worst, and none when this time is over. With
60 s a hole of 30 s ended 9 of 50 connections."""

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
"""For carriers. Their own pulse has noticed a dead peer by then, so the time is for what it cannot see. What
the kernel may keep unsent of one is ``seance.net.send_queue``'s to say: nothing can overtake it."""


def tune(holder: Any, *, is_carrier: bool = False) -> None:  # noqa: ANN401  # no common type
    """Set the options above on a transport's or a listening port's socket, and let it write at once.

    Args:
        holder: A transport or a listening port.
        is_carrier: Whether many streams share it: see ``CARRIER_OPTIONS``.

    On Linux a listening socket passes them on to what it accepts. UNIX sockets, in-memory
    transports and yamux streams have nothing to set and are left alone.
    """
    # Carriers, TLS and the PROXY protocol have theirs some transports down; wrappers show it as their own.
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
        holder.unsent = SendQueueMonitor(sock)


def _has_socket(holder: object) -> bool:
    return isinstance(getattr(holder, "socket", None), socket.socket)
