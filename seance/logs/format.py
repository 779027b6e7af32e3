"""The formats of the log: text, or JSON with one object per line.

``seance relay`` and ``seance agent`` write with ``log_observer``; under twistd, ``LoggedServices`` makes
twistd use it. A program that embeds Seance may use it as well. docs/logging.md lists the log events and
their fields.

Secrets are removed twice: ``seance.logs.redacting`` redacts each event before any observer, and the JSON
format redacts the finished text again, because a field that is not a string becomes one only there.
"""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import IO, Any, cast

from twisted.application.service import MultiService
from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from zope.interface import directlyProvides

from seance.errors import ConfigError
from seance.heads import redact
from seance.logs.files import AppendedLogFile
from seance.logs.writer import LogWriter, descriptor_writer

__all__ = [
    "FORMATS",
    "JSON",
    "TEXT",
    "LoggedServices",
    "in_background",
    "json_line",
    "log_for_twistd",
    "log_observer",
    "text_line",
    "utc_time",
]

TEXT, JSON = "text", "json"

FORMATS = (TEXT, JSON)

MAX_TEXT_LENGTH = 16384
"""Characters of a message, a field or a traceback; a longer text is cut and ends in an ellipsis."""

TWISTD_LOG_FILE = "twistd.log"
"""The default log file of a twistd daemon."""

_SHOWN = frozenset(LogLevel.iterconstants()) - {LogLevel.debug}

_NOT_FIELDS = frozenset(("event", "format", "isError", "message", "system", "time"))
"""Keys of an event that are elsewhere in the line, or that only Twisted's legacy log uses."""


def log_observer(log_format: str, stream: IO[Any]) -> ILogObserver:
    """Return an observer that writes the log to a stream, without debug events.

    Args:
        log_format: One of ``FORMATS``.
        stream: A stream of text or bytes.
    """
    line = text_line if log_format == TEXT else lambda event: json_line(event) + "\n"
    write = FileLogObserver(stream, line)

    def observe(event: LogEvent) -> None:
        if event.get("log_level") in _SHOWN and event.get("log_namespace") is not None:
            write(event)

    directlyProvides(observe, ILogObserver)
    return cast(ILogObserver, observe)


def in_background(stream: IO[Any] | None, log_format: str) -> IO[Any]:
    """Return a stream that never blocks its caller, as a replacement for stdout or stderr.

    Lines wait in a bounded queue for a thread (``seance.logs.writer``). A stream without a file descriptor,
    such as ``io.StringIO``, is returned unchanged. For None, which is Python's value of a closed stdout,
    lines are dropped.
    """
    if stream is None:
        null_writer: IO[Any] = _writer(lambda _: None, log_format)
        return null_writer
    try:
        write = descriptor_writer(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return stream
    writer: IO[Any] = _writer(write, log_format, getattr(stream, "encoding", None) or "utf-8")
    return writer


def _writer(write: Callable[[bytes], None], log_format: str, encoding: str = "utf-8") -> Any:  # noqa: ANN401
    return LogWriter(write, lambda lines: _lost_lines(lines, log_format), encoding=encoding)


def _lost_lines(lines: int, log_format: str) -> str:
    """Return the line that replaces dropped lines."""
    text = io.StringIO()
    _log = Logger(namespace="seance.logs.format", observer=log_observer(log_format, text))
    _log.warn(
        "{lines} log lines were lost here: the log was not read, or could not be written",
        lines=lines,
        event="log.lines_lost",
    )
    return text.getvalue()


def text_line(event: LogEvent) -> str | None:
    """Return an event as a line of text as Twisted writes it, or None for an event without text.

    Twisted's own function takes most of the time of a log line, and each client of a relay has one.
    """
    if "log_failure" in event or "log_system" in event:
        return formatEventAsClassicLogText(event)
    message = _message(event)
    if not message:
        return None
    level, seconds = event.get("log_level"), event.get("log_time")
    time = "-" if seconds is None else _text_time(int(seconds))
    system = f"{event.get('log_namespace', '-')}#{'-' if level is None else level.name}"
    return f"{time} [{system}] {message}".replace("\n", "\n\t") + "\n"


@lru_cache(maxsize=1)
def _text_time(seconds: int) -> str:
    return formatTime(float(seconds))


def _message(event: LogEvent) -> str:
    template = event.get("log_format")
    if type(template) is str and "()" not in template and "log_flattened" not in event:
        with suppress(Exception):  # Twisted describes an event that cannot be formatted
            return template.format_map(event)
    return formatEvent(event)


def json_line(event: LogEvent) -> str:
    """Return an event as one line of JSON, in ASCII.

    The keys are ``time`` (UTC), ``level``, ``namespace``, ``event`` (null for events of other libraries),
    ``message``, ``fields`` and, for failures, ``traceback``.
    """
    level = event.get("log_level")
    message = _message(event)
    line = {
        "time": utc_time(event.get("log_time") or 0.0),
        "level": "info" if level is None else level.name,
        "namespace": event.get("log_namespace") or "",
        "event": event.get("event"),
        # Our own URLs have no secrets, and redacting "?room=" would make them useless (redacting.py).
        "message": _cut(message) if "url" in event else _clean(message),
        "fields": {
            key: _plain(key, value)
            for key, value in event.items()
            if not key.startswith("log_") and key not in _NOT_FIELDS
        },
    }
    failure = event.get("log_failure")
    if isinstance(failure, Failure):
        line["traceback"] = _clean(failure.getTraceback())
    return json.dumps(line, separators=(",", ":"), allow_nan=False)


class LoggedServices(MultiService):
    """The parent service of a program; it makes twistd write the log with our observer.

    twistd asks the application, which is the parent of this service, for an observer before it makes its own
    (``twisted.application.app``). ``--logger`` takes precedence.

    Args:
        make_observer: From ``log_for_twistd``; None to leave twistd's log unchanged.
    """

    def __init__(self, make_observer: Callable[[], ILogObserver] | None = None) -> None:
        super().__init__()
        self._make_observer = make_observer

    def setServiceParent(self, parent: Any) -> None:  # noqa: ANN401  # of any type that Twisted accepts
        """Set the parent; if it is twistd's application, give it the observer."""
        if self._make_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._make_observer())
        super().setServiceParent(parent)


