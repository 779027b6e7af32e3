"""What commands share that do one piece of work and end: progress, files, one run of the reactor.

Results go to stdout, so that they can be piped; what is being done at the moment goes to stderr. A mistake is
one sentence and exit status 1, never a traceback. Their options are read by ``seance.cli.arguments``. Used by
``seance bench``, ``check`` and ``doctor``; the demo, which stays, has a run of its own.
"""

from __future__ import annotations

import io
import os
import signal
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
from seance.errors import ConfigError, SeanceError
from seance.heads import redact
from seance.logs.format import TEXT, in_background
from seance.net import read_bounded, use_daemon_lookups
from seance.options import parsers

__all__ = ["Progress", "new_file", "read_token", "run", "serve", "show_trouble_only", "write_file"]

MOST_TOKEN_BYTES = 4096


class Progress:
    """Says what is done next, on stderr: on a terminal in one line that changes.

    Args:
        quiet: Say nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._in_place = sys.stderr.isatty()

    def __call__(self, words: str) -> None:
        """Say it."""
        if self._quiet:
            return
        sys.stderr.write(f"\r\x1b[2K{words} ..." if self._in_place else f"{words} ...\n")
        sys.stderr.flush()

    def clear(self) -> None:
        """Leave the terminal clean for what comes."""
        if self._in_place and not self._quiet:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def run(command: str, work: Callable[[Any], Coroutine[Deferred[Any], Any, int]]) -> int:
    """Run the reactor for one piece of work.

    Args:
        command: For sentences.
        work: Called with the reactor; returns the exit status. It is cancelled by SIGINT and SIGTERM, and
            has to end what it has started even then.

    Returns:
        The exit status: that of the work, or 1 if it ended in an error or was interrupted.
    """
    # Imported on use: whoever asks for help needs no reactor.
    from twisted.internet import reactor  # noqa: PLC0415

    use_daemon_lookups(reactor)
    show_trouble_only()
    status = [1]
    working: list[Deferred[int]] = []

    def begin() -> None:
        working.append(Deferred.fromCoroutine(work(reactor)))
        working[0].addCallbacks(lambda code: status.__setitem__(0, code), _explain(command))
        working[0].addBoth(stop)

    def stop(_: object) -> None:
        with suppress(ReactorNotRunning):  # a signal has stopped it already
            reactor.stop()

    def interrupt() -> Deferred[Any] | None:
        # A person who presses Ctrl-C twice does not want to wait.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not working or working[0].called:
            return None
        working[0].cancel()
        return working[0]

    reactor.callWhenRunning(stop_on_hangup, reactor)  # before the work, which may print and be hung up on
    reactor.callWhenRunning(begin)
    reactor.addSystemEventTrigger("before", "shutdown", interrupt)
    reactor.run()
    return status[0]


def serve(factory: IProtocolFactory, port: int) -> Callable[[Any], Coroutine[Deferred[Any], Any, int]]:
    """Return the work of a local server: listen on loopback until a signal comes.

    Args:
        factory: Makes its protocols.
        port: 0 for a free one.
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
    """A file to write in the end; whether that can be is better known before minutes of work."""
    path = Path(text)
    if path.is_dir():
        msg = f"{text!r} is a folder; write the name of a file"
        raise ValueError(msg)
    if not path.parent.is_dir():
        msg = f"{text!r} cannot be written: {str(path.parent)!r} is no folder"
        raise ValueError(msg)
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        msg = f"{text!r} cannot be written: permission denied"
        raise ValueError(msg)
    return path


def read_token(path: Path | None) -> str | None:
    """Return the token that a file holds; None for no file.

    Raises:
        ConfigError: It cannot be read, or holds something else.
    """
    if path is None:
        return None
    try:
        return str(parsers.token(read_bounded(path, MOST_TOKEN_BYTES)[0].decode("ascii").strip()))
    except OSError as error:
        raise ConfigError(f"The token file {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"The token file {path} holds no token.") from error


def write_file(path: Path, text: str) -> None:
    """Write what a person asked to have in a file.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise ConfigError(f"The file {path} cannot be written: {error.strerror}.") from error


def _explain(command: str) -> Callable[[Failure], None]:
    def explain(failure: Failure) -> None:
        if failure.check(CancelledError):
            sys.stderr.write(f"{command}: interrupted.\n")
        elif isinstance(failure.value, SeanceError):
            sys.stderr.write(f"{command}: {redact(failure.value.sentence)}\n")
        elif failure.check(BrokenPipeError):
            pass  # whoever read has gone; seance.cli ends it
        else:
            sys.stderr.write(redact(failure.getTraceback()))

    return explain


def show_trouble_only() -> None:
    """Shows what is amiss and nothing else: the terminal belongs to the result."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    only_trouble = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(textFileLogObserver(in_background(sys.stderr, TEXT)), [only_trouble])],
        redirectStandardIO=False,
        discardBuffer=True,
    )
