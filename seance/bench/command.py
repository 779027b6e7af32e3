"""``seance bench`` itself: options in, tables out.

Without an address it starts a relay, an agent and a local server as processes of their own and measures
those. With ``--url`` (and ``--direct-url``) it measures what is there already; then CPU time and memory are
not known, since those processes are somebody else's.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Protocol

from seance.arguments import Parser, checked, port_number
from seance.bench.children import Children
from seance.bench.comparison import Comparison, Effort, Side, compare
from seance.bench.loads import LOADS, Load
from seance.bench.local_server import MARK, LocalServerFactory
from seance.bench.plot import plot
from seance.bench.table import table
from seance.heads.fields import field_values
from seance.net import descriptor_limit
from seance.terminal import Progress, new_file, read_token, run, serve, write_file
from seance.wsclient.dial import Target, dial

__all__ = ["main", "started_sides"]

COMMAND = "seance bench"
ROOM = "bench"

SPARE_DESCRIPTORS = 200
"""What a relay has open besides its idle clients: the clients of a load, files, and its kept places."""


def main(arguments: Sequence[str]) -> int:
    """Runs ``seance bench``; returns the exit status.

    Raises:
        SystemExit: An option is wrong, or only the help was wanted.
    """
    parser = _parser()
    parsed = parser.parse_args(list(arguments))
    if parsed.direct_url is not None and parsed.url is None:
        parser.error("--direct-url is compared with --url, which is missing")
    if parsed.serve is not None:
        return run(COMMAND, serve(LocalServerFactory(), parsed.serve))
    return run(COMMAND, lambda reactor: _work(reactor, parsed))


async def started_sides(children: Children) -> tuple[Side, Side]:
    """Start a relay, an agent and a local server, and return both ways to that."""
    local_port = await children.local_server("bench")
    relay, relay_port = await children.relay()
    agent = await children.agent(f"ws://127.0.0.1:{relay_port}", ROOM, local_port)
    return (
        Side("direct", Target(False, "127.0.0.1", local_port)),
        Side("tunnel", Target(False, "127.0.0.1", relay_port, f"/c/{ROOM}"), relay, agent),
    )


async def _work(reactor: Any, parsed: argparse.Namespace) -> int:  # noqa: ANN401  # a reactor
    progress = Progress(quiet=parsed.quiet)
    children = Children(reactor)
    effort = _effort(parsed)
    loads = [load for load in LOADS if not parsed.loads or load.name in parsed.loads]
    try:
        if parsed.url is None:
            progress("starting a relay, an agent and a local server")
            sides: tuple[Side, ...] = await started_sides(children)
        else:
            sides = await _given_sides(reactor, parsed)
        found = await compare(reactor, sides, effort, progress, loads)
    finally:
        progress.clear()
        await children.stop()
    _give(found, parsed)
    return 0


def _effort(parsed: argparse.Namespace) -> Effort:
    effort = Effort.quick() if parsed.quick else Effort()
    most = (descriptor_limit() or 1 << 20) - SPARE_DESCRIPTORS
    return Effort(
        seconds=parsed.seconds or effort.seconds,
        rounds=parsed.rounds or effort.rounds,
        idle_clients=max(min(effort.idle_clients, most), 0),
    )


async def _given_sides(reactor: Any, parsed: argparse.Namespace) -> tuple[Side, ...]:  # noqa: ANN401  # a reactor
    token = read_token(parsed.token_file)
    given = [("direct", parsed.direct_url, None), ("tunnel", parsed.url, token)]
    sides = []
    for name, url, shown in given:
        if url is not None:
            target = Target.from_url(url, token=shown, ca_file=parsed.tls_ca)
            sides.append(Side(name, target, has_fan=await _is_ours(reactor, target)))
    return tuple(sides)


async def _is_ours(reactor: Any, target: Target) -> bool:  # noqa: ANN401  # a reactor
    protocol = Protocol()
    fields = await dial(reactor, target, protocol)
    transport: Any = protocol.transport
    transport.abortConnection()
    return bool(field_values(fields, MARK.lower()))


def _give(found: Comparison, parsed: argparse.Namespace) -> None:
    sys.stdout.write(json.dumps(found.as_json(), indent=2) + "\n" if parsed.json else table(found))
    if parsed.plot is not None:
        write_file(parsed.plot, plot(found))


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.05 <= seconds <= 60:
        msg = f"{text!r} is not a time; write seconds, from 0.05 to 60"
        raise ValueError(msg)
    return seconds


def _rounds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 99:
        msg = f"{text!r} is not a number of rounds; write one from 1 to 99"
        raise ValueError(msg)
    return int(text)


def _loads(text: str) -> list[str]:
    names = text.split(",")
    known = [load.name for load in LOADS]
    for name in names:
        if name not in known:
            msg = f"{name!r} is not a load; write some of {', '.join(known)} with commas between them"
            raise ValueError(msg)
    return names


def _parser() -> Parser:
    parser = Parser("bench", "Measures a tunnel on this machine against the direct connection.")
    add = parser.add_argument
    add("--quick", action="store_true", help="a few seconds only: enough to see that it works")
    add("--json", action="store_true", help="write the figures as JSON")
    add("--plot", metavar="FILE", type=checked(new_file), help="draw them into an SVG file as well")
    add("--loads", metavar="NAMES", type=checked(_loads), help=f"some of {','.join(_names(LOADS))}")
    add("--seconds", metavar="N", type=checked(_seconds), help="how long each load goes on (default: 1)")
    add("--rounds", metavar="N", type=checked(_rounds), help="how often; medians are shown (default: 3)")
    add("--url", metavar="URL", help="a tunnel that is there, such as wss://relay.example/c/ROOM")
    add("--direct-url", metavar="URL", help="its local server, to compare with")
    add("--token-file", metavar="FILE", type=Path, help="a file with a token for the relay of --url")
    add(
        "--tls-ca", metavar="FILE", type=Path, help="the authorities (PEM) to believe instead of the system's"
    )
    add("--serve", metavar="PORT", type=checked(port_number), help="be the local server of a bench, alone")
    add("--quiet", action="store_true", help="do not say what is done at the moment")
    return parser


def _names(loads: Sequence[Load]) -> list[str]:
    return [load.name for load in loads]
