"""Bounds how often the same event is logged: the first time, and then once an interval with a count.

Clients that are refused dial again every 2.5 s, so a line for each would fill a disk. ``LogLimiter`` says
when a line is due and for how many events it stands; the caller writes it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

__all__ = ["LogLimiter"]

INTERVAL_SECONDS = 60.0
MAX_KEYS = 64


class LogLimiter:
    """Counts events by key. Call ``count`` for each, and write a line if it returns more than 0.

    Args:
        now: Returns the time in seconds.
        interval_seconds: The shortest time between two lines of one key.
        max_keys: Keys that are remembered; the one that was logged longest ago is forgotten first.
    """

    def __init__(
        self,
        now: Callable[[], float],
        interval_seconds: float = INTERVAL_SECONDS,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._now = now
        self._interval_seconds = interval_seconds
        self._max_keys = max_keys
        self._held: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def count(self, key: str) -> int:
        """Count one event.

        Returns:
            0 if no line is due; else how many events the line stands for, this one included.
        """
        now = self._now()
        logged_at, held = self._held.get(key, (-self._interval_seconds, 0))
        if key in self._held and now - logged_at < self._interval_seconds:
            self._held[key] = (logged_at, held + 1)
            return 0
        self._held[key] = (now, 0)
        self._held.move_to_end(key)
        if len(self._held) > self._max_keys:
            self._held.popitem(last=False)
        return held + 1

    def reset(self, key: str) -> None:
        """Forget a key: its next event is a change and is logged."""
        self._held.pop(key, None)
