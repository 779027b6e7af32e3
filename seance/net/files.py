"""Files that are read again after they have changed: certificates, keys, lists.

Valid content stays in use until other valid content replaces it. A file that is half written or temporarily
missing causes a line in the log and no other change; so deleting a file revokes nothing. ``WatchedFiles``
reads several files together, because a certificate is valid only with its key. ``FileWatcher`` is the service
that checks them every second. Used for certificates (``seance.relay``, ``seance.agent``) and for keys
(``seance.auth``).

Polling works on every system and file system, and through the symbolic links that certbot and Kubernetes
replace. It costs one ``stat`` per file and second. While the program runs, files are read in a thread
(``seance.net.file_reads``), so a network file system that hangs, or a pipe without a writer, blocks nothing.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, FirstError
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.errors import ConfigError
from seance.net.file_reads import READ_SECONDS, StillRunning, ThreadRunner

__all__ = ["CHECK_SECONDS", "FileWatcher", "WatchedFiles"]

T = TypeVar("T")

CHECK_SECONDS = 1.0
"""Interval between two checks of the files."""


_States = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class _CheckResult(Generic[T]):
    """The state of the files at a check, and their content or the error."""

    states: _States
    content: T | None
    error: ConfigError | None


class WatchedFiles(Generic[T]):
    """Files that are read together.

    Call ``load`` once, then ``check`` repeatedly.

    Args:
        paths: The paths of the files.
        read: Reads the files and returns their content; raises ConfigError if that is not valid.

    Attributes:
        content: The last valid content.
    """

    _log = Logger()

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        self.content: T
        self._paths = tuple(paths)
        self._read = read
        self._last_states: _States = ()
        self._thread_runner = ThreadRunner()
        self._is_forced = False
        self._is_slow = False

    @property
    def is_loaded(self) -> bool:
        """Whether ``load`` has been called, and has succeeded."""
        return hasattr(self, "content")

    def load(self) -> None:
        """Read the files for the first time.

        Raises:
            ConfigError: The content is not valid.
        """
        # The states are taken before reading, so a change during the read is noticed by the next check.
        self._last_states = self._states()
        self.content = self._read()

    def check(self, *, force: bool = False) -> bool:
        """Read the files again if one has changed, or in any case with ``force``.

        Returns:
            Whether there is new valid content.
        """
        return self._apply(self._read_changed(force=force))

    def check_in_thread(self, reactor: Any, *, force: bool = False) -> Deferred[bool]:  # noqa: ANN401
        """Do the same as ``check``, but read in a thread; return False after ``READ_SECONDS``."""
        self._is_forced = force or self._is_forced
        reading = self._thread_runner.run(reactor, partial(self._read_changed, force=self._is_forced))
        return reading.addCallbacks(self._apply, self._note_not_read)

    def _read_changed(self, *, force: bool) -> _CheckResult[T] | None:
        """Read the files if they have changed. Runs in any thread, so it modifies nothing."""
        states = self._states()
        if states == self._last_states and not force:
            return None
        try:
            return _CheckResult(states, self._read(), None)
        except ConfigError as error:
            return _CheckResult(states, None, error)

    def _apply(self, result: _CheckResult[T] | None) -> bool:
        if not self._thread_runner.is_running:
            self._is_forced = False
        self._is_slow = False
        if result is None:
            return False
        self._last_states = result.states
        if result.error is not None:
            self._warn(result.error.message.rstrip("."))
            return False
        content = cast(T, result.content)
        is_new = content != self.content
        self.content = content
        return is_new

    def _note_not_read(self, failure: Failure) -> bool:
        failure.trap(StillRunning, DeferredTimeoutError, CancelledError)
        if failure.check(DeferredTimeoutError) and not self._is_slow:
            self._is_slow = True
            self._warn(f"{', '.join(map(str, self._paths))} cannot be read within {READ_SECONDS:g} s")
        return False

    def _warn(self, problem: str) -> None:
        self._log.warn("{problem}; the previous content stays in use.", problem=problem, event="file.kept")

    def _states(self) -> _States:
        return tuple(_state(path) for path in self._paths)


class FileWatcher(Service):
    """A service that checks files every second, and when ``reread`` is called.

    Args:
        reactor: Provides the time.
        watched: The files; they must be loaded before the service starts.
        on_change: Called after content has changed.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, watched: Iterable[WatchedFiles[Any]], on_change: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._watched = tuple(watched)
        self._on_change = on_change
        self._reading: set[Deferred[Any]] = set()
        self._check_loop = LoopingCall(self._check)
        self._check_loop.clock = reactor

    def startService(self) -> None:
        """Start checking, if there are files."""
        super().startService()
        if not self._watched:
            return
        self._check_loop.start(CHECK_SECONDS, now=False).addErrback(self._log_failure)

    def stopService(self) -> None:
        """Stop checking."""
        super().stopService()
        if self._check_loop.running:
            self._check_loop.stop()
        for reading in list(self._reading):
            reading.cancel()

    def reread(self) -> None:
        """Read all files now, changed or not; for SIGHUP. Before the start this does nothing.

        Call it in the reactor's thread; a signal handler uses ``callFromThread``.
        """
        if self.running:
            self._check(force=True)

    def _check(self, *, force: bool = False) -> None:
        checks = [watched.check_in_thread(self._reactor, force=force) for watched in self._watched]
        together = DeferredList(checks, consumeErrors=True, fireOnOneErrback=True)
        self._reading.add(together)
        together.addCallback(self._note_results).addErrback(self._log_failed_check)
        together.addBoth(lambda _: self._reading.discard(together))

    def _note_results(self, results: list[tuple[bool, bool]]) -> None:
        if self.running and any(is_new for _, is_new in results):
            self._on_change()

    def _log_failed_check(self, failure: Failure) -> None:
        if isinstance(failure.value, FirstError):
            failure = failure.value.subFailure
        if failure.check(CancelledError) is None:
            self._log_failure(failure)

    def _log_failure(self, failure: Failure) -> None:
        self._log.failure("Files could not be checked", failure, event="file.mistake")


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    if stat.S_ISFIFO(status.st_mode):
        # Reading a pipe changes its times, so only another pipe at this path counts as a change (or SIGHUP).
        return 0, 0, status.st_ino, status.st_mode
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode
