"""``seance status``: shows the rooms of a relay and their clients as a table, from its admin port.

``--json`` prints the data of the API for scripts; the exit status tells the type of an error. The dashboard
shows figures over time and can disconnect clients.
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
from seance.cli.status_client import Admin, Room, StatusClient, StatusError
from seance.cli.terminal import read_token
from seance.errors import ConfigError

__all__ = ["DEFAULT_URL", "main"]

COMMAND = "seance status"

DEFAULT_URL = "http://localhost:9090"

URL_VARIABLE = "SEANCE_ADMIN_URL"

WATCH_SECONDS = 2.0

CLEAR_SCREEN = "\x1b[H\x1b[J"
"""Moves the cursor to the top left and erases the screen."""

UNITS = ("B", "KiB", "MiB", "GiB", "TiB")

Row = tuple[str, ...]


def main(arguments: Sequence[str], sleep: Callable[[float], None] = time.sleep) -> int:
    """Run ``seance status``; return the exit status.

    Args:
        arguments: The command line after the command.
        sleep: Waits between updates with ``--watch``.

    Raises:
        SystemExit: An option is invalid, or the help was printed.
    """
    parsed = _parser().parse_args(list(arguments))
    try:
        admin = Admin(parsed.admin, (read_token(parsed.token_file) or ""), parsed.ca)
        view = _StatusView(admin, parsed.room, as_json=parsed.json, is_watch=parsed.watch)
        if not parsed.watch:
            _print(view.fetch())
            return 0
        with suppress(KeyboardInterrupt, BrokenPipeError):
            _watch(view, sleep, as_json=parsed.json)
    except ConfigError as error:
        sys.stderr.write(f"{COMMAND}: {error.message}\n")
        return error.status if isinstance(error, StatusError) else 1
    return 0


def _watch(view: _StatusView, sleep: Callable[[float], None], *, as_json: bool) -> None:
    """Show the status every two seconds. The first request has to succeed; later ones may fail."""
    clear = CLEAR_SCREEN if sys.stdout.isatty() and not as_json else ""
    text = view.fetch()
    while True:
        _print(clear + text)
        sleep(WATCH_SECONDS)
        try:
            text = view.fetch()
        except StatusError as error:
            text = json.dumps({"error": error.message}) if as_json else error.message


class _StatusView:
    """Fetches the status and formats it; with ``--watch`` it computes rates from the previous status.

    Args:
        admin: The admin port.
        room: The room to show with its clients; None for all rooms.
        as_json: Format as JSON.
        is_watch: Show rates instead of byte counts.
    """

    def __init__(self, admin: Admin, room: str | None, *, as_json: bool, is_watch: bool) -> None:
        self._admin = admin
        self._room = room
        self._as_json = as_json
        self._is_watch = is_watch
        self._previous: dict[str, Room] = {}
        self._interval = 0.0
        self._fetched_at = time.monotonic()

    def fetch(self) -> str:
        """Return the text to show, without the last line end.

        Raises:
            StatusError: The request failed.
        """
        state = self._admin.readiness()
        if self._room is not None:
            room, clients = self._admin.room(self._room)
            if self._as_json:
                return json.dumps({**asdict(room), "list": [asdict(one) for one in clients]})
            return f"{self._room_table([room])}\n\n{_client_table(room, clients)}"
        rooms = self._admin.rooms()
        if self._as_json:
            rooms_as_json = [asdict(one) for one in rooms]
            return json.dumps({"relay": self._admin.url, "state": state, "rooms": rooms_as_json})
        client_count = sum(one.clients for one in rooms)
        summary = (
            f"{self._admin.url}: {state}, {_plural(len(rooms), 'room')}, {_plural(client_count, 'client')}"
        )
        return f"{summary}\n\n{self._room_table(rooms)}" if rooms else summary

    def _room_table(self, rooms: Sequence[Room]) -> str:
        head = ("ROOM", "STATE", "CLIENTS", "TO CLIENTS", "FROM CLIENTS", "ROUND TRIP", "AGENT AT")
        now = time.monotonic()
        self._interval, self._fetched_at = now - self._fetched_at, now
        rows = [
            (
                one.room,
                one.state if one.state == "online" else f"{one.state} for {_duration(one.since_seconds)}",
                f"{one.clients}",
                self._bytes(one.sent_bytes, None if before is None else before.sent_bytes),
                self._bytes(one.received_bytes, None if before is None else before.received_bytes),
                "-" if one.round_trip_seconds is None else f"{one.round_trip_seconds * 1000:.1f} ms",
                one.agent_address or "-",
            )
            for one in rooms
            for before in [self._previous.get(one.room)]
        ]
        self._previous = {one.room: one for one in rooms}
        return _table([head, *rows])

    def _bytes(self, count: int, before: int | None) -> str:
        if not self._is_watch:
            return _size(count)
        if before is None or self._interval <= 0:
            return "-"
        return f"{_size(round(max(count - before, 0) / self._interval))}/s"


# Tables


def _client_table(room: Room, clients: Sequence[StatusClient]) -> str:
    if not clients:
        return "No clients are connected."
    head = ("CLIENT", "STATE", "FOR", "TO IT", "FROM IT", "FROM")
    rows = [
        (
            f"{one.client}",
            one.state,
            _duration(one.seconds),
            _size(one.sent_bytes),
            _size(one.received_bytes),
            one.address or "-",
        )
        for one in clients
    ]
    more = room.clients - len(clients)
    return _table([head, *rows]) + (f"\nand {_plural(more, 'more client')}" if more > 0 else "")


def _table(rows: Sequence[Row]) -> str:
    """Return rows as aligned columns; columns with numbers are right-aligned."""
    is_number = [column[0].startswith(NUMBER_HEADINGS) for column in zip(*rows, strict=True)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, is_number, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


NUMBER_HEADINGS = ("CLIENTS", "TO ", "FROM CLIENTS", "FROM IT", "ROUND", "FOR", "CLIENT")
"""Prefixes of the headings of columns with numbers."""


def _size(count: int) -> str:
    size = float(count)
    unit = 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size /= 1024
        unit += 1
    return f"{count} B" if unit == 0 else f"{size:.1f} {UNITS[unit]}"


def _duration(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


# The command line


def _parser() -> Parser:
    parser = Parser(
        "status",
        "Shows the rooms of a relay, or one room and its clients, from the relay's admin port.",
        epilog="Exit status: 0 success; 1 an option is invalid; 2 no connection; 3 the URL is not the admin "
        "port of a relay; 4 the token is missing or not accepted; 5 the room has no agent.",
    )
    add = parser.add_argument
    add("room", metavar="ROOM", nargs="?", help="show the clients of this room")
    add(
        "--admin",
        metavar="URL",
        default=os.environ.get(URL_VARIABLE, DEFAULT_URL),
        help=f"the relay's admin port (default: {DEFAULT_URL}, or {URL_VARIABLE})",
    )
    add("--token-file", metavar="FILE", type=Path, help="file with a token of role admin")
    add("--ca", metavar="FILE", help="CA certificates (PEM) to trust for an admin port with https://")
    add("--watch", action="store_true", help="update the table every two seconds, until Ctrl-C")
    add("--json", action="store_true", help="print one JSON object; with --watch one per line")
    return parser


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
