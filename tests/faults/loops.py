"""An asyncio loop in a separate thread, for proxies, local servers and clients that run during a test.

Tests with real processes are plain functions that block. They do not use the reactor of the tests, because a
blocked test would block the network. A thread can also enter a network namespace: every socket that it makes
then belongs to that machine.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Self, TypeVar

from tests.processes import DEADLINE_SECONDS

__all__ = ["Loop"]

Result = TypeVar("Result")


class Loop:
    """Runs functions and coroutines for the test's thread.

    Args:
        enter: Called first in the new thread; ``Namespace.enter`` for another machine.
    """

    def __init__(self, enter: Callable[[], None] = lambda: None) -> None:
        self._enter = enter
        self._failure: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._enter()
        except OSError as error:
            self._failure = error
            self._started.set()
            return
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._started.set)
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The asyncio loop itself."""
        return self._loop

    def run(self, work: Coroutine[Any, Any, Result], *, deadline_seconds: float = DEADLINE_SECONDS) -> Result:
        """Run a coroutine in the loop and return its result."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(deadline_seconds)
        except concurrent.futures.TimeoutError:
            future.cancel()
            msg = f"{work} was not through after {deadline_seconds} s"
            raise AssertionError(msg) from None

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call a plain function in the loop and return its result."""

        async def calling() -> Result:
            return function(*args)

        return self.run(calling())

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(DEADLINE_SECONDS)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_SECONDS)
