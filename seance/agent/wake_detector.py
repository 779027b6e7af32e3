"""Notices that this machine has slept, or stands in another network.

Sleep shows in two ways, looked for once a second: a clock that runs on during sleep is ahead of the
monotonic one, which stood (Linux), or a whole second has taken many (a stopped process, a busy loop, systems
whose monotonic clock runs through). Another network shows in the address from which the relay would be
reached: to ask for it costs two system calls and sends nothing. Either way nothing is wrong for sure, so
whoever is told only looks whether the link still lives.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["WakeDetector", "address_towards", "seconds_with_sleep"]

LOOK_SECONDS = 1.0
SLEPT_SECONDS = 3.0
"""Time that is missing on either clock before it counts as sleep."""

NO_SOCKET = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

ANYBODY = ("192.0.2.1", "2001:db8::1")
"""Addresses that are nobody's (RFC 5737, RFC 3849): the way to them is the way out."""


class WakeDetector:
    """Looks once a second, between ``start`` and ``stop``.

    Args:
        reactor: Where time comes from.
        on_event: Called with half a sentence, what has happened, and the seconds that were slept.
        own_address: Returns the address that we have in the present network, or None.
        wall_seconds: A clock that runs on while the machine sleeps.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        on_event: Callable[[str, float], None],
        *,
        own_address: Callable[[], str | None] = lambda: None,
        wall_seconds: Callable[[], float] | None = None,
    ) -> None:
        self._reactor = reactor
        self._on_event = on_event
        self._own_address = own_address
        self._wall_seconds = wall_seconds or seconds_with_sleep
        self._timer: IDelayedCall | None = None
        self._looked_at = self._wall_at = 0.0
        self._address: str | None = None
        self._is_absent = False

    def start(self) -> None:
        """Begin to look."""
        self._looked_at, self._wall_at = self._reactor.seconds(), self._wall_seconds()
        self.begin_anew()
        self._timer = self._reactor.callLater(LOOK_SECONDS, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def begin_anew(self) -> None:
        """Take the present address for granted: ``own_address`` means another peer from now on."""
        try:
            self._address = self._own_address()
        except OSError:
            return
        self._is_absent = self._address is None

    def _look(self) -> None:
        self._timer = self._reactor.callLater(LOOK_SECONDS, self._look)
        now, wall = self._reactor.seconds(), self._wall_seconds()
        passed, passed_on_wall = now - self._looked_at, wall - self._wall_at
        self._looked_at, self._wall_at = now, wall
        before = self._address
        try:
            address = self._own_address()
        except OSError:  # no descriptor left to ask with: that says nothing about the network
            address = None if self._is_absent else before
        is_back = self._is_absent and address is not None
        self._is_absent = address is None
        # The one that we had last is kept, so that another network is noticed behind an absence too.
        self._address = before if address is None else address
        slept = max(passed, passed_on_wall) - LOOK_SECONDS
        if slept >= SLEPT_SECONDS:
            self._on_event("the machine or this process has slept", slept)
        elif None not in (address, before) and address != before:
            self._on_event("the network has changed", 0.0)
        elif is_back:
            self._on_event("the network is back", 0.0)


def seconds_with_sleep() -> float:
    """Return a clock that runs on while the machine sleeps; one that nobody sets, where there is one."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() if boot_time is None else time.clock_gettime(boot_time)


def address_towards(peer: str | None) -> str | None:
    """Return from which address this machine would send to ``peer``, an IP address; None if not at all.

    Without a peer: to any address that is not in its own network.

    Raises:
        OSError: This process or machine has no socket left to find out with.
    """
    if peer is None:
        return next(filter(None, map(address_towards, ANYBODY)), None)
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    try:
        probe = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        if error.errno in NO_SOCKET:
            raise
        return None  # no such family here
    with suppress(OSError), probe:
        probe.connect((peer, 9))  # nothing is sent: UDP
        return str(probe.getsockname()[0])
    return None
