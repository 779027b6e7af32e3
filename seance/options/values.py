"""What a person may write for an option, turned into the value that the settings hold.

One function for each kind of option: text in, value out, ``ValueError`` with half a sentence if
the text will not do (``seance.options.config`` puts in front where the text came from). Nothing here is
tried out: whether a host exists or a port is free shows when it is used.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from seance.carrier import RelayAddress
from seance.core.local_address import LocalAddress
from seance.core.settings import check_room
from seance.errors import ConfigError
from seance.logs.format import FORMATS
from seance.net import server_endpoint
from seance.relay.edge.trusted_proxies import TrustedProxies

__all__ = [
    "BARE_PORT",
    "admin_endpoint",
    "any_origin",
    "byte_count",
    "count",
    "file_path",
    "listen_endpoint",
    "local_server",
    "log_format",
    "network",
    "rate",
    "relay_url",
    "room_name",
    "seconds",
    "seconds_or_none",
    "token",
    "truth",
    "web_origin",
]

LONGEST_SECONDS = 86_400.0
MOST_BYTES = 1 << 30
MOST_COUNT = 1 << 24
LONGEST_TOKEN = 4096
LONGEST_UNIX_BYTES = 5 + 107
"""``unix:`` and what fits into a socket address on Linux (unix(7))."""

BARE_PORT = re.compile(r"[0-9]{1,5}")
"""A bare port: as ``--listen`` it means the loopback addresses, as ``--local`` this machine."""

_UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20}
_TRUTHS = {
    "yes": True,
    "true": True,
    "on": True,
    "1": True,
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}


def truth(text: str) -> bool:
    """A flag, where it is not a flag on the command line: yes or no."""
    try:
        return _TRUTHS[text.lower()]
    except KeyError:
        msg = f"{text!r} is neither yes nor no; write yes, true, on, 1 or no, false, off, 0"
        raise ValueError(msg) from None


def seconds(text: str) -> float:
    """A time of at least a hundredth of a second and at most a day."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.01 <= number <= LONGEST_SECONDS:
        msg = f"{text!r} is not a time; write seconds from 0.01 to {LONGEST_SECONDS:.0f}, such as 2.5"
        raise ValueError(msg)
    return number


def seconds_or_none(text: str) -> float:
    """A time as ``seconds`` takes it, or 0."""
    return 0.0 if text in ("0", "0.0") else seconds(text)


def count(text: str) -> int:
    """A number of things, at least one."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= MOST_COUNT:
        msg = f"{text!r} is not a count; write a whole number from 1 to {MOST_COUNT}"
        raise ValueError(msg)
    return int(text)


def byte_count(text: str) -> int:
    """A number of bytes; ``64KiB`` and ``1MiB`` are understood."""
    match = re.fullmatch(r"([0-9]{1,10}) ?(|[kKmM]i[bB])", text)
    number = int(match[1]) * _UNITS[match[2].lower()] if match else 0
    if not 1 <= number <= MOST_BYTES:
        msg = f"{text!r} is not a size; write bytes from 1 to {MOST_BYTES}, or such as 64KiB or 1MiB"
        raise ValueError(msg)
    return number


def rate(text: str) -> int:
    """A number of bytes a second, or 0 for no bound."""
    return 0 if text == "0" else byte_count(text)


def network(text: str) -> str:
    """An IP address, or a network in CIDR form."""
    return _checked_by(lambda one: TrustedProxies((one,)), text)


def any_origin(text: str) -> str:
    """A web page's origin, or ``*`` for every page."""
    return text if text == "*" else web_origin(text)


def room_name(text: str) -> str:
    """A room."""
    return _checked_by(check_room, text)


def relay_url(text: str) -> str:
    """The address of a relay: ``ws://`` or ``wss://``, a host, perhaps a port and a base path.

    ``http`` and ``https`` are taken for ``ws`` and ``wss``, because that is what a browser shows.
    """
    if not text.isascii() or not text.isprintable() or "\\" in text:
        msg = f"{text!r} is no URL as it stands; write the host in its xn-- form and the path with %-escapes"
        raise ValueError(msg)
    url = re.sub(r"^http(s?)://", r"ws\1://", text, flags=re.IGNORECASE)
    _checked_by(RelayAddress.from_url, url)
    return url.rstrip("/")


