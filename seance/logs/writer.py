"""A log writer that never blocks the event loop: a bounded queue, and a thread that writes it.

Ctrl-S in a terminal, ``| less``, a blocking log driver of a container, or a disk that hangs would block an
event loop that writes its log itself, and with it all rooms. Here ``write`` only appends to a queue of at
most ``MAX_QUEUED_BYTES``. If the queue is full, new lines are dropped and counted; as soon as lines are read
again, the log has a line with the number of missing lines.

The thread uses blocking writes and does not set ``O_NONBLOCK``, because a terminal shares this flag with the
shell that started the process. The thread is a daemon thread, so it cannot delay the end of the process; an
``atexit`` function waits at most ``CLOSE_SECONDS`` for the queue.

Used by ``seance.logs.format`` for the log, and by ``seance.cli.status_lines`` on systems that lack ``poll``.
"""

from __future__ import annotations

import atexit
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakSet

__all__ = ["CLOSE_SECONDS", "MAX_QUEUED_BYTES", "LogWriter", "descriptor_writer", "drain_all"]

MAX_QUEUED_BYTES = 1024 * 1024
"""Maximum size of the queue; about 8,000 lines."""

CLOSE_SECONDS = 1.0
"""Maximum time for which the end of the process waits for queued lines."""

FULL_WAIT_SECONDS = 1.0
"""Time of one wait if another process has made the descriptor non-blocking; then the thread retries."""

BATCH_LINES = 256
"""Maximum number of lines in one system call."""

PAUSE_SECONDS = 0.02
"""Pause of the thread after it has emptied the queue, in which ``write`` does not wake it. Otherwise each
line of a burst wakes it, at a twentieth of the CPU time of a client that comes and goes."""

_writers: WeakSet[LogWriter] = WeakSet()


