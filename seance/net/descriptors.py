"""How many files and connections this process may have open at a time.

Shells and service managers give a process a small *soft* limit, 1024 as a rule or the 256 of a Mac, for the
sake of programs that wait with ``select``. Each client is a descriptor, so the doors ask for all that the
*hard* limit allows, unless the reactor is one of those itself. A program that embeds Seance decides that
itself, and the relay lives with what there is.
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

ENOUGH = 1 << 20
"""More is not asked for: there are systems that name a billion, and programs that count up to it."""

SELECT_MOST = 1024
"""``FD_SETSIZE``. A reactor around ``select``, which is Twisted's choice on a Mac, cannot look beyond."""

MAC_MOST = 10_240
"""``OPEN_MAX``: where the hard limit is said to be infinite, this is granted all the same."""


AGENT_OWN = 24
"""Descriptors of an agent that are not for clients: standard streams, the event loop, the relay, the log,
files, and the second addresses of a local server that is being dialled."""


def descriptor_limit() -> int | None:
    """Return how many connections the process can hold, if the system tells.

    A fifth of a small limit, and 200 of a large one, stay for files, agents' local servers,
    listeners and libraries.
    """
    soft = _soft_limit()
    return None if soft is None else soft - min(200, soft // 5)


def agent_stream_limit() -> int | None:
    """Return how many clients an agent can serve, one descriptor each; None if the system does not tell."""
    soft = _soft_limit()
    return None if soft is None else max(1, soft - AGENT_OWN)


def log_lowered(option: str, wanted: int, limit: int) -> None:
    """Write the line about an option that is more than the descriptors of this process allow."""
    _log.warn(
        "{option} is {wanted}, but {limit} is what {descriptors} file descriptors allow; raise the limit "
        "with ulimit -n, or with systemd's LimitNOFILE=",
        option=option,
        wanted=wanted,
        descriptors=_soft_limit(),
        limit=limit,
        event="limit.lowered",
    )


def limit_reached(error: BaseException | None, host: str = "") -> str | None:
    """Return a sentence on the limit of this process or machine that made a connection fail; None for none.

    Args:
        error: What connecting has failed with; Twisted's errors have ``osError``.
        host: The host that was dialled, to tell a machine without free ports from one that lacks an address.
    """
    number = getattr(error, "osError", None) or getattr(error, "errno", None)
    if number not in _LIMITS:
        # A resolver or a library may have failed for lack of a descriptor without saying so.
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
    """Return the error with which a socket cannot be made now, or None."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM).close()
    except OSError as error:
        return error.errno if error.errno in _LIMITS else None
    return None


def _has_address(host: str) -> bool:
    """Whether this machine can send to a host; by name, to both loopback addresses. UDP, nothing is sent."""
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


def raise_descriptor_limit(reactor: Any) -> None:  # noqa: ANN401  # whichever there is
    """Raise the soft limit to the hard one, as far as system and reactor let us; before a relay is made."""
    resource = _resource()
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = SELECT_MOST if isinstance(reactor, SelectReactor) else ENOUGH
    if hard != resource.RLIM_INFINITY:
        most = min(hard, most)
    for wanted in (most, min(most, MAC_MOST)):
        if soft == resource.RLIM_INFINITY or wanted <= soft:
            return
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def _resource() -> Any:  # noqa: ANN401  # a module that not every system has
    try:
        return importlib.import_module("resource")
    except ImportError:  # not a UNIX
        return None