def local_server(text: str) -> str:
    """The local server: ``HOST:PORT``, ``PORT``, ``[IPv6]:PORT``, ``unix:PATH``, ``tls://HOST:PORT``."""
    address = f"localhost:{text}" if BARE_PORT.fullmatch(text) else text
    if address.startswith("unix:") and ("\0" in address or len(os.fsencode(address)) > LONGEST_UNIX_BYTES):
        msg = f"{text!r} is no path of a socket; use at most {LONGEST_UNIX_BYTES - 5} bytes"
        raise ValueError(msg)
    _checked_by(LocalAddress.from_text, address)
    return address


def file_path(text: str) -> str:
    """The path of a file; whether it is there shows when it is read."""
    if not text or "\0" in text:
        msg = f"{text!r} is no path of a file"
        raise ValueError(msg)
    return text


def token(text: str) -> str:
    """A token. What is wrong with one is said without showing it."""
    if not 1 <= len(text) <= LONGEST_TOKEN or not text.isascii() or not text.isprintable() or " " in text:
        msg = f"what is given is no token; write one line of at most {LONGEST_TOKEN} characters"
        raise ValueError(msg)
    return text


def web_origin(text: str) -> str:
    """A web page's origin, as browsers send it: ``https://HOST`` or with a port."""
    if not re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?", text):
        msg = f"{text!r} is not an origin; write https://HOST or https://HOST:PORT in small letters"
        raise ValueError(msg)
    return text


def listen_endpoint(text: str) -> str:
    """Where a relay listens: a Twisted server endpoint string, ``IP:PORT``, or a bare ``PORT``.

    ``IP:PORT`` becomes an endpoint string here. A bare port stays as it is: it means both
    loopback addresses, and only the settings can say so.
    """
    host, _, port = text.rpartition(":")
    address = _ip_from_text(host)
    if address is not None:
        escaped = str(address).replace(":", r"\:")
        text = f"tcp:{port}:interface={escaped}"
    # Twisted takes any number for a port and fails, with a traceback, when it binds.
    numbered = re.match(r"(?:(?:tcp6?|ssl):(?:port=)?)?([0-9]+)(?=:|$)", text)
    if numbered and int(numbered[1]) > 65535:
        msg = f"{numbered[1]!r} is not a port; ports go from 0 to 65535"
        raise ValueError(msg)
    if BARE_PORT.fullmatch(text):
        return text
    # Imported on use: twistd has chosen the reactor by the time it parses our options.
    from twisted.internet import reactor  # noqa: PLC0415

    try:
        server_endpoint(reactor, text)
    except Exception as error:
        # Whatever an endpoint parser raises; anybody may have installed one.
        msg = (
            f"{text!r} is not an endpoint for Twisted ({error}); write PORT, IP:PORT or tcp:8080, for example"
        )
        raise ValueError(msg) from error
    return text


def admin_endpoint(text: str) -> str:
    """Where operators ask: as ``listen_endpoint``, but a bare port is on 127.0.0.1; or ``none``."""
    if text == "none":
        return text
    endpoint = listen_endpoint(text)
    return f"tcp:{endpoint}:interface=127.0.0.1" if BARE_PORT.fullmatch(endpoint) else endpoint


def log_format(text: str) -> str:
    """How the log is written."""
    if text not in FORMATS:
        msg = f"{text!r} is not a format of the log; write {' or '.join(FORMATS)}"
        raise ValueError(msg)
    return text


def _checked_by(check: Callable[[str], Any], text: str) -> str:
    """Returns ``text`` if the place where it is used can use it."""
    try:
        check(text)
    except ConfigError as error:
        raise ValueError(error.sentence.rstrip(".")) from error
    return text


def _ip_from_text(host: str) -> IPv4Address | IPv6Address | None:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ip_address(bare)
    except ValueError:
        return None
    return address if (address.version == 6) == (bare != host) else None
