"""Name look-ups in daemon threads, which do not delay the end of the process.

Twisted looks names up in the ten threads of the reactor's pool, and joins them when it stops. With glibc's
defaults a look-up takes 10 s or more if no name server answers. SIGTERM waited for it, and ten such look-ups
blocked all others. ``NameLookups`` uses at most ``MAX_THREADS`` daemon threads, and ``MAX_THREADS_PER_NAME``
for one name. Requests for the same name share a running look-up. If it is older than ``RETRY_SECONDS``,
another one starts, because the network may have changed. The first look-up that finds an address answers all
requests.

The programs and commands install it with ``use_daemon_lookups``; a program that embeds Seance may do the
same.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from twisted.internet._resolver import GAIResolver
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import (
    IAddress,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IResolutionReceiver,
)
from zope.interface import implementer

from seance.errors import ConfigError

__all__ = ["MAX_THREADS", "MAX_THREADS_PER_NAME", "NameLookups", "resolve_interface", "use_daemon_lookups"]

MAX_THREADS = 16
MAX_THREADS_PER_NAME = 4

RETRY_SECONDS = 5.0
"""Age of a look-up after which another one for the same name may start; glibc's timeout of one query."""

MAX_WAITING = 1000
"""Maximum number of requests that wait for one name; a further one fails immediately."""

_INTERFACE = re.compile(r"(?<![^:])interface=(?P<name>[A-Za-z0-9._-]+)(?=:|$)")

_Key = tuple[str, int, int, int]


@implementer(IHostResolution)
@dataclass(eq=False)
class _Request:
    """One request: the name, and the receiver of its addresses."""

    name: str
    receiver: IResolutionReceiver | None

    def cancel(self) -> None:
        """Deliver nothing. The thread cannot be stopped."""
        self.receiver = None


@dataclass
class _Lookup:
    """The look-up of one name, with the requests that wait for it."""

    requests: list[_Request] = field(default_factory=list)
    threads: int = 0
    began_at: float = 0.0


@implementer(IHostnameResolver)
class NameLookups:
    """A resolver for Twisted that uses daemon threads.

    Args:
        reactor: Twisted's reactor.
        getaddrinfo: Called in a thread; replaced in tests.
    """

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo,
    ) -> None:
        self._reactor = reactor
        self._getaddrinfo = getaddrinfo
        self._lookups: dict[_Key, _Lookup] = {}
        self.thread_count = 0

    def resolveHostName(  # noqa: N802  # Twisted's name
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803  # Twisted's names
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: Sequence[type[IAddress]] | None = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> IHostResolution:
        """Look a name up; see ``IHostnameResolver``."""
        kinds = set(addressTypes or (IPv4Address, IPv6Address))
        family = socket.AF_UNSPEC
        if len(kinds) == 1:
            family = socket.AF_INET if IPv4Address in kinds else socket.AF_INET6
        kind = socket.SOCK_DGRAM if transportSemantics == "UDP" else socket.SOCK_STREAM
        key = (hostName, portNumber, int(family), int(kind))
        request = _Request(hostName, resolutionReceiver)
        resolutionReceiver.resolutionBegan(request)
        lookup = self._lookups.setdefault(key, _Lookup())
        now = self._reactor.seconds()
        may_begin = not lookup.threads or (
            now - lookup.began_at >= RETRY_SECONDS and lookup.threads < MAX_THREADS_PER_NAME
        )
        if may_begin and self.thread_count < MAX_THREADS:
            with suppress(RuntimeError):  # no thread could be started, and the request fails
                threading.Thread(target=self._look_up, args=(key,), name="seance DNS", daemon=True).start()
                lookup.threads += 1
                lookup.began_at = now
                self.thread_count += 1
        if lookup.threads and len(lookup.requests) < MAX_WAITING:
            lookup.requests.append(request)
        else:
            if not lookup.threads:
                del self._lookups[key]
            _deliver([request], [])
        return request

    def _look_up(self, key: _Key) -> None:
        try:
            answers = self._getaddrinfo(*key)
        except (OSError, UnicodeError):
            answers = []
        with suppress(Exception):  # the reactor has stopped
            self._reactor.callFromThread(self._finish, key, answers)

    def _finish(self, key: _Key, answers: list[Any]) -> None:
        lookup = self._lookups[key]
        lookup.threads -= 1
        self.thread_count -= 1
        if not lookup.threads:
            del self._lookups[key]
        elif not answers:
            return  # another thread may still find an address
        requests, lookup.requests = lookup.requests, []
        _deliver(requests, answers)


def use_daemon_lookups(reactor: Any) -> None:  # noqa: ANN401  # no common type
    """Install ``NameLookups`` in a reactor, unless its resolver is not Twisted's default."""
    if IReactorPluggableNameResolver.providedBy(reactor) and isinstance(reactor.nameResolver, GAIResolver):
        reactor.installNameResolver(NameLookups(reactor))


def resolve_interface(endpoint: str) -> str:
    """Replace a host name in ``interface=`` of a server endpoint string by its address.

    Binding to a host name would block the event loop with a look-up. Call this before the reactor runs, when
    SIGTERM still ends the process during a look-up.

    Raises:
        ConfigError: The name cannot be resolved.
    """

    def address(match: re.Match[str]) -> str:
        name = match["name"]
        if isIPAddress(name) or isIPv6Address(name):
            return match[0]
        try:
            found = socket.getaddrinfo(name, 0, socket.AF_INET, socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error)
            message = f"The listen address {endpoint!r} has an interface that cannot be resolved: {why}."
            raise ConfigError(message, code="listen") from error
        return f"interface={found[0][4][0]}"

    return _INTERFACE.sub(address, endpoint)


def _deliver(requests: list[_Request], answers: list[Any]) -> None:
    for request in requests:
        receiver = request.receiver
        if receiver is None:
            continue
        for family, kind, _, _, address in answers:
            transport: Literal["TCP", "UDP"] = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
            if family == socket.AF_INET:
                receiver.addressResolved(IPv4Address(transport, *address))
            elif family == socket.AF_INET6:
                receiver.addressResolved(IPv6Address(transport, *address))
        receiver.resolutionComplete()
