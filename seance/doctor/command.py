"""The command line of ``seance doctor``: parses the options, prints the findings, returns the exit code."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError

from seance.cli import INTERRUPTED
from seance.cli.arguments import Parser, checked
from seance.cli.terminal import run
from seance.doctor.context import DOCUMENT, DoctorOptions
from seance.doctor.findings import WRONG_OPTIONS, Hop
from seance.doctor.runner import run_checks
from seance.doctor.text_output import TextOutput
from seance.options import parsers

__all__ = ["main"]

COMMAND = "seance doctor"

INTERNAL_ERROR = 1
"""The exit code if the doctor itself fails, or if stdout was closed."""

SHARE_LINK = re.compile(r"/(c/[^/]+|client|agent)/?$")
MAX_TIMEOUT_SECONDS = 300.0


def main(arguments: Sequence[str]) -> int:
    """Run ``seance doctor`` and return the exit code.

    Raises:
        SystemExit: An option is invalid, or ``--help`` was given.
    """
    parser = _parser()
    parsed = parser.parse_args(list(arguments))
    if parsed.relay is None and parsed.local is None:
        parser.error("nothing to check: give --relay URL, --local ADDRESS, or both")
    if parsed.room is not None and parsed.relay is None:
        parser.error("--room needs --relay URL")
    if parsed.tls_ca is not None and not str(parsed.relay).startswith("wss:"):
        parser.error("--tls-ca needs a --relay with wss://")
    options = DoctorOptions(
        relay=parsed.relay,
        room=parsed.room,
        local=parsed.local,
        token_files=tuple(parsed.token_file),
        ca_file=parsed.tls_ca,
        document=parsed.document,
        timeout_seconds=parsed.timeout,
    )
    return run(COMMAND, lambda reactor: _work(reactor, options, is_json=parsed.json))


async def _work(reactor: Any, options: DoctorOptions, *, is_json: bool) -> int:  # noqa: ANN401  # no common type
    output = TextOutput(sys.stdout, options)
    if not is_json:
        output.begin()
    try:
        report = await run_checks(reactor, options, (lambda _: None) if is_json else output.finding)
    except CancelledError:
        sys.stderr.write(f"{COMMAND}: interrupted.\n")
        return INTERRUPTED
    if is_json:
        sys.stdout.write(json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n")
    else:
        output.end(report)
    return report.exit_code


def _parser() -> Parser:
    parser = Parser(
        "doctor",
        "Checks the path from this machine to a relay, its agent and the local server behind it, "
        "and names the first hop that fails.",
        status=WRONG_OPTIONS,
        epilog=_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--relay",
        metavar="URL",
        type=checked(_relay_url),
        help="URL of the relay, ws:// or wss://, as for the agent",
    )
    add(
        "--room",
        metavar="NAME",
        type=checked(parsers.room_name),
        help="the room (default: check only the relay)",
    )
    add(
        "--token-file",
        metavar="FILE",
        type=checked(parsers.file_path),
        action="append",
        default=[],
        help="file with a token, for a relay that requires one; a client's token allows more checks than an "
        "agent's (repeatable)",
    )
    add(
        "--local",
        metavar="ADDRESS",
        type=checked(parsers.local_server),
        help="the local server, as the agent's --local, to check it directly as well; without --relay, check "
        "only the local server",
    )
    add(
        "--tls-ca",
        metavar="FILE",
        type=checked(parsers.file_path),
        help="trust these authorities (PEM) instead of the system's",
    )
    add(
        "--document",
        metavar="NAME",
        type=checked(_document),
        default=DOCUMENT,
        help=f"the document to request; nothing is written to it (default: {DOCUMENT})",
    )
    add(
        "--timeout",
        metavar="SECONDS",
        type=checked(_timeout),
        default=20.0,
        help="time limit of each hop (default: 20)",
    )
    add("--json", action="store_true", help="print one JSON object at the end")
    return parser


def _codes() -> str:
    names = ", ".join(f"{hop.exit_code} {hop.value}" for hop in Hop if hop is not Hop.URL)
    others = f"{WRONG_OPTIONS} invalid options, {INTERNAL_ERROR} internal error, {INTERRUPTED} interrupted"
    return f"Exit status: 0 no hop fails; {others}; or the code of the first hop that fails:\n{names}."


def _relay_url(text: str) -> str:
    url = parsers.relay_url(text)
    if SHARE_LINK.search(url):
        base = SHARE_LINK.sub("", url)
        msg = f"{url!r} is an address for clients or agents; give the relay's address, {base}, and --room"
        raise ValueError(msg)
    return url


def _document(text: str) -> str:
    if not text.isprintable() or len(text) > 512:
        msg = "a document name has at most 512 printable characters"
        raise ValueError(msg)
    return text


def _timeout(text: str) -> float:
    seconds = parsers.seconds(text)
    if seconds > MAX_TIMEOUT_SECONDS:
        msg = f"{text!r} is too long for a hop; write at most {MAX_TIMEOUT_SECONDS:.0f} seconds"
        raise ValueError(msg)
    return seconds
