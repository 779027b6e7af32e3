"""``seance check``: parse the options, run the checks, write the report. Exit status 0 if all passed, else 1.

The idle connection of the third check is opened first and tested last, so it takes no extra time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from twisted.internet.defer import CancelledError, Deferred

from seance.bench.command import add_common_options, some_of, up_to
from seance.bench.comparison import Effort
from seance.bench.local_server import LocalServerFactory
from seance.bench.output import plot
from seance.bench.subprocesses import TunnelProcesses
from seance.check.check_case import run_case
from seance.check.clients import check_clients
from seance.check.environment import CheckOptions, Environment, set_up
from seance.check.fidelity import check_fidelity, is_idle_kept
from seance.check.report import CheckReport
from seance.check.speed import check_speed
from seance.check.yjs import check_yjs
from seance.cli.arguments import Parser, checked
from seance.cli.terminal import ProgressLine, read_token, run, serve, write_file
from seance.options import parsers
from seance.wsclient import Reactor

__all__ = ["CHECKS", "main"]

COMMAND = "seance check"

CHECKS = ("clients", "yjs", "fidelity", "speed")

CLIENTS = 50
MAX_CLIENTS = 5000

IDLE_SECONDS = 65.0
"""More than a minute, after which most proxies close idle connections (nginx: ``proxy_read_timeout``)."""

QUICK_IDLE_SECONDS = 20.0
EFFORT = Effort(seconds=0.5, rounds=3, idle_clients=0)
QUICK_EFFORT = Effort(seconds=0.3, rounds=1, idle_clients=0)

RELAY_OPTIONS = ("room", "token_file", "agent_token_file", "tls_ca")


def main(arguments: Sequence[str]) -> int:
    """Run ``seance check`` and return the exit status.

    Raises:
        SystemExit: An option is wrong, or ``--help`` was given.
    """
    parser = _parser()
    parsed = parser.parse_args(list(arguments))
    if parsed.serve is not None:
        return run(COMMAND, lambda reactor: serve(LocalServerFactory(reactor), parsed.serve)(reactor))
    for name in RELAY_OPTIONS if parsed.relay is None else ():
        if getattr(parsed, name) is not None:
            parser.error(f"--{name.replace('_', '-')} has no effect without --relay")
    if parsed.plot is not None and parsed.only is not None and "speed" not in parsed.only:
        parser.error("--plot shows the speed, which --only leaves out")
    return run(COMMAND, lambda reactor: _run(reactor, parsed))


async def _run(reactor: Reactor, parsed: argparse.Namespace) -> int:
    began = time.monotonic()
    progress = ProgressLine(quiet=parsed.quiet)
    processes = TunnelProcesses(reactor)
    token = read_token(parsed.token_file)
    options = CheckOptions(parsed.relay, parsed.room, token, parsed.agent_token_file, parsed.tls_ca)
    try:
        progress("preparing the tunnel" if parsed.relay else "starting a relay, an agent and a local server")
        environment = await set_up(reactor, options, processes)
        report = await _check(environment, parsed, progress)
    finally:
        progress.clear()
        await processes.stop()
    report.seconds = time.monotonic() - began
    _write(report, parsed)
    return 0 if report.passed else 1


async def _check(environment: Environment, parsed: argparse.Namespace, progress: ProgressLine) -> CheckReport:
    report = CheckReport(environment.relay_words, environment.room, list(environment.notes))
    selected = parsed.only or CHECKS
    seconds = parsed.idle or (QUICK_IDLE_SECONDS if parsed.quick else IDLE_SECONDS)
    idle = None
    if "fidelity" in selected:
        idle = Deferred.fromCoroutine(
            run_case(
                environment.reactor,
                "idle",
                "idle connection",
                lambda: is_idle_kept(environment, seconds),
                timeout_seconds=seconds + 60,
            )
        )
    try:
        if "clients" in selected:
            progress(f"{parsed.clients} clients at a time")
            report.checks.append(await check_clients(environment, parsed.clients))
        if "yjs" in selected:
            progress("Yjs documents")
            report.checks.append(await check_yjs(environment))
        if "fidelity" in selected:
            progress("WebSocket frames")
            fidelity = await check_fidelity(environment)
            report.checks.append(fidelity)
        if "speed" in selected:
            effort = QUICK_EFFORT if parsed.quick else EFFORT
            report.checks.append(await check_speed(environment, effort, progress))
        if idle is not None:
            progress(f"waiting for the end of {seconds:g} s without data")
            fidelity.parts.append(await idle)
    finally:
        if idle is not None and not idle.called:
            idle.addErrback(lambda failure: failure.trap(CancelledError))
            idle.cancel()
    return report


def _write(report: CheckReport, parsed: argparse.Namespace) -> None:
    sys.stdout.write(json.dumps(report.as_json(), indent=2) + "\n" if parsed.json else report.as_text())
    for check in report.checks:
        if parsed.plot is not None and check.figures is not None:
            write_file(parsed.plot, plot(check.figures))


def _parser() -> Parser:
    parser = Parser("check", "Check a tunnel: clients, Yjs, fidelity, speed. One report; status 0 or 1.")
    add = parser.add_argument
    add(
        "--relay",
        metavar="URL",
        type=checked(parsers.relay_url),
        help="check an existing relay (default: start one)",
    )
    add(
        "--room",
        metavar="NAME",
        type=checked(parsers.room_name),
        help="room of that relay; if no agent serves it, one is started (default: a random room)",
    )
    add("--agent-token-file", metavar="FILE", type=Path, help="file with an agent token")
    add("--only", metavar="NAMES", type=some_of(CHECKS, "check"), help=f"run only some of {','.join(CHECKS)}")
    add(
        "--clients",
        metavar="N",
        type=up_to(MAX_CLIENTS, "clients"),
        default=CLIENTS,
        help=f"number of clients at a time (default: {CLIENTS})",
    )
    add(
        "--idle",
        metavar="SECONDS",
        type=checked(parsers.seconds),
        help=f"duration of the idle connection (default: {IDLE_SECONDS:g}, quick {QUICK_IDLE_SECONDS:g})",
    )
    add("--quick", action="store_true", help="check less: about half a minute")
    add_common_options(parser)
    return parser
