"""``seance keygen``, ``seance token`` and ``seance share``: keys, tokens and links for people.

What goes to stdout is what was asked for, so that it can be piped; what a person should know about
it goes to stderr. A mistake is one sentence and exit status 1. Like the demo, these are for a
person at a terminal: no config file and no environment.
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

LONGEST_TTL_DAYS = 366
"""For what is asked here. A relay takes any; nobody remembers a link of three years ago."""

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def keygen(arguments: Sequence[str]) -> int:
    """Runs ``seance keygen``; returns the exit status."""
    parser = _Parser("keygen", "Makes a key that signs tokens, and says what the relay needs of it.")
    parser.add_argument(
        "--secret", action="store_true", help="a shared secret (HS256) instead of an Ed25519 key"
    )
    parser.add_argument(
        "--out", metavar="FILE", type=Path, default=Path(KEY_FILE), help=f"default: {KEY_FILE}"
    )
    return parser.run(_make_key, arguments)


def token(arguments: Sequence[str]) -> int:
    """Runs ``seance token``; returns the exit status."""
    parser = _Parser("token", "Makes an access token and prints it.")
    _add_key(parser)
    add = parser.add_argument
    add(
        "--room",
        metavar="NAME",
        type=checked(_room_pattern),
        action="append",
        required=True,
        help="a room, or the beginning of rooms and a * (repeatable)",
    )
    roles = [role.value for role in TokenRole]
    add("--role", choices=roles, default=TokenRole.CLIENT.value, help="default: client")
    _add_ttl(parser)
    add("--sub", metavar="NAME", help="whom it is for")
    add("--jti", metavar="ID", help="its own name, for the deny list (default: a random one)")
    add(
        "--origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="a web page that may use it (repeatable)",
    )
    add("--max-clients", metavar="COUNT", type=checked(parsers.count), help="clients at a time")
    add("--max-rate", metavar="SIZE", type=checked(parsers.byte_count), help="bytes per second")
    add("--agent-identity", metavar="ID", help="the one agent that its rooms belong to")
    return parser.run(_make_token, arguments)


def share(arguments: Sequence[str]) -> int:
    """Runs ``seance share``; returns the exit status."""
    parser = _Parser("share", "Makes a link that lets its bearer into one room.")
    _add_key(parser)
    add = parser.add_argument
    add("--room", metavar="NAME", type=checked(parsers.room_name), required=True, help="the room")
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
    _give(f"Key id:      {key.key_id}")
    if public is None:
        _give(f"Secret:      {parsed.out}")
        _give(f"             Whoever makes tokens needs it, and the relay too: --auth-key {parsed.out}")
        return
    _give(f"Private key: {parsed.out}")
    _give("             Keep it where tokens are made; whoever has it can open every room.")
    _give(f"Public part: {public}")
    _give(f"             For the relay: --auth-key {public}")
    _give(json.dumps(key.public_jwk()))


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
    _give(mint_token(signing_key_from_file(parsed.key), terms, now=time.time()))


def _make_link(parsed: argparse.Namespace) -> None:
    now = time.time()
    terms = Terms(TokenRole.CLIENT, (parsed.room,), parsed.ttl)
    made = mint_token(signing_key_from_file(parsed.key), terms, now=now)
    base = re.sub("^ws", "http", parsed.relay)
    link = f"{base}/c/{quote(parsed.room, safe='~')}?access_token={made}"
    _give(link)
    if not parsed.no_qr:
        _show_code(link)
    until = datetime.fromtimestamp(now + parsed.ttl, UTC).strftime("%Y-%m-%d %H:%M UTC")
    _say(
        f"Whoever has this link can read and write the room {parsed.room} until {until}, "
        "so send it as you would send a password."
    )


def _show_code(link: str) -> None:
    """Shows the QR code where there is a terminal for it; without the extra, says what is missing."""
    encoding = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "")
    if not sys.stdout.isatty() or encoding != "utf8":
        return
    if find_spec("segno") is None:
        _say("The QR code needs segno: pip install 'seance-tunnel[share]'.")
        return
    import segno  # noqa: PLC0415  # an extra

    out = io.StringIO()
    segno.make(link, error="l", micro=False).terminal(out, border=2, compact=True)
    # White on black, whatever the terminal's own colours: scanners want it that way round.
    _give("\n".join(f"\x1b[97;40m{line}\x1b[0m" for line in out.getvalue().splitlines()))


class _Parser(Parser):
    def run(self, command: Callable[[argparse.Namespace], None], arguments: Sequence[str]) -> int:
        """Parses and does it; what is wrong is said in one sentence."""
        try:
            command(self.parse_args(list(arguments)))
        except ConfigError as error:
            _say(f"{self.prog}: {error.sentence}")
            return 1
        return 0


def _add_key(parser: _Parser) -> None:
    parser.add_argument(
        "--key", metavar="FILE", type=Path, required=True, help="the key that signs; seance keygen makes one"
    )


def _add_ttl(parser: _Parser) -> None:
    parser.add_argument(
        "--ttl",
        metavar="TIME",
        type=checked(_ttl_seconds),
        default=3600,
        help="how long it is good: 90s, 15m, 1h, 7d (default: 1h)",
    )


def _room_pattern(text: str) -> str:
    if ROOM_PATTERN.fullmatch(text) is None:
        msg = (
            f"{text[:140]!r} is not a room; write 1 to 128 of A-Z a-z 0-9 . _ ~ - and perhaps a * at the end"
        )
        raise ValueError(msg)
    return text


def _ttl_seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    seconds = int(match[1]) * UNIT_SECONDS[match[2]] if match else 0
    if not 1 <= seconds <= LONGEST_TTL_DAYS * UNIT_SECONDS["d"]:
        msg = f"{text!r} is not a time; write such as 90s, 15m, 1h or 7d, at most {LONGEST_TTL_DAYS}d"
        raise ValueError(msg)
    return seconds


def _give(line: str) -> None:
    sys.stdout.write(line + "\n")


def _say(sentence: str) -> None:
    sys.stderr.write(sentence + "\n")
