"""Files that are read again when they change: certificates, keys, lists.

The rule for all of them: what was good once stays in force until something good replaces it. A file
that is half written, or gone because a volume is away for a moment, costs one line in the log and
nothing else; so deleting one takes nothing back. ``Watched`` knows what some files say *together*,
because a certificate and its key are only good as a pair; ``Lookout`` is the service that has the
clock and looks once a second. Used by the tunnel for certificates and by ``seance.auth`` for keys.

Looking instead of being told: a change is seen on every system and file system, through the
symbolic links that certbot and Kubernetes swap, for one ``stat`` a second. Reading blocks; the
files are small and bounded.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.errors import ConfigError

__all__ = ["LOOK_SECONDS", "Lookout", "Watched", "read_bounded"]

T = TypeVar("T")

LOOK_SECONDS = 1.0
"""From one look at the files to the next."""


def read_bounded(path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return what a file holds, and what it was when that was read.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no plain file, or longer than the limit; half a sentence.
    """
    # Opening must not wait either: the path may have become a pipe.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    try:
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                msg = "is not a plain file"
                raise ValueError(msg)
            content = file.read(limit_bytes + 1)
    finally:
        # Here, and not by the file: there is none if this is a folder.
        os.close(descriptor)
    if len(content) > limit_bytes:
        msg = f"is longer than {limit_bytes} bytes"
        raise ValueError(msg)
    return content, status


class Watched(Generic[T]):
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
        self._seen: tuple[tuple[int, ...] | None, ...] = ()

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
        states = self._states()
        if states == self._seen and not force:
            return False
        self._seen = states
        try:
            content = self._read()
        except ConfigError as error:
            self._log.warn(
                "{problem}; what was read before stays in force.",
                problem=error.sentence.rstrip("."),
                event="file.kept",
            )
            return False
        is_new = content != self.content
        self.content = content
        return is_new

    def _states(self) -> tuple[tuple[int, ...] | None, ...]:
        return tuple(_state(path) for path in self._paths)


class Lookout(Service):
    """Looks at files once a second, and whenever it is told to.

    Args:
        reactor: Where time comes from.
        watched: What to look at; must be loaded before this is started.
        on_change: Called after something has changed.
    """

    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, watched: Iterable[Watched[Any]], on_change: Callable[[], None]
    ) -> None:
        self._watched = tuple(watched)
        self._on_change = on_change
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

    def reread(self) -> None:
        """Read everything now, changed or not; for SIGHUP. Before the start it does nothing.

        Call it in the reactor's thread, which a signal handler reaches by ``callFromThread``.
        """
        if self.running:
            self._look(force=True)

    def _look(self, *, force: bool = False) -> None:
        changes = [watched.look(force=force) for watched in self._watched]
        if any(changes):
            self._on_change()

    def _log_mistake(self, failure: Failure) -> None:
        self._log.failure("Files are no longer looked after", failure, event="file.mistake")


def _state(path: Path) -> tuple[int, ...] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode
