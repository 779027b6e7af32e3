"""Reads one file: a plain one or a pipe, in any encoding with a byte order mark.

Bounded: in bytes, and for a pipe in time. A pipe is what password managers such as 1Password mount, and what
``<(command)`` of a shell is: its writer begins when the reader opens it. Windows PowerShell 5.1 writes UTF-16
with a byte order mark, and editors on Windows put one before UTF-8; both become plain UTF-8 here.

A file system that hangs cannot be bounded from inside a read. ``OffLoop`` therefore reads in a thread that
nothing waits for, one at a time. Used by ``seance.net.files`` and by the agent for its token.
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

__all__ = ["PIPE_SECONDS", "READ_SECONDS", "OffLoop", "StillReading", "is_pipe", "plain_text", "read_bounded"]

T = TypeVar("T")

PIPE_SECONDS = 2.0
"""How long the writer of a pipe may take for all of it."""

READ_SECONDS = 5.0
"""How long a read in a thread may take before the program continues without it."""

PIPE_POLL_SECONDS = 0.01

MARKS = (
    # The mark of UTF-32 begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class StillReading(Exception):
    """The read before this one has not ended yet."""


def read_bounded(path: Path, limit_bytes: int) -> tuple[bytes, os.stat_result]:
    """Return what a file holds, and its state when that was read. Text with a byte order mark becomes UTF-8.

    Raises:
        OSError: It cannot be read. ``TimeoutError``: it is a pipe, and its writer did not finish in time.
        ValueError: It is neither a plain file nor a pipe, longer than the limit, or no valid text; half a
            sentence.
    """
    # Opening must not wait: the path may be a pipe.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        status = os.fstat(descriptor)
        most = 4 * limit_bytes + 8  # UTF-32
        if stat.S_ISREG(status.st_mode):
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(most)
        elif stat.S_ISFIFO(status.st_mode):
            content = _read_pipe(descriptor, most)
        elif stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        else:
            msg = "is neither a plain file nor a pipe"
            raise ValueError(msg)
    finally:
        # Here, and not by the file: there is none if this is a folder.
        os.close(descriptor)
    content = plain_text(content)
    if len(content) > limit_bytes:
        msg = f"is longer than {limit_bytes} bytes"
        raise ValueError(msg)
    return content, status


def is_pipe(path: Path) -> bool:
    """Return whether a path is a pipe now. It is not read unasked: each read may ask a person for consent."""
    try:
        return stat.S_ISFIFO(path.stat().st_mode)
    except OSError:
        return False


def _read_pipe(descriptor: int, most: int) -> bytes:
    """Return what the writer writes until it closes; before it has opened the pipe, a read finds the end."""
    deadline = time.monotonic() + PIPE_SECONDS
    content = b""
    while len(content) < most:
        try:
            piece = os.read(descriptor, most - len(content))
        except BlockingIOError:
            piece = None
        if piece:
            content += piece
            continue
        if piece == b"" and content:
            return content
        if time.monotonic() >= deadline:
            words = f"its writer did not finish within {PIPE_SECONDS:g} s"
            raise TimeoutError(errno.ETIMEDOUT, f"it is a pipe, and {words}")
        time.sleep(PIPE_POLL_SECONDS)
    return content


def plain_text(content: bytes) -> bytes:
    """Return text as UTF-8 without a byte order mark.

    Raises:
        ValueError: It is no valid text; half a sentence.
    """
    for mark, encoding in MARKS:
        if content.startswith(mark):
            try:
                return content.decode(encoding).encode("utf-8")
            except UnicodeError:
                name = encoding.removesuffix("-sig").upper()
                msg = f"has the byte order mark of {name}, and is no {name} text"
                raise ValueError(msg) from None
    head = content[:32]
    if len(head) > 3 and (not any(head[::2]) or not any(head[1::2])):
        msg = "is UTF-16 text without a byte order mark; save it as UTF-8"
        raise ValueError(msg)
    return content


class OffLoop:
    """Runs functions that may hang in a daemon thread, one at a time.

    On a reactor without threads, such as a ``Clock``, a function runs immediately.
    """

    def __init__(self) -> None:
        self.is_running = False

    def run(self, reactor: Any, function: Callable[[], T]) -> Deferred[T]:  # noqa: ANN401  # no common type
        """Call a function in a thread.

        Returns:
            Fires with its result. Fails with Twisted's ``TimeoutError`` after ``READ_SECONDS``, with
            ``StillReading`` if the function before has not returned, and with what the function raises.
        """
        if not hasattr(reactor, "callFromThread"):
            return maybeDeferred(function)
        if self.is_running:
            return fail(StillReading())
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
            except BaseException:  # noqa: BLE001  # delivered
                result = Failure()
            with suppress(Exception):  # the reactor has stopped
                reactor.callFromThread(deliver, result)

        try:
            threading.Thread(target=work, name="seance file", daemon=True).start()
        except RuntimeError:  # the system has no thread for us
            self.is_running = False
            return fail()
        return done.addTimeout(READ_SECONDS, reactor)
