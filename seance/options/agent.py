"""The options of an agent, in the order in which help shows them; see ``seance.options``."""

from __future__ import annotations

from seance.options import values
from seance.options.option import Option, Program

__all__ = ["AGENT_OPTIONS"]

_WHO = Program.AGENT
_SIZE = values.byte_count
_TIME = values.seconds
_COUNT = values.count
_FILE = values.file_path

AGENT_OPTIONS: tuple[Option, ...] = (
    Option(_WHO, "room", "NAME", values.room_name, "the room to serve", also_from=("ROOM_ID",)),
    Option(
        _WHO,
        "relay",
        "URL",
        values.relay_url,
        "the relay to dial, ws:// or wss://, with its base path if it has one",
        also_from=("RELAY_URL",),
    ),
    Option(
        _WHO,
        "tls-ca",
        "FILE",
        _FILE,
        "believe these authorities (PEM) when the relay shows its certificate, and not the system's",
    ),
    Option(_WHO, "tls-cert", "FILE", _FILE, "show this certificate (PEM) to a relay that asks for one"),
    Option(
        _WHO,
        "tls-key",
        "FILE",
        _FILE,
        "the key of --tls-cert (PEM), where it is not in the same file",
    ),
    Option(
        _WHO,
        "tls-insecure",
        "",
        values.truth,
        "do not check the certificate of the relay, which has to be on this machine",
    ),
    Option(
        _WHO,
        "local",
        "ADDRESS",
        values.local_server,
        "the local server: HOST:PORT, PORT, unix:PATH or tls://HOST:PORT",
        also_from=("LOCAL_HOST", "LOCAL_PORT"),
    ),
    Option(
        _WHO,
        "local-ca",
        "FILE",
        _FILE,
        "believe these authorities (PEM) when a local server with tls:// shows its certificate",
    ),
    Option(
        _WHO,
        "local-insecure",
        "",
        values.truth,
        "do not check the certificate of a local server with tls://, which has to be on this machine",
    ),
    Option(
        _WHO,
        "identity",
        "FILE",
        _FILE,
        "the agent's own key, by which a relay knows it again; made if it is not there. auto: in the folder "
        "where programs keep their state; none: have no key",
    ),
    Option(_WHO, "token", "TOKEN", values.token, "lets the agent into a relay that asks for tokens"),
    Option(
        _WHO,
        "token-file",
        "FILE",
        _FILE,
        "a file that holds the token; it is read again for each dial and whenever it changes",
    ),
    Option(_WHO, "keep-host", "", values.truth, "leave the public Host in requests to the local server"),
    Option(
        _WHO,
        "rewrite-origin",
        "",
        values.truth,
        "replace an Origin equal to the public one by the local server's own, for servers that compare "
        "Origin with Host; other Origins stay",
    ),
    Option(
        _WHO,
        "upgrade-seconds",
        "SECONDS",
        _TIME,
        "how long the local server may take for its first answer; the relay bounds it with "
        "--max-upgrade-seconds, and without this option with --upgrade-seconds",
    ),
    Option(_WHO, "head-bytes", "SIZE", _SIZE, "the longest request head taken from the relay"),
    Option(_WHO, "head-seconds", "SECONDS", _TIME, "a stream must have brought its whole head by then"),
    Option(
        _WHO,
        "local-dial-seconds",
        "SECONDS",
        _TIME,
        "the local server must have taken the connection by then",
    ),
    Option(
        _WHO,
        "half-close-seconds",
        "SECONDS",
        _TIME,
        "how long one direction may be silent after the other has ended",
    ),
    Option(_WHO, "dial-seconds", "SECONDS", _TIME, "one attempt to reach the relay may take so long"),
    Option(
        _WHO,
        "backoff-base-seconds",
        "SECONDS",
        _TIME,
        "the longest first wait between attempts; it doubles with every failure",
    ),
    Option(_WHO, "backoff-cap-seconds", "SECONDS", _TIME, "no wait between attempts is longer"),
    Option(_WHO, "healthy-seconds", "SECONDS", _TIME, "a link that lived so long starts the waits over"),
    Option(
        _WHO,
        "resume",
        "",
        values.truth,
        "ask the relay to keep our clients while a carrier is lost",
    ),
    Option(
        _WHO,
        "plain",
        "",
        values.truth,
        "offer no subprotocol, for a relay of another make that speaks only yamux; turns --resume off",
    ),
    Option(
        _WHO,
        "resume-bytes",
        "SIZE",
        _SIZE,
        "what is kept for a relay that has not acknowledged it, at most",
    ),
    Option(
        _WHO,
        "resume-backoff-cap-seconds",
        "SECONDS",
        _TIME,
        "no wait between attempts is longer while the relay keeps our clients",
    ),
    Option(_WHO, "streams", "COUNT", _COUNT, "clients at a time, at a relay of any make"),
    Option(_WHO, "drain-seconds", "SECONDS", _TIME, "how long stopping waits for what is queued to leave"),
    Option(
        _WHO,
        "admin",
        "ENDPOINT",
        values.admin_endpoint,
        "where health and metrics are, on this machine alone: a PORT on 127.0.0.1, an endpoint, or none",
    ),
    Option(
        _WHO,
        "log-format",
        "FORMAT",
        values.log_format,
        "how the log is written: text for people, or json, one object a line",
    ),
    Option(
        _WHO,
        "status-json",
        "",
        values.truth,
        "tell a parent process how it goes, a JSON object a line on stdout; the log is on stderr then",
    ),
)
