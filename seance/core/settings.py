"""The settings of a relay and of an agent, as two frozen dataclasses.

``seance.options.config`` makes them from flags, environment and config file; a program that embeds Seance
makes them itself. The fields are the options: each carries its description, from which ``--help``, the config
templates and the reference are generated. A new option is one field here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from seance.core import option_field as of
from seance.core.interfaces import Page
from seance.core.option_field import describe, document_options, option
from seance.errors import ConfigError

__all__ = ["MAX_HEAD_BYTES", "ROOM_NAME", "AgentSettings", "RelaySettings", "check_room", "has_tls"]

ROOM_NAME = re.compile(r"[A-Za-z0-9._~-]{1,128}")
"""The unreserved characters of a URL, which need no escaping in paths and queries (RFC 3986, 2.3)."""

DOT_SEGMENTS = (".", "..")
"""Not room names: URL parsers remove them from a path (RFC 3986, 5.2.4)."""

KIB = 1024
MIB = 1024 * KIB

MAX_HEAD_BYTES = 256 * KIB
"""The maximum of a relay's ``head_bytes``. Agents accept such a head and the fields that a relay adds."""


def check_room(room: str) -> str:
    """Return ``room`` if it is a valid room name.

    Raises:
        ConfigError: The name is empty, longer than 128 characters or has other characters.
    """
    if ROOM_NAME.fullmatch(room) is None or room in DOT_SEGMENTS:
        message = (
            f"The room name {room[:140]!r} is not usable: "
            "use 1 to 128 of the characters A-Z a-z 0-9 . _ ~ - and no spaces."
        )
        raise ConfigError(message, code="room_name")
    return room


def has_tls(listen: str) -> bool:
    """Return whether an endpoint string has its own TLS certificate."""
    return re.match(r"(haproxy:)?ssl:", listen) is not None


