"""Counts what a relay's witness is told, and reads the rest off the relay when somebody asks.

Bytes are added when a client ends; those of clients that are still there are added up for each page, so
that the totals are exact at any moment and nothing is counted on the way of a byte.
"""

from __future__ import annotations

from collections import OrderedDict
from statistics import median
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from seance.metrics.catalogue import RELAY
from seance.metrics.counting import Histogram, Tally
from seance.metrics.exposition import Exposition, Reading, build_labels
from seance.metrics.lag import ReactorLag
from seance.tunnel.ports import Client, ClientReport, LinkChange
from seance.tunnel.witness import CLIENT_REASONS, LIMITS, LINK_REASONS, RESUMPTIONS

if TYPE_CHECKING:
    from seance.tunnel.link import Link
    from seance.tunnel.relay import Relay

__all__ = ["RelayMetrics"]

MEASURE_SECONDS = 10.0
"""Round trips are measured when somebody reads them, and no more often: twelve bytes for each link."""

MOST_ROOMS = 1000
"""Rooms with series of their own; beyond, the one that has been quiet longest has none. Three series each."""


class RelayMetrics:
    """A ``Witness``. Make it, give it to the relay, then ``watch`` that; run ``lag`` beside it.

    Args:
        reactor: The relay's.
        by_room: Whether rooms get series of their own, with their names.

    Attributes:
        lag: The service that measures the reactor.
        exposition: The page.
    """

    def __init__(self, reactor: IReactorTime, *, by_room: bool = False) -> None:
        self._reactor = reactor
        self._by_room = by_room
        self._measured_at = -MEASURE_SECONDS
        self._relay: Relay | None = None
        self._clients: dict[Client, bool] = {}
        self._received_bytes = 0
        self._sent_bytes = 0
        self._opened = 0
        self._attached = 0
        self._detached = 0
        self._parked = 0
        self._ended = Tally(CLIENT_REASONS)
        self._lost = Tally(LINK_REASONS)
        self._resumptions = Tally(RESUMPTIONS)
        self._limits = Tally(LIMITS)
        self._refusals = Tally()
        self._upgrade = Histogram()
        self._first_byte = Histogram()
        self._rooms: OrderedDict[str, list[int]] = OrderedDict()
        self.lag = ReactorLag(reactor)
        self.exposition = Exposition(RELAY, self._read)

    def watch(self, relay: Relay) -> None:
        """Read the figures of this relay from now on."""
        self._relay = relay

    # -- Witness ---------------------------------------------------------------------------

    def refused(self, code: str) -> None:
        """See ``Witness``."""
        self._refusals.add(code)

    def limit_hit(self, limit: str) -> None:
        """See ``Witness``."""
        self._limits.add(limit)

    def parked(self, room: str) -> None:
        """See ``Witness``."""
        self._parked += 1

    def client_began(self, client: Client) -> None:
        """See ``Witness``."""
        self._opened += 1
        self._clients[client] = False

    def client_joined(self, client: Client, seconds: float) -> None:
        """See ``Witness``."""
        self._clients[client] = True
        self._upgrade.add(seconds)

    def client_answered(self, client: Client, seconds: float) -> None:
        """See ``Witness``."""
        self._first_byte.add(seconds)

    def client_ended(self, client: Client, report: ClientReport) -> None:
        """See ``Witness``."""
        del self._clients[client]
        self._received_bytes += report.received_bytes
        self._sent_bytes += report.sent_bytes
        self._ended.add(report.reason)
        if self._by_room:
            of_room = self._of_room(client.room)
            of_room[0] += report.received_bytes
            of_room[1] += report.sent_bytes

    def link_changed(self, room: str, change: LinkChange, reason: str = "") -> None:
        """See ``Witness``."""
        if change is LinkChange.ATTACHED:
            self._attached += 1
            if self._by_room:
                self._of_room(room)
        elif change is LinkChange.DETACHED:
            self._detached += 1
        elif change is LinkChange.LOST:
            self._lost.add(reason)

    def resumption(self, outcome: str) -> None:
        """See ``Witness``."""
        self._resumptions.add(outcome)

    # -- figures ---------------------------------------------------------------------------

    def figures(self) -> dict[str, object]:
        """Return what a dashboard shows, as JSON has it: totals, which its page turns into rates."""
        links = self._look_at_links()
        received_bytes, sent_bytes = self._bytes()
        trips = _round_trips(links)
        relay = self._relay
        return {
            "rooms": len(links),
            "agents": sum(link.is_attached for link in links),
            "resuming": sum(link.is_resuming for link in links),
            "clients": sum(self._clients.values()),
            "held": sum(len(link.syncs) for link in links),
            "pending": len(self._clients) - sum(self._clients.values()),
            "parked": 0 if relay is None else len(relay.parking),
            "connections": 0 if relay is None else relay.admission.open_count,
            "is_draining": relay is not None and relay.is_draining,
            "received_bytes": received_bytes,
            "sent_bytes": sent_bytes,
            "kept_bytes": sum(link.kept_bytes for link in links),
            "streams_opened": self._opened,
            "refusals": dict(self._refusals.counts),
            "limits": dict(self._limits.counts),
            "resumptions": dict(self._resumptions.counts),
            "upgrades": self._upgrade.count,
            "upgrade_seconds": round(self._upgrade.sum_seconds, 6),
            "lag_seconds": round(self.lag.latest_seconds, 6),
            "round_trip_seconds": {name: round(one, 6) for (name,), one in trips.items()},
        }

    def _look_at_links(self) -> list[Link]:
        links = [] if self._relay is None else self._relay.links
        now = self._reactor.seconds()
        if now - self._measured_at >= MEASURE_SECONDS:
            self._measured_at = now
            for link in links:
                link.measure()
        return links

    def _bytes(self) -> tuple[int, int]:
        received, sent = self._received_bytes, self._sent_bytes
        for client in self._clients:
            received += client.received_bytes
            sent += client.sent_bytes
        return received, sent

    def _read(self) -> Reading:
        links = self._look_at_links()
        joined = sum(self._clients.values())
        received_bytes, sent_bytes = self._bytes()
        reading: dict[str, float | Histogram | dict[tuple[str, ...], float]] = {
            "seance_build_info": build_labels(),
            "seance_reactor_lag_seconds": self.lag.worst_seconds,
            "seance_agents": sum(link.is_attached for link in links),
            "seance_rooms": len(links),
            "seance_resuming_links": sum(link.is_resuming for link in links),
            "seance_clients": joined,
            "seance_pending_upgrades": len(self._clients) - joined,
            "seance_held_clients": sum(len(link.syncs) for link in links),
            "seance_kept_bytes": sum(link.kept_bytes for link in links),
            "seance_queued_bytes": sum(link.queued_bytes for link in links),
            "seance_carrier_round_trip_seconds": _round_trips(links),
            "seance_links_attached_total": self._attached,
            "seance_links_detached_total": self._detached,
            "seance_links_lost_total": self._lost.labelled(),
            "seance_resumptions_total": self._resumptions.labelled(),
            "seance_streams_opened_total": self._opened,
            "seance_streams_ended_total": self._ended.labelled(),
            "seance_client_received_bytes_total": received_bytes,
            "seance_client_sent_bytes_total": sent_bytes,
            "seance_refusals_total": self._refusals.labelled(),
            "seance_limits_hit_total": self._limits.labelled(),
            "seance_clients_parked_total": self._parked,
            "seance_upgrade_seconds": self._upgrade,
            "seance_first_byte_seconds": self._first_byte,
        }
        relay = self._relay
        if relay is not None:
            reading |= {
                "seance_parked_clients": len(relay.parking),
                "seance_watchers": relay.presence.watcher_count,
                "seance_connections": relay.admission.open_count,
                "seance_unanswered_connections": relay.front.unanswered_count,
                "seance_draining": relay.is_draining,
            }
        if self._by_room:
            reading |= self._read_rooms()
        return reading

    def _read_rooms(self) -> dict[str, dict[tuple[str, ...], float]]:
        figures = {room: [0, *ended] for room, ended in self._rooms.items()}
        for client, is_joined in self._clients.items():
            if (of_room := figures.get(client.room)) is not None:
                of_room[0] += is_joined
                of_room[1] += client.received_bytes
                of_room[2] += client.sent_bytes
        names = ("seance_room_clients", "seance_room_received_bytes_total", "seance_room_sent_bytes_total")
        return {
            name: {(room,): numbers[at] for room, numbers in figures.items()} for at, name in enumerate(names)
        }

    def _of_room(self, room: str) -> list[int]:
        of_room = self._rooms.setdefault(room, [0, 0])
        self._rooms.move_to_end(room)
        if len(self._rooms) > MOST_ROOMS:
            self._rooms.popitem(last=False)
        return of_room


def _round_trips(links: list[Link]) -> dict[tuple[str, ...], float]:
    trips = [link.round_trip_seconds for link in links]
    known = [seconds for seconds in trips if seconds is not None]
    return {("median",): median(known), ("worst",): max(known)} if known else {}
