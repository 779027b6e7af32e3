"""Bounds the lines of the log that a remote peer can cause at will.

The first event of a kind is a line, immediately. Further ones are counted, and at most one line a minute says
how many there were. The kinds are bounded too, because a peer may choose the key (a room's name)::

    limiter = LogLimiter(reactor)
    untold = limiter.admit(("room.refused", room))
    if untold is not None:
        _log.warn("... ({untold} more since the last such line)", untold=untold)
"""

from __future__ import annotations

from collections.abc import Hashable

from twisted.internet.interfaces import IReactorTime

__all__ = ["INTERVAL_SECONDS", "MAX_KEYS", "LogLimiter"]

INTERVAL_SECONDS = 60.0
"""From one line of a kind to the next, by default."""

REFUSED_SECONDS = 10.0
"""The same for connections that fail before they send a request: TLS handshakes, PROXY headers."""

MAX_KEYS = 32
"""Kinds that have lines of their own in an interval; all further ones share one line."""

_OTHERS = object()


class LogLimiter:
    """Decides which of many similar events get a line in the log.

    Args:
        reactor: Twisted's reactor, or another clock.
        interval_seconds: From one line of a kind to the next.
        max_keys: Number of kinds with lines of their own.
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
        self._said_at: dict[Hashable, float] = {}
        self._untold: dict[Hashable, int] = {}

    def admit(self, key: Hashable) -> int | None:
        """Count an event of the kind ``key``.

        Returns:
            None if it gets no line; else the number of events since the last line of this kind, which the new
            line stands for as well.
        """
        now = self._reactor.seconds()
        if key not in self._said_at and len(self._said_at) >= self._max_keys:
            self._forget_old(now)
            if len(self._said_at) >= self._max_keys:
                key = _OTHERS
        said_at = self._said_at.get(key)
        if said_at is not None and now - said_at < self._interval_seconds:
            self._untold[key] = self._untold.get(key, 0) + 1
            return None
        self._said_at[key] = now
        return self._untold.pop(key, 0)

    def line(self, key: Hashable, sentence: str) -> str | None:
        """Return the line to write for an event, with the number of events it stands for; None for none."""
        untold = self.admit(key)
        if not untold:
            return None if untold is None else sentence
        return f"{sentence} ({untold} more since the last such line)"

    def _forget_old(self, now: float) -> None:
        """Make room: a kind without events for an interval has nothing to report, or reports it as others."""
        for key, said_at in list(self._said_at.items()):
            if now - said_at >= self._interval_seconds:
                del self._said_at[key]
                count = self._untold.pop(key, 0)
                if count:
                    self._untold[_OTHERS] = self._untold.get(_OTHERS, 0) + count
