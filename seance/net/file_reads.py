"""Read one file, a regular one or a pipe, in UTF-8 or in any encoding with a byte order mark.

The number of bytes is limited, and for a pipe the time. Password managers such as 1Password mount pipes, and
``<(command)`` of a shell is one: its writer starts when the reader opens it. Windows PowerShell 5.1 writes
UTF-16 with a byte order mark, and editors on Windows put one before UTF-8; both are converted to UTF-8.

A read from a file system that hangs cannot be interrupted, so ``ThreadRunner`` runs it in a daemon thread,
one at a time. Used by ``seance.net.files`` and by the agent for its token.
"""

from __future__ import annotations

import codecs
import errno
import os
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.python.failure import Failure

__all__ = [
    "PIPE_SECONDS",
    "READ_SECONDS",
    "StillRunning",
    "ThreadRunner",
    "is_pipe",
    "plain_text",
    "read_bounded",
]

T = TypeVar("T")

PIPE_SECONDS = 2.0
"""Time for the writer of a pipe to write everything."""

READ_SECONDS = 5.0
"""Time for a read in a thread; after it the program continues without the result."""

PIPE_POLL_SECONDS = 0.01

BYTE_ORDER_MARKS = (
    # UTF-32 first, because its mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class StillRunning(Exception):
    """The previous function has not returned yet."""


def read_bounded(path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return the content of a file and its ``stat`` result. Text with a byte order mark becomes UTF-8.

    Raises:
        OSError: The file cannot be read. ``TimeoutError``: the writer of a pipe did not finish in time.
        ValueError: The file is neither regular nor a pipe, is too long, or is not valid text. The message is
            a predicate that follows the file's name.
    """
    # The path may be a pipe, and opening it must not block.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        max_bytes = 4 * limit_bytes + 8  # UTF-32
        if stat.S_ISREG(status.st_mode):
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(max_bytes)
        elif stat.S_ISFIFO(status.st_mode):
            content = _read_pipe(descriptor, max_bytes)
        elif stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        else:
            msg = "is neither a regular file nor a pipe"
            raise ValueError(msg)
    finally:
        os.close(descriptor)
    content = plain_text(content)
    if len(content) > limit_bytes:
        msg = f"is longer than {limit_bytes} bytes"
        raise ValueError(msg)
    return content, status


def is_pipe(path: Path) -> bool:
    """Return whether a path is a pipe now. Read pipes rarely: each read may ask the user for consent."""
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def _read_pipe(descriptor: int, max_bytes: int) -> bytes:
    """Read until the writer closes. Before the writer has opened the pipe, a read returns nothing."""
    deadline = time.monotonic() + PIPE_SECONDS
    content = b""
    while len(content) < max_bytes:
        try:
            piece = os.read(descriptor, max_bytes - len(content))
        except BlockingIOError:
            piece = None
        if piece:
            content += piece
            continue
        if piece == b"" and content:
            return content
        if time.monotonic() >= deadline:
            message = f"it is a pipe, and its writer did not finish within {PIPE_SECONDS:g} s"
            raise TimeoutError(errno.ETIMEDOUT, message)
        time.sleep(PIPE_POLL_SECONDS)
    return content


def plain_text(content: bytes) -> bytes:
    """Return text as UTF-8 without a byte order mark.

    Raises:
        ValueError: The text is not valid. The message is a predicate that follows the file's name.
    """
    for mark, encoding in BYTE_ORDER_MARKS:
        if content.startswith(mark):
            try:
                return content.decode(encoding).encode("utf-8")
            except UnicodeError:
                name = encoding.removesuffix("-sig").upper()
                msg = f"has the byte order mark of {name}, but is not valid {name}"
                raise ValueError(msg) from None
    head = content[:32]
    if len(head) > 3 and (not any(head[::2]) or not any(head[1::2])):
        msg = "is UTF-16 text without a byte order mark; save it as UTF-8"
        raise ValueError(msg)
    return content


class ThreadRunner:
    """Runs functions that may hang in a daemon thread, one at a time.

    With a reactor that has no threads, such as a ``Clock``, a function runs immediately.
    """

    def __init__(self) -> None:
        self.is_running = False

    def run(self, reactor: Any, function: Callable[[], T]) -> Deferred[T]:  # noqa: ANN401  # no common type
        """Call a function in a thread.

        Returns:
            Fires with its result. Fails with Twisted's ``TimeoutError`` after ``READ_SECONDS``, with
            ``StillRunning`` if the previous function has not returned, and with the function's exception.
        """
        if not hasattr(reactor, "callFromThread"):
            return maybeDeferred(function)
        if self.is_running:
            return fail(StillRunning())
        self.is_running = True
        done: Deferred[T] = Deferred(lambda _: None)

        def deliver(result: object) -> None:
            self.is_running = False
            if not done.called:
                done.callback(result)  # type: ignore[arg-type]  # or a failure

        def work() -> None:
            result: object
            try:
                result = function()
            except BaseException:  # noqa: BLE001  # delivered as the Deferred's failure
                result = Failure()
            with suppress(Exception):  # the reactor has stopped
                reactor.callFromThread(deliver, result)

        try:
            threading.Thread(target=work, name="seance file", daemon=True).start()
        except RuntimeError:  # no thread could be started
            self.is_running = False
            return fail()
        return done.addTimeout(READ_SECONDS, reactor)
