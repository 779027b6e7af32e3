"""Makes the reactor's timers independent of the wall clock, in a process that is ours.

Twisted's reactors count time with ``time.time``: an hour that somebody sets back is an hour in which
no timer fires, no dead carrier is noticed and no agent dials; an hour forward fires them all. Every reactor
asks its own ``seconds``, which is a documented place to put another clock (``IReactorTime.seconds``).
Programs that embed Seance decide for themselves: they may call this before they schedule anything.
"""

from __future__ import annotations

import time
from typing import Any

__all__ = ["use_monotonic_clock"]


def use_monotonic_clock(reactor: Any) -> bool:  # noqa: ANN401  # of every reactor, and in no interface
    """Let ``reactor`` count with the monotonic clock.

    Returns:
        False if it was too late: something is scheduled already, by the other clock.
    """
    if reactor.getDelayedCalls():
        return False
    reactor.seconds = time.monotonic
    return True
