"""Limits of open connections and of upgrades a second, by address and by room.

No transport, no timer; the time is an argument. ``Frontend`` asks before it spends anything on a connection
or an upgrade; each rejection is a ``Refusal`` with 429. The unit of counting is one IPv4 address or one IPv6
/64, which is what a single customer gets. Each kind of visit has its own rates, so that clients and status
requests cannot lock out an agent. The rate of a room is charged only for requests that may enter it. Every
table is bounded: counts by the open connections, rates by ``MAX_RATES``; the least recently used bucket is
dropped first.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from seance.core.settings import RelaySettings
from seance.core.token_bucket import TokenBucket
from seance.heads.refusals import Retry
from seance.relay.refusals import refusal

__all__ = ["LOOPBACK", "Admission", "Visit", "holder_of"]

MAX_RATES = 65536
"""Token buckets of addresses and rooms at a time; about 20 MB when all are in use."""

BURST_SECONDS = 10.0
"""The burst of a rate, in seconds of that rate."""

LOOPBACK = "loopback"
"""The holder of 127.0.0.0/8 and ::1: a local proxy, or programs on this machine."""


class Visit(enum.Enum):
    """The kind of a request, for its rate."""

    CLIENT = "client"
    AGENT = "agent"
    STATUS = "status"


class Admission:
    """The counts and rates of one relay.

    Args:
        settings: The settings of the relay.
        descriptors: How many connections the process can hold, if that is known.

    Attributes:
        max_connections: Open connections of all kinds.
        max_clients: Open connections of clients.
        max_waiting: Clients that may wait for absent agents, and status watchers.
    """

    def __init__(self, settings: RelaySettings, descriptors: int | None = None) -> None:
        self._settings = settings
        reserve = settings.reserved_connections
        limit = settings.connections + reserve
        if descriptors is not None and descriptors < limit:
            # With few descriptors, like the 256 of a Mac, the reserve must not take all of them.
            limit, reserve = max(1, descriptors), min(reserve, descriptors // 5)
        self.max_connections = limit
        self.max_clients = max(1, self.max_connections - reserve)
        self.max_waiting = max(1, self.max_clients // 5)
        self._open: dict[str, int] = {}
        self._open_count = 0
        self._rates: OrderedDict[tuple[Visit, str, str], TokenBucket] = OrderedDict()

    @property
    def open_count(self) -> int:
        """The number of open connections."""
        return self._open_count

    def enter(self, address: str) -> str:
        """Count a connection in. Call ``leave`` with the returned holder when it is gone.

        Raises:
            Refusal: 429, the address has the maximum number of connections; nothing was counted.
        """
        holder = holder_of(address)
        count = self._open.get(holder, 0)
        if count >= self._settings.connections_per_address and not _is_loopback(holder):
            raise refusal("address_full")
        self._open[holder] = count + 1
        self._open_count += 1
        return holder

    def leave(self, holder: str) -> None:
        """Count a connection out."""
        self._open_count -= 1
        count = self._open[holder] - 1
        if count:
            self._open[holder] = count
        else:
            del self._open[holder]

    @property
    def is_full(self) -> bool:
        """Whether accepting has to pause."""
        return self._open_count >= self.max_connections

    def count_visit(self, visit: Visit, address: str, now: float) -> None:
        """Count an upgrade or status request against the rate of its address.

        Only agents may use the reserved connections.

        Raises:
            Refusal: 429, the relay is full, or the rate of the address is exceeded.
        """
        if self._open_count > self.max_clients and visit is not Visit.AGENT:
            raise refusal("relay_full")
        holder = holder_of(address)
        if not _is_loopback(holder):
            self._take(visit, "address", holder, self._settings.upgrades_per_address, now)

    def take_back_visit(self, visit: Visit, address: str, now: float) -> None:
        """Undo ``count_visit``, because other code counts the request."""
        holder = holder_of(address)
        if not _is_loopback(holder):
            self._take(visit, "address", holder, self._settings.upgrades_per_address, now, count=-1)

    def count_for_room(self, visit: Visit, room: str, now: float, *, identity: str | None = None) -> None:
        """Count a request for its room, once it is known to be allowed.

        Args:
            visit: The kind of the request.
            room: The room.
            now: Seconds, monotonic.
            identity: The proven identity of an agent; each identity has its own rate for a room.

        Raises:
            Refusal: 429, the rate of the room is exceeded.
        """
        name = room if identity is None else f"{room} {identity}"
        self._take(visit, "room", name, self._settings.upgrades_per_room, now)

    def _take(self, visit: Visit, kind: str, name: str, rate: float, now: float, *, count: int = 1) -> None:
        if not self._bucket((visit, kind, name), rate, now).take(count, now):
            retry = Retry.SOON if visit is Visit.AGENT else None
            raise refusal(f"{kind}_rate", retry=retry)

    def _bucket(self, key: tuple[Visit, str, str], rate: float, now: float) -> TokenBucket:
        rates = self._rates
        bucket = rates.get(key)
        if bucket is None:
            bucket = rates[key] = TokenBucket(rate, max(1.0, rate * BURST_SECONDS), now)
            while len(rates) > MAX_RATES:
                rates.popitem(last=False)
        else:
            rates.move_to_end(key)
        return bucket


@lru_cache(maxsize=4096)
def holder_of(address: str) -> str:
    """Return the unit of counting: an IPv4 address, the /64 of an IPv6 address, or the text itself."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    parsed = getattr(parsed, "ipv4_mapped", None) or parsed  # as a listener for both families shows IPv4
    if parsed.is_loopback:
        return LOOPBACK
    if isinstance(parsed, IPv6Address):
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)


def _is_loopback(holder: str) -> bool:
    return holder == LOOPBACK
