"""``seance check`` itself: options in, a report out; status 0 if all passed, 1 if not.

The silent connection of the third check is opened first and looked at last: it costs the time of the
longest of the others, not its own on top.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from seance import values
from seance.arguments import Parser, checked, port_number
from seance.bench.children import Children
from seance.bench.comparison import Effort
from seance.bench.plot import plot
from seance.check.clients import check_clients
from seance.check.fidelity import check_fidelity, is_idle_kept
from seance.check.local_server import CheckServerFactory
from seance.check.report import Part, Report
from seance.check.speed import check_speed
from seance.check.stage import Given, Stage, set_up
from seance.check.trial import attempt
from seance.check.yjs import check_yjs
from seance.terminal import Progress, new_file, read_token, run, serve, write_file

__all__ = ["CHECKS", "main"]

COMMAND = "seance check"

CHECKS = ("clients", "yjs", "fidelity", "speed")

CLIENTS = 50
IDLE_SECONDS = 65.0
"""Beyond the minute after which most proxies cut what is silent (nginx' ``proxy_read_timeout``)."""

QUICK_IDLE_SECONDS = 20.0
EFFORT = Effort(seconds=0.5, rounds=3, idle_clients=0)
QUICK_EFFORT = Effort(seconds=0.3, rounds=1, idle_clients=0)

MOST_CLIENTS = 5000


def main(arguments: Sequence[str]) -> int:
    """Runs ``seance check``; returns the exit status.

    Raises:
        SystemExit: An option is wrong, or only the help was wanted.
    """
    parser = _parser()
    parsed = parser.parse_args(list(arguments))
    if parsed.serve is not None:
        return run(COMMAND, lambda reactor: serve(CheckServerFactory(reactor), parsed.serve)(reactor))
    if parsed.relay is None:
        for name in ("room", "token_file", "agent_token_file", "tls_ca"):
            if getattr(parsed, name) is not None:
                parser.error(f"--{name.replace('_', '-')} is for a relay that is there; name it with --relay")
    if parsed.plot is not None and parsed.only is not None and "speed" not in parsed.only:
        parser.error("--plot draws the speed, which --only leaves out")
    return run(COMMAND, lambda reactor: _work(reactor, parsed))


async def _work(reactor: Any, parsed: argparse.Namespace) -> int:  # noqa: ANN401  # a reactor
    began = time.monotonic()
    progress = Progress(quiet=parsed.quiet)
    children = Children(reactor)
    given = Given(
        parsed.relay, parsed.room, read_token(parsed.token_file), parsed.agent_token_file, parsed.tls_ca
    )
    try:
        progress("preparing the tunnel" if parsed.relay else "starting a relay, an agent and a local server")
        stage = await set_up(reactor, given, children)
        report = await _checked(stage, parsed, progress)
    finally:
        progress.clear()
        await children.stop()
    report.seconds = time.monotonic() - began
    _give(report, parsed)
    return 0 if report.passed else 1


async def _checked(stage: Stage, parsed: argparse.Namespace, progress: Progress) -> Report:
    report = Report(stage.relay_words, stage.room, list(stage.notes))
    wanted = parsed.only or CHECKS
    idle_seconds = parsed.idle or (QUICK_IDLE_SECONDS if parsed.quick else IDLE_SECONDS)
    idling = _idle(stage, idle_seconds) if "fidelity" in wanted else None
    try:
        if "clients" in wanted:
            progress(f"{parsed.clients} clients at a time")
            report.checks.append(await check_clients(stage, parsed.clients))
        if "yjs" in wanted:
            progress("Yjs documents")
            report.checks.append(await check_yjs(stage))
        if "fidelity" in wanted:
            progress("what a WebSocket may say")
            fidelity = await check_fidelity(stage)
            report.checks.append(fidelity)
        if "speed" in wanted:
            effort = QUICK_EFFORT if parsed.quick else EFFORT
            report.checks.append(await check_speed(stage, effort, progress))
        if idling is not None:
            progress(f"the rest of {idle_seconds:g} s of silence")
            fidelity.parts.append(await idling)
    finally:
        if idling is not None and not idling.called:
            idling.addErrback(lambda failure: failure.trap(CancelledError))
            idling.cancel()
    return report


def _idle(stage: Stage, seconds: float) -> Deferred[Part]:
    return Deferred.fromCoroutine(
        attempt(
            stage.reactor,
            "idle",
            "silence",
            lambda: is_idle_kept(stage, seconds),
            timeout_seconds=seconds + 60,
        )
    )


def _give(report: Report, parsed: argparse.Namespace) -> None:
    text = json.dumps(report.as_json(), indent=2) + "\n" if parsed.json else report.as_text()
    sys.stdout.write(text)
    figures = [check.figures for check in report.checks if check.figures is not None]
    if parsed.plot is not None and figures:
        write_file(parsed.plot, plot(figures[0]))


def _only(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in CHECKS:
            msg = f"{name!r} is not a check; write some of {', '.join(CHECKS)} with commas between them"
            raise ValueError(msg)
    return names


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MOST_CLIENTS:
        msg = f"{text!r} is not a number of clients; write one from 1 to {MOST_CLIENTS}"
        raise ValueError(msg)
    return int(text)


def _parser() -> Parser:
    parser = Parser("check", "Checks a tunnel: clients, Yjs, fidelity, speed. One report, status 0 or 1.")
    add = parser.add_argument
    add(
        "--relay",
        metavar="URL",
        type=checked(values.relay_url),
        help="a relay that is there (default: start one)",
    )
    add(
        "--room",
        metavar="NAME",
        type=checked(values.room_name),
        help="the room; where nobody serves it, an agent of ours does for the time (default: one of its own)",
    )
    add("--token-file", metavar="FILE", type=Path, help="a file with a token that lets clients in")
    add("--agent-token-file", metavar="FILE", type=Path, help="a file with a token that lets an agent in")
    add(
        "--tls-ca", metavar="FILE", type=Path, help="the authorities (PEM) to believe instead of the system's"
    )
    add("--only", metavar="NAMES", type=checked(_only), help=f"some of {','.join(CHECKS)}")
    add(
        "--clients",
        metavar="N",
        type=checked(_count),
        default=CLIENTS,
        help=f"at a time (default: {CLIENTS})",
    )
    add(
        "--idle",
        metavar="SECONDS",
        type=checked(values.seconds),
        help=f"how long a connection is silent (default: {IDLE_SECONDS:g}, quick {QUICK_IDLE_SECONDS:g})",
    )
    add("--quick", action="store_true", help="less of everything: half a minute")
    add("--json", action="store_true", help="write the report as JSON")
    add("--plot", metavar="FILE", type=checked(new_file), help="draw the speed into an SVG file as well")
    add("--serve", metavar="PORT", type=checked(port_number), help="be the local server of a check, alone")
    add("--quiet", action="store_true", help="do not say what is done at the moment")
    return parser
