"""Files that are read again when they change: certificates, keys, lists.

The rule for all of them: what was good once stays in force until something good replaces it. A file
that is half written, or gone because a volume is away for a moment, costs one line in the log and
nothing else; so deleting one takes nothing back. ``WatchedFiles`` knows what some files say *together*,
because a certificate and its key are only good as a pair; ``FileWatcher`` is the service that has the
clock and looks once a second. Used by the tunnel for certificates and by ``seance.auth`` for keys.

Looking instead of being told: a change is seen on every system and file system, through the
symbolic links that certbot and Kubernetes swap, for one ``stat`` a second. While the program runs, files
are read in threads (``seance.net.file_reads``): a network file system that hangs, or a pipe without a writer,
keeps the old content in force and stops nothing.
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
from seance.net.file_reads import READ_SECONDS, OffLoop, StillReading

__all__ = ["LOOK_SECONDS", "FileWatcher", "WatchedFiles"]

T = TypeVar("T")

LOOK_SECONDS = 1.0
"""From one look at the files to the next."""


_States = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True, slots=True)
class _Seen(Generic[T]):
    """What a check has found: the state of the files, and their content or what is wrong with it."""

    states: _States
    content: T | None
    error: ConfigError | None


class WatchedFiles(Generic[T]):
    """Some files and what they say together.

    Call ``load`` once, then ``look`` as often as you like.

    Args:
        paths: Where they are.
        read: Makes of them what they say; raises ConfigError if it makes no sense.

    Attributes:
        content: What they said when they were last good.
    """

    _log = Logger()

    def __init__(self, paths: Sequence[Path], read: Callable[[], T]) -> None:
        self.content: T
        self._paths = tuple(paths)
        self._read = read
        self._seen: _States = ()
        self._off_loop = OffLoop()
        self._is_forced = False
        self._is_slow = False

    @property
    def is_loaded(self) -> bool:
        """Whether ``load`` has been called, and has succeeded."""
        return hasattr(self, "content")

    def load(self) -> None:
        """Read them for the first time.

        Raises:
            ConfigError: They make no sense.
        """
        # Looked at before they are read: what changes in between is then read once more, never missed.
        self._seen = self._states()
        self.content = self._read()

    def look(self, *, force: bool = False) -> bool:
        """Read them again if one has changed, or in any case with ``force``.

        Returns:
            Whether they say something else now. If they make no sense, they do not.
        """
        return self._take(self._check(force=force))

    def look_off_loop(self, reactor: Any, *, force: bool = False) -> Deferred[bool]:  # noqa: ANN401
        """Do what ``look`` does, reading in a thread; False if that does not end in ``READ_SECONDS``."""
        self._is_forced = force or self._is_forced
        reading = self._off_loop.run(reactor, partial(self._check, force=self._is_forced))
        return reading.addCallbacks(self._take, self._note_not_read)

    def _check(self, *, force: bool) -> _Seen[T] | None:
        """Read the files if they have changed. Called in any thread: it changes nothing."""
        states = self._states()
        if states == self._seen and not force:
            return None
        try:
            return _Seen(states, self._read(), None)
        except ConfigError as error:
            return _Seen(states, None, error)

    def _take(self, seen: _Seen[T] | None) -> bool:
        if not self._off_loop.is_running:
            self._is_forced = False
        self._is_slow = False
        if seen is None:
            return False
        self._seen = seen.states
        if seen.error is not None:
            self._log.warn(
                "{problem}; what was read before stays in force.",
                problem=seen.error.sentence.rstrip("."),
                event="file.kept",
            )
            return False
        content = cast(T, seen.content)
        is_new = content != self.content
        self.content = content
        return is_new

    def _note_not_read(self, failure: Failure) -> bool:
        failure.trap(StillReading, DeferredTimeoutError, CancelledError)
        if failure.check(DeferredTimeoutError) and not self._is_slow:
            self._is_slow = True
            self._log.warn(
                "{problem}; what was read before stays in force.",
                problem=f"{', '.join(map(str, self._paths))} cannot be read within {READ_SECONDS:g} s",
                event="file.kept",
            )
        return False

    def _states(self) -> _States:
        return tuple(_state(path) for path in self._paths)


class FileWatcher(Service):
    """Looks at files once a second, and whenever it is told to.

    Args:
        reactor: Where time comes from.
        watched: What to look at; must be loaded before this is started.
        on_change: Called after something has changed.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, watched: Iterable[WatchedFiles[Any]], on_change: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._watched = tuple(watched)
        self._on_change = on_change
        self._reading: set[Deferred[Any]] = set()
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor

    def startService(self) -> None:
        """Begin to look, if there is anything to look at."""
        super().startService()
        if not self._watched:
            return
        self._looking.start(LOOK_SECONDS, now=False).addErrback(self._log_mistake)

    def stopService(self) -> None:
        """Leave off."""
        super().stopService()
        if self._looking.running:
            self._looking.stop()
        for reading in list(self._reading):
            reading.cancel()

    def reread(self) -> None:
        """Read everything now, changed or not; for SIGHUP. Before the start it does nothing.

        Call it in the reactor's thread, which a signal handler reaches by ``callFromThread``.
        """
        if self.running:
            self._look(force=True)

    def _look(self, *, force: bool = False) -> None:
        looks = [watched.look_off_loop(self._reactor, force=force) for watched in self._watched]
        together = DeferredList(looks, consumeErrors=True, fireOnOneErrback=True)
        self._reading.add(together)
        together.addCallback(self._note_looks).addErrback(self._log_failed_look)
        together.addBoth(lambda _: self._reading.discard(together))

    def _note_looks(self, results: list[tuple[bool, bool]]) -> None:
        if self.running and any(is_new for _, is_new in results):
            self._on_change()

    def _log_failed_look(self, failure: Failure) -> None:
        if isinstance(failure.value, FirstError):
            failure = failure.value.subFailure
        if failure.check(CancelledError) is None:
            self._log_mistake(failure)

    def _log_mistake(self, failure: Failure) -> None:
        self._log.failure("Files could not be checked", failure, event="file.mistake")


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    if stat.S_ISFIFO(status.st_mode):
        # Each reading changes the times of a pipe; it is read again when it is another one, or at SIGHUP.
        return 0, 0, status.st_ino, status.st_mode
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode
