"""The parsers of option values: one function for each type of value.

A parser takes text and returns the value for the settings. It raises ``ValueError`` with a message without a
full stop if the text is invalid; the caller prefixes the source of the text. Parsers check the form only, not
whether a host exists or a port is free.
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
    "boolean",
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
    "seconds_or_zero",
    "token",
    "web_origin",
]

MAX_SECONDS = 86_400.0
MAX_BYTES = 1 << 30
MAX_COUNT = 1 << 24
MAX_TOKEN_LENGTH = 4096
MAX_UNIX_PATH_BYTES = 107
"""The longest path in a socket address on Linux (unix(7)), without its NUL."""

BARE_PORT = re.compile(r"[0-9]{1,5}")
"""A bare port: ``--listen`` takes it as the loopback addresses, ``--local`` as ``localhost``."""

_UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20}
_BOOLEANS = {
    "yes": True,
    "true": True,
    "on": True,
    "1": True,
    "no": False,
    "false": False,
    "off": False,
    "0": False,
}


def boolean(text: str) -> bool:
    """Parse the value of a flag in the environment or in a file."""
    try:
        return _BOOLEANS[text.lower()]
    except KeyError:
        msg = f"{text!r} is not a boolean; write yes, true, on, 1 or no, false, off, 0"
        raise ValueError(msg) from None


def seconds(text: str) -> float:
    """Parse a time from a hundredth of a second to a day."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0.01 <= number <= MAX_SECONDS:
        msg = f"{text!r} is not a time; write seconds from 0.01 to {MAX_SECONDS:.0f}, such as 2.5"
        raise ValueError(msg)
    return number


def seconds_or_zero(text: str) -> float:
    """Parse a time like ``seconds``, or 0."""
    return 0.0 if text in ("0", "0.0") else seconds(text)


def count(text: str) -> int:
    """Parse a whole number, at least 1."""
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= MAX_COUNT:
        msg = f"{text!r} is not a count; write a whole number from 1 to {MAX_COUNT}"
        raise ValueError(msg)
    return int(text)


def byte_count(text: str) -> int:
    """Parse a number of bytes, such as ``65536``, ``64KiB`` or ``1MiB``."""
    match = re.fullmatch(r"([0-9]{1,10}) ?(|[kKmM]i[bB])", text)
    number = int(match[1]) * _UNITS[match[2].lower()] if match else 0
    if not 1 <= number <= MAX_BYTES:
        msg = f"{text!r} is not a size; write bytes from 1 to {MAX_BYTES}, or for example 64KiB or 1MiB"
        raise ValueError(msg)
    return number


def rate(text: str) -> int:
    """Parse a number of bytes per second, or 0 for no limit."""
    return 0 if text == "0" else byte_count(text)


def network(text: str) -> str:
    """Parse an IP address, or a network in CIDR form."""
    return _checked_by(lambda one: TrustedProxies((one,)), text)


def any_origin(text: str) -> str:
    """Parse the origin of a web page, or ``*`` for all pages."""
    return text if text == "*" else web_origin(text)


def room_name(text: str) -> str:
    """Parse the name of a room."""
    return _checked_by(check_room, text)


def relay_url(text: str) -> str:
    """Parse the URL of a relay: ``ws://`` or ``wss://``, a host, and optionally a port and a base path.

    ``http`` and ``https`` are replaced by ``ws`` and ``wss``, because a browser shows these.
    """
    if not text.isascii() or not text.isprintable() or "\\" in text:
        msg = f"{text!r} is not an ASCII URL; write the host in xn-- form and the path with %-escapes"
        raise ValueError(msg)
    url = re.sub(r"^http(s?)://", r"ws\1://", text, flags=re.IGNORECASE)
    _checked_by(RelayAddress.from_url, url)
    return url.rstrip("/")


