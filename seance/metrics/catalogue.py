"""All metrics by name, kind, unit and meaning. A test compares this list with docs/metrics.md.

Names follow the conventions of Prometheus: base units, and ``_total`` for a counter. No label has values
that clients choose; the exception is the room's name, which has to be enabled (``--metrics-rooms``) and is
limited.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["AGENT", "BUCKETS_SECONDS", "PROCESS", "RELAY", "Kind", "Metric"]


class Kind(enum.Enum):
    """The kind of a metric; the value is its name in the exposition format."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: The name on the page.
        kind: Gauge, counter or histogram.
        unit: The unit of its value; empty for a number of things.
        meaning: One sentence, for ``# HELP`` and for docs/metrics.md.
        labels: The names of its labels.
    """

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...] = ()


BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 15.0, 30.0)
"""From a loopback round trip to the 30 s after which Yjs clients give up."""

_G, _C, _H = Kind.GAUGE, Kind.COUNTER, Kind.HISTOGRAM

_BOTH = (
    Metric(
        "seance_build_info",
        _G,
        "",
        "Always 1; the labels are the versions.",
        ("version", "python", "twisted"),
    ),
    Metric(
        "seance_reactor_lag_seconds",
        _G,
        "seconds",
        "Longest delay of the event loop in the last minute; above 0.1 the process is overloaded.",
    ),
)

RELAY = (
    *_BOTH,
    Metric("seance_agents", _G, "", "Agents with an open carrier."),
    Metric("seance_rooms", _G, "", "Rooms with an agent, including agents that may resume."),
    Metric("seance_resuming_links", _G, "", "Links without a carrier that wait for a resumption."),
    Metric("seance_clients", _G, "", "Clients with an open WebSocket."),
    Metric("seance_pending_upgrades", _G, "", "Clients that wait for the response of the local server."),
    Metric("seance_held_clients", _G, "", "Clients that wait while others of their room load its document."),
    Metric("seance_parked_clients", _G, "", "Clients that wait for their agent to reconnect."),
    Metric("seance_watchers", _G, "", "Open streams of room status."),
    Metric("seance_connections", _G, "", "Open connections on the public port."),
    Metric("seance_unanswered_connections", _G, "", "Connections without a complete request head."),
    Metric("seance_kept_bytes", _G, "bytes", "Sent to agents and not acknowledged; buffered for resumption."),
    Metric("seance_queued_bytes", _G, "bytes", "Queued in streams."),
    Metric(
        "seance_carrier_round_trip_seconds",
        _G,
        "seconds",
        "Round-trip time of links: the median and the worst. A scrape starts a measurement, at most every "
        "ten seconds, for the next scrape.",
        ("links",),
    ),
    Metric("seance_draining", _G, "", "1 while the relay is stopping, else 0."),
    Metric("seance_links_attached_total", _C, "", "New links of agents, without resumptions."),
    Metric("seance_links_detached_total", _C, "", "Lost carriers of links that wait for a resumption."),
    Metric("seance_links_lost_total", _C, "", "Ended links.", ("reason",)),
    Metric("seance_resumptions_total", _C, "", "Outcomes of lost carriers.", ("outcome",)),
    Metric("seance_streams_opened_total", _C, "", "Streams opened to agents; one for each client."),
    Metric("seance_streams_ended_total", _C, "", "Ended streams.", ("reason",)),
    Metric(
        "seance_client_received_bytes_total",
        _C,
        "bytes",
        "Received from clients after the 101, including connected clients.",
    ),
    Metric(
        "seance_client_sent_bytes_total",
        _C,
        "bytes",
        "Sent to clients after the 101, including connected clients.",
    ),
    Metric("seance_refusals_total", _C, "", "Refused connections and upgrades.", ("code",)),
    Metric("seance_limits_hit_total", _C, "", "Limits reached without a response to the client.", ("limit",)),
    Metric("seance_clients_parked_total", _C, "", "Clients that started to wait for their agent."),
    Metric(
        "seance_upgrade_seconds",
        _H,
        "seconds",
        "Time from opening the stream to the 101, without waiting for an agent.",
    ),
    Metric(
        "seance_first_byte_seconds",
        _H,
        "seconds",
        "Time from opening the stream to the first byte after the 101.",
    ),
    Metric("seance_room_clients", _G, "", "Clients of one room; only with `--metrics-rooms`.", ("room",)),
    Metric(
        "seance_room_received_bytes_total",
        _C,
        "bytes",
        "Received from the clients of one room; only with `--metrics-rooms`.",
        ("room",),
    ),
    Metric(
        "seance_room_sent_bytes_total",
        _C,
        "bytes",
        "Sent to the clients of one room; only with `--metrics-rooms`.",
        ("room",),
    ),
)

AGENT = (
    *_BOTH,
    Metric("seance_agent_state", _G, "", "1 for the current state, 0 for the other states.", ("state",)),
    Metric("seance_agent_clients", _G, "", "Clients connected to the local server."),
    Metric("seance_agent_kept_bytes", _G, "bytes", "Sent to the relay and not acknowledged."),
    Metric(
        "seance_agent_carrier_round_trip_seconds",
        _G,
        "seconds",
        "Round-trip time of the link. A scrape starts a measurement for the next scrape.",
    ),
    Metric("seance_agent_links_total", _C, "", "Changes of the link.", ("change",)),
    Metric("seance_agent_refusals_total", _C, "", "Refusals by the relay or the agent.", ("code",)),
    Metric("seance_agent_streams_opened_total", _C, "", "Streams opened by the relay."),
    Metric("seance_agent_streams_ended_total", _C, "", "Ended streams.", ("reason",)),
    Metric(
        "seance_agent_local_sent_bytes_total",
        _C,
        "bytes",
        "Sent to the local server after the request heads.",
    ),
    Metric(
        "seance_agent_local_received_bytes_total",
        _C,
        "bytes",
        "Received from the local server, including response heads.",
    ),
    Metric(
        "seance_agent_local_dial_seconds",
        _H,
        "seconds",
        "Time from opening a stream to the connection to the local server.",
    ),
)

PROCESS = (
    Metric("process_virtual_memory_bytes", _G, "bytes", "Virtual memory."),
    Metric("process_resident_memory_bytes", _G, "bytes", "Memory in use."),
    Metric("process_start_time_seconds", _G, "seconds", "Start time of the process in Unix seconds."),
    Metric("process_cpu_seconds_total", _C, "seconds", "Processor time used."),
    Metric("process_open_fds", _G, "", "Open file descriptors; one for each connection."),
    Metric("process_max_fds", _G, "", "Limit of open file descriptors."),
)
"""Exposed by prometheus_client on Linux."""
