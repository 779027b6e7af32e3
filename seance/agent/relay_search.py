"""The search for the relay that takes the place of one that is about to stop.

An agent that is told ``drain`` dials the same address again: behind a load balancer another relay answers
there, and after a hand-over the new process does. Where there is one relay only, every dial is refused, or
a proxy in front says that nothing is behind it. The search then ends early, so that the old process can
end: clients of a relay that is being restarted are refused until it has.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, TimeoutError  # Twisted's own
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from seance.errors import CarrierLost, Refusal
from seance.resume import Drain

__all__ = ["NO_RELAY_SECONDS", "find_relay", "no_relay_answers"]

NO_RELAY_SECONDS: Final = 1.5
"""Time for which every dial has to be refused before the search ends. A supervisor that starts the new
process with the signal has it listening by then. A proxy's health check may take longer; then the agent finds
the new relay with its ordinary dials."""

RETRY_SECONDS: Final = 0.5
"""Waits between two dials are random, up to this."""

GATEWAY_STATUSES: Final = (502, 503, 504)
"""A proxy answers with these if no relay is behind it, and a relay with 503 while it stops."""

Found = TypeVar("Found")


def no_relay_answers(error: Refusal | CarrierLost) -> bool:
    """Return whether a failed dial shows that no relay is running at the address now."""
    if isinstance(error, Refusal):
        return error.status in GATEWAY_STATUSES
    return error.is_refused


async def find_relay(
    reactor: IReactorTime,
    drain: Drain,
    connect: Callable[[], Coroutine[Deferred[Any], Any, Found]],
    random: Callable[[], float],
) -> Found | None:
    """Dial until a relay answers, the time is over, or it is clear that there is no other relay.

    Args:
        reactor: Twisted's reactor or a test's ``Clock``.
        drain: When to begin, and for how long to try.
        connect: Dials once. Raises ``Refusal`` or ``CarrierLost``.
        random: Gives floats from 0 to 1.

    Returns:
        What ``connect`` returned; None if no relay was found.
    """
    await deferLater(reactor, drain.in_seconds)
    began_seconds = reactor.seconds()
    has_answered = False
    while (left_seconds := began_seconds + drain.try_seconds - reactor.seconds()) > 0:
        dialling = Deferred.fromCoroutine(connect())
        try:
            return await dialling.addTimeout(left_seconds, reactor)
        except TimeoutError:
            break
        except (Refusal, CarrierLost) as error:
            has_answered = has_answered or not no_relay_answers(error)
            if not has_answered and reactor.seconds() - began_seconds >= NO_RELAY_SECONDS:
                break
            await deferLater(reactor, RETRY_SECONDS * random())
    return None