class LogWriter:
    """A text stream for a log observer, written in a thread.

    Args:
        write: Writes all of the bytes, in the thread; may block. If it raises, the lines count as lost.
        notice: Returns the line that reports a number of lost lines.
        encoding: Encoding of the file. A character that it lacks is written as an escape.
        max_bytes: Maximum size of the queue.
        on_broken: Called once, in the thread, when no process reads the log any more (``EPIPE``).
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        notice: Callable[[int], str] | None = None,
        *,
        encoding: str = "utf-8",
        max_bytes: int = MAX_QUEUED_BYTES,
        on_broken: Callable[[], None] | None = None,
    ) -> None:
        self._write = write
        self._notice = notice
        self._on_broken = on_broken
        self._encoding = encoding
        self._max_bytes = max_bytes
        self._queue: deque[bytes | int | Callable[[], None]] = deque()
        """Lines, numbers of lines that were lost at that position, and functions to call."""
        self._queued_bytes = 0
        self._busy = False
        self._broken = False
        self._thread: threading.Thread | None = None
        self._changed = threading.Condition()
        self._is_hurried = threading.Event()
        self.lost_lines = 0
        _writers.add(self)

    def write(self, text: str) -> None:
        """Queue a line; drop and count it if the queue is full."""
        line = text.encode(self._encoding, "backslashreplace")
        with self._changed:
            if self._broken:
                return
            if self._queued_bytes + len(line) > self._max_bytes:
                self.lost_lines += 1
                return
            if self.lost_lines:
                self._queue.append(self.lost_lines)
                self.lost_lines = 0
            self._append(line)

    def flush(self) -> None:
        """Do nothing: the thread writes as soon as it can."""

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in the thread after the queued lines, for example to open a new log file."""
        with self._changed:
            self._queue.append(function)
            self._wake()

    def drain(self, seconds: float) -> bool:
        """Wait until all lines are written; return False if that takes longer than ``seconds``."""
        self._is_hurried.set()
        with self._changed:
            is_written = self._changed.wait_for(lambda: not self._queue and not self._busy, seconds)
        self._is_hurried.clear()
        return is_written

    def _append(self, line: bytes) -> None:
        self._queue.append(line)
        self._queued_bytes += len(line)
        self._wake()

    def _wake(self) -> None:
        if self._thread is None:
            # Not in __init__: twistd forks after it has made its observer, and threads do not survive a fork.
            thread = threading.Thread(target=self._run, name="seance log", daemon=True)
            with suppress(RuntimeError):  # no thread is available; the next line retries
                thread.start()
                self._thread = thread
        self._changed.notify_all()

    def _lost_notice(self, count: int) -> bytes:
        text = "" if self._notice is None else self._notice(count)
        return text.encode(self._encoding, "backslashreplace")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue)
                self._busy = True
                batch = self._next_batch()
            items: list[bytes | int] = []
            if callable(batch):
                with suppress(Exception):  # if a log file cannot be opened again, the old one stays
                    batch()
                is_written = True
            else:
                items = batch
                is_written = self._write_lines(items)
            with self._changed:
                self._queued_bytes -= sum(len(item) for item in items if isinstance(item, bytes))
                if not is_written:
                    self.lost_lines += sum(1 if isinstance(item, bytes) else item for item in items)
                elif self.lost_lines and not self._queue:
                    self._queue.append(self.lost_lines)
                    self.lost_lines = 0
                self._busy = False
                self._changed.notify_all()
                is_empty = not self._queue
            if is_empty:
                self._is_hurried.wait(PAUSE_SECONDS)

    def _next_batch(self) -> list[bytes | int] | Callable[[], None]:
        first = self._queue.popleft()
        if not isinstance(first, bytes | int):
            return first
        batch: list[bytes | int] = [first]
        while self._queue and len(batch) < BATCH_LINES:
            item = self._queue[0]
            if not isinstance(item, bytes | int):
                break
            batch.append(item)
            self._queue.popleft()
        return batch

    def _write_lines(self, items: list[bytes | int]) -> bool:
        try:
            self._write(
                b"".join(item if isinstance(item, bytes) else self._lost_notice(item) for item in items)
            )
        except BrokenPipeError:
            self._broken = True
            if self._on_broken is not None:
                self._on_broken()
            return True
        except Exception:  # noqa: BLE001  # for example a full disk; the thread must not end
            return False
        return True

    # -- fork (twistd as a daemon) ------------------------------------------------------------

    def before_fork(self) -> None:
        """Write the queued lines and hold the lock, so that the child gets a consistent queue."""
        self.drain(CLOSE_SECONDS)
        self._changed.acquire()

    def after_fork_in_parent(self) -> None:
        """Release the lock."""
        self._changed.release()

    def after_fork_in_child(self) -> None:
        """Drop the lines, which the parent writes, and start a new thread with the next line."""
        self._changed = threading.Condition()
        self._is_hurried = threading.Event()
        self._queue.clear()
        self._queued_bytes = 0
        self._busy = False
        self._thread = None


def descriptor_writer(descriptor: int) -> Callable[[bytes], None]:
    """Return a function that writes all of its bytes to a descriptor, and waits while it is full."""

    def write(data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:
                _wait_until_writable(descriptor)

    return write


def _wait_until_writable(descriptor: int) -> None:
    if not hasattr(select, "poll"):
        time.sleep(FULL_WAIT_SECONDS / 20)
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll(FULL_WAIT_SECONDS * 1000)


def drain_all(seconds: float = CLOSE_SECONDS) -> None:
    """Wait until all writers have written their queues, at most ``seconds``."""
    deadline = time.monotonic() + seconds
    for writer in list(_writers):
        writer.drain(max(0.0, deadline - time.monotonic()))


def _before_fork() -> None:
    for writer in list(_writers):
        writer.before_fork()


def _after_fork_in_parent() -> None:
    for writer in list(_writers):
        writer.after_fork_in_parent()


def _after_fork_in_child() -> None:
    for writer in list(_writers):
        writer.after_fork_in_child()


atexit.register(drain_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )
