"""The settings of a relay and of an agent, as two frozen dataclasses.

``seance.options.config`` makes them from flags, environment and config file; a program that embeds Seance
makes them itself. Every limit that a user may want to change is a field here. A field has its unit in its
name, and the reason for its default in the docstring of the class.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from seance.core.interfaces import Page
from seance.errors import ConfigError

__all__ = ["ROOM_NAME", "AgentSettings", "RelaySettings", "check_room", "has_tls"]

ROOM_NAME = re.compile(r"[A-Za-z0-9._~-]{1,128}")
"""A room name: characters that need no escaping in a URL path or query (RFC 3986, section 2.3)."""

DOT_SEGMENTS = (".", "..")
"""Not room names, because URL parsers resolve them as path segments."""

KIB = 1024
MIB = 1024 * KIB

MAX_HEAD_BYTES = 256 * KIB
"""Largest value of ``--head-bytes``. Agents accept this and the fields that a relay adds."""


def check_room(room: str) -> str:
    """Return ``room`` if it is a valid room name.

    Raises:
        ConfigError: ``room`` is empty, longer than 128 characters, or has a character that is not allowed.
    """
    if ROOM_NAME.fullmatch(room) is None or room in DOT_SEGMENTS:
        message = (
            f"The room name {room[:140]!r} is not usable: "
            "use 1 to 128 of the characters A-Z a-z 0-9 . _ ~ - and no spaces."
        )
        raise ConfigError(message, code="room_name")
    return room


def has_tls(listen: str) -> bool:
    """Return whether an endpoint string is one with TLS."""
    return re.match(r"(haproxy:)?ssl:", listen) is not None


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """The settings of a relay. Pass them to ``seance.relay.service.Relay``.

    Attributes:
        listen: Twisted server endpoint strings. Empty means port ``port`` on the loopback
            addresses of both families.
        port: The port for an empty ``listen``; 0 lets the system choose one.
        tls_cert: File with a certificate chain (PEM). Every listener then uses TLS; ``ssl:`` endpoints
            keep their own certificate.
        tls_key: File with the key (PEM); None if the key is in the certificate's file.
        agent_ca: File with the certificate authority for agents (PEM). An agent with a certificate of this
            authority needs no token; see ``seance.net.peer_certificate`` for the names in it.
        pad: The page at ``/c/ROOM``; without one the relay answers 426 there.
        auth_key: Files with keys that verify tokens; more than one during a key change.
        auth_jwks: File or ``https`` URL of a JSON Web Key Set with such keys.
        deny: File of revoked tokens, subjects and rooms.
        open: Allow listening on addresses other than loopback without authentication.
        head_bytes: Maximum length of a request head; node and h11 have 16 KiB, too.
        head_seconds: Timeout for the whole request head, counted from accept.
        upgrade_seconds: Timeout for the local server's response. Firefox gives up a pending upgrade after
            20 s.
        max_upgrade_seconds: Maximum of that timeout for an agent that asks for more. Clients other than
            browsers wait for a minute and longer.
        early_bytes: Maximum number of bytes that a client may send between its request head and the 101.
            Stock Yjs clients send none.
        half_close_seconds: After one direction of a connection has ended, the connection is closed if the
            other direction is silent for this time. hashicorp/yamux uses five minutes, too.
        unanswered_connections: Maximum number of connections without a complete request head. The next
            one closes the oldest, so that slow heads cannot keep other connections out.
        unanswered_connections_per_address: The same limit for one IPv4 address or IPv6 /64; not applied to
            loopback and trusted proxies. Two hundred browser tabs behind one NAT may reconnect together.
        streams_per_plain_agent: Maximum number of clients of an agent that negotiated no subprotocol;
            yamux-js allows 256 streams, rust-yamux ends the session at the 513th.
        streams_per_agent: Maximum number of clients of an agent that negotiated one.
        agent_origins: Origins of web pages that may attach as agents. Programs send no ``Origin``. Without
            this list, any web page could host a room on a relay that only the browser can reach.
        origins: Origins of web pages that may connect as clients; ``("*",)`` for all.
        trusted_proxy: Addresses or networks (CIDR) that may set the client address with
            ``X-Forwarded-For`` or the PROXY protocol.
        connections: Maximum number of open connections. Agents may use ``reserved_connections`` more.
        reserved_connections: Connections reserved for agents; beyond them the relay pauses accepting.
        connections_per_address: Maximum number of open connections of one IPv4 address or IPv6 /64. A
            school behind one NAT has some hundreds. Not applied to loopback, where proxies connect from.
        upgrades_per_address: Upgrades per second of one address; the burst is ten times this number.
            y-websocket reconnects every 2.5 s, so a hundred waiting tabs make 40. Clients, agents and
            status requests are counted separately; an agent that resumes is not counted.
        upgrades_per_room: Upgrades per second for one room, with the same burst. Counts only clients with a
            valid token.
        bytes_per_second_per_room: Rate limit for all clients of a room, both directions together; 0 for
            none.
        room_grace_seconds: Time for which the room of an agent with an identity stays reserved after the
            agent disconnected. Another agent in its room would receive the documents of its clients.
        known_room_seconds: Time for which a room is known after its agent disconnected: its clients may wait
            for the agent. Clients of an unknown room get 404. Ten minutes allow for a host who changes
            trains.
        park_seconds: Time for which a client waits for the agent of a known room. Firefox gives up a pending
            upgrade after 20 s.
        parked_per_room: Maximum number of clients that wait for one room; further ones are refused
            immediately. It equals ``streams_per_plain_agent`` and is a sixteenth of ``parked``, so that one
            room cannot fill the queue.
        parked: Maximum number of waiting clients in all: a fifth of ``connections``, and at most a fifth of
            the file descriptors of the process.
        resume_seconds: Time for which the relay keeps the clients of an agent that has lost its carrier; 0
            turns resumption off. y-websocket closes a silent socket after 30 s; other clients
            wait for minutes.
        resume_bytes: Maximum of unacknowledged bytes kept for one agent. At the limit the relay pauses
            reading from its clients. 4 MiB allow 320 Mbit/s at 100 ms.
        resume_bytes_in_all: The same for all agents together. Above four fifths of it the relay drops the
            sessions of the agents that have been disconnected longest; at the limit it accepts no new agent.
        initial_syncs: Number of clients of a room that load their document at the same time while the link
            is full; upgrades of further clients are delayed. A y-websocket client gives up if loading takes
            longer than 30 s.
        hold_seconds: Maximum of that delay; 0 turns it off. 15 s for the reason given at ``park_seconds``.
        watchers_per_room: Maximum number of status event streams for one room; each open page has one.
        watchers: The same for all rooms; at most the number that applies to ``parked``.
        stalled_seconds: A client that accepts no bytes for this time, while bytes wait for it, is
            disconnected.
        drain_seconds: Maximum duration of a graceful stop: agents move, clients are disconnected, the rest is
            aborted. Kubernetes kills after 30 s. A relay without clients stops sooner.
        drain_spread_seconds: Agents are asked to move at times spread evenly over this period; up to 45 s
            for a relay with thousands of agents.
        drain_try_seconds: Time for an agent to find another relay before its clients are disconnected.
        drain_clients_per_second: Clients disconnected per second, because they reconnect immediately and
            without jitter: a fifth of what one relay can accept. Higher if the drain would take too long.
        admin: Where the admin port (``seance.admin.port``) listens: a Twisted server endpoint string or
            ``none``; None for port 9090 on 127.0.0.1, if that is free.
        admin_token: Require a token on the admin port from loopback, too.
        admin_ca: File with the certificate authority for operators (PEM). A certificate of this authority
            replaces the token. The admin port then uses TLS with ``tls_cert``.
        metrics_rooms: Whether metrics have a series per room, labelled with the room's name.
        log_format: Format of the log (``seance.logs.format``): ``text`` or ``json``.
    """

    listen: tuple[str, ...] = ()
    port: int = 8080
    tls_cert: str | None = None
    tls_key: str | None = None
    agent_ca: str | None = None
    pad: Page | None = field(default=None, repr=False)
    auth_key: tuple[str, ...] = ()
    auth_jwks: str | None = None
    deny: str | None = None
    open: bool = False
    head_bytes: int = 16 * KIB
    head_seconds: float = 5.0
    upgrade_seconds: float = 15.0
    max_upgrade_seconds: float = 60.0
    early_bytes: int = 64 * KIB
    half_close_seconds: float = 300.0
    unanswered_connections: int = 4096
    unanswered_connections_per_address: int = 256
    streams_per_plain_agent: int = 256
    streams_per_agent: int = 16384
    agent_origins: tuple[str, ...] = ()
    origins: tuple[str, ...] = ("*",)
    trusted_proxy: tuple[str, ...] = ()
    connections: int = 20_000
    reserved_connections: int = 200
    connections_per_address: int = 1_000
    upgrades_per_address: int = 50
    upgrades_per_room: int = 500
    bytes_per_second_per_room: int = 0
    room_grace_seconds: float = 60.0
    known_room_seconds: float = 600.0
    park_seconds: float = 15.0
    parked_per_room: int = 256
    parked: int = 4000
    initial_syncs: int = 2
    hold_seconds: float = 15.0
    watchers_per_room: int = 256
    watchers: int = 4000
    resume_seconds: float = 45.0
    resume_bytes: int = 4 * MIB
    resume_bytes_in_all: int = 512 * MIB
    stalled_seconds: float = 90.0
    drain_seconds: float = 30.0
    drain_spread_seconds: float = 5.0
    drain_try_seconds: float = 5.0
    drain_clients_per_second: int = 200
    admin: str | None = None
    admin_token: bool = False
    admin_ca: str | None = None
    metrics_rooms: bool = False
    log_format: str = "text"

    def __post_init__(self) -> None:
        if self.head_bytes > MAX_HEAD_BYTES:
            raise ConfigError(
                f"--head-bytes is at most {MAX_HEAD_BYTES // KIB} KiB, because agents accept no "
                f"longer heads; it is set to {self.head_bytes} bytes."
            )
        if self.deny is not None and not self.auth_key and self.auth_jwks is None:
            raise ConfigError("--deny has no effect without --auth-key or --auth-jwks.")
        if self.tls_cert is None:
            for name in ("tls-key", "agent-ca", "admin-ca"):
                if getattr(self, name.replace("-", "_")) is not None:
                    raise ConfigError(f"--{name} needs a certificate; set --tls-cert.")
        elif self.listen and all(has_tls(one) for one in self.listen) and self.admin_ca is None:
            raise ConfigError("--tls-cert is unused: every --listen endpoint is already ssl:.")


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The settings of an agent. Pass them to ``seance.agent.service.Agent``.

    Attributes:
        room: The room to serve; see ``check_room``.
        relay: ``ws://`` or ``wss://`` URL of the relay, with a base path if it has one.
        tls_ca: File with the certificate authorities that the relay's certificate must come from (PEM);
            None for those of the system.
        tls_cert: File with a client certificate of the agent (PEM), for a relay that asks for one.
        tls_key: File with its key (PEM); None if the key is in the certificate's file.
        tls_insecure: Do not verify the relay's certificate; only for a relay on this machine.
        local: Address of the local server: ``HOST:PORT``, ``unix:PATH`` or ``tls://HOST:PORT``.
        local_ca: As ``tls_ca``, for a local server with ``tls://``.
        local_insecure: As ``tls_insecure``, for a local server with ``tls://``.
        identity: Where the agent's own key is: a file, ``auto`` for the user's state directory, or ``none``.
            ``seance.auth.agent_key.agent_identity`` makes an identity of it for ``Agent``. An ``Agent``
            without an identity has no key.
        token: Token for a relay that requires one.
        token_file: File that holds the token; read for each connection attempt and when it changes.
        keep_host: Send the public ``Host`` to the local server instead of its own.
        rewrite_origin: Replace an ``Origin`` that equals the public one by the local server's own.
        upgrade_seconds: Timeout for the first response of the local server. The agent asks the relay for it,
            and the relay limits it; None for the relay's default.
        head_bytes: Maximum length of a request head from the relay: the largest ``head_bytes`` of a relay
            and what the relay adds.
        head_seconds: Timeout for the whole request head on a stream.
        local_dial_seconds: Timeout for connecting to the local server.
        half_close_seconds: As for the relay.
        dial_seconds: Timeout for one attempt to connect to the relay, from name look-up to 101.
        backoff_base_seconds: Upper bound of the first random wait between attempts; it doubles with every
            failure (full jitter).
        backoff_cap_seconds: Largest upper bound of a wait.
        healthy_seconds: After a link that lasted this long, waits start at ``backoff_base_seconds`` again.
        resume: Ask the relay to keep the clients while a carrier is lost.
        plain: Offer no subprotocol, for a relay that is not Seance; ``resume`` then has no effect.
        resume_bytes: Maximum of bytes kept until the relay has acknowledged them.
        resume_backoff_cap_seconds: Largest upper bound of a wait while the relay keeps the clients, and in
            the first 15 s after a link was lost.
        streams: Maximum number of clients.
        drain_seconds: Maximum time for which a stop waits until queued data has been sent.
        admin: Where the admin port listens, as for the relay, but only on this machine; ``none`` for none.
        log_format: Format of the log (``seance.logs.format``): ``text`` or ``json``.
        status_json: Whether the commands write status changes to stdout as JSON lines, for a parent process
            (``seance.cli.status_lines``).
    """

    room: str
    relay: str = "ws://localhost:8080"
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_insecure: bool = False
    local: str = "localhost:1234"
    local_ca: str | None = None
    local_insecure: bool = False
    identity: str = "auto"
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    keep_host: bool = False
    rewrite_origin: bool = False
    upgrade_seconds: float | None = None
    head_bytes: int = MAX_HEAD_BYTES + 4 * KIB
    head_seconds: float = 10.0
    local_dial_seconds: float = 5.0
    half_close_seconds: float = 300.0
    dial_seconds: float = 20.0
    backoff_base_seconds: float = 0.5
    backoff_cap_seconds: float = 10.0
    healthy_seconds: float = 30.0
    resume: bool = True
    plain: bool = False
    resume_bytes: int = 4 * MIB
    resume_backoff_cap_seconds: float = 1.0
    streams: int = 16384
    drain_seconds: float = 2.0
    admin: str = "none"
    log_format: str = "text"
    status_json: bool = False

    def __post_init__(self) -> None:
        check_room(self.room)
        if self.keep_host and self.rewrite_origin:
            raise ConfigError(
                "--rewrite-origin and --keep-host cannot be combined: each makes Origin and Host equal."
            )
        if self.tls_key is not None and self.tls_cert is None:
            raise ConfigError("--tls-key needs a certificate; set --tls-cert.")
        for_relay = (self.tls_ca, self.tls_cert, self.tls_insecure or None)
        if any(for_relay) and not self.relay.lower().startswith("wss:"):
            raise ConfigError(
                "--tls-ca, --tls-cert and --tls-insecure need a --relay with wss://, not ws://."
            )
        for_local = (self.local_ca, self.local_insecure or None)
        if any(for_local) and not self.local.startswith("tls:"):
            raise ConfigError("--local-ca and --local-insecure need a --local with tls://.")
