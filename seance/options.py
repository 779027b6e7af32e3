"""The one table of options: what a relay and an agent can be told, by whatever way.

From this table come the flags of ``twistd seance-relay`` and ``seance relay`` (``seance.flags``),
the environment variables and the keys of the config file (``seance.config``), ``--help``, and the
reference in ``docs/options.md``. The defaults are those of the settings themselves, so that a
program that embeds a relay and a person who starts one get the same relay.

A new option is one field in ``seance.tunnel.settings`` and one line here.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass

from seance import values
from seance.tunnel.settings import AgentSettings, RelaySettings

__all__ = ["OPTIONS", "Option", "Program", "options_of", "reference"]


class Program(enum.Enum):
    """Who is told. The value is the name of the table in a config file."""

    RELAY = "relay"
    AGENT = "agent"

    @property
    def settings(self) -> type[RelaySettings] | type[AgentSettings]:
        """The class of settings that the options of this program fill."""
        return RelaySettings if self is Program.RELAY else AgentSettings


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that can be told.

    Attributes:
        program: Who is told.
        name: The flag without its dashes; also the key in a config file.
        metavar: What stands for the value in help; empty for a flag that is on or off.
        parse: Turns text into a value of the settings, or raises ValueError with half a sentence.
        help: What it does, as the rest of a sentence, without a full stop.
        repeatable: May be given several times; the value is then a tuple.
        also_from: Environment variables of the original that mean the same.
    """

    program: Program
    name: str
    metavar: str
    parse: Callable[[str], object]
    help: str
    repeatable: bool = False
    also_from: tuple[str, ...] = ()

    @property
    def field(self) -> str:
        """The field of the settings that this option fills."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The environment variable of this option."""
        return f"SEANCE_{self.field.upper()}"

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value on the command line."""
        return not self.metavar

    @property
    def is_required(self) -> bool:
        """Whether there is no default."""
        return self.default is dataclasses.MISSING

    @property
    def default(self) -> object:
        """What holds when nobody says anything; ``dataclasses.MISSING`` if somebody must."""
        return {one.name: one.default for one in dataclasses.fields(self.program.settings)}[self.field]


_RELAY, _AGENT = Program.RELAY, Program.AGENT
KIB = 1024
MIB = 1024 * KIB

_SIZE, _TIME, _COUNT = values.byte_count, values.seconds, values.count
_TIME_OR_NONE = values.seconds_or_none
_FILE = values.file_path

OPTIONS: tuple[Option, ...] = (
    Option(
        _RELAY,
        "listen",
        "ENDPOINT",
        values.listen_endpoint,
        "where to listen: a Twisted endpoint (tcp:8080, ssl:443:..., unix:PATH), IP:PORT, or a bare "
        "PORT for the loopback addresses; without it port 8080 on the loopback addresses",
        repeatable=True,
    ),
    Option(
        _RELAY,
        "tls-cert",
        "FILE",
        _FILE,
        "speak TLS on every --listen that is not an ssl: endpoint, with this certificate chain (PEM)",
    ),
    Option(
        _RELAY,
        "tls-key",
        "FILE",
        _FILE,
        "the key of --tls-cert (PEM), where it is not in the same file",
    ),
    Option(
        _RELAY,
        "agent-ca",
        "FILE",
        _FILE,
        "an authority of your own (PEM): an agent that shows a certificate of it needs no token",
    ),
    Option(_RELAY, "pad", "", values.truth, "show a shared text editor to a browser at /c/ROOM"),
    Option(
        _RELAY,
        "auth-key",
        "FILE",
        values.file_path,
        "a key that signs tokens, as seance keygen writes it; give several to change keys",
        repeatable=True,
    ),
    Option(
        _RELAY,
        "auth-jwks",
        "FILE|URL",
        values.file_path,
        "a JWK set with further keys: a file, or an https URL that is fetched now and then",
    ),
    Option(
        _RELAY, "deny", "FILE", values.file_path, "what was taken back: lines of jti:ID, sub:NAME, room:NAME"
    ),
    Option(_RELAY, "open", "", values.truth, "listen beyond loopback without any key: everybody may enter"),
    Option(_RELAY, "head-bytes", "SIZE", _SIZE, "the longest request head"),
    Option(_RELAY, "head-seconds", "SECONDS", _TIME, "a connection must have sent its whole head by then"),
    Option(_RELAY, "upgrade-seconds", "SECONDS", _TIME, "the local server must have answered by then"),
    Option(_RELAY, "early-bytes", "SIZE", _SIZE, "what a client may send before the local server answered"),
    Option(
        _RELAY,
        "half-close-seconds",
        "SECONDS",
        _TIME,
        "how long one direction may be silent after the other has ended",
    ),
    Option(
        _RELAY,
        "unanswered-connections",
        "COUNT",
        _COUNT,
        "connections without a whole head, in all; one more closes the oldest",
    ),
    Option(
        _RELAY,
        "unanswered-connections-per-address",
        "COUNT",
        _COUNT,
        "connections without a whole head of one IPv4 address or IPv6 /64; one more closes its oldest",
    ),
    Option(
        _RELAY,
        "streams-per-plain-agent",
        "COUNT",
        _COUNT,
        "clients at a time for an agent that negotiated nothing",
    ),
    Option(_RELAY, "streams-per-agent", "COUNT", _COUNT, "clients at a time for an agent of our own"),
    Option(
        _RELAY,
        "agent-origins",
        "ORIGIN",
        values.web_origin,
        "a web page that may attach as an agent; without it programs only",
        repeatable=True,
    ),
    Option(
        _RELAY,
        "origins",
        "ORIGIN",
        values.any_origin,
        "a web page that may connect as a client; without it every page may",
        repeatable=True,
    ),
    Option(
        _RELAY,
        "trusted-proxies",
        "CIDR",
        values.network,
        "an address or network whose X-Forwarded-For and PROXY protocol are believed",
        repeatable=True,
    ),
    Option(_RELAY, "connections", "COUNT", _COUNT, "open connections in all, agents' own reserve aside"),
    Option(_RELAY, "reserved-connections", "COUNT", _COUNT, "further connections, which clients cannot take"),
    Option(
        _RELAY,
        "connections-per-address",
        "COUNT",
        _COUNT,
        "open connections of one IPv4 address or IPv6 /64; loopback is not counted",
    ),
    Option(
        _RELAY,
        "upgrades-per-address",
        "COUNT",
        _COUNT,
        "upgrades a second of one address, over time; ten seconds' worth may come at once",
    ),
    Option(_RELAY, "upgrades-per-room", "COUNT", _COUNT, "upgrades a second for one room, likewise"),
    Option(
        _RELAY,
        "bytes-per-second-per-room",
        "SIZE",
        values.rate,
        "what all clients of a room may move, both directions together; 0 for no bound",
    ),
    Option(
        _RELAY,
        "stalled-seconds",
        "SECONDS",
        _TIME,
        "a client that takes nothing for so long, while bytes wait for it, is cut",
    ),
    Option(
        _RELAY,
        "room-grace-seconds",
        "SECONDS",
        _TIME,
        "how long a room is kept for an agent that has gone, if it has proven who it is",
    ),
    Option(
        _RELAY,
        "known-room-seconds",
        "SECONDS",
        _TIME,
        "how long clients may wait for a room whose agent has gone; later they are told that there is none",
    ),
    Option(
        _RELAY,
        "resume-seconds",
        "SECONDS",
        _TIME_OR_NONE,
        "how long the clients of an agent whose carrier is lost are kept for it; 0 for not at all",
    ),
    Option(
        _RELAY,
        "resume-bytes",
        "SIZE",
        _SIZE,
        "what is kept for one agent that has not acknowledged it, at most",
    ),
    Option(_RELAY, "resume-bytes-in-all", "SIZE", _SIZE, "what is kept for all agents together, at most"),
    Option(_RELAY, "park-seconds", "SECONDS", _TIME, "how long a client waits for the agent of a known room"),
    Option(_RELAY, "parked-per-room", "COUNT", _COUNT, "clients that wait for the agent of one room"),
    Option(_RELAY, "parked", "COUNT", _COUNT, "clients that wait for agents, in all"),
    Option(
        _RELAY,
        "watchers-per-room",
        "COUNT",
        _COUNT,
        "pages that follow whether the agent of one room is there",
    ),
    Option(_RELAY, "watchers", "COUNT", _COUNT, "pages that follow whether agents are there, in all"),
    Option(
        _RELAY,
        "drain-seconds",
        "SECONDS",
        _TIME,
        "how long stopping may take: agents move, clients are sent away, what is left is cut",
    ),
    Option(
        _RELAY,
        "drain-spread-seconds",
        "SECONDS",
        _TIME,
        "when stopping, agents are told to move within so long, one after the other",
    ),
    Option(
        _RELAY,
        "drain-try-seconds",
        "SECONDS",
        _TIME,
        "when stopping, how long an agent may look for another relay before its clients are sent away",
    ),
    Option(
        _RELAY,
        "drain-clients-per-second",
        "COUNT",
        _COUNT,
        "when stopping, clients that are sent away in a second; more if the time would not suffice",
    ),
    Option(_AGENT, "room", "NAME", values.room_name, "the room to serve", also_from=("ROOM_ID",)),
    Option(
        _AGENT,
        "relay",
        "URL",
        values.relay_url,
        "the relay to dial, ws:// or wss://, with its base path if it has one",
        also_from=("RELAY_URL",),
    ),
    Option(
        _AGENT,
        "tls-ca",
        "FILE",
        _FILE,
        "believe these authorities (PEM) when the relay shows its certificate, and not the system's",
    ),
    Option(_AGENT, "tls-cert", "FILE", _FILE, "show this certificate (PEM) to a relay that asks for one"),
    Option(
        _AGENT,
        "tls-key",
        "FILE",
        _FILE,
        "the key of --tls-cert (PEM), where it is not in the same file",
    ),
    Option(
        _AGENT,
        "tls-insecure",
        "",
        values.truth,
        "do not check the certificate of the relay, which has to be on this machine",
    ),
    Option(
        _AGENT,
        "local",
        "ADDRESS",
        values.local_server,
        "the local server: HOST:PORT, PORT, unix:PATH or tls://HOST:PORT",
        also_from=("LOCAL_HOST", "LOCAL_PORT"),
    ),
    Option(
        _AGENT,
        "local-ca",
        "FILE",
        _FILE,
        "believe these authorities (PEM) when a local server with tls:// shows its certificate",
    ),
    Option(
        _AGENT,
        "local-insecure",
        "",
        values.truth,
        "do not check the certificate of a local server with tls://, which has to be on this machine",
    ),
    Option(
        _AGENT,
        "identity",
        "FILE",
        _FILE,
        "the agent's own key, by which a relay knows it again; made if it is not there. auto: in the folder "
        "where programs keep their state; none: have no key",
    ),
    Option(_AGENT, "token", "TOKEN", values.token, "lets the agent into a relay that asks for tokens"),
    Option(
        _AGENT,
        "token-file",
        "FILE",
        values.file_path,
        "a file that holds the token; it is read again for each dial and whenever it changes",
    ),
    Option(_AGENT, "keep-host", "", values.truth, "leave the public Host in requests to the local server"),
    Option(_AGENT, "head-bytes", "SIZE", _SIZE, "the longest request head taken from the relay"),
    Option(_AGENT, "head-seconds", "SECONDS", _TIME, "a stream must have brought its whole head by then"),
    Option(
        _AGENT,
        "local-dial-seconds",
        "SECONDS",
        _TIME,
        "the local server must have taken the connection by then",
    ),
    Option(
        _AGENT,
        "half-close-seconds",
        "SECONDS",
        _TIME,
        "how long one direction may be silent after the other has ended",
    ),
    Option(_AGENT, "dial-seconds", "SECONDS", _TIME, "one attempt to reach the relay may take so long"),
    Option(
        _AGENT,
        "backoff-base-seconds",
        "SECONDS",
        _TIME,
        "the longest first wait between attempts; it doubles with every failure",
    ),
    Option(_AGENT, "backoff-cap-seconds", "SECONDS", _TIME, "no wait between attempts is longer"),
    Option(_AGENT, "healthy-seconds", "SECONDS", _TIME, "a link that lived so long starts the waits over"),
    Option(
        _AGENT,
        "resume",
        "",
        values.truth,
        "ask the relay to keep our clients while a carrier is lost",
    ),
    Option(
        _AGENT,
        "resume-bytes",
        "SIZE",
        _SIZE,
        "what is kept for a relay that has not acknowledged it, at most",
    ),
    Option(
        _AGENT,
        "resume-backoff-cap-seconds",
        "SECONDS",
        _TIME,
        "no wait between attempts is longer while the relay keeps our clients",
    ),
    Option(_AGENT, "streams", "COUNT", _COUNT, "clients at a time"),
    Option(_AGENT, "drain-seconds", "SECONDS", _TIME, "how long stopping waits for what is queued to leave"),
)


def options_of(program: Program) -> tuple[Option, ...]:
    """Returns the options of one program in the order in which help shows them."""
    return tuple(option for option in OPTIONS if option.program is program)


def default_in_words(option: Option) -> str:
    """Returns the default as a person would write it; empty if there is nothing to show."""
    default = option.default
    if option.is_required:
        return "required"
    if option.is_flag:
        return "on" if default else "off"
    if option.parse is values.byte_count and isinstance(default, int):
        unit, name = (MIB, "MiB") if default % MIB == 0 else (KIB, "KiB")
        return f"{default // unit}{name}" if default % unit == 0 else str(default)
    if isinstance(default, tuple):
        return " ".join(default)
    return f"{default:g}" if isinstance(default, float) else str(default or "")


def reference() -> str:
    """Returns ``docs/options.md``: every option, its variable and its default, as Markdown."""
    pages = [_REFERENCE_TOP]
    for program in Program:
        rows = [
            f"## {_TITLES[program]}\n",
            "| flag | variable | default | what it does |",
            "| --- | --- | --- | --- |",
        ]
        for option in options_of(program):
            flag = f"`--{option.name} {option.metavar}`" if option.metavar else f"`--{option.name}`"
            names = " ".join(f"`{name}`" for name in (option.variable, *option.also_from))
            default = default_in_words(option)
            shown = default if default in ("required", "off", "") else f"`{default}`"
            again = " (repeatable)" if option.repeatable else ""
            rows.append(f"| {flag} | {names} | {shown} | {option.help}{again} |")
        pages.append("\n".join(rows) + "\n")
    return "\n".join(pages)


_TITLES = {_RELAY: "seance-relay", _AGENT: "seance-agent"}

_REFERENCE_TOP = """\
# Options

<!-- Written by `python -m seance.options`; a test compares. -->

`twistd -n seance-relay` and `seance relay` take the same options, and so do `twistd -n seance-agent`
and `seance agent`. What a flag says wins over the environment, the environment over the config file,
and the file over the default.

A config file is TOML, named by `--config FILE` or `SEANCE_CONFIG`. Its keys are the flags without
their dashes in front, in a table for each program:

```toml
[relay]
listen = ["tcp:8080:interface=0.0.0.0"]
pad = true

[agent]
room = "test-room"
relay = "wss://relay.example"
local = "localhost:1234"
```

A flag that is on or off can be switched off again with `--no-` in front (`--no-pad`); in the
environment it is `yes` or `no`. The variable of a repeatable option holds several values with
spaces between them.
A SIZE is a number of bytes, or one with `KiB` or `MiB` behind it. `LOCAL_HOST` and `LOCAL_PORT`
are the two halves of `--local`.

Whatever is wrong with an option is said in one sentence, and the program ends with status 1.
"""


if __name__ == "__main__":
    import sys

    sys.stdout.write(reference())
