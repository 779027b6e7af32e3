"""Metrics of a relay: events are counted, everything else is read for each page.

The bytes of a client are added to the totals when it ends; those of connected clients are added up for each
page. So the totals are exact, and no counter is updated per message.
"""

from __future__ import annotations

from collections import OrderedDict
from statistics import median
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from seance.core import events
from seance.metrics.catalogue import RELAY
from seance.metrics.exposition import Exposition, Reading, bounded, build_labels, counts, sample
from seance.metrics.lag import ReactorLag

if TYPE_CHECKING:
    from seance.relay.rooms.agent_link import AgentLink
    from seance.relay.service import Relay

__all__ = ["RelayMetrics"]

MEASURE_SECONDS = 10.0
"""Minimum time between two measurements of the round trips, each a ping of 12 bytes per link."""

MAX_ROOMS = 1000
"""Rooms with three series each; one more replaces the room with the oldest last event."""


class RelayMetrics:
    """An observer that counts. Pass it to the relay, then call ``watch``, and run ``lag`` as a service.

    Args:
        reactor: The relay's reactor.
        by_room: Whether each room has series with its name.

    Attributes:
        lag: The service that measures the delay of the reactor.
        exposition: The page.
    """

    def __init__(self, reactor: IReactorTime, *, by_room: bool = False) -> None:
        self._reactor = reactor
        self._by_room = by_room
        self._measured_at = -MEASURE_SECONDS
        self._relay: Relay | None = None
        self._clients: dict[events.Client, bool] = {}
        self._received_bytes = 0
        self._sent_bytes = 0
        self._codes: set[str] = set()
        self._rooms: OrderedDict[str, list[int]] = OrderedDict()
        self.lag = ReactorLag(reactor)
        self.exposition = Exposition(RELAY, self._read)
        counter, histogram = self.exposition.counter, self.exposition.histogram
        self._opened = counter("seance_streams_opened_total")
        self._attached = counter("seance_links_attached_total")
        self._detached = counter("seance_links_detached_total")
        self._waiting = counter("seance_clients_parked_total")
        self._ended = counter("seance_streams_ended_total", events.CLIENT_REASONS)
        self._lost = counter("seance_links_lost_total", events.LINK_REASONS)
        self._resumptions = counter("seance_resumptions_total", events.RESUMPTIONS)
        self._limits = counter("seance_limits_hit_total", events.LIMITS)
        self._refusals = counter("seance_refusals_total")
        self._upgrade = histogram("seance_upgrade_seconds")
        self._first_byte = histogram("seance_first_byte_seconds")

    def watch(self, relay: Relay) -> None:
        """Read the values of ``relay`` from now on."""
        self._relay = relay

    def notify(self, event: events.Event) -> None:
        """Count an event."""
        match event:
            case events.Refused(code):
                self._refusals.labels(bounded(self._codes, code)).inc()
            case events.LimitHit(limit):
                self._limits.labels(limit).inc()
            case events.ClientWaiting():
                self._waiting.inc()
            case events.ClientBegan(client):
                self._opened.inc()
                self._clients[client] = False
            case events.ClientJoined(client, seconds):
                self._clients[client] = True
                self._upgrade.observe(seconds)
            case events.ClientAnswered(_, seconds):
                self._first_byte.observe(seconds)
            case events.ClientEnded(client, reason):
                self._count_ended(client, reason)
            case events.LinkChanged(room, events.LinkChange.ATTACHED):
                self._attached.inc()
                if self._by_room:
                    self._room_entry(room)
            case events.LinkChanged(_, events.LinkChange.DETACHED):
                self._detached.inc()
            case events.LinkChanged(_, events.LinkChange.LOST, reason):
                self._lost.labels(reason).inc()
            case events.ResumptionEnded(outcome):
                self._resumptions.labels(outcome).inc()

    def _count_ended(self, client: events.Client, reason: str) -> None:
        del self._clients[client]
        self._received_bytes += client.received_bytes
        self._sent_bytes += client.sent_bytes
        self._ended.labels(reason).inc()
        if self._by_room:
            entry = self._room_entry(client.room)
            entry[0] += client.received_bytes
            entry[1] += client.sent_bytes

    # -- values ----------------------------------------------------------------------------

    def figures(self) -> dict[str, object]:
        """Return the values for the dashboard as a JSON object: totals, which the page turns into rates."""
        links = self._measured_links()
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
            "parked": 0 if relay is None else len(relay.rooms.wait_queue),
            "connections": 0 if relay is None else relay.front.admission.open_count,
            "is_draining": relay is not None and relay.is_draining,
            "received_bytes": received_bytes,
            "sent_bytes": sent_bytes,
            "kept_bytes": sum(link.kept_bytes for link in links),
            "streams_opened": int(sample(self._opened, "_total")),
            "refusals": counts(self._refusals),
            "limits": counts(self._limits),
            "resumptions": counts(self._resumptions),
            "upgrades": int(sample(self._upgrade, "_count")),
            "upgrade_seconds": round(sample(self._upgrade, "_sum"), 6),
            "lag_seconds": round(self.lag.latest_seconds, 6),
            "round_trip_seconds": {name: round(one, 6) for (name,), one in trips.items()},
        }

    def _measured_links(self) -> list[AgentLink]:
        links = [] if self._relay is None else self._relay.rooms.links
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
        links = self._measured_links()
        joined = sum(self._clients.values())
        received_bytes, sent_bytes = self._bytes()
        reading: dict[str, float | dict[tuple[str, ...], float]] = {
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
            "seance_client_received_bytes_total": received_bytes,
            "seance_client_sent_bytes_total": sent_bytes,
        }
        relay = self._relay
        if relay is not None:
            reading |= {
                "seance_parked_clients": len(relay.rooms.wait_queue),
                "seance_watchers": relay.front.presence.watcher_count,
                "seance_connections": relay.front.admission.open_count,
                "seance_unanswered_connections": relay.front.unanswered_count,
                "seance_draining": relay.is_draining,
            }
        if self._by_room:
            reading |= self._read_rooms()
        return reading

    def _read_rooms(self) -> dict[str, dict[tuple[str, ...], float]]:
        figures = {room: [0, *ended] for room, ended in self._rooms.items()}
        for client, is_joined in self._clients.items():
            if (entry := figures.get(client.room)) is not None:
                entry[0] += is_joined
                entry[1] += client.received_bytes
                entry[2] += client.sent_bytes
        names = ("seance_room_clients", "seance_room_received_bytes_total", "seance_room_sent_bytes_total")
        return {
            name: {(room,): numbers[at] for room, numbers in figures.items()} for at, name in enumerate(names)
        }

    def _room_entry(self, room: str) -> list[int]:
        entry = self._rooms.setdefault(room, [0, 0])
        self._rooms.move_to_end(room)
        if len(self._rooms) > MAX_ROOMS:
            self._rooms.popitem(last=False)
        return entry


def _round_trips(links: list[AgentLink]) -> dict[tuple[str, ...], float]:
    trips = [link.round_trip_seconds for link in links]
    known = [seconds for seconds in trips if seconds is not None]
    return {("median",): median(known), ("worst",): max(known)} if known else {}
