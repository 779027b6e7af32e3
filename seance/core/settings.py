"""What a relay and an agent can be told, as two frozen values.

Not the place where options are parsed: ``seance.options.config`` makes these from flags, environment
and file; a program that embeds Seance makes them itself. Every bound that a person may want to
move is a field here, with its unit in its name and the reason for its default beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from seance.core.interfaces import Page
from seance.errors import ConfigError

__all__ = ["ROOM_NAME", "AgentSettings", "RelaySettings", "check_room", "has_tls"]

ROOM_NAME = re.compile(r"[A-Za-z0-9._~-]{1,128}")
"""The alphabet of a room: what stands in a URL path and query without escaping (RFC 3986, 2.3)."""

DOT_SEGMENTS = (".", "..")
"""Not rooms: every URL parser takes them for steps in a path."""

KIB = 1024
MIB = 1024 * KIB

MAX_HEAD_BYTES = 256 * KIB
"""The longest head that a relay can be told to take. Agents take that, and what a relay adds to it."""


def check_room(room: str) -> str:
    """Return ``room`` if it is a room name, for whoever takes one from a person.

    Raises:
        ConfigError: It is empty, longer than 128 characters or holds other characters.
    """
    if ROOM_NAME.fullmatch(room) is None or room in DOT_SEGMENTS:
        sentence = (
            f"The room name {room[:140]!r} is not usable: "
            "use 1 to 128 of the characters A-Z a-z 0-9 . _ ~ - without spaces."
        )
        raise ConfigError(sentence, code="room_name")
    return room


def has_tls(listen: str) -> bool:
    """Whether an endpoint string brings its own TLS."""
    return re.match(r"(haproxy:)?ssl:", listen) is not None


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """What a relay can be told. Pass it to ``seance.relay.service.Relay``.

    Attributes:
        listen: Twisted server endpoint strings. Empty means port ``port`` on the loopback
            addresses of both families.
        port: The port that an empty ``listen`` means; 0 lets the system choose.
        tls_cert: A certificate chain, PEM: everything that listens speaks TLS then, but for
            ``ssl:`` endpoints, which do already.
        tls_key: Its key; None: it is in the certificate's file.
        agent_ca: The authority of agents' certificates, PEM. An agent that shows one needs no token;
            see ``seance.net.peer_certificate`` for what it says.
        pad: What a browser gets at ``/c/ROOM``; None answers 426 there.
        auth_key: Files with the keys that sign tokens; several for changing them.
        auth_jwks: A file or ``https`` URL with such keys of somebody else.
        deny: A file with what was taken back: tokens, subjects, rooms.
        open: Listen beyond loopback although anybody may enter.
        head_bytes: The longest request head; 16 KiB is what node and h11 allow.
        head_seconds: A connection must have sent its whole head by then, counted from accept.
        upgrade_seconds: The local server must have answered by then. Firefox gives up on a
            pending upgrade at 20 s (yjs.md, fact 2).
        max_upgrade_seconds: The same for an agent that asks for more, at most. Clients other than
            browsers wait for a minute and longer.
        early_bytes: What a client may send between its head and the 101 of the local server.
            A stock client sends nothing before the 101, so this is generous.
        half_close_seconds: After one direction has ended, the other may be silent for so long.
            hashicorp/yamux has the same five minutes.
        unanswered_connections: Connections that have not sent a whole head yet, in all. The
            next one closes the oldest, so that slow heads cannot keep good ones out.
        unanswered_connections_per_address: The same for one IPv4 address or IPv6 /64. Loopback and
            trusted proxies are not counted. Two hundred tabs behind one NAT may come back at once.
        streams_per_plain_agent: Clients at a time for an agent that negotiated nothing; yamux-js
            stops at 256, rust-yamux dies at 513 (yamux.md 1.2, row 7).
        streams_per_agent: Clients at a time for an agent of our own.
        agent_origins: Web pages that may attach as agents. Programs send no ``Origin``; a page
            that does would otherwise be able to host a room on a relay that only it can reach.
        origins: Web pages that may connect as clients; ``("*",)`` for all of them.
        trusted_proxy: Addresses or networks (CIDR) whose ``X-Forwarded-For`` and PROXY protocol
            are believed.
        connections: Open connections in all. Agents may use ``reserved_connections`` more.
        reserved_connections: Connections that clients cannot take; accepting pauses beyond.
        connections_per_address: Open connections of one IPv4 address or IPv6 /64; a school behind
            one NAT is some hundreds. Loopback is not counted: behind it stands a proxy.
        upgrades_per_address: Upgrades a second of one address, over time; ten seconds' worth may
            come at once. y-websocket redials every 2.5 s: a hundred waiting tabs are 40. Clients, agents
            and questions for the status have each as many, and an agent that resumes is not counted.
        upgrades_per_room: Upgrades a second for one room, likewise; of those whose token is good.
        bytes_per_second_per_room: What all clients of a room may move, both directions together;
            0 for no bound.
        room_grace_seconds: A room is kept for so long for the agent that has gone, if it has an
            identity: whoever else took it would be sent the documents of its clients.
        known_room_seconds: A room whose agent has gone is known for so long: its clients may wait for
            it. Nobody may, for a room that was never served. Ten minutes are a host who changes trains.
        park_seconds: How long a client waits for the agent of a known room. Firefox gives up on a
            pending upgrade at 20 s (yjs.md, fact 2).
        parked_per_room: Clients that wait for one room; more are refused at once. As many as a plain
            agent may have, and a sixteenth of all, so that one room is never all of them.
        parked: Clients that wait in all; a fifth of ``connections``, and never more than a fifth of what
            the process has descriptors for.
        resume_seconds: How long the clients of an agent whose carrier is lost are kept for it; 0 for
            not at all. y-websocket closes a silent socket by itself after 30 s (yjs.md, fact 2); other
            clients wait for minutes, as they do in a tunnel that is plain TCP.
        resume_bytes: What is kept for an agent that has not acknowledged it, at most; beyond, its
            clients are read no further. 4 MiB are 320 Mbit/s at 100 ms.
        resume_bytes_in_all: The same for all agents together: beyond four fifths of it those
            that are away longest are given up, and at the whole no further agent is let in.
        initial_syncs: Clients of one room that load their document at a time over a full link; the upgrades
            of others are held back. A client gives up if it takes longer than 30 s (yjs.md 0, fact 4).
        hold_seconds: For so long at most, 0 for not at all; 15 as for ``park_seconds``.
        watchers_per_room: Streams of a room's status at a time, one for each open page.
        watchers: The same in all; never more than for ``parked``.
        stalled_seconds: A client that takes nothing for so long, while bytes wait for it, is cut.
        drain_seconds: How long stopping may take in all: agents move, clients are sent away, what is
            left is cut. Kubernetes gives 30 s before it kills; less is needed where nobody is left.
        drain_spread_seconds: Agents are told to move within so long, evenly; as many as 45 s where
            one relay has thousands of them.
        drain_try_seconds: How long an agent may look for another relay before its clients are sent away.
        drain_clients_per_second: Clients that are sent away in a second, since they come back at once and
            without jitter; a fifth of what one relay can take in. More if the time would not suffice.
        admin: Where operators ask (``seance.admin.port``): a Twisted server endpoint string or ``none``; None
            for port 9090 on 127.0.0.1, if that is free.
        admin_token: Whether this machine needs a token for that, too.
        admin_ca: The authority of operators' certificates, PEM: who shows one needs no token. The admin port
            then speaks TLS with ``tls_cert``.
        metrics_rooms: Whether rooms get series of their own in the metrics, with their names.
        log_format: How the doors write the log (``seance.logs.format``): ``text`` or ``json``.
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
                f"--head-bytes is at most {MAX_HEAD_BYTES // KIB} KiB, as agents read no longer heads;"
                f" {self.head_bytes} bytes are more."
            )
        if self.deny is not None and not self.auth_key and self.auth_jwks is None:
            raise ConfigError(
                "--deny takes tokens back, and without --auth-key or --auth-jwks none are asked for."
            )
        if self.tls_cert is None:
            for name in ("tls-key", "agent-ca", "admin-ca"):
                if getattr(self, name.replace("-", "_")) is not None:
                    raise ConfigError(f"--{name} needs a certificate to go with; name it with --tls-cert.")
        elif self.listen and all(has_tls(one) for one in self.listen) and self.admin_ca is None:
            raise ConfigError("--tls-cert is for nothing: each --listen names an ssl: endpoint already.")


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What an agent can be told. Pass it to ``seance.agent.service.Agent``.

    Attributes:
        room: The room to serve; see ``check_room``.
        relay: ``ws://`` or ``wss://`` and the relay's host, with a base path if it has one.
        tls_ca: The only authorities to believe when the relay shows its certificate, PEM; None for
            those of the system.
        tls_cert: A certificate of the agent's own, PEM, for a relay that asks for one.
        tls_key: Its key; None: it is in the certificate's file.
        tls_insecure: Do not check the relay's certificate; on this machine alone.
        local: The local server: ``HOST:PORT``, ``unix:PATH`` or ``tls://HOST:PORT``.
        local_ca: As ``tls_ca``, for a local server with ``tls://``.
        local_insecure: As ``tls_insecure``, for a local server with ``tls://``.
        identity: Where the agent's own key is: a file, ``auto`` for the folder where programs keep
            their state, or ``none``. ``seance.auth.agent_key.agent_identity`` makes of it what
            ``Agent`` takes besides the settings; who does not give it one has a plain agent.
        token: What lets it into a relay that asks for tokens.
        token_file: A file that holds the token, read again for each dial and whenever it changes.
        keep_host: Hand the public ``Host`` to the local server instead of its own.
        rewrite_origin: Replace an ``Origin`` that is the public one by the local server's own.
        upgrade_seconds: How long the local server may take for its first answer. The relay is asked for
            it, and bounds it; None for the relay's own bound.
        head_bytes: The longest request head taken from the relay: what a relay may be told to take, and
            what it adds.
        head_seconds: A stream must have brought its whole head by then.
        local_dial_seconds: The local server must have taken the connection by then.
        half_close_seconds: As for the relay.
        dial_seconds: One attempt to reach the relay, from name lookup to 101.
        backoff_base_seconds: The first wait between attempts is random between zero and this;
            it doubles with every failure (full jitter).
        backoff_cap_seconds: No wait is longer.
        healthy_seconds: A link that lived so long starts the waits over.
        resume: Ask the relay to keep our clients while a carrier is lost.
        plain: Offer no subprotocol, for a relay of another make; ``resume`` has no effect then.
        resume_bytes: What is kept for a relay that has not acknowledged it, at most.
        resume_backoff_cap_seconds: No wait between attempts is longer while our clients are kept, nor in the
            first 15 s after a link was lost.
        streams: Clients at a time.
        drain_seconds: How long stopping waits for what is queued to leave.
        admin: Where operators ask, as for the relay, on this machine alone; ``none`` for nowhere.
        log_format: How the doors write the log (``seance.logs.format``): ``text`` or ``json``.
        status_json: Whether the doors tell a parent process on stdout how it goes
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
                "--rewrite-origin and --keep-host exclude each other: either makes Origin and Host equal."
            )
        if self.tls_key is not None and self.tls_cert is None:
            raise ConfigError("--tls-key needs a certificate to go with; name it with --tls-cert.")
        for_relay = (self.tls_ca, self.tls_cert, self.tls_insecure or None)
        if any(for_relay) and not self.relay.lower().startswith("wss:"):
            raise ConfigError(
                "--tls-ca, --tls-cert and --tls-insecure need a --relay with wss://, not ws://."
            )
        for_local = (self.local_ca, self.local_insecure or None)
        if any(for_local) and not self.local.startswith("tls:"):
            raise ConfigError("--local-ca and --local-insecure need a --local with tls://.")
