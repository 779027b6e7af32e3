"""``seance keygen``, ``seance token`` and ``seance share``: make keys, access tokens and links.

The result goes to stdout, so that it can be piped; hints go to stderr. An error is one message and exit
status 1. There is no config file and no environment variable.
"""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

from seance.auth.claims import ROOM_PATTERN
from seance.auth.key_files import signing_key_from_file, write_key
from seance.auth.keys import make_key, make_secret
from seance.auth.mint import Terms, mint_token
from seance.cli.arguments import Parser, checked
from seance.core.interfaces import TokenRole
from seance.errors import ConfigError
from seance.options import parsers

__all__ = ["keygen", "share", "token"]

KEY_FILE = "seance.key"

MAX_TTL_DAYS = 366
"""The maximum of ``--ttl``; a relay accepts any lifetime."""

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def keygen(arguments: Sequence[str]) -> int:
    """Run ``seance keygen``; return the exit status."""
    parser = _Parser("keygen", "Makes a key that signs tokens, and shows what to give to the relay.")
    parser.add_argument(
        "--secret", action="store_true", help="make a shared secret (HS256) instead of an Ed25519 key"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, default=Path(KEY_FILE), help=f"default: {KEY_FILE}"
    )
    return parser.run(_make_key, arguments)


def token(arguments: Sequence[str]) -> int:
    """Run ``seance token``; return the exit status."""
    parser = _Parser("token", "Makes an access token and prints it.")
    _add_key(parser)
    add = parser.add_argument
    add(
        "--room",
        metavar="NAME",
        type=checked(_room_pattern),
        action="append",
        required=True,
        help="room, or a prefix of rooms followed by * (repeatable)",
    )
    roles = [role.value for role in TokenRole]
    add("--role", choices=roles, default=TokenRole.CLIENT.value, help="default: client")
    _add_ttl(parser)
    add("--sub", metavar="NAME", help="name of the holder")
    add("--jti", metavar="ID", help="id of the token, for the deny list (default: random)")
    add(
        "--origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="origin of web pages that may use the token (repeatable)",
    )
    add("--max-clients", metavar="COUNT", type=checked(parsers.count), help="maximum number of clients")
    add("--max-rate", metavar="SIZE", type=checked(parsers.byte_count), help="maximum bytes per second")
    add("--agent-identity", metavar="ID", help="id of the only agent that may serve the rooms")
    return parser.run(_make_token, arguments)


def share(arguments: Sequence[str]) -> int:
    """Run ``seance share``; return the exit status."""
    parser = _Parser("share", "Makes a link that gives access to one room.")
    _add_key(parser)
    add = parser.add_argument
    add("--room", metavar="NAME", type=checked(parsers.room_name), required=True, help="room")
    add(
        "--relay",
        metavar="URL",
        type=checked(parsers.relay_url),
        default="ws://localhost:8080",
        help="the relay's public address (default: ws://localhost:8080)",
    )
    _add_ttl(parser)
    add("--no-qr", action="store_true", help="do not show the link as a QR code")
    return parser.run(_make_link, arguments)


def _make_key(parsed: argparse.Namespace) -> None:
    key = make_secret() if parsed.secret else make_key()
    public = write_key(parsed.out, key)
    _print(f"Key id:      {key.key_id}")
    if public is None:
        _print(f"Secret:      {parsed.out}")
        _print(f"             Needed to make tokens, and by the relay: --auth-key {parsed.out}")
        return
    _print(f"Private key: {parsed.out}")
    _print("             Needed to make tokens. Keep it secret: its owner can access every room.")
    _print(f"Public part: {public}")
    _print(f"             For the relay: --auth-key {public}")
    _print(json.dumps(key.public_jwk()))


def _make_token(parsed: argparse.Namespace) -> None:
    terms = Terms(
        role=TokenRole(parsed.role),
        rooms=tuple(parsed.room),
        ttl_seconds=parsed.ttl,
        subject=parsed.sub,
        token_id=parsed.jti,
        origins=tuple(parsed.origin),
        max_clients=parsed.max_clients,
        max_bytes_per_second=parsed.max_rate,
        agent_identity=parsed.agent_identity,
    )
    _print(mint_token(signing_key_from_file(parsed.key), terms, now=time.time()))


def _make_link(parsed: argparse.Namespace) -> None:
    now = time.time()
    terms = Terms(TokenRole.CLIENT, (parsed.room,), parsed.ttl)
    made = mint_token(signing_key_from_file(parsed.key), terms, now=now)
    base = re.sub("^ws", "http", parsed.relay)
    link = f"{base}/c/{quote(parsed.room, safe='~')}?access_token={made}"
    _print(link)
    if not parsed.no_qr:
        _show_code(link)
    until = datetime.fromtimestamp(now + parsed.ttl, UTC).strftime("%Y-%m-%d %H:%M UTC")
    _print_to_stderr(
        f"This link gives read and write access to the room {parsed.room} until {until}. "
        "Treat it like a password."
    )


def _show_code(link: str) -> None:
    """Show the link as a QR code on a UTF-8 terminal; without the extra, print how to install it."""
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    if not sys.stdout.isatty() or encoding != "utf8":
        return
    if find_spec("segno") is None:
        _print_to_stderr("The QR code needs segno: pip install 'seance-tunnel[share]'.")
        return
    import segno  # noqa: PLC0415  # an extra

    out = io.StringIO()
    segno.make(link, error="l", micro=False).terminal(out, border=2, compact=True)
    # White on black in every colour scheme, because scanners do not read the inverse.
    _print("\n".join(f"\x1b[97;40m{line}\x1b[0m" for line in out.getvalue().splitlines()))


class _Parser(Parser):
    def run(self, command: Callable[[argparse.Namespace], None], arguments: Sequence[str]) -> int:
        """Parse the arguments and run the command; report a ``ConfigError`` as a message."""
        try:
            command(self.parse_args(list(arguments)))
        except ConfigError as error:
            _print_to_stderr(f"{self.prog}: {error.message}")
            return 1
        return 0


def _add_key(parser: _Parser) -> None:
    parser.add_argument(
        "--key",
        metavar="FILE",
        type=Path,
        required=True,
        help="key that signs the token; seance keygen makes one",
    )


def _add_ttl(parser: _Parser) -> None:
    parser.add_argument(
        "--ttl",
        metavar="TIME",
        type=checked(_ttl_seconds),
        default=3600,
        help="lifetime, such as 90s, 15m, 1h or 7d (default: 1h)",
    )


def _room_pattern(text: str) -> str:
    if ROOM_PATTERN.fullmatch(text) is None:
        msg = f"{text[:140]!r} is not a room; write 1 to 128 of A-Z a-z 0-9 . _ ~ -, and a * for a prefix"
        raise ValueError(msg)
    return text


def _ttl_seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    seconds = int(match[1]) * UNIT_SECONDS[match[2]] if match else 0
    if not 1 <= seconds <= MAX_TTL_DAYS * UNIT_SECONDS["d"]:
        msg = f"{text!r} is not a time; write for example 90s, 15m, 1h or 7d, at most {MAX_TTL_DAYS}d"
        raise ValueError(msg)
    return seconds


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")


def _print_to_stderr(message: str) -> None:
    sys.stderr.write(message + "\n")