def local_server(text: str) -> str:
    """Parse the address of a local server.

    The forms are ``HOST:PORT``, ``PORT``, ``[IPv6]:PORT``, ``unix:PATH`` and ``tls://HOST:PORT``.
    """
    address = f"localhost:{text}" if BARE_PORT.fullmatch(text) else text
    scheme, _, path = address.partition(":")
    if scheme == "unix" and ("\0" in path or len(os.fsencode(path)) > MAX_UNIX_PATH_BYTES):
        msg = f"{text!r} is not the path of a socket; use at most {MAX_UNIX_PATH_BYTES} bytes"
        raise ValueError(msg)
    _checked_by(LocalAddress.from_text, address)
    return address


def file_path(text: str) -> str:
    """Parse the path of a file; the file is not opened."""
    if not text or "\0" in text:
        msg = f"{text!r} is not the path of a file"
        raise ValueError(msg)
    return text


def token(text: str) -> str:
    """Parse a token. The error message does not show it."""
    if not 1 <= len(text) <= MAX_TOKEN_LENGTH or not text.isascii() or not text.isprintable() or " " in text:
        msg = f"the value is not a token; write one line of at most {MAX_TOKEN_LENGTH} characters"
        raise ValueError(msg)
    return text


def web_origin(text: str) -> str:
    """Parse the origin of a web page in the form of an Origin header: ``https://HOST`` or ``https://HOST:PORT``."""
    if not re.fullmatch(r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:.]+\](:[0-9]{1,5})?", text):
        msg = f"{text!r} is not an origin; write https://HOST or https://HOST:PORT in lower case"
        raise ValueError(msg)
    return text


def listen_endpoint(text: str) -> str:
    """Parse an endpoint of a relay: a Twisted server endpoint string, ``IP:PORT``, or a bare ``PORT``.

    ``IP:PORT`` becomes an endpoint string. A bare port is returned unchanged: it means both loopback
    addresses, which no single endpoint string can express.
    """
    host, _, port = text.rpartition(":")
    address = _ip_from_text(host)
    if address is not None:
        escaped = str(address).replace(":", r"\:")
        text = f"tcp:{port}:interface={escaped}"
    # Twisted accepts any number as a port and fails with a traceback when it binds.
    numbered = re.match(r"(?:(?:tcp6?|ssl):(?:port=)?)?([0-9]+)(?=:|$)", text)
    if numbered and int(numbered[1]) > 65535:
        msg = f"{numbered[1]!r} is not a port; write a number from 0 to 65535"
        raise ValueError(msg)
    if BARE_PORT.fullmatch(text):
        return text
    # Imported on use: twistd installs the reactor before it parses our options.
    from twisted.internet import reactor  # noqa: PLC0415

    try:
        server_endpoint(reactor, text)
    except Exception as error:
        # Endpoint parsers are plugins and may raise any exception.
        msg = f"{text!r} is not a Twisted endpoint ({error}); write PORT, IP:PORT or tcp:8080, for example"
        raise ValueError(msg) from error
    return text


def admin_endpoint(text: str) -> str:
    """Parse an endpoint like ``listen_endpoint``, but with a bare port on 127.0.0.1; or ``none``."""
    if text == "none":
        return text
    endpoint = listen_endpoint(text)
    return f"tcp:{endpoint}:interface=127.0.0.1" if BARE_PORT.fullmatch(endpoint) else endpoint


def log_format(text: str) -> str:
    """Parse the format of the log."""
    if text not in FORMATS:
        msg = f"{text!r} is not a log format; write {' or '.join(FORMATS)}"
        raise ValueError(msg)
    return text


def _checked_by(check: Callable[[str], Any], text: str) -> str:
    """Return ``text`` if ``check`` accepts it; turn a ``ConfigError`` into a ``ValueError``."""
    try:
        check(text)
    except ConfigError as error:
        raise ValueError(error.message.rstrip(".")) from error
    return text


def _ip_from_text(host: str) -> IPv4Address | IPv6Address | None:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        address = ip_address(bare)
    except ValueError:
        return None
    return address if (address.version == 6) == (bare != host) else None
