"""Makes the reactor's timers independent of the wall clock.

Twisted's reactors use ``time.time``. If the wall clock is set back by an hour, no timer fires for an hour: no
dead connection is detected and no agent reconnects. If it is set forward, all timers fire. A reactor reads
the time from its ``seconds`` attribute (``IReactorTime.seconds``), which may be replaced before anything is
scheduled. The programs do that; a program that embeds Seance may call ``use_monotonic_clock`` as well.
"""

from __future__ import annotations

import time
from typing import Any

__all__ = ["use_monotonic_clock"]


def use_monotonic_clock(reactor: Any) -> bool:  # noqa: ANN401  # no interface has this method
    """Make ``reactor`` count time with the monotonic clock.

    Returns:
        False, without a change, if calls are already scheduled by the other clock.
    """
    if reactor.getDelayedCalls():
        return False
    reactor.seconds = time.monotonic
    return True
