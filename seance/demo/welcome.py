"""The text of the demo for the terminal: the link, its QR code, and the next steps."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterator, Mapping

import segno

from seance.demo.stack import PORT, WILDCARDS, DemoSettings

__all__ = ["share_link", "welcome"]

ELSEWHERE = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}  # noqa: S104
"""Documentation addresses (RFC 5737, RFC 3849): the route to them shows which of our addresses is used."""

ON_ANY_TERMINAL = "\x1b[97;40m{}\x1b[0m"
"""White blocks on black in any colour scheme, because some scanners cannot read an inverted code."""


def welcome(
    settings: DemoSettings,
    link: str,
    port: int,
    *,
    with_code: bool,
    is_terminal: bool,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Return the whole text.

    Args:
        settings: The settings of the demo.
        link: The share link.
        port: The relay's port.
        with_code: Whether to add the QR code.
        is_terminal: Whether escape sequences for colours may be used.
        environment: The environment variables; ``MAKELEVEL`` shows that ``make`` has started us.
    """
    code = [*_code(link, is_terminal), ""] if with_code else []
    lines = ["", "Seance demo", "", *_about_port(settings, port)]
    lines += ["Open this link in two tabs and write in both:", "", f"    {link}", "", *code]
    lines += [*_what_next(settings, link, environment), "Press Ctrl-C to stop.", ""]
    return "\n".join(lines)


def share_link(settings: DemoSettings, port: int, room: str) -> str:
    """Return the link, with the address by which others reach this machine."""
    host = settings.host or "localhost"
    if host in WILDCARDS:
        host = _own_address(host) or WILDCARDS[host]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/c/{room}"


def _about_port(settings: DemoSettings, port: int) -> list[str]:
    if settings.port is None and port != PORT:
        return [f"Port {PORT} is in use, so the relay listens on port {port} (choose one with --port).", ""]
    return []


def _what_next(settings: DemoSettings, link: str, environment: Mapping[str, str]) -> Iterator[str]:
    if settings.host is None:
        yield "Only this machine can open it. To open it to your network:"
        yield f"    {_command('--host 0.0.0.0', environment)}"
    else:
        yield "Everyone in your network who has the link can read and write."
    if settings.store is None:
        yield "The text is lost when the demo ends. To keep it:"
        yield f"    {_command('--store pad.sqlite', environment)}"
    else:
        yield f"The text is kept in {settings.store}."
    base = link.replace("http", "ws", 1)
    yield "Your own y-websocket app can use the same link:"
    yield f'    new WebsocketProvider("{base}", "pad", doc)'
    yield ""


def _command(flags: str, environment: Mapping[str, str]) -> str:
    """Return the command that starts the demo with ``flags``."""
    # ``make demo`` installs into .venv, which is not on the PATH.
    return f'make demo DEMO_FLAGS="{flags}"' if "MAKELEVEL" in environment else f"seance demo {flags}"


def _code(link: str, is_terminal: bool) -> Iterator[str]:
    out = io.StringIO()
    segno.make(link, error="l", micro=False).terminal(out, border=2, compact=True)
    for line in out.getvalue().splitlines():
        yield "    " + (ON_ANY_TERMINAL.format(line) if is_terminal else line)


def _own_address(wildcard: str) -> str | None:
    family = socket.AF_INET6 if ":" in wildcard else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # No packet is sent: connecting a datagram socket only looks up the route.
            probe.connect((ELSEWHERE[wildcard], 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None
