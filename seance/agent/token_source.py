"""Provides the agent's token: a fixed one, or the content of a file that another program renews.

The file is read for every dial, and checked for changes while a link is up, so a program that renews it does
not have to notify the agent. The agent does not decode the token.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeoutError
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.errors import CarrierLost
from seance.net import StillRunning, ThreadRunner, is_pipe, read_bounded
from seance.net.file_reads import READ_SECONDS

__all__ = ["TokenSource"]

MAX_BYTES = 4096
"""Seance relays refuse longer tokens."""


class TokenSource:
    """Returns the token for each attempt to connect.

    Args:
        token: The token itself; empty for none.
        path: A file that holds the token; empty for none. Takes precedence over ``token``.
    """

    _log = Logger()

    def __init__(self, token: str, path: str) -> None:
        self._token = token
        self._path = path
        self._last = ""
        self._off_loop = ThreadRunner()

    def read(self) -> str:
        """Return the current token; empty if there is none. Blocks.

        Raises:
            CarrierLost: The file cannot be used. The next attempt reads it again.
        """
        self._last = self._read() if self._path else self._token
        return self._last

    async def fetch(self, reactor: Any) -> str:  # noqa: ANN401  # no common type
        """Return the token for an attempt, reading the file in a thread.

        If reading hangs, or the file is a pipe without a writer, the token that was read last is used.

        Raises:
            CarrierLost: The file cannot be used. The next attempt reads it again.
        """
        if not self._path:
            return self._token
        try:
            self._last = await self._off_loop.run(reactor, self._read)
        except (StillRunning, DeferredTimeoutError, CarrierLost) as error:
            is_slow = not isinstance(error, CarrierLost) or isinstance(error.__cause__, TimeoutError)
            if not is_slow:
                raise
            message = (
                error.message
                if isinstance(error, CarrierLost)
                else f"The token file {self._path} cannot be read within {READ_SECONDS:g} s."
            )
            if not self._last:
                raise CarrierLost(message, code="token_file") from error
            self._log.warn(
                "{problem}; the token that was read last stays in use.",
                problem=message.rstrip("."),
                event="file.kept",
            )
        return self._last

    async def fetch_changed(self, reactor: Any) -> str | None:  # noqa: ANN401  # no common type
        """Return the file's token if it is usable and differs from the one read last, else None.

        Reads in a thread. A pipe is only read by ``fetch``.
        """
        before = self._last
        try:
            now = await self._off_loop.run(reactor, self._read_unless_pipe)
        except (StillRunning, DeferredTimeoutError, CarrierLost):
            return None
        if now is None or now == before:
            return None
        self._last = now
        return now

    def watch(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        every_seconds: float,
        on_new: Callable[[str], None],
    ) -> Deferred[None]:
        """Call ``on_new`` with each new token in the file, until the returned Deferred is cancelled."""
        watching = Deferred.fromCoroutine(self._watch(reactor, every_seconds, on_new))
        return watching.addErrback(self._note_watch_failed)

    async def _watch(self, reactor: Any, every_seconds: float, on_new: Callable[[str], None]) -> None:  # noqa: ANN401
        while True:
            await deferLater(reactor, every_seconds)
            token = await self.fetch_changed(reactor)
            if token is not None:
                on_new(token)

    def _note_watch_failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            self._log.failure(
                "Watching the token file failed; restart the agent to use a new token",
                failure,
                event="file.mistake",
            )

    def _read_unless_pipe(self) -> str | None:
        return None if is_pipe(Path(self._path)) else self._read()

    def _read(self) -> str:
        try:
            token = read_bounded(Path(self._path), MAX_BYTES)[0].strip()
        except OSError as error:
            message = f"The token file {self._path} cannot be read: {error.strerror}."
            raise CarrierLost(message, code="token_file") from error
        except ValueError as error:
            message = f"The token file {self._path} {error}; it does not hold a token."
            raise CarrierLost(message, code="token_file") from error
        if not token or not token.isascii() or not token.decode().isprintable():
            message = (
                f"The token file {self._path} does not hold a token: one line, as seance token prints it."
            )
            raise CarrierLost(message, code="token_file")
        return token.decode()
