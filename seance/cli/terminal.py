"""Shared by the commands that do one task and exit: progress messages, files, one run of the reactor.

Results go to stdout, so that they can be piped; progress goes to stderr. An error is one message and exit
status 1, without a traceback. Used by ``seance bench``, ``check`` and ``doctor``.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import CannotListenError, ReactorNotRunning
from twisted.internet.interfaces import IProtocolFactory
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

from seance.cli.reload_on_sighup import stop_on_hangup
from seance.cli.stop_on_signal import end_at_next_signal
from seance.errors import ConfigError, SeanceError
from seance.heads import redact
from seance.logs.format import TEXT, in_background
from seance.net import read_bounded, use_daemon_lookups
from seance.options import parsers

__all__ = ["ProgressLine", "new_file", "read_token", "run", "serve", "show_warnings_only", "write_file"]

MAX_TOKEN_BYTES = 4096


class ProgressLine:
    """Shows the current step on stderr; on a terminal each step replaces the previous one.

    Args:
        quiet: Show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._in_place = sys.stderr.isatty()

    def __call__(self, step: str) -> None:
        """Show a step."""
        if self._quiet:
            return
        sys.stderr.write(f"\r\x1b[2K{step} ..." if self._in_place else f"{step} ...\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line from a terminal."""
        if self._in_place and not self._quiet:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def run(command: str, work: Callable[[Any], Coroutine[Deferred[Any], Any, int]]) -> int:
    """Run the reactor for one task.

    Args:
        command: The command as it was typed, for messages.
        work: Called with the reactor; returns the exit status. SIGINT and SIGTERM cancel it, and it has to
            clean up in that case too.

    Returns:
        The exit status of the task, or 1 if it raised an exception or was interrupted.
    """
    # Imported on use: --help needs no reactor.
    from twisted.internet import reactor  # noqa: PLC0415

    use_daemon_lookups(reactor)
    show_warnings_only()
    status = [1]
    working: list[Deferred[int]] = []

    def begin() -> None:
        working.append(Deferred.fromCoroutine(work(reactor)))
        working[0].addCallbacks(lambda code: status.__setitem__(0, code), _report_to_stderr(command))
        working[0].addBoth(stop)

    def stop(_: object) -> None:
        with suppress(ReactorNotRunning):  # a signal has stopped it already
            reactor.stop()

    def interrupt() -> Deferred[Any] | None:
        end_at_next_signal()
        if not working or working[0].called:
            return None
        working[0].cancel()
        return working[0]

    reactor.callWhenRunning(stop_on_hangup, reactor)  # before the task prints anything
    reactor.callWhenRunning(begin)
    reactor.addSystemEventTrigger("before", "shutdown", interrupt)
    reactor.run()
    return status[0]


def serve(factory: IProtocolFactory, port: int) -> Callable[[Any], Coroutine[Deferred[Any], Any, int]]:
    """Return the task of a local server, for ``run``: listen on loopback until a signal.

    Args:
        factory: Makes the protocols.
        port: The port; 0 for a free one.
    """

    async def work(reactor: Any) -> int:  # noqa: ANN401  # Twisted's reactors have no common type
        try:
            listening = reactor.listenTCP(port, factory, backlog=1024, interface="127.0.0.1")
        except CannotListenError as error:
            why = getattr(error.socketError, "strerror", None) or str(error.socketError)
            raise ConfigError(f"Nothing can listen on 127.0.0.1:{port}: {why}.") from error
        sys.stdout.write(f"Serving on port {listening.getHost().port} of 127.0.0.1\n")
        sys.stdout.flush()
        try:
            await Deferred()
        except CancelledError:
            await listening.stopListening()
        return 0

    return work


def new_file(text: str) -> Path:
    """Parse the path of a file to write; check that it can be written before minutes of work begin."""
    path = Path(text)
    if path.is_dir():
        msg = f"{text!r} is a folder; write the name of a file"
        raise ValueError(msg)
    if not path.parent.is_dir():
        msg = f"{text!r} cannot be written: {str(path.parent)!r} is not a folder"
        raise ValueError(msg)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        msg = f"{text!r} cannot be written: permission denied"
        raise ValueError(msg)
    return path


def read_token(path: Path | None) -> str | None:
    """Return the token in a file; None if ``path`` is None.

    Raises:
        ConfigError: The file cannot be read, or has no token.
    """
    if path is None:
        return None
    try:
        return str(parsers.token(read_bounded(path, MAX_TOKEN_BYTES)[0].decode("ascii").strip()))
    except OSError as error:
        raise ConfigError(f"The token file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"The token file {path} does not contain a valid token.") from error


def write_file(path: Path, text: str) -> None:
    """Write a text to a file.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be written: {error.strerror}.") from error


def _report_to_stderr(command: str) -> Callable[[Failure], None]:
    def report(failure: Failure) -> None:
        if failure.check(CancelledError):
            sys.stderr.write(f"{command}: interrupted.\n")
        elif isinstance(failure.value, SeanceError):
            sys.stderr.write(f"{command}: {redact(failure.value.message)}\n")
        elif failure.check(BrokenPipeError):
            pass  # the reader of stdout has ended; seance.cli sets the exit status
        else:
            sys.stderr.write(redact(failure.getTraceback()))

    return report


def show_warnings_only() -> None:
    """Log only warnings and errors, to stderr."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    warnings = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(textFileLogObserver(in_background(sys.stderr, TEXT)), [warnings])],
        redirectStandardIO=False,
        discardBuffer=True,
    )
