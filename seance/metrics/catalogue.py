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
        "seance_build_info", _G, "", "Always 1; the labels say what runs.", ("version", "python", "twisted")
    ),
    Metric(
        "seance_reactor_lag_seconds",
        _G,
        "seconds",
        "How late the event loop was at worst in the last minute; above 0.1 it has too much to do.",
    ),
)

RELAY = (
    *_BOTH,
    Metric("seance_agents", _G, "", "Agents whose carrier is open."),
    Metric("seance_rooms", _G, "", "Rooms that are served, those of agents that may come back included."),
    Metric("seance_resuming_links", _G, "", "Links whose carrier is lost and whose clients are kept."),
    Metric("seance_clients", _G, "", "Clients that have their 101 and are spliced."),
    Metric("seance_pending_upgrades", _G, "", "Clients that wait for the local server's answer."),
    Metric("seance_held_clients", _G, "", "Clients that wait while others of their room load its document."),
    Metric("seance_parked_clients", _G, "", "Clients that wait for their agent to come back."),
    Metric("seance_watchers", _G, "", "Pages that follow whether an agent is there."),
    Metric("seance_connections", _G, "", "Open connections on the public port, of whatever kind."),
    Metric("seance_unanswered_connections", _G, "", "Connections that have not sent a whole head yet."),
    Metric("seance_kept_bytes", _G, "bytes", "Sent to agents and not acknowledged, kept for resumption."),
    Metric("seance_queued_bytes", _G, "bytes", "Waiting in streams for a carrier to take it."),
    Metric(
        "seance_carrier_round_trip_seconds",
        _G,
        "seconds",
        "How long links take there and back: the median of all, and the worst. Measured when it is read, at "
        "most every ten seconds, for the next reading.",
        ("links",),
    ),
    Metric("seance_draining", _G, "", "1 while the relay is stopping, else 0."),
    Metric("seance_links_attached_total", _C, "", "Agents that have attached anew."),
    Metric("seance_links_detached_total", _C, "", "Carriers that were lost and whose clients were kept."),
    Metric("seance_links_lost_total", _C, "", "Links that are over.", ("reason",)),
    Metric("seance_resumptions_total", _C, "", "What came of lost carriers.", ("outcome",)),
    Metric("seance_streams_opened_total", _C, "", "Streams that were opened to agents, one for each client."),
    Metric("seance_streams_ended_total", _C, "", "Streams that are over.", ("reason",)),
    Metric(
        "seance_client_received_bytes_total",
        _C,
        "bytes",
        "What clients have sent behind their 101, those that are still there included.",
    ),
    Metric(
        "seance_client_sent_bytes_total",
        _C,
        "bytes",
        "What was written to clients behind their 101, those that are still there included.",
    ),
    Metric("seance_refusals_total", _C, "", "Refused connections and upgrades.", ("code",)),
    Metric("seance_limits_hit_total", _C, "", "Bounds that were reached and answer nobody.", ("limit",)),
    Metric("seance_clients_parked_total", _C, "", "Clients that have begun to wait for their agent."),
    Metric(
        "seance_upgrade_seconds",
        _H,
        "seconds",
        "From the stream's opening to the 101; waiting for an agent not included.",
    ),
    Metric(
        "seance_first_byte_seconds",
        _H,
        "seconds",
        "From the stream's opening to the first byte behind the 101.",
    ),
    Metric("seance_room_clients", _G, "", "Clients of one room; only with `--metrics-rooms`.", ("room",)),
    Metric(
        "seance_room_received_bytes_total",
        _C,
        "bytes",
        "What the clients of one room have sent; only with `--metrics-rooms`.",
        ("room",),
    ),
    Metric(
        "seance_room_sent_bytes_total",
        _C,
        "bytes",
        "What was written to the clients of one room; only with `--metrics-rooms`.",
        ("room",),
    ),
)

AGENT = (
    *_BOTH,
    Metric(
        "seance_agent_state", _G, "", "1 for what the agent is doing, 0 for the other states.", ("state",)
    ),
    Metric("seance_agent_clients", _G, "", "Clients that are spliced with the local server."),
    Metric("seance_agent_kept_bytes", _G, "bytes", "Sent to the relay and not acknowledged."),
    Metric(
        "seance_agent_carrier_round_trip_seconds",
        _G,
        "seconds",
        "How long the link takes there and back. Measured when it is read, for the next reading.",
    ),
    Metric("seance_agent_links_total", _C, "", "What has happened to the link.", ("change",)),
    Metric("seance_agent_refusals_total", _C, "", "What the relay or the agent has refused.", ("code",)),
    Metric("seance_agent_streams_opened_total", _C, "", "Streams that the relay has opened."),
    Metric("seance_agent_streams_ended_total", _C, "", "Streams that are over.", ("reason",)),
    Metric(
        "seance_agent_local_sent_bytes_total",
        _C,
        "bytes",
        "What clients have sent to the local server behind their heads.",
    ),
    Metric(
        "seance_agent_local_received_bytes_total",
        _C,
        "bytes",
        "What the local server has sent to clients, its answers to their heads included.",
    ),
    Metric("seance_agent_local_dial_seconds", _H, "seconds", "From a stream's opening to the local server."),
)

PROCESS = (
    Metric("process_virtual_memory_bytes", _G, "bytes", "Virtual memory."),
    Metric("process_resident_memory_bytes", _G, "bytes", "Memory in use."),
    Metric("process_start_time_seconds", _G, "seconds", "When the process began, in Unix time."),
    Metric("process_cpu_seconds_total", _C, "seconds", "Processor time used."),
    Metric("process_open_fds", _G, "", "Open file descriptors; one for each connection."),
    Metric("process_max_fds", _G, "", "How many there may be."),
)
"""Exposed by prometheus_client on Linux."""
