"""Detects that this machine has slept, or that its network has changed.

Once a second the detector compares clocks and the machine's own address. There are two signs of sleep: a
clock that continues during sleep is ahead of the monotonic clock, which stops (Linux); or an interval of one
second took several (a stopped process, a busy loop, systems with a monotonic clock that continues). The sign
of another network is another source address towards the relay; asking for it takes two system calls and sends
no packet. None of these proves that the link is dead, so the agent only probes the link.
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

CHECK_SECONDS = 1.0
SLEPT_SECONDS = 3.0
"""Minimum of missing time, on either clock, that counts as sleep."""

OUT_OF_SOCKETS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

DOCUMENTATION_ADDRESSES = ("192.0.2.1", "2001:db8::1")
"""Addresses that no host has (RFC 5737, RFC 3849), used to find the source address of the default route."""


class WakeDetector:
    """Checks once a second, between ``start`` and ``stop``.

    Args:
        reactor: Provides the monotonic time.
        on_event: Called with a phrase that names the event, and the number of seconds slept (0.0 for a
            change of the network).
        own_address: Returns the machine's address in the present network; None without a network.
        wall_seconds: A clock that continues while the machine sleeps.
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
        self._checked_at = self._wall_at = 0.0
        self._address: str | None = None
        self._is_offline = False

    def start(self) -> None:
        """Start the checks."""
        self._checked_at, self._wall_at = self._reactor.seconds(), self._wall_seconds()
        self.take_address()
        self._timer = self._reactor.callLater(CHECK_SECONDS, self._check)

    def stop(self) -> None:
        """Stop the checks."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def take_address(self) -> None:
        """Compare with the present address from now on, because ``own_address`` has another peer."""
        try:
            self._address = self._own_address()
        except OSError:
            return
        self._is_offline = self._address is None

    def _check(self) -> None:
        self._timer = self._reactor.callLater(CHECK_SECONDS, self._check)
        now, wall = self._reactor.seconds(), self._wall_seconds()
        passed, passed_on_wall = now - self._checked_at, wall - self._wall_at
        self._checked_at, self._wall_at = now, wall
        before = self._address
        try:
            address = self._own_address()
        except OSError:  # no descriptor left for the check, which says nothing about the network
            address = None if self._is_offline else before
        is_back = self._is_offline and address is not None
        self._is_offline = address is None
        # Keep the last address while offline, so that another network after that is detected as well.
        self._address = before if address is None else address
        slept = max(passed, passed_on_wall) - CHECK_SECONDS
        if slept >= SLEPT_SECONDS:
            self._on_event("the machine or this process has slept", slept)
        elif None not in (address, before) and address != before:
            self._on_event("the network has changed", 0.0)
        elif is_back:
            self._on_event("the network is back", 0.0)


def seconds_with_sleep() -> float:
    """Return the time of a clock that continues during sleep; where possible, one that cannot be set."""
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    return time.time() if boot_time is None else time.clock_gettime(boot_time)


def address_towards(peer: str | None) -> str | None:
    """Return the source address of this machine for packets to ``peer``; None if there is no route.

    Args:
        peer: An IP address; None for any address outside of the own network.

    Raises:
        OSError: The process or the machine has no socket left for the check.
    """
    if peer is None:
        return next(filter(None, map(address_towards, DOCUMENTATION_ADDRESSES)), None)
    family = socket.AF_INET6 if ":" in peer else socket.AF_INET
    try:
        probe = socket.socket(family, socket.SOCK_DGRAM)
    except OSError as error:
        if error.errno in OUT_OF_SOCKETS:
            raise
        return None  # the system has no such address family
    with suppress(OSError), probe:
        probe.connect((peer, 9))  # UDP: this sends no packet
        return str(probe.getsockname()[0])
    return None
