"""``seance bench``: parse the options, measure, write the figures.

Without ``--url`` it starts relay, agent and local server itself. With ``--url`` (and ``--direct-url``) it
measures an existing tunnel, without CPU time and memory.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.protocol import Protocol

from seance.bench.comparison import BenchTarget, Comparison, Effort, compare
from seance.bench.loads import LOADS
from seance.bench.local_server import SERVER_FIELD, LocalServerFactory
from seance.bench.output import plot, table
from seance.bench.subprocesses import TunnelProcesses
from seance.cli.arguments import Parser, checked, port_number
from seance.cli.terminal import ProgressLine, new_file, read_token, run, serve, write_file
from seance.heads.fields import field_values
from seance.net import descriptor_limit
from seance.options import parsers
from seance.wsclient import Reactor, Target, dial

__all__ = ["add_common_options", "main", "some_of", "up_to"]

COMMAND = "seance bench"
ROOM = "bench"

QUICK = Effort(seconds=0.4, rounds=1, idle_clients=200)

SPARE_DESCRIPTORS = 200
"""File descriptors of a relay for everything else than idle clients: a load's clients, files, reserves."""


def main(arguments: Sequence[str]) -> int:
    """Run ``seance bench`` and return the exit status.

    Raises:
        SystemExit: An option is wrong, or ``--help`` was given.
    """
    parser = _parser()
    parsed = parser.parse_args(list(arguments))
    if parsed.direct_url is not None and parsed.url is None:
        parser.error("--direct-url has no effect without --url")
    if parsed.serve is not None:
        return run(COMMAND, lambda reactor: serve(LocalServerFactory(reactor), parsed.serve)(reactor))
    return run(COMMAND, lambda reactor: _run(reactor, parsed))


async def _run(reactor: Reactor, parsed: argparse.Namespace) -> int:
    progress = ProgressLine(quiet=parsed.quiet)
    processes = TunnelProcesses(reactor)
    effort = QUICK if parsed.quick else Effort()
    max_clients = max((descriptor_limit() or 1 << 20) - SPARE_DESCRIPTORS, 0)
    effort = Effort(
        parsed.seconds or effort.seconds,
        parsed.rounds or effort.rounds,
        min(effort.idle_clients, max_clients),
    )
    loads = [load for load in LOADS if not parsed.loads or load.name in parsed.loads]
    try:
        if parsed.url is None:
            progress("starting a relay, an agent and a local server")
            targets = await _start(processes)
        else:
            targets = await _existing(reactor, parsed)
        found = await compare(reactor, targets, effort, progress, loads)
    finally:
        progress.clear()
        await processes.stop()
    _write(found, parsed)
    return 0


async def _start(processes: TunnelProcesses) -> list[BenchTarget]:
    local_port = await processes.local_server("bench")
    relay, relay_port = await processes.relay()
    agent = await processes.agent(f"ws://127.0.0.1:{relay_port}", ROOM, local_port)
    return [
        BenchTarget("direct", Target(False, "127.0.0.1", local_port)),
        BenchTarget("tunnel", Target(False, "127.0.0.1", relay_port, f"/c/{ROOM}"), relay, agent),
    ]


async def _existing(reactor: Reactor, parsed: argparse.Namespace) -> list[BenchTarget]:
    token = read_token(parsed.token_file)
    targets = []
    for name, url, shown in (("direct", parsed.direct_url, None), ("tunnel", parsed.url, token)):
        if url is not None:
            target = Target.from_url(url, token=shown, ca_file=parsed.tls_ca)
            protocol = Protocol()
            fields = await dial(reactor, target, protocol)
            transport: Any = protocol.transport
            transport.abortConnection()
            is_ours = bool(field_values(fields, SERVER_FIELD.lower()))
            targets.append(BenchTarget(name, target, can_broadcast=is_ours))
    return targets


def _write(found: Comparison, parsed: argparse.Namespace) -> None:
    sys.stdout.write(json.dumps(found.as_json(), indent=2) + "\n" if parsed.json else table(found))
    if parsed.plot is not None:
        write_file(parsed.plot, plot(found))


def some_of(names: Iterable[str], kind: str) -> Callable[[str], list[str]]:
    """Return the type of an option: comma-separated names; ``kind`` says in messages what they name."""
    known = list(names)

    def read(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                msg = f"{name!r} is not a {kind}; write some of {', '.join(known)}, separated by commas"
                raise ValueError(msg)
        return text.split(",")

    return checked(read)


def up_to(highest: int, what: str) -> Callable[[str], int]:
    """Return the type of an option: a number from 1 to ``highest``; ``what`` is its noun in messages."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= highest:
            msg = f"{text!r} is not a number of {what}; write one from 1 to {highest}"
            raise ValueError(msg)
        return int(text)

    return checked(read)


def _parser() -> Parser:
    parser = Parser("bench", "Measure a tunnel on this machine and compare it with the direct connection.")
    add = parser.add_argument
    names = [load.name for load in LOADS]
    add("--quick", action="store_true", help="measure for a few seconds only, for a first impression")
    add("--loads", metavar="NAMES", type=some_of(names, "load"), help=f"run only some of {','.join(names)}")
    add("--seconds", metavar="N", type=checked(parsers.seconds), help="duration of each load (default: 1)")
    add("--rounds", metavar="N", type=up_to(99, "rounds"), help="runs of each load (default: 3)")
    add("--url", metavar="URL", help="measure an existing tunnel, such as wss://relay.example/c/ROOM")
    add("--direct-url", metavar="URL", help="URL of the tunnel's local server, for the comparison")
    add_common_options(parser)
    return parser


def add_common_options(parser: Parser) -> None:
    """Add the options that ``seance bench`` and ``seance check`` share."""
    add = parser.add_argument
    add("--token-file", metavar="FILE", type=Path, help="file with a client token for the relay")
    add("--tls-ca", metavar="FILE", type=Path, help="PEM file of trusted authorities (default: the system's)")
    add("--json", action="store_true", help="write JSON instead of text")
    add("--plot", metavar="FILE", type=checked(new_file), help="also plot the speed to this SVG file")
    add("--serve", metavar="PORT", type=checked(port_number), help="run only the local server")
    add("--quiet", action="store_true", help="show no progress")
