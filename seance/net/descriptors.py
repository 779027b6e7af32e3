"""The limit of open file descriptors of this process.

Shells and service managers set a small *soft* limit, usually 1024 or 256 on a Mac, for programs that use
``select``. Each client needs a descriptor, so the commands raise the soft limit to the *hard* limit, unless
the reactor itself uses ``select``. A program that embeds Seance does this itself, or keeps its limit.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import socket
from typing import Any

from twisted.internet.selectreactor import SelectReactor
from twisted.logger import Logger

__all__ = ["agent_stream_limit", "descriptor_limit", "limit_reached", "log_lowered", "raise_descriptor_limit"]

_log = Logger()

MAX_REQUESTED = 1 << 20
"""The highest limit to request. Some systems allow a billion, and some programs loop over all descriptors."""

MAX_WITH_SELECT = 1024
"""``FD_SETSIZE``: the highest limit for a reactor that uses ``select``, as Twisted's does on a Mac."""

MAX_ON_MAC = 10_240
"""``OPEN_MAX``: granted where the hard limit is reported as infinite."""


AGENT_RESERVE = 24
"""Descriptors of an agent that are not for clients: standard streams, the event loop, the relay, the log,
files, and the second addresses of a local server that is being dialled."""


def descriptor_limit() -> int | None:
    """Return the maximum number of connections of this process; None if the system does not report a limit.

    A fifth of the limit, at most 200, is reserved for files, local servers, listeners and libraries.
    """
    soft = _soft_limit()
    return None if soft is None else soft - min(200, soft // 5)


def agent_stream_limit() -> int | None:
    """Return the maximum number of clients of an agent, with a descriptor each; None if it is unknown."""
    soft = _soft_limit()
    return None if soft is None else max(1, soft - AGENT_RESERVE)


def log_lowered(option: str, wanted: int, limit: int) -> None:
    """Log that an option is higher than the file descriptors of this process allow."""
    _log.warn(
        "{option} is {wanted}, but {descriptors} file descriptors allow {limit} only; raise the limit "
        "with ulimit -n, or with systemd's LimitNOFILE=",
        option=option,
        wanted=wanted,
        descriptors=_soft_limit(),
        limit=limit,
        event="limit.lowered",
    )


def limit_reached(error: BaseException | None, host: str = "") -> str | None:
    """Return a message about the resource limit that made a connection fail; None if there was none.

    Args:
        error: The error of connecting; Twisted's errors have ``osError``.
        host: The dialled host, to distinguish a machine without free ports from one without an address.
    """
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    if number not in _LIMITS:
        # A resolver or a library may have failed for this reason with another error.
        number = _probe()
    if number == errno.EADDRNOTAVAIL and not _has_address(host):
        return None
    if number == errno.EMFILE:
        soft = _soft_limit()
        limit = "" if soft is None else f", of {soft}"
        return (
            f"this process has no file descriptor left{limit}; raise the limit (ulimit -n, or systemd's "
            "LimitNOFILE=) or lower --streams."
        )
    return None if number is None else _LIMITS.get(number)


_LIMITS = {
    errno.EMFILE: "",
    errno.ENFILE: "this machine has no file descriptor left; raise fs.file-max.",
    errno.EADDRNOTAVAIL: (
        "this machine has no free port left; widen net.ipv4.ip_local_port_range, or use --local unix:PATH."
    ),
    errno.ENOBUFS: "this machine has no memory left for a connection.",
    errno.ENOMEM: "this machine has no memory left for a connection.",
}


def _probe() -> int | None:
    """Return the error of making a socket now; None if it succeeds."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except OSError as error:
        return error.errno if error.errno in _LIMITS else None
    return None


def _has_address(host: str) -> bool:
    """Return whether this machine can send to an address, or to both loopback addresses. Nothing is sent."""
    is_address = ":" in host or host.replace(".", "").isdigit()
    for one in [host] if is_address else ["127.0.0.1", "::1"]:
        family = socket.AF_INET6 if ":" in one else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((one, 9))
        except OSError:
            return False
    return True


def _soft_limit() -> int | None:
    resource = _resource()
    if resource is None:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else int(soft)


def raise_descriptor_limit(reactor: Any) -> None:  # noqa: ANN401  # any reactor
    """Raise the soft limit as far as the system and the reactor allow; call this before making a relay."""
    resource = _resource()
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = MAX_WITH_SELECT if isinstance(reactor, SelectReactor) else MAX_REQUESTED
    if hard != resource.RLIM_INFINITY:
        highest = min(hard, highest)
    for wanted in (highest, min(highest, MAX_ON_MAC)):
        if soft == resource.RLIM_INFINITY or wanted <= soft:
            return
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def _resource() -> Any:  # noqa: ANN401  # a module that exists on UNIX only
    try:
        return importlib.import_module("resource")
    except ImportError:  # not a UNIX
        return None