def log_for_twistd(
    twistd: Mapping[str, Any], log_format: str, *, to_stderr: bool = False
) -> Callable[[], ILogObserver] | None:
    """Return a function that makes an observer for twistd's log; None with ``--logger`` or ``--syslog``.

    Args:
        twistd: The options of twistd.
        log_format: One of ``FORMATS``.
        to_stderr: In the foreground without ``--logfile``, write to stderr instead of stdout.

    Raises:
        ConfigError: JSON was requested together with ``--logger`` or ``--syslog``.
    """
    other = next((name for name in ("logger", "syslog") if twistd.get(name)), None)
    if other is None:
        return lambda: log_observer(log_format, _twistd_stream(twistd, log_format, to_stderr))
    if log_format != TEXT:
        message = f"--log-format {log_format} cannot be combined with twistd's --{other}; use one of them."
        raise ConfigError(message, code="log_format")
    return None


def _twistd_stream(twistd: Mapping[str, Any], log_format: str, to_stderr: bool) -> IO[Any]:
    """Return the stream that twistd would use (``UnixAppLogger``); for a file also handle SIGUSR1."""
    name = twistd.get("logfile")
    if name == "-" and not twistd.get("nodaemon"):
        raise SystemExit("Daemons cannot log to stdout, exiting!")
    if name == "-" or (twistd.get("nodaemon") and not name):
        return in_background(sys.stderr if to_stderr else sys.stdout, log_format)
    file = AppendedLogFile.fromFullPath(name or TWISTD_LOG_FILE)
    writer = _writer(file.write, log_format)
    number = getattr(signal, "SIGUSR1", None)  # Windows has none
    if number is not None and not signal.getsignal(number):

        def rotate(*_: object) -> None:
            # Imported on use: twistd installs the reactor, and importing this module must not.
            from twisted.internet import reactor  # noqa: PLC0415

            reactor.callFromThread(writer.call, file.reopen_or_rotate)  # type: ignore[attr-defined]  # of every real reactor

        signal.signal(number, rotate)
    stream: IO[Any] = writer
    return stream


def utc_time(seconds: float) -> str:
    """Return a Unix time in the format of RFC 3339, in UTC with milliseconds."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(key: str, value: object) -> object:
    """Return a field as a JSON value; values that are not numbers become text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None  # None for NaN too
    if key == "url" and isinstance(value, str):
        return _cut(value)
    try:
        return _clean(str(value))
    except Exception:  # noqa: BLE001  # a failing __str__ must not lose the line
        return f"<{type(value).__qualname__}>"


def _clean(text: str) -> str:
    return _cut(redact(text))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT_LENGTH else f"{text[:MAX_TEXT_LENGTH]}…"
