"""How the log is written down: lines for people, or JSON, one object a line.

``seance relay`` and ``seance agent`` ask ``log_observer`` for what writes; under twistd, which chooses for
itself, ``LoggedServices`` makes that choice for it. Whoever embeds Seance has observers of their own, and may
use these. What is logged, with its fields, is in docs/operations.md.

Secrets are taken out twice. ``seance.logs.redacting`` stands before every observer; here the text is looked
at once more when it is whole, because a field that is no string becomes one only now.
"""

from __future__ import annotations

import io
import json
import signal
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import IO, Any

from twisted.application.service import MultiService
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    textFileLogObserver,
)
from twisted.python.components import Componentized
from twisted.python.failure import Failure

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
    "utc_time",
]

TEXT, JSON = "text", "json"

FORMATS = (TEXT, JSON)

LONGEST_TEXT = 16384
"""Characters of a message, a field or a traceback; what is longer is cut, and ends in an ellipsis."""

TWISTD_LOG_FILE = "twistd.log"
"""Where a daemon of twistd writes if it is not told otherwise."""

_NOT_FIELDS = frozenset(("event", "format", "isError", "message", "system", "time"))
"""Keys of an event that are said elsewhere in the line, or that only Twisted's old log knows."""


def log_observer(log_format: str, stream: IO[Any]) -> ILogObserver:
    """Return what writes the log to a stream; what is told for debugging only is left out.

    Args:
        log_format: One of ``FORMATS``.
        stream: Of text or of bytes.
    """
    writer = (
        textFileLogObserver(stream)
        if log_format == TEXT
        else FileLogObserver(stream, lambda event: json_line(event) + "\n")
    )
    return FilteringLogObserver(writer, [LogLevelFilterPredicate(defaultLogLevel=LogLevel.info)])


def in_background(stream: IO[Any] | None, log_format: str) -> IO[Any]:
    """Return a stream that never blocks its caller, in place of stdout or stderr.

    Lines wait in a bounded queue for a thread (``seance.logs.writer``). A stream without a descriptor, such
    as ``io.StringIO``, is returned as it is; None, which Python has for a closed stdout, drops everything.
    """
    if stream is None:
        nothing: IO[Any] = _writer(lambda _: None, log_format)
        return nothing
    try:
        write = descriptor_writer(stream.fileno())
    except (AttributeError, OSError, ValueError):
        return stream
    writer: IO[Any] = _writer(write, log_format, getattr(stream, "encoding", None) or "utf-8")
    return writer


def _writer(write: Callable[[bytes], None], log_format: str, encoding: str = "utf-8") -> Any:  # noqa: ANN401
    return LogWriter(write, lambda lines: _lost_lines(lines, log_format), encoding=encoding)


def _lost_lines(lines: int, log_format: str) -> str:
    """Return the line that stands for lines which the reader of the log did not take in time."""
    text = io.StringIO()
    _log = Logger(namespace="seance.logs.format", observer=log_observer(log_format, text))
    _log.warn(
        "{lines} lines of the log were lost here: the log was not read, or could not be written",
        lines=lines,
        event="log.lines_lost",
    )
    return text.getvalue()


def json_line(event: LogEvent) -> str:
    """Return an event as one line of JSON, in ASCII.

    Its keys are ``time`` (UTC), ``level``, ``namespace``, ``event`` (null for what is not ours), ``message``,
    ``fields`` and, where there is one, ``traceback``.
    """
    level = event.get("log_level")
    message = formatEvent(event)
    line = {
        "time": utc_time(event.get("log_time") or 0.0),
        "level": "info" if level is None else level.name,
        "namespace": event.get("log_namespace") or "",
        "event": event.get("event"),
        # Our own addresses hold no secret, and a mask over "?room=" would make them useless (redacting.py).
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
    """All services of a program as one; twistd, given this, writes its log as ``log_observer`` does.

    It asks the application for an observer before it makes one of its own (``twisted.application.app``), and
    the application is what this is put into. ``--logger`` still comes first.

    Args:
        make_observer: From ``log_for_twistd``; None to leave the log alone.
    """

    def __init__(self, make_observer: Callable[[], ILogObserver] | None = None) -> None:
        super().__init__()
        self._make_observer = make_observer

    def setServiceParent(self, parent: Any) -> None:  # noqa: ANN401  # of whatever kind Twisted takes
        """Let the application have the observer, if it is one."""
        if self._make_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self._make_observer())
        super().setServiceParent(parent)


def log_for_twistd(
    twistd: Mapping[str, Any], log_format: str, *, to_stderr: bool = False
) -> Callable[[], ILogObserver] | None:
    """Return what makes an observer that writes to where twistd would write; None if it was told another way.

    Args:
        twistd: Its options.
        log_format: One of ``FORMATS``.
        to_stderr: In the foreground, without ``--logfile``, write there: stdout is for something else.

    Raises:
        ConfigError: JSON was asked for, and another way of logging too.
    """
    other = next((name for name in ("logger", "syslog") if twistd.get(name)), None)
    if other is None:
        return lambda: log_observer(log_format, _twistd_stream(twistd, log_format, to_stderr))
    if log_format != TEXT:
        sentence = f"--log-format {log_format} and twistd's --{other} both say how to log; give one of them."
        raise ConfigError(sentence, code="log_format")
    return None


def _twistd_stream(twistd: Mapping[str, Any], log_format: str, to_stderr: bool) -> IO[Any]:
    """Return what twistd would write to (``UnixAppLogger``), SIGUSR1 for a new file included."""
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
            # Imported on use: twistd has chosen the reactor by now, and an import of ours must not.
            from twisted.internet import reactor  # noqa: PLC0415

            reactor.callFromThread(writer.call, file.reopen_or_rotate)  # type: ignore[attr-defined]  # of every real reactor

        signal.signal(number, rotate)
    stream: IO[Any] = writer
    return stream


def utc_time(seconds: float) -> str:
    """Return a moment of Unix time as RFC 3339 has it, in UTC, with milliseconds."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(key: str, value: object) -> object:
    """Return a field as JSON has it; whatever is no number becomes text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None  # nor is "not a number" less than that
    if key == "url" and isinstance(value, str):
        return _cut(value)
    try:
        return _clean(str(value))
    except Exception:  # noqa: BLE001  # somebody else's __str__ must not cost the line
        return f"<{type(value).__qualname__}>"


def _clean(text: str) -> str:
    return _cut(redact(text))


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"
