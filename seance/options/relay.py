"""The options of a relay, in the order in which help shows them; see ``seance.options``."""

from __future__ import annotations

from seance.options import values
from seance.options.option import Option, Program

__all__ = ["RELAY_OPTIONS"]

_WHO = Program.RELAY
_SIZE = values.byte_count
_TIME = values.seconds
_COUNT = values.count
_TIME_OR_NONE = values.seconds_or_none
_FILE = values.file_path

RELAY_OPTIONS: tuple[Option, ...] = (
    Option(
        _WHO,
        "listen",
        "ENDPOINT",
        values.listen_endpoint,
        "where to listen: a Twisted endpoint (tcp:8080, ssl:443:..., unix:PATH), IP:PORT, or a bare "
        "PORT for the loopback addresses; without it port 8080 on the loopback addresses",
        repeatable=True,
    ),
    Option(
        _WHO,
        "tls-cert",
        "FILE",
        _FILE,
        "speak TLS on every --listen that is not an ssl: endpoint, with this certificate chain (PEM)",
    ),
    Option(
        _WHO,
        "tls-key",
        "FILE",
        _FILE,
        "the key of --tls-cert (PEM), where it is not in the same file",
    ),
    Option(
        _WHO,
        "agent-ca",
        "FILE",
        _FILE,
        "an authority of your own (PEM): an agent that shows a certificate of it needs no token",
    ),
    Option(_WHO, "pad", "", values.truth, "show a shared text editor to a browser at /c/ROOM"),
    Option(
        _WHO,
        "auth-key",
        "FILE",
        _FILE,
        "a key that signs tokens, as seance keygen writes it; give several to change keys",
        repeatable=True,
    ),
    Option(
        _WHO,
        "auth-jwks",
        "FILE|URL",
        _FILE,
        "a JWK set with further keys: a file, or an https URL that is fetched now and then",
    ),
    Option(_WHO, "deny", "FILE", _FILE, "what was taken back: lines of jti:ID, sub:NAME, room:NAME"),
    Option(_WHO, "open", "", values.truth, "listen beyond loopback without any key: everybody may enter"),
    Option(_WHO, "head-bytes", "SIZE", _SIZE, "the longest request head; 256KiB at most"),
    Option(_WHO, "head-seconds", "SECONDS", _TIME, "a connection must have sent its whole head by then"),
    Option(_WHO, "upgrade-seconds", "SECONDS", _TIME, "the local server must have answered by then"),
    Option(
        _WHO,
        "max-upgrade-seconds",
        "SECONDS",
        _TIME,
        "the same for agents that ask for more time with their own --upgrade-seconds, at most",
    ),
    Option(_WHO, "early-bytes", "SIZE", _SIZE, "what a client may send before the local server answered"),
    Option(
        _WHO,
        "half-close-seconds",
        "SECONDS",
        _TIME,
        "how long one direction may be silent after the other has ended",
    ),
    Option(
        _WHO,
        "unanswered-connections",
        "COUNT",
        _COUNT,
        "connections without a whole head, in all; one more closes the oldest",
    ),
    Option(
        _WHO,
        "unanswered-connections-per-address",
        "COUNT",
        _COUNT,
        "connections without a whole head of one IPv4 address or IPv6 /64; one more closes its oldest",
    ),
    Option(
        _WHO,
        "streams-per-plain-agent",
        "COUNT",
        _COUNT,
        "clients at a time for an agent that negotiated nothing",
    ),
    Option(_WHO, "streams-per-agent", "COUNT", _COUNT, "clients at a time for an agent of our own"),
    Option(
        _WHO,
        "agent-origins",
        "ORIGIN",
        values.web_origin,
        "a web page that may attach as an agent; without it programs only",
        repeatable=True,
    ),
    Option(
        _WHO,
        "origins",
        "ORIGIN",
        values.any_origin,
        "a web page that may connect as a client; without it every page may",
        repeatable=True,
    ),
    Option(
        _WHO,
        "trusted-proxy",
        "CIDR",
        values.network,
        "an address or network whose X-Forwarded-For and PROXY protocol are believed",
        repeatable=True,
    ),
    Option(_WHO, "connections", "COUNT", _COUNT, "open connections in all, agents' own reserve aside"),
    Option(_WHO, "reserved-connections", "COUNT", _COUNT, "further connections, which clients cannot take"),
    Option(
        _WHO,
        "connections-per-address",
        "COUNT",
        _COUNT,
        "open connections of one IPv4 address or IPv6 /64; loopback is not counted",
    ),
    Option(
        _WHO,
        "upgrades-per-address",
        "COUNT",
        _COUNT,
        "upgrades a second of one address, over time, clients' and agents' apart; ten seconds' worth may "
        "come at once",
    ),
    Option(_WHO, "upgrades-per-room", "COUNT", _COUNT, "upgrades a second for one room, likewise"),
    Option(
        _WHO,
        "bytes-per-second-per-room",
        "SIZE",
        values.rate,
        "what all clients of a room may move, both directions together; 0 for no bound",
    ),
    Option(
        _WHO,
        "stalled-seconds",
        "SECONDS",
        _TIME,
        "a client that takes nothing for so long, while bytes wait for it, is cut",
    ),
    Option(
        _WHO,
        "room-grace-seconds",
        "SECONDS",
        _TIME,
        "how long a room is kept for an agent that has gone, if it has proven who it is",
    ),
    Option(
        _WHO,
        "known-room-seconds",
        "SECONDS",
        _TIME,
        "how long clients may wait for a room whose agent has gone; later they are told that there is none",
    ),
    Option(
        _WHO,
        "resume-seconds",
        "SECONDS",
        _TIME_OR_NONE,
        "how long the clients of an agent whose carrier is lost are kept for it; 0 for not at all",
    ),
    Option(
        _WHO,
        "resume-bytes",
        "SIZE",
        _SIZE,
        "what is kept for one agent that has not acknowledged it, at most",
    ),
    Option(_WHO, "resume-bytes-in-all", "SIZE", _SIZE, "what is kept for all agents together, at most"),
    Option(_WHO, "park-seconds", "SECONDS", _TIME, "how long a client waits for the agent of a known room"),
    Option(_WHO, "parked-per-room", "COUNT", _COUNT, "clients that wait for the agent of one room"),
    Option(_WHO, "parked", "COUNT", _COUNT, "clients that wait for agents, in all; a fifth of all at most"),
    Option(
        _WHO,
        "initial-syncs",
        "COUNT",
        _COUNT,
        "clients of a room that load their document at a time over a full link; further ones are held",
    ),
    Option(
        _WHO,
        "hold-seconds",
        "SECONDS",
        _TIME_OR_NONE,
        "how long a client is held at most while others load; 0 for not at all",
    ),
    Option(
        _WHO,
        "watchers-per-room",
        "COUNT",
        _COUNT,
        "pages that follow whether the agent of one room is there",
    ),
    Option(_WHO, "watchers", "COUNT", _COUNT, "pages that follow whether agents are there, in all; likewise"),
    Option(
        _WHO,
        "drain-seconds",
        "SECONDS",
        _TIME,
        "how long stopping may take: agents move, clients are sent away, what is left is cut",
    ),
    Option(
        _WHO,
        "drain-spread-seconds",
        "SECONDS",
        _TIME,
        "when stopping, agents are told to move within so long, one after the other",
    ),
    Option(
        _WHO,
        "drain-try-seconds",
        "SECONDS",
        _TIME,
        "when stopping, how long an agent may look for another relay before its clients are sent away",
    ),
    Option(
        _WHO,
        "drain-clients-per-second",
        "COUNT",
        _COUNT,
        "when stopping, clients that are sent away in a second; more if the time would not suffice",
    ),
    Option(
        _WHO,
        "admin",
        "ENDPOINT",
        values.admin_endpoint,
        "where health, metrics, rooms and the dashboard are for operators: an endpoint as for --listen, a "
        "bare PORT on 127.0.0.1, or none; without it port 9090 on 127.0.0.1 if that is free",
    ),
    Option(
        _WHO,
        "admin-token",
        "",
        values.truth,
        "ask for a token of role admin on --admin even on this machine; elsewhere it is always asked for",
    ),
    Option(
        _WHO,
        "admin-ca",
        "FILE",
        _FILE,
        "an authority of your own (PEM): who shows a certificate of it on --admin, which then speaks TLS "
        "with --tls-cert, needs no token",
    ),
    Option(
        _WHO,
        "metrics-rooms",
        "",
        values.truth,
        "give rooms series of their own in the metrics, with their names; a thousand rooms at most",
    ),
    Option(
        _WHO,
        "log-format",
        "FORMAT",
        values.log_format,
        "how the log is written: text for people, or json, one object a line",
    ),
)
