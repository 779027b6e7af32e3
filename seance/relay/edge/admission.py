"""Who may come in, and how often: the counts and rates that keep one stranger from being all.

Pure bookkeeping with the time as an argument: no transport, no timer. The front asks before it
spends anything on a connection or an upgrade; each "no" is a ``Refusal`` with 429. Addresses are
counted as their owners hold them: one IPv4 address, or one IPv6 /64, which is what a single
customer is given. Each kind of visit has rates of its own, so that clients and questions cannot
keep an agent out, and a room's are charged only for those who may enter it. Every table here is
bounded: counts by what is open, rates by ``MOST_RATES``, where the one that was full longest ago
makes room (a full bucket remembers nothing).
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from seance.core.settings import RelaySettings
from seance.core.token_bucket import TokenBucket
from seance.errors import Refusal

__all__ = ["LOOPBACK", "Admission", "Visit", "holder_of"]

MOST_RATES = 65536
"""Addresses or rooms whose rate is remembered at a time; about 20 MB when all are in use."""

BURST_SECONDS = 10.0
"""How many seconds' worth of upgrades may come at once, after a rest."""

LOOPBACK = "loopback"
"""The holder of 127.0.0.0/8 and ::1: a proxy in front of us, or the machine's own people."""

RETRY_AFTER = (b"Retry-After", b"5")
RETRY_SOON = (b"Retry-After", b"2")
"""For agents and what may be one: their clients wait for 15 s, and five would be a third of it."""


class Visit(enum.Enum):
    """What somebody has come for."""

    CLIENT = "client"
    AGENT = "agent"
    STATUS = "status"


class Admission:
    """The doorkeeper of one relay.

    Args:
        settings: The relay's.
        descriptors: How many connections the process can hold at all, if that is known.

    Attributes:
        most_connections: Open ones, of whatever kind.
        most_clients: As many of them as clients may have.
        most_waiting: As many of those as may wait for absent agents, or only watch.
    """

    def __init__(self, settings: RelaySettings, descriptors: int | None = None) -> None:
        self._settings = settings
        reserve = settings.reserved_connections
        most = settings.connections + reserve
        if descriptors is not None and descriptors < most:
            # Where descriptors are few, as the 256 of a Mac, the reserve must not be all there is.
            most, reserve = max(1, descriptors), min(reserve, descriptors // 5)
        self.most_connections = most
        self.most_clients = max(1, self.most_connections - reserve)
        self.most_waiting = max(1, self.most_clients // 5)
        self._open: dict[str, int] = {}
        self._open_count = 0
        self._rates: OrderedDict[tuple[Visit, str, str], TokenBucket] = OrderedDict()

    @property
    def open_count(self) -> int:
        """Connections that are open now."""
        return self._open_count

    def enter(self, address: str) -> str:
        """Count a connection in. Call ``leave`` with the result when it is gone.

        Raises:
            Refusal: 429, this address has as many as it may have; nothing was counted.
        """
        holder = holder_of(address)
        count = self._open.get(holder, 0)
        if count >= self._settings.connections_per_address and not _is_loopback(holder):
            sentence = "Your address has as many connections here as it may have; close some first."
            raise Refusal(429, sentence, code="address_full", headers=(RETRY_SOON,))
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
        return self._open_count >= self.most_connections

    def count_visit(self, visit: Visit, address: str, now: float) -> None:
        """Count a visit for its address. Agents may use the reserve of connections.

        Raises:
            Refusal: 429, the relay is full, or they come too fast from this address.
        """
        if self._open_count > self.most_clients and visit is not Visit.AGENT:
            sentence = "This relay has as many connections as it may have; try again later."
            raise Refusal(429, sentence, code="relay_full", headers=(RETRY_AFTER,))
        holder = holder_of(address)
        if not _is_loopback(holder):
            self._take(visit, "address", holder, self._settings.upgrades_per_address, now)

    def take_back_visit(self, visit: Visit, address: str, now: float) -> None:
        """Undo ``count_visit``: somebody else is going to count it."""
        holder = holder_of(address)
        if not _is_loopback(holder):
            self._take(visit, "address", holder, self._settings.upgrades_per_address, now, count=-1)

    def count_for_room(self, visit: Visit, room: str, now: float, *, identity: str | None = None) -> None:
        """Count a visit for its room, once it is known that it may be made.

        Args:
            visit: What for.
            room: Where.
            now: Seconds, monotonic.
            identity: Who has proven to come, if that was asked: the same room is another one to others.

        Raises:
            Refusal: 429, they come too fast for this room.
        """
        name = room if identity is None else f"{room} {identity}"
        self._take(visit, "room", name, self._settings.upgrades_per_room, now)

    def _take(self, visit: Visit, kind: str, name: str, rate: float, now: float, *, count: int = 1) -> None:
        if not self._bucket((visit, kind, name), rate, now).take(count, now):
            sentence = f"Too many connections a second for one {kind}; try again a little later."
            retry_after = RETRY_SOON if visit is Visit.AGENT else RETRY_AFTER
            raise Refusal(429, sentence, code=f"{kind}_rate", headers=(retry_after,))

    def _bucket(self, key: tuple[Visit, str, str], rate: float, now: float) -> TokenBucket:
        rates = self._rates
        bucket = rates.get(key)
        if bucket is None:
            bucket = rates[key] = TokenBucket(rate, max(1.0, rate * BURST_SECONDS), now)
            while len(rates) > MOST_RATES:
                rates.popitem(last=False)
        else:
            rates.move_to_end(key)
        return bucket


@lru_cache(maxsize=4096)
def holder_of(address: str) -> str:
    """Return what one customer holds: an IPv4 address, the /64 of an IPv6 one, or the text itself."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        if parsed.is_loopback:
            return LOOPBACK
        return f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return LOOPBACK if parsed.is_loopback else str(parsed)


def _is_loopback(holder: str) -> bool:
    return holder == LOOPBACK
