"""Limit the log lines that a remote peer can cause.

The first event of a kind is logged immediately. Further ones are counted, and at most one line per minute has
their number. The number of kinds is limited too, because a peer may choose the key, such as a room's name::

    limiter = LogLimiter(reactor)
    suppressed = limiter.admit(("room.refused", room))
    if suppressed is not None:
        _log.warn("... ({untold} more since the last such line)", untold=suppressed)
"""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.interfaces import IReactorTime

__all__ = ["INTERVAL_SECONDS", "MAX_KEYS", "LogLimiter"]

INTERVAL_SECONDS = 60.0
"""Default interval between two lines of a kind."""

REFUSED_SECONDS = 10.0
"""The same for connections that fail before they send a request: TLS handshakes, PROXY headers."""

MAX_KEYS = 32
"""Number of kinds with separate lines in an interval; all further kinds share one line."""

_OTHERS = object()


class LogLimiter:
    """Decides which of many similar events are logged.

    Args:
        reactor: Provides the time.
        interval_seconds: Interval between two lines of a kind.
        max_keys: Number of kinds with separate lines.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._reactor = reactor
        self._interval_seconds = interval_seconds
        self._max_keys = max_keys
        self._logged_at: dict[Hashable, float] = {}
        self._suppressed: dict[Hashable, int] = {}

    def admit(self, key: Hashable) -> int | None:
        """Count an event of the kind ``key``.

        Returns:
            None if it is not logged; else the number of suppressed events since the last line of this kind.
        """
        now = self._reactor.seconds()
        if key not in self._logged_at and len(self._logged_at) >= self._max_keys:
            self._forget_old(now)
            if len(self._logged_at) >= self._max_keys:
                key = _OTHERS
        logged_at = self._logged_at.get(key)
        if logged_at is not None and now - logged_at < self._interval_seconds:
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return None
        self._logged_at[key] = now
        return self._suppressed.pop(key, 0)

    def line(self, key: Hashable, message: str) -> str | None:
        """Return the line for an event, with the number of suppressed ones; None if it is not logged."""
        suppressed = self.admit(key)
        if not suppressed:
            return None if suppressed is None else message
        return f"{message} ({suppressed} more since the last such line)"

    def _forget_old(self, now: float) -> None:
        """Remove kinds without a line for an interval; their suppressed events are counted as others."""
        for key, logged_at in list(self._logged_at.items()):
            if now - logged_at >= self._interval_seconds:
                del self._logged_at[key]
                count = self._suppressed.pop(key, 0)
                if count:
                    self._suppressed[_OTHERS] = self._suppressed.get(_OTHERS, 0) + count
