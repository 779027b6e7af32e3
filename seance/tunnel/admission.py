"""Who may come in, and how often: the counts and rates that keep one stranger from being all.

Pure bookkeeping with the time as an argument: no transport, no timer. The front asks before it
spends anything on a connection or an upgrade; each "no" is a ``Refusal`` with 429. Addresses are
counted as their owners hold them: one IPv4 address, or one IPv6 /64, which is what a single
customer is given. Every table here is bounded: counts by what is open, rates by ``MOST_RATES``,
where the one that was full longest ago makes room (a full bucket remembers nothing).
"""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from ipaddress import IPv6Address, ip_address

from seance.errors import Refusal
from seance.tunnel.settings import RelaySettings

__all__ = ["LOOPBACK", "Admission", "Bucket", "holder_of"]

MOST_RATES = 65536
"""Addresses or rooms whose rate is remembered at a time; about 20 MB when all are in use."""

BURST_SECONDS = 10.0
"""How many seconds' worth of upgrades may come at once, after a rest."""

LOOPBACK = "loopback"
"""The holder of 127.0.0.0/8 and ::1: a proxy in front of us, or the machine's own people."""

RETRY_AFTER = (b"Retry-After", b"5")


class Bucket:
    """A token bucket: so much a second, and a burst after a rest.

    Args:
        rate: Tokens a second.
        burst: Tokens at most.
        now: Seconds, monotonic.
    """

    __slots__ = ("_burst", "_rate", "_seconds", "_tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = burst
        self._seconds = now

    def take(self, count: float, now: float) -> bool:
        """Take tokens if there are enough."""
        self._refill(now)
        if self._tokens < count:
            return False
        self._tokens -= count
        return True

    def owe(self, count: float, now: float) -> float:
        """Take tokens whether they are there or not.

        Returns:
            Seconds until the debt is paid; 0 if there is none.
        """
        self._refill(now)
        self._tokens -= count
        return max(0.0, -self._tokens / self._rate)

    def is_full(self, now: float) -> bool:
        """Whether the bucket has forgotten everything."""
        self._refill(now)
        return self._tokens >= self._burst

    def _refill(self, now: float) -> None:
        self._tokens = min(self._burst, self._tokens + (now - self._seconds) * self._rate)
        self._seconds = now


class Admission:
    """The doorkeeper of one relay.

    Args:
        settings: The relay's.
        descriptors: How many connections the process can hold at all, if that is known.
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
        self._open: dict[str, int] = {}
        self._open_count = 0
        self._rates: OrderedDict[tuple[str, str], Bucket] = OrderedDict()

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
            raise Refusal(429, sentence, code="address_full", headers=(RETRY_AFTER,))
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

    def upgrade(self, address: str, room: str, now: float, *, is_agent: bool = False) -> None:
        """Count an upgrade. Agents may use the reserve of connections; their rates are the same.

        Raises:
            Refusal: 429, the relay is full, or they come too fast from this address or for this room.
        """
        settings = self._settings
        if self._open_count > self.most_clients and not is_agent:
            sentence = "This relay has as many connections as it may have; try again later."
            raise Refusal(429, sentence, code="relay_full", headers=(RETRY_AFTER,))
        for kind, name, rate in (
            ("address", holder_of(address), settings.upgrades_per_address),
            ("room", room, settings.upgrades_per_room),
        ):
            if kind == "address" and _is_loopback(name):
                continue
            if not self._bucket((kind, name), rate, now).take(1, now):
                sentence = f"Too many connections a second for one {kind}; try again a little later."
                raise Refusal(429, sentence, code=f"{kind}_rate", headers=(RETRY_AFTER,))

    def _bucket(self, key: tuple[str, str], rate: float, now: float) -> Bucket:
        rates = self._rates
        bucket = rates.get(key)
        if bucket is None:
            bucket = rates[key] = Bucket(rate, max(1.0, rate * BURST_SECONDS), now)
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
