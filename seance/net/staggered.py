"""A client endpoint that starts further attempts while the first one is pending.

After a network outage the kernel repeats a SYN only 1, 3 and 7 s after the first one, and a resolver repeats
a lost query after 5 s. A new attempt succeeds as soon as the network is back. The first attempt is not
cancelled, because over a slow path no attempt might ever finish then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["StaggeredEndpoint", "retrying_endpoint"]

RETRY_SECONDS: Final = 1.5
"""Interval between attempts; together with the kernel's repetitions, a SYN is sent about every second."""


def retrying_endpoint(
    reactor: Any,  # noqa: ANN401  # several interfaces, no common type
    named: IStreamClientEndpoint,
    peer: object,
    seconds: float,
) -> IStreamClientEndpoint:
    """Return an endpoint that tries ``named``, and then the address of an earlier connection.

    Args:
        reactor: Twisted's reactor.
        named: An endpoint that resolves the name.
        peer: The address of the earlier connection; ignored if it is not a TCP address.
        seconds: Timeout of the whole.
    """
    if not isinstance(peer, (IPv4Address, IPv6Address)):
        return named
    kind = TCP6ClientEndpoint if isinstance(peer, IPv6Address) else TCP4ClientEndpoint
    known = kind(reactor, peer.host, peer.port, timeout=seconds)
    return StaggeredEndpoint(reactor, [named, *[known] * int(seconds / RETRY_SECONDS)], RETRY_SECONDS)


@implementer(IStreamClientEndpoint)
class StaggeredEndpoint:
    """Connects to the first of several endpoints that answers.

    The connection fails when an attempt has failed and no other one is pending: a refused attempt does not
    wait for those that have not started.

    Args:
        reactor: Provides the time.
        endpoints: At least one, in the order of the attempts.
        delay_seconds: Time between the starts of two attempts.
    """

    def __init__(
        self, reactor: IReactorTime, endpoints: Sequence[IStreamClientEndpoint], delay_seconds: float
    ) -> None:
        self._reactor = reactor
        self._endpoints = endpoints
        self._delay_seconds = delay_seconds

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect; see ``IStreamClientEndpoint``. Cancelling aborts all attempts."""
        return _Attempts(self._reactor, self._endpoints, self._delay_seconds, factory).begin()


class _Attempts:
    def __init__(
        self,
        reactor: IReactorTime,
        endpoints: Sequence[IStreamClientEndpoint],
        delay_seconds: float,
        factory: IProtocolFactory,
    ) -> None:
        self._reactor = reactor
        self._left = list(endpoints)
        self._delay_seconds = delay_seconds
        self._factory = factory
        self._pending: dict[Deferred[IProtocol], None] = {}
        self._next: IDelayedCall | None = None
        self._is_over = False
        self._result: Deferred[IProtocol] = Deferred(lambda _: self._stop())

    def begin(self) -> Deferred[IProtocol]:
        self._attempt()
        return self._result

    def _attempt(self) -> None:
        self._next = None
        attempt: Deferred[IProtocol] = self._left.pop(0).connect(self._factory)
        self._pending[attempt] = None
        if self._left:
            self._next = self._reactor.callLater(self._delay_seconds, self._attempt)
        attempt.addBoth(self._ended, attempt)

    def _ended(self, result: IProtocol | Failure, attempt: Deferred[IProtocol]) -> None:
        self._pending.pop(attempt, None)
        if self._is_over:
            if isinstance(result, Failure):
                result.trap(Exception)
            else:
                result.transport.abortConnection()  # type: ignore[attr-defined]  # it has connected
        elif not isinstance(result, Failure):
            self._stop()
            self._result.callback(result)
        elif self._left and result.check(DNSLookupError):
            # If the resolver fails immediately, waiting does not help.
            if self._next is not None:
                self._next.cancel()
            self._attempt()
        elif not self._pending:
            self._stop()
            self._result.errback(result)

    def _stop(self) -> None:
        self._is_over = True
        if self._next is not None:
            self._next.cancel()
            self._next = None
        for attempt in list(self._pending):
            attempt.cancel()