@document_options
@dataclass(frozen=True, slots=True)
class RelaySettings:
    """The settings of a relay. Pass them to ``seance.relay.service.Relay``.

    Attributes:
        port: The port on both loopback addresses if ``listen`` is empty; 0 lets the system choose one.
    """

    listen: tuple[str, ...] = option(
        (),
        of.LISTEN_ENDPOINT,
        "endpoint to listen on: PORT (on both loopback addresses), IP:PORT, or a Twisted endpoint such as "
        "tcp:8080, ssl:443:... or unix:PATH; without this option port 8080 on both loopback addresses",
        group="Listening",
        is_common=True,
    )
    port: int = 8080
    tls_cert: str | None = option(
        None,
        of.FILE,
        "certificate chain (PEM) for TLS on every --listen endpoint except ssl: endpoints",
        is_common=True,
    )
    tls_key: str | None = option(
        None,
        of.FILE,
        "private key (PEM) of --tls-cert, if it is not in the same file",
        is_common=True,
    )
    trusted_proxy: tuple[str, ...] = option(
        (),
        of.NETWORK,
        "address or network of a trusted reverse proxy: its X-Forwarded-For and PROXY protocol are used",
        is_common=True,
    )
    pad: Page | None = field(
        default=None,
        repr=False,
        metadata=describe(of.FLAG, "serve a shared text editor to browsers at /c/ROOM", is_common=True),
    )
    auth_key: tuple[str, ...] = option(
        (),
        of.FILE,
        "file with a key that verifies tokens, as written by seance keygen; repeat the option to rotate keys",
        group="Access",
        is_common=True,
    )
    auth_jwks: str | None = option(
        None,
        of.FILE_OR_URL,
        "JWK set with further keys: a file, or an https URL that the relay fetches periodically",
        is_common=True,
    )
    deny: str | None = option(
        None,
        of.FILE,
        "file of revoked tokens, subjects and rooms: one jti:ID, sub:NAME or room:NAME per line",
        is_common=True,
    )
    open: bool = option(
        False,
        of.FLAG,
        "allow listening beyond loopback without keys: any agent and any client can then connect",
        is_common=True,
    )
    agent_ca: str | None = option(
        None, of.FILE, "private CA (PEM): an agent with a certificate from this CA needs no token"
    )
    origins: tuple[str, ...] = option(
        ("*",),
        of.ANY_ORIGIN,
        "origin of web pages that may connect as clients; * allows all pages",
        is_common=True,
    )
    agent_origins: tuple[str, ...] = option(
        (),
        of.ORIGIN,
        "origin of web pages that may connect as agents; without this option only programs may",
        note="Programs send no Origin. Without this check, a hostile web page could act as an agent on a "
        "relay that only its visitor can reach.",
    )
    admin: str | None = option(
        None,
        of.ADMIN_ENDPOINT,
        "where operators reach health, metrics, rooms and the dashboard: PORT on 127.0.0.1, an endpoint as "
        "for --listen, or none; without this option port 9090 on 127.0.0.1 if it is free",
        group="Monitoring",
        is_common=True,
    )
    admin_token: bool = option(
        False,
        of.FLAG,
        "require a token of role admin on --admin from this machine too; other machines always need one",
    )
    admin_ca: str | None = option(
        None,
        of.FILE,
        "private CA (PEM): an operator with a certificate from this CA needs no token; --admin then uses TLS "
        "with --tls-cert",
    )
    metrics_rooms: bool = option(
        False, of.FLAG, "add metrics with the name of the room as a label, for at most 1,000 rooms"
    )
    log_format: str = option(
        "text", of.LOG_FORMAT, "format of the log: text, or json with one object per line", is_common=True
    )
    head_bytes: int = option(
        16 * KIB,
        of.SIZE,
        "maximum size of a request head; at most 256KiB",
        note="Node and h11 have the same default.",
        group="Handshake",
    )
    head_seconds: float = option(
        5.0, of.SECONDS, "time from accepting a connection to the end of its request head"
    )
    upgrade_seconds: float = option(
        15.0,
        of.SECONDS,
        "time for the local server to answer an upgrade request",
        note="Firefox closes a pending upgrade after 20 s.",
    )
    max_upgrade_seconds: float = option(
        60.0,
        of.SECONDS,
        "maximum of the time that an agent may request with its own --upgrade-seconds",
        note="Clients other than browsers wait for a minute or longer.",
    )
    early_bytes: int = option(
        64 * KIB,
        of.SIZE,
        "maximum size of data that a client may send before the local server has answered",
        note="The usual clients send nothing before the 101 response.",
    )
    unanswered_connections: int = option(
        4096,
        of.COUNT,
        "maximum number of connections with an incomplete request head; one more closes the oldest",
        note="Slow heads therefore cannot keep other connections out.",
    )
    unanswered_connections_per_address: int = option(
        256,
        of.COUNT,
        "the same maximum for one IPv4 address or IPv6 /64; one more closes the oldest of this address",
        note="Loopback and trusted proxies are not counted. Two hundred tabs behind one NAT may reconnect "
        "together.",
    )
    connections: int = option(
        20_000,
        of.COUNT,
        "maximum number of open connections, without --reserved-connections",
        group="Connections and rates",
    )
    reserved_connections: int = option(
        200,
        of.COUNT,
        "additional connections, reserved for agents",
        note="The relay stops accepting connections when these are used up too.",
    )
    connections_per_address: int = option(
        1_000,
        of.COUNT,
        "maximum number of open connections of one IPv4 address or IPv6 /64; loopback is not counted",
        note="A school behind one NAT has some hundreds. Connections from loopback come from a reverse "
        "proxy.",
    )
    upgrades_per_address: int = option(
        50,
        of.COUNT,
        "maximum number of upgrades per second of one address; a burst may have ten times as many",
        note="Clients, agents and status requests are counted separately; an agent that resumes is not "
        "counted. y-websocket reconnects every 2.5 s, so a hundred waiting tabs make 40 upgrades per second.",
    )
    upgrades_per_room: int = option(
        500,
        of.COUNT,
        "maximum number of upgrades per second for one room; a burst may have ten times as many",
        note="Only requests with a valid token are counted.",
    )
    bytes_per_second_per_room: int = option(
        0,
        of.RATE,
        "maximum data rate of all clients of a room, in bytes per second, both directions together; 0 for no "
        "limit",
    )
    streams_per_agent: int = option(
        16384, of.COUNT, "maximum number of simultaneous clients of a Seance agent"
    )
    streams_per_plain_agent: int = option(
        256,
        of.COUNT,
        "maximum number of simultaneous clients of an agent without a subprotocol",
        note="yamux-js stops at 256 streams; rust-yamux fails at 513.",
    )
    half_close_seconds: float = option(
        300.0,
        of.SECONDS,
        "maximum silence of one direction of a connection after the other direction has ended",
        note="hashicorp/yamux has the same five minutes.",
    )
    stalled_seconds: float = option(
        90.0, of.SECONDS, "time after which a client that does not read its pending data is disconnected"
    )
    room_grace_seconds: float = option(
        60.0,
        of.SECONDS,
        "time for which a room stays reserved for an agent that has disconnected, if the agent has an "
        "identity",
        note="Another agent would otherwise receive the documents of the waiting clients.",
        group="Rooms without a connected agent",
    )
    known_room_seconds: float = option(
        600.0,
        of.SECONDS,
        "time after the agent's disconnect during which clients may wait for a room; later they get 404",
        note="Clients cannot wait for a room that never had an agent.",
    )
    park_seconds: float = option(
        15.0,
        of.SECONDS,
        "time that a client waits for an agent that was connected within --known-room-seconds",
        note="Firefox closes a pending upgrade after 20 s.",
    )
    parked_per_room: int = option(
        256,
        of.COUNT,
        "maximum number of clients that wait for the agent of one room",
        note="Further clients are rejected immediately. This is the client limit of a plain agent and a "
        "sixteenth of --parked, so one room cannot fill the wait queue.",
    )
    parked: int = option(
        4000,
        of.COUNT,
        "maximum number of clients that wait for agents, in total",
        note="A fifth of --connections; the relay lowers it to a fifth of the connections that its file "
        "descriptors allow.",
    )
    resume_seconds: float = option(
        45.0,
        of.SECONDS_OR_ZERO,
        "time for which the clients of an agent are kept after its connection is lost; 0 disables resuming",
        note="y-websocket closes a silent connection after 30 s; other clients wait for minutes.",
    )
    resume_bytes: int = option(
        4 * MIB,
        of.SIZE,
        "maximum size of unacknowledged data that is kept for one agent",
        note="Beyond it, the relay stops reading from the agent's clients. 4 MiB allow 320 Mbit/s at 100 ms.",
    )
    resume_bytes_in_all: int = option(
        512 * MIB,
        of.SIZE,
        "maximum size of unacknowledged data that is kept for all agents together",
        note="Beyond four fifths, the relay gives up the agents that have been away longest; at the maximum "
        "it accepts no further agent.",
    )
    initial_syncs: int = option(
        2,
        of.COUNT,
        "number of clients of a room that load their document at a time over a saturated link; others are "
        "held",
        note="A client gives up if loading takes more than 30 s.",
        group="Initial syncs and room status",
    )
    hold_seconds: float = option(
        15.0,
        of.SECONDS_OR_ZERO,
        "maximum time for which a client is held while others load; 0 disables holding",
    )
    watchers_per_room: int = option(
        256,
        of.COUNT,
        "maximum number of pages that follow the status of one room",
        note="Each open page holds one connection.",
    )
    watchers: int = option(
        4000,
        of.COUNT,
        "maximum number of pages that follow the status of rooms, in total",
        note="The relay lowers it like --parked.",
    )
    drain_seconds: float = option(
        30.0,
        of.SECONDS,
        "maximum duration of a shutdown: agents move, clients are disconnected, remaining connections are "
        "cut",
        note="Kubernetes kills a process after 30 s.",
        group="Shutdown",
    )
    drain_spread_seconds: float = option(
        5.0,
        of.SECONDS,
        "period over which a shutdown spreads its requests to agents to move",
        note="Use up to 45 s if the relay has thousands of agents.",
    )
    drain_try_seconds: float = option(
        5.0,
        of.SECONDS,
        "time for an agent to find another relay during a shutdown, before its clients are disconnected",
    )
    drain_clients_per_second: int = option(
        200,
        of.COUNT,
        "number of clients that a shutdown disconnects per second; more if --drain-seconds is too short for "
        "that",
        note="Clients reconnect immediately and without jitter; 200 is a fifth of what one relay can accept.",
    )

    def __post_init__(self) -> None:
        if self.head_bytes > MAX_HEAD_BYTES:
            raise ConfigError(
                f"--head-bytes is at most {MAX_HEAD_BYTES // KIB} KiB, because agents accept no longer heads;"
                f" {self.head_bytes} bytes are more."
            )
        if self.deny is not None and not self.auth_key and self.auth_jwks is None:
            raise ConfigError("--deny has no effect without --auth-key or --auth-jwks.")
        if self.tls_cert is None:
            for name in ("tls-key", "agent-ca", "admin-ca"):
                if getattr(self, name.replace("-", "_")) is not None:
                    raise ConfigError(f"--{name} requires --tls-cert.")
        elif self.listen and all(has_tls(one) for one in self.listen) and self.admin_ca is None:
            raise ConfigError("--tls-cert is unused: every --listen endpoint is already ssl:.")


