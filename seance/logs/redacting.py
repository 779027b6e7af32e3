"""Takes secrets out of whatever is about to be logged, before anybody writes it down.

Nothing of ours logs a token on purpose; this is for what an exception's text brings along, ours or
a library's. It stands in front of the other observers of Twisted's log and changes the event, so
that the line, the JSON and the traceback are all clean. The rules are ``seance.heads.redact``'s.

Our own addresses, under ``url``, are left alone: they hold a room and never a token, and the first
lines of relay and agent are what people copy. The doors install this; a program that embeds Seance
may, too, before it begins to log.
"""

from __future__ import annotations

from functools import cache

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.heads import redact

__all__ = ["Redacting", "redact_logs"]

KEPT = frozenset(("log_format", "log_namespace", "log_system", "event", "url", "system", "format"))


@implementer(ILogObserver)
class Redacting:
    """An observer that changes events. Must be added before those that write."""

    def __call__(self, event: LogEvent) -> None:
        """Mask every secret in one event."""
        for key, value in list(event.items()):
            if key in KEPT:
                continue
            if isinstance(value, str):
                event[key] = redact(value)
            elif isinstance(value, tuple):
                event[key] = tuple(redact(one) if isinstance(one, str) else one for one in value)
            elif isinstance(value, Failure) and value.value is not None:
                error = value.value
                error.args = tuple(redact(one) if isinstance(one, str) else one for one in error.args)


@cache
def redact_logs() -> None:
    """Mask secrets in everything that observers added from now on are told. Once is enough."""
    globalLogPublisher.addObserver(Redacting())
