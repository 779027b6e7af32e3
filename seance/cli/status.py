"""``seance status``: the rooms of a relay and their clients as a table, from its admin port.

For a person at a terminal and for scripts: ``--json`` gives what the API says, and the exit status says what
went wrong. Figures over time, and sending somebody away, are the dashboard's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from seance.cli.arguments import Parser
from seance.cli.status_client import Admin, Client, Room, StatusError
from seance.errors import ConfigError
from seance.net import read_bounded
from seance.options.parsers import token as checked_token

__all__ = ["DEFAULT_URL", "main"]

COMMAND = "seance status"

DEFAULT_URL = "http://localhost:9090"

URL_VARIABLE = "SEANCE_ADMIN_URL"

WATCH_SECONDS = 2.0

CLEAR = "\x1b[H\x1b[J"
"""Cursor to the top, and nothing below it."""

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")

Row = tuple[str, ...]

LONGEST_TOKEN_BYTES = 4096


def main(arguments: Sequence[str], sleep: Callable[[float], None] = time.sleep) -> int:
    """Runs ``seance status``; returns the exit status.

    Args:
        arguments: The command line after the command.
        sleep: Waits, with ``--watch``.

    Raises:
        SystemExit: An option is wrong, or only the help was wanted.
    """
    parsed = _parser().parse_args(list(arguments))
    try:
        admin = Admin(parsed.admin, _token(parsed.token_file), parsed.ca)
        look = _Look(admin, parsed.room, as_json=parsed.json, is_watch=parsed.watch)
        if not parsed.watch:
            _give(look.text())
            return 0
        with suppress(KeyboardInterrupt, BrokenPipeError):
            _watch(look, sleep, as_json=parsed.json)
    except ConfigError as error:
        sys.stderr.write(f"{COMMAND}: {error.sentence}\n")
        return error.status if isinstance(error, StatusError) else 1
    return 0


def _watch(look: _Look, sleep: Callable[[float], None], *, as_json: bool) -> None:
    """Show it again and again. The first look has to succeed; later a relay may be away for a while."""
    clear = CLEAR if sys.stdout.isatty() and not as_json else ""
    text = look.text()
    while True:
        _give(clear + text)
        sleep(WATCH_SECONDS)
        try:
            text = look.text()
        except StatusError as error:
            text = json.dumps({"error": error.sentence}) if as_json else error.sentence


class _Look:
    """What is shown, each time anew; from one look to the next are the rates.

    Args:
        admin: Whom to ask.
        room: One room, with its clients; None for all rooms.
        as_json: For programs.
        is_watch: Whether there is another look after each: then bytes are shown as rates.
    """

    def __init__(self, admin: Admin, room: str | None, *, as_json: bool, is_watch: bool) -> None:
        self._admin = admin
        self._room = room
        self._as_json = as_json
        self._is_watch = is_watch
        self._before: dict[str, Room] = {}
        self._seconds = 0.0
        self._at = time.monotonic()

    def text(self) -> str:
        """Return it, without the last line end.

        Raises:
            StatusError: The relay could not be asked.
        """
        state = self._admin.readiness()
        if self._room is not None:
            room, clients = self._admin.room(self._room)
            if self._as_json:
                return json.dumps({**asdict(room), "list": [asdict(one) for one in clients]})
            return f"{self._rooms([room])}\n\n{_clients(room, clients)}"
        rooms = self._admin.rooms()
        if self._as_json:
            told = [asdict(one) for one in rooms]
            return json.dumps({"relay": self._admin.url, "state": state, "rooms": told})
        clients_in_all = sum(one.clients for one in rooms)
        summary = (
            f"{self._admin.url}: {state}, {_many(len(rooms), 'room')}, {_many(clients_in_all, 'client')}"
        )
        return f"{summary}\n\n{self._rooms(rooms)}" if rooms else summary

    def _rooms(self, rooms: Sequence[Room]) -> str:
        head = ("ROOM", "STATE", "CLIENTS", "TO CLIENTS", "FROM CLIENTS", "ROUND TRIP", "AGENT AT")
        now = time.monotonic()
        self._seconds, self._at = now - self._at, now
        rows = [
            (
                one.room,
                one.state if one.state == "online" else f"{one.state} for {_span(one.since_seconds)}",
                f"{one.clients}",
                self._bytes(one.sent_bytes, None if before is None else before.sent_bytes),
                self._bytes(one.received_bytes, None if before is None else before.received_bytes),
                "-" if one.round_trip_seconds is None else f"{one.round_trip_seconds * 1000:.1f} ms",
                one.agent_address or "-",
            )
            for one in rooms
            for before in [self._before.get(one.room)]
        ]
        self._before = {one.room: one for one in rooms}
        return _table([head, *rows])

    def _bytes(self, count: int, before: int | None) -> str:
        if not self._is_watch:
            return _size(count)
        if before is None or self._seconds <= 0:
            return "-"
        return f"{_size(round(max(count - before, 0) / self._seconds))}/s"


# Tables


def _clients(room: Room, clients: Sequence[Client]) -> str:
    if not clients:
        return "No client is there."
    head = ("CLIENT", "STATE", "FOR", "TO IT", "FROM IT", "FROM")
    rows = [
        (
            f"{one.client}",
            one.state,
            _span(one.seconds),
            _size(one.sent_bytes),
            _size(one.received_bytes),
            one.address or "-",
        )
        for one in clients
    ]
    more = room.clients - len(clients)
    return _table([head, *rows]) + (f"\nand {_many(more, 'more client')}" if more > 0 else "")


def _table(rows: Sequence[Row]) -> str:
    """Return rows as aligned columns, those of figures to the right."""
    is_figure = [column[0].startswith(RIGHT) for column in zip(*rows, strict=True)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_figure, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


RIGHT = ("CLIENTS", "TO ", "FROM CLIENTS", "FROM IT", "ROUND", "FOR", "CLIENT")
"""How the heads of columns begin whose cells are figures."""


def _size(count: int) -> str:
    size = float(count)
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size /= 1024
        unit += 1
    return f"{count} B" if unit == 0 else f"{size:.1f} {UNITS[unit]}"


def _span(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


# The command line


def _token(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return checked_token(read_bounded(path, LONGEST_TOKEN_BYTES)[0].decode("ascii").strip())
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "what it holds is no token"
        raise ConfigError(f"The token file {path} cannot be read: {why}.") from error


def _parser() -> Parser:
    parser = Parser(
        "status",
        "Shows the rooms of a relay, or one room and its clients, as its admin port tells them.",
        epilog="Exit status: 0; 1 an option is wrong; 2 nobody answers; 3 what answers is not the admin port "
        "of a relay; 4 it wants a token, or another one; 5 nobody serves the room.",
    )
    add = parser.add_argument
    add("room", metavar="ROOM", nargs="?", help="show the clients of this room")
    add(
        "--admin",
        metavar="URL",
        default=os.environ.get(URL_VARIABLE, DEFAULT_URL),
        help=f"the relay's admin port (default: {DEFAULT_URL}, or {URL_VARIABLE})",
    )
    add("--token-file", metavar="FILE", type=Path, help="a file that holds a token of role admin")
    add("--ca", metavar="FILE", help="believe these authorities (PEM) when the admin port speaks TLS")
    add("--watch", action="store_true", help="show it again every two seconds, until Ctrl-C")
    add("--json", action="store_true", help="one JSON object, with --watch one a line")
    return parser


def _give(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
