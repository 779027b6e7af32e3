"""Metrics of an agent: events are counted, everything else is read for each page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from seance.agent.service import AgentState
from seance.core import events
from seance.metrics.catalogue import AGENT
from seance.metrics.exposition import Exposition, Reading, bounded, build_labels
from seance.metrics.lag import ReactorLag

if TYPE_CHECKING:
    from seance.agent.service import Agent

__all__ = ["AgentMetrics"]

LINK_STATES = tuple(state for state in AgentState if state is not AgentState.LOCAL_TROUBLE)
"""The states of the link. A failure of the local server is not one of them; it counts as a refusal."""

LOCAL_REFUSAL = "local_server_refused"
"""Has a series of value 0 from the start, because Prometheus sees no increase from nothing to 1."""


class AgentMetrics:
    """An observer that counts. Pass it to the agent, then call ``watch``, and run ``lag`` as a service.

    Attributes:
        lag: The service that measures the delay of the reactor.
        exposition: The page.
    """

    def __init__(self, reactor: IReactorTime) -> None:
        self._agent: Agent | None = None
        self._clients: dict[events.Client, bool] = {}
        self._received_bytes = 0
        self._sent_bytes = 0
        self._codes = {LOCAL_REFUSAL}
        self.lag = ReactorLag(reactor)
        self.exposition = Exposition(AGENT, self._read)
        counter = self.exposition.counter
        self._opened = counter("seance_agent_streams_opened_total")
        self._ended = counter("seance_agent_streams_ended_total", events.CLIENT_REASONS)
        self._changes = counter("seance_agent_links_total", (change.value for change in events.LinkChange))
        self._refusals = counter("seance_agent_refusals_total", self._codes)
        self._dial = self.exposition.histogram("seance_agent_local_dial_seconds")

    def watch(self, agent: Agent) -> None:
        """Read the values of ``agent`` from now on."""
        self._agent = agent

    def notify(self, event: events.Event) -> None:
        """Count an event."""
        match event:
            case events.Refused(code):
                self._refusals.labels(bounded(self._codes, code)).inc()
            case events.ClientBegan(client):
                self._opened.inc()
                self._clients[client] = False
            case events.ClientJoined(client, seconds):
                self._clients[client] = True
                self._dial.observe(seconds)
            case events.ClientEnded(client, reason):
                del self._clients[client]
                self._received_bytes += client.received_bytes
                self._sent_bytes += client.sent_bytes
                self._ended.labels(reason).inc()
            case events.LinkChanged(change=change):
                self._changes.labels(change.value).inc()

    def _read(self) -> Reading:
        clients = self._clients
        reading: dict[str, float | dict[tuple[str, ...], float]] = {
            "seance_build_info": build_labels(),
            "seance_reactor_lag_seconds": self.lag.worst_seconds,
            "seance_agent_clients": sum(clients.values()),
            "seance_agent_local_sent_bytes_total": self._received_bytes
            + sum(client.received_bytes for client in clients),
            "seance_agent_local_received_bytes_total": self._sent_bytes
            + sum(client.sent_bytes for client in clients),
        }
        agent = self._agent
        if agent is not None:
            now = agent.status.state
            reading["seance_agent_state"] = {(one.value,): one is now for one in LINK_STATES}
            relay_link = agent.relay_link
            if relay_link is not None:
                relay_link.measure()
                reading["seance_agent_kept_bytes"] = relay_link.kept_bytes
                if relay_link.round_trip_seconds is not None:
                    reading["seance_agent_carrier_round_trip_seconds"] = relay_link.round_trip_seconds
        return reading
