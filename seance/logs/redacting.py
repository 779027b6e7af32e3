"""Removes secrets from log events before they are written.

Seance does not log tokens itself, but the text of an exception may have one. The observer runs before the
other observers of Twisted's log and changes the event, so that the text, the JSON and the traceback are
redacted. The rules are those of ``seance.heads.redact``.

The field ``url`` is not redacted: it has a URL of ours with a room and without a token, and users copy it
from the log. The programs install the observer; a program that embeds Seance may call ``redact_logs`` before
it adds its own observers.
"""

from __future__ import annotations

from functools import cache

from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.heads import redact

__all__ = ["RedactingObserver", "redact_logs"]

UNCHANGED_KEYS = frozenset(("log_format", "log_namespace", "log_system", "event", "url", "system", "format"))


@implementer(ILogObserver)
class RedactingObserver:
    """An observer that changes events. Add it before the observers that write."""

    def __call__(self, event: LogEvent) -> None:
        """Redact the secrets in an event."""
        for key, value in list(event.items()):
            if key in UNCHANGED_KEYS:
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
    """Redact the events of all observers that are added later. Further calls do nothing."""
    globalLogPublisher.addObserver(RedactingObserver())