@document_options
@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The settings of an agent. Pass them to ``seance.agent.service.Agent``."""

    room: str = field(
        metadata=describe(
            of.ROOM, "room to serve", group="Room and relay", is_common=True, aliases=("ROOM_ID",)
        )
    )
    relay: str = option(
        "ws://localhost:8080",
        of.RELAY_URL,
        "relay to connect to: ws:// or wss:// and a host, with the base path if there is one",
        is_common=True,
        aliases=("RELAY_URL",),
    )
    token: str | None = field(
        default=None,
        repr=False,
        metadata=describe(of.TOKEN, "access token, for a relay that requires tokens", is_common=True),
    )
    token_file: str | None = option(
        None,
        of.FILE,
        "file with the access token; read again before each connection attempt and when it changes",
        is_common=True,
    )
    identity: str = option(
        "auto",
        of.FILE,
        "file with the private key that identifies the agent, created if missing; auto: in the user's state "
        "folder; none: no key",
        note="A program that embeds an agent passes ``seance.agent_identity(settings.identity)`` to "
        "``Agent``.",
        is_common=True,
    )
    tls_ca: str | None = option(
        None,
        of.FILE,
        "CA certificates (PEM) to trust for the relay, instead of the system's",
        is_common=True,
    )
    tls_cert: str | None = option(None, of.FILE, "certificate (PEM) for a relay that requests one")
    tls_key: str | None = option(
        None, of.FILE, "private key (PEM) of --tls-cert, if it is not in the same file"
    )
    tls_insecure: bool = option(
        False, of.FLAG, "do not verify the relay's certificate; only for a relay on this machine"
    )
    local: str = option(
        "localhost:1234",
        of.LOCAL_SERVER,
        "local server: HOST:PORT, PORT, unix:PATH or tls://HOST:PORT",
        group="Local server",
        is_common=True,
        aliases=("LOCAL_HOST", "LOCAL_PORT"),
    )
    local_ca: str | None = option(None, of.FILE, "CA certificates (PEM) to trust for a tls:// local server")
    local_insecure: bool = option(
        False,
        of.FLAG,
        "do not verify the certificate of a tls:// local server; only for a server on this machine",
    )
    keep_host: bool = option(
        False,
        of.FLAG,
        "send the public Host to the local server instead of the local server's address",
        is_common=True,
    )
    rewrite_origin: bool = option(
        False,
        of.FLAG,
        "replace an Origin that equals the public one by the local server's own, for servers that compare "
        "Origin with Host; other Origins stay",
        is_common=True,
    )
    local_dial_seconds: float = option(5.0, of.SECONDS, "time for the local server to accept a connection")
    upgrade_seconds: float | None = option(
        None,
        of.SECONDS,
        "time for the local server to answer an upgrade request; the relay's --max-upgrade-seconds limits "
        "it, and its --upgrade-seconds is the default",
    )
    admin: str = option(
        "none",
        of.ADMIN_ENDPOINT,
        "where health and metrics are served, on this machine only: PORT on 127.0.0.1, an endpoint, or none",
        group="Monitoring",
        is_common=True,
    )
    log_format: str = option(
        "text", of.LOG_FORMAT, "format of the log: text, or json with one object per line", is_common=True
    )
    status_json: bool = option(
        False,
        of.FLAG,
        "write the status of the agent to stdout for a parent process, one JSON object per line; the log "
        "then goes to stderr",
        is_common=True,
    )
    streams: int = option(16384, of.COUNT, "maximum number of simultaneous clients", group="Limits")
    head_bytes: int = option(
        MAX_HEAD_BYTES + 4 * KIB,
        of.SIZE,
        "maximum size of a request head from the relay",
        note="The maximum of a relay, and 4 KiB for the fields that the relay adds.",
    )
    head_seconds: float = option(10.0, of.SECONDS, "time for a new stream to deliver its request head")
    half_close_seconds: float = option(
        300.0,
        of.SECONDS,
        "maximum silence of one direction of a connection after the other direction has ended",
    )
    dial_seconds: float = option(
        20.0,
        of.SECONDS,
        "time for one attempt to connect to the relay, from the name lookup to the 101 response",
        group="Reconnecting",
    )
    backoff_base_seconds: float = option(
        0.5,
        of.SECONDS,
        "maximum delay before the second attempt to connect; it doubles with each failure",
        note="Each delay is random between zero and its maximum (full jitter).",
    )
    backoff_cap_seconds: float = option(10.0, of.SECONDS, "maximum delay between attempts to connect")
    healthy_seconds: float = option(
        30.0, of.SECONDS, "duration of a connection after which the delays start again at the first"
    )
    resume: bool = option(
        True, of.FLAG, "ask the relay to keep the clients while the connection to it is lost"
    )
    plain: bool = option(
        False,
        of.FLAG,
        "offer no subprotocol, for relays of other projects that speak only yamux; turns --resume off",
    )
    resume_bytes: int = option(
        4 * MIB, of.SIZE, "maximum size of unacknowledged data that is kept for the relay"
    )
    resume_backoff_cap_seconds: float = option(
        1.0,
        of.SECONDS,
        "maximum delay between attempts to connect while the relay keeps the clients",
        note="It also holds for the first 15 s after a connection was lost.",
    )
    drain_seconds: float = option(
        2.0, of.SECONDS, "maximum time for which a shutdown waits until queued data is sent", group="Shutdown"
    )

    def __post_init__(self) -> None:
        check_room(self.room)
        if self.keep_host and self.rewrite_origin:
            raise ConfigError(
                "--rewrite-origin and --keep-host exclude each other: each makes Origin and Host equal."
            )
        if self.tls_key is not None and self.tls_cert is None:
            raise ConfigError("--tls-key requires --tls-cert.")
        for_relay = (self.tls_ca, self.tls_cert, self.tls_insecure or None)
        if any(for_relay) and not self.relay.lower().startswith("wss:"):
            raise ConfigError(
                "--tls-ca, --tls-cert and --tls-insecure need a --relay with wss://, not ws://."
            )
        for_local = (self.local_ca, self.local_insecure or None)
        if any(for_local) and not self.local.startswith("tls:"):
            raise ConfigError("--local-ca and --local-insecure need a --local with tls://.")
