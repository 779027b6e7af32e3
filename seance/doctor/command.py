"""The command: options in, findings out as they are made, an exit status that names the hop.

Not built on ``seance.options.config``: like the demo and the commands for tokens this is for a person at a
terminal, so there is no config file and no environment to consider.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError

from seance.cli.arguments import Parser, checked
from seance.cli.terminal import run
from seance.doctor.context import DOCUMENT, DoctorOptions
from seance.doctor.findings import INTERRUPTED, WRONG_OPTIONS, Finding, Hop
from seance.doctor.runner import walk
from seance.doctor.show import Shown
from seance.options import parsers

__all__ = ["main"]

COMMAND = "seance doctor"

BROKEN = 1
"""The exit code where the doctor itself fails, and where whoever reads what it says has gone."""

SHARE_LINK = re.compile(r"/(c/[^/]+|client|agent)/?$")
LONGEST_TIMEOUT_SECONDS = 300.0


def main(arguments: Sequence[str]) -> int:
    """Runs ``seance doctor``; returns the exit status.

    Raises:
        SystemExit: An option is wrong, or only the help was wanted.
    """
    parser = _parser()
    parsed = parser.parse_args(list(arguments))
    if parsed.relay is None and parsed.local is None:
        parser.error("nothing to look at: give --relay URL, --local ADDRESS, or both")
    if parsed.room is not None and parsed.relay is None:
        parser.error("--room needs --relay URL: a room is on a relay")
    if parsed.tls_ca is not None and not str(parsed.relay).startswith("wss:"):
        parser.error("--tls-ca needs a --relay with wss://")
    orders = DoctorOptions(
        relay=parsed.relay,
        room=parsed.room,
        local=parsed.local,
        token_files=tuple(parsed.token_file),
        ca_file=parsed.tls_ca,
        document=parsed.document,
        timeout_seconds=parsed.timeout,
    )
    return run(COMMAND, lambda reactor: _work(reactor, orders, is_json=parsed.json))


async def _work(reactor: Any, orders: DoctorOptions, *, is_json: bool) -> int:  # noqa: ANN401  # no common type
    shown = Shown(sys.stdout, orders)
    if not is_json:
        shown.begin()
    try:
        report = await walk(reactor, orders, _keep if is_json else shown.finding)
    except CancelledError:
        sys.stderr.write(f"{COMMAND}: interrupted.\n")
        return INTERRUPTED
    if is_json:
        sys.stdout.write(json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n")
    else:
        shown.end(report)
    return report.exit_code


def _keep(finding: Finding) -> None:
    """JSON is written at the end, all at once."""


def _parser() -> Parser:
    parser = Parser(
        "doctor",
        "Walks the way from here to a relay, its agent and the local server behind it, "
        "and names the hop that fails.",
        status=WRONG_OPTIONS,  # which no hop has
        epilog=_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--relay",
        metavar="URL",
        type=checked(_relay_url),
        help="the relay, ws:// or wss://, as for the agent",
    )
    add(
        "--room",
        metavar="NAME",
        type=checked(parsers.room_name),
        help="the room; without it, only the relay is looked at",
    )
    add(
        "--token-file",
        metavar="FILE",
        type=checked(parsers.file_path),
        action="append",
        default=[],
        help="a token, for a relay that asks for one; with a client's, more can be seen than with an agent's "
        "(repeatable)",
    )
    add(
        "--local",
        metavar="ADDRESS",
        type=checked(parsers.local_server),
        help="the local server, as the agent's --local, to be asked directly too; without --relay, it alone",
    )
    add(
        "--tls-ca",
        metavar="FILE",
        type=checked(parsers.file_path),
        help="believe these authorities (PEM), not the system's",
    )
    add(
        "--document",
        metavar="NAME",
        type=checked(_document),
        default=DOCUMENT,
        help=f"what the local server is asked for; nothing is written to it (default: {DOCUMENT})",
    )
    add(
        "--timeout",
        metavar="SECONDS",
        type=checked(_timeout),
        default=20.0,
        help="how long each hop may take (default: 20)",
    )
    add("--json", action="store_true", help="print one JSON object, at the end")
    return parser


def _codes() -> str:
    names = ", ".join(f"{hop.exit_code} {hop.value}" for hop in Hop if hop is not Hop.URL)
    others = f"{WRONG_OPTIONS} wrong options, {BROKEN} a fault of the doctor's own, {INTERRUPTED} interrupted"
    return f"Exit status: 0 all is well; {others}; or the first hop that fails:\n{names}."


def _relay_url(text: str) -> str:
    url = parsers.relay_url(text)
    if SHARE_LINK.search(url):
        base = SHARE_LINK.sub("", url)
        msg = f"{url!r} is for clients or agents; write the relay's address, {base}, and the room with --room"
        raise ValueError(msg)
    return url


def _document(text: str) -> str:
    if not text.isprintable() or len(text) > 512:
        msg = "that is no name of a document: write at most 512 printable characters"
        raise ValueError(msg)
    return text


def _timeout(text: str) -> float:
    seconds = parsers.seconds(text)
    if seconds > LONGEST_TIMEOUT_SECONDS:
        msg = f"{text!r} is too long for a hop; write at most {LONGEST_TIMEOUT_SECONDS:.0f} seconds"
        raise ValueError(msg)
    return seconds
