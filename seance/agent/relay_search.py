"""Searches for the relay that replaces one that is about to stop.

An agent that receives ``drain`` dials the same address again: behind a load balancer another relay answers
there, and after a hand-over the new process does. If there is only one relay, every dial is refused, or a
proxy in front answers that it has no backend. The search then ends early, so that the old process can exit:
until it has, clients of a relay that is being restarted are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred, TimeoutError  # Twisted's own
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from seance.errors import CarrierLost, Refusal
from seance.resume import DrainNotice

__all__ = ["NO_RELAY_SECONDS", "find_relay", "no_relay_answers"]

NO_RELAY_SECONDS: Final = 1.5
"""The search ends when every dial was refused for this time. A supervisor that starts the new process with
the signal has it listening by then. A proxy's health check may take longer; then the agent finds the new
relay with its ordinary attempts."""

RETRY_SECONDS: Final = 0.5
"""Upper bound of the random wait between two dials."""

GATEWAY_STATUSES: Final = (502, 503, 504)
"""Responses of a proxy that has no backend; a relay answers 503 while it stops."""

Found = TypeVar("Found")


def no_relay_answers(error: Refusal | CarrierLost) -> bool:
    """Return whether a failed dial shows that no relay is running at the address now."""
    if isinstance(error, Refusal):
        return error.status in GATEWAY_STATUSES
    return error.is_refused


async def find_relay(
    reactor: IReactorTime,
    drain: DrainNotice,
    connect: Callable[[], Coroutine[Deferred[Any], Any, Found]],
    random: Callable[[], float],
) -> Found | None:
    """Dial until a relay answers, the time is over, or every dial was refused for ``NO_RELAY_SECONDS``.

    Args:
        reactor: Twisted's reactor, or a ``Clock`` in tests.
        drain: When to start the search, and for how long to try.
        connect: Dials once. Raises ``Refusal`` or ``CarrierLost``.
        random: Returns floats from 0 to 1.

    Returns:
        The result of ``connect``; None if no relay was found.
    """
    await deferLater(reactor, drain.in_seconds)
    began_seconds = reactor.seconds()
    has_answered = False
    while (left_seconds := began_seconds + drain.try_seconds - reactor.seconds()) > 0:
        try:
            return await _started(connect()).addTimeout(left_seconds, reactor)
        except TimeoutError:
            break
        except (Refusal, CarrierLost) as error:
            has_answered = has_answered or not no_relay_answers(error)
            if not has_answered and reactor.seconds() - began_seconds >= NO_RELAY_SECONDS:
                break
            await deferLater(reactor, RETRY_SECONDS * random())
    return None


def _started(dial: Coroutine[Deferred[Any], Any, Found]) -> Deferred[Found]:
    """Start a dial. Cancelling fails with ``CancelledError``, though the dial may report ``CarrierLost``."""
    dialling = Deferred.fromCoroutine(dial)

    def cancel(result: Deferred[Found]) -> None:
        result.errback(CancelledError())
        dialling.cancel()

    result: Deferred[Found] = Deferred(cancel)
    dialling.addBoth(lambda outcome: None if result.called else result.callback(outcome))
    return result
