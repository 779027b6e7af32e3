"""Checks that apply to every test, and the command line options ``--slow`` and ``--forbid-skips``.

Fixtures of one package belong to the package's ``conftest.py``. pytest-twisted runs all tests in one reactor.
It does not see logged failures, errors that no Deferred passed on, or what a test leaves in the reactor. The
fixture ``watch`` finds all of these and fails the test that caused them. Tests that wait too long are
cancelled here: pytest-timeout can only stop the whole process, because the reactor swallows the exception of
its signal.

``--slow`` runs the slow tests too, ``--forbid-skips`` turns a skip into a failure (``.ci/run``).
"""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Any

import pytest
import pytest_twisted
from hypothesis import settings
from twisted.internet import defer, interfaces, task
from twisted.logger import (
    ILogObserver,
    LogEvent,
    LogLevel,
    STDLibLogObserver,
    eventAsText,
    globalLogBeginner,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from seance.compiled import is_compiled
from tests.canaries import tokens_in

__all__ = [
    "Watch",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_make_collect_report",
    "pytest_runtest_makereport",
    "pytest_runtest_protocol",
    "watch",
]

SETTLE_SECONDS = 2.0
"""Time for a test's sockets and calls to disappear after its end; a clean test waits 0."""

DEADLINE_SHARE = 0.5
"""Fraction of pytest-timeout's time after which a test that waits for a Deferred is cancelled."""

SLOW_SECONDS = 600
"""pytest-timeout's time for a slow test without its own; enough with coverage on a busy machine."""

_call_failed = pytest.StashKey[bool]()
_running: list[pytest.Item] = []


# Property tests have no deadline, because a busy machine is not a failure. The quick run has a quarter of
# Hypothesis' default of 100 examples, the slow run all of them, and ``make fuzz`` many more.
settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile("suite", deadline=None, max_examples=100)
settings.register_profile("fuzz", deadline=None, max_examples=1_500)
settings.load_profile("suite")


# Options


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--slow`` and ``--forbid-skips``."""
    group = parser.getgroup("seance")
    group.addoption("--slow", action="store_true", help="run the slow tests too")
    group.addoption("--forbid-skips", action="store_true", help="a skipped test is a failed test")


def pytest_configure(config: pytest.Config) -> None:
    """Show Twisted's log in the report of a failing test, and bound every wait in the reactor."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts background jobs with SIGINT ignored, and child processes inherit that.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        # nohup starts its command with SIGHUP ignored, and the programs under test inherit that.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    observer = STDLibLogObserver()
    globalLogBeginner.beginLoggingTo([observer], discardBuffer=True, redirectStandardIO=False)
    if not config.getoption("--slow") and not config.getoption("--hypothesis-profile"):
        settings.load_profile("quick")
    _bound_waits()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the slow tests unless ``--slow`` is given, and give them more time if it is."""
    if is_compiled():
        config.hook.pytest_deselected(items=[one for one in items if one.get_closest_marker("interpreted")])
        items[:] = [one for one in items if not one.get_closest_marker("interpreted")]
    slow = [item for item in items if item.get_closest_marker("slow")]
    if config.getoption("--slow"):
        for item in slow:
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(SLOW_SECONDS))
    elif slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a skipped module into a failed one if skips are forbidden."""
    report = yield
    if report.outcome == "skipped" and collector.config.getoption("--forbid-skips"):
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid}: skips are forbidden here: {_skip_reason(report.longrepr)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record failures, and turn a skip into a failure if skips are forbidden."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and item.config.getoption("--forbid-skips"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: skips are forbidden here: {_skip_reason(report.longrepr)}"
    if report.when != "teardown":
        item.stash[_call_failed] = item.stash.get(_call_failed, False) or not report.passed
    return report


def _skip_reason(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)


# Waits


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Record the running test for its deadline; between folders, unfreeze the objects of the collector."""
    if _running and _running[0].path.parent != item.path.parent:
        gc.unfreeze()
    _running[:] = [item]
    return (yield)


def _bound_waits() -> None:
    """Give every test and asynchronous fixture a deadline that the reactor enforces."""
    from twisted.internet import reactor

    run: Callable[..., None] = pytest_twisted._run_inline_callbacks
    if getattr(run, "is_bounded", False):
        return

    def bounded(function: Callable[..., Any], *args: Any) -> None:
        def call(*args: Any) -> defer.Deferred[Any]:
            waiting = defer.maybeDeferred(function, *args)
            return waiting.addTimeout(_deadline_seconds(), reactor, _explain_timeout)

        run(call, *args)

    bounded.is_bounded = True  # type: ignore[attr-defined]
    pytest_twisted._run_inline_callbacks = bounded


def _explain_timeout(result: object, seconds: float) -> object:
    if isinstance(result, Failure) and result.check(defer.CancelledError):
        msg = f"the test was still waiting after {seconds} s (see where it was cancelled)"
        raise TimeoutError(msg) from result.value
    return result


def _deadline_seconds() -> float:
    item = _running[0]
    marker = item.get_closest_marker("timeout")
    seconds = marker.args[0] if marker and marker.args else item.config.getini("timeout")
    return DEADLINE_SHARE * float(seconds or 60)


# Leftovers of a test


@implementer(ILogObserver)
class Watch:
    """Records the log of one test and what it leaves in the reactor.

    A test that causes a failure on purpose takes it: ``watch.take(RuntimeError)`` returns the logged events
    of that type (all failures for ``Exception``), and fails if there is none.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._failures: list[LogEvent] = []
        self._tokens: list[str] = []
        # Keep references, so that no id is reused.
        self._before = [*reactor.getDelayedCalls(), *_selectables(reactor)]
        self._known = set(map(id, self._before))
        self._sockets = _open_sockets()

    def __call__(self, event: LogEvent) -> None:
        """Record events of level error or higher, and tokens in any event."""
        self._tokens += tokens_in(eventAsText(event))
        level = event.get("log_level")
        if event.get("isError") or (level is not None and level >= LogLevel.error):
            self._failures.append(event)

    def take(self, kind: type[BaseException] = Exception) -> list[LogEvent]:
        """Remove and return the logged failures of one type; fail if there is none."""
        gc.collect()
        taken = [event for event in self._failures if _is_of(event, kind)]
        self._failures = [event for event in self._failures if not _is_of(event, kind)]
        if not taken:
            pytest.fail(f"no failure of type {kind.__name__} was logged")
        return taken

    def failures(self) -> list[str]:
        """Return descriptions of the failures that were logged and not taken."""
        tokens = [f"a token was logged: {token}" for token in self._tokens]
        return tokens + [f"logged: {eventAsText(event)}" for event in self._failures]

    def leftovers(self) -> list[str]:
        """Return descriptions of what is in the reactor now and was not when the test began."""
        calls = [f"delayed call: {call}" for call in self._new_calls()]
        selectables = [f"in the reactor: {selectable!r}" for selectable in self._new_selectables()]
        # No list of the reactor has a paused connection, but the process still has its socket.
        sockets = [] if selectables else [f"open: {name}" for name in _open_sockets() - self._sockets]
        return calls + selectables + sockets

    def clear(self) -> None:
        """End what the test left, so that it does not affect the next test."""
        for call in self._new_calls():
            call.cancel()
        for selectable in self._new_selectables():
            with suppress(Exception):
                if interfaces.IProcessTransport.providedBy(getattr(selectable, "proc", None)):
                    selectable.proc.signalProcess("KILL")
                elif interfaces.IListeningPort.providedBy(selectable):
                    selectable.stopListening()
                else:
                    selectable.abortConnection()

    def _new_calls(self) -> list[Any]:
        return [call for call in self._reactor.getDelayedCalls() if id(call) not in self._known]

    def _new_selectables(self) -> list[Any]:
        return [one for one in _selectables(self._reactor) if id(one) not in self._known]


@pytest.fixture(autouse=True)
def watch(request: pytest.FixtureRequest) -> Iterator[Watch]:
    """Fail the test if it logs a failure, loses an error or leaves anything running."""
    from twisted.internet import reactor

    watching = Watch(reactor)
    globalLogPublisher.addObserver(watching)
    # Freeze the existing objects, so that the collection after the test visits only objects of the test.
    # Collecting the whole heap would take seconds per hundred tests.
    gc.collect()
    gc.freeze()
    try:
        yield watching
        may_leave = request.node.get_closest_marker("leaves_running")
        if may_leave and not may_leave.kwargs.get("reason", "".join(may_leave.args)):
            pytest.fail("leaves_running needs a reason")
        leftovers = [] if may_leave else _leftovers_after_settling(watching)
        gc.collect()
        found = watching.failures() + leftovers
        if leftovers:
            watching.clear()
            _turn(0)
        if found and not request.node.stash.get(_call_failed, False):
            pytest.fail("after the test:\n" + "\n".join(found), pytrace=False)
    finally:
        globalLogPublisher.removeObserver(watching)


def _leftovers_after_settling(watching: Watch) -> list[str]:
    leftovers = watching.leftovers()
    give_up_at = time.monotonic() + SETTLE_SECONDS
    while leftovers and time.monotonic() < give_up_at:
        _turn(0.005)
        gc.collect()
        leftovers = watching.leftovers()
    return leftovers


def _turn(seconds: float) -> None:
    from twisted.internet import reactor

    pytest_twisted.blockon(task.deferLater(reactor, seconds))  # type: ignore[arg-type]


def _is_of(event: LogEvent, kind: type[BaseException]) -> bool:
    failure = event.get("log_failure")
    return kind is Exception if failure is None else failure.check(kind) is not None


def _selectables(reactor: Any) -> list[Any]:
    everything = [*reactor.getReaders(), *reactor.getWriters()]
    return list({id(one): one for one in everything if one not in reactor._internalReaders}.values())


def _open_sockets() -> set[str]:
    sockets = set()
    with suppress(FileNotFoundError):
        for descriptor in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                name = os.readlink(f"/proc/self/fd/{descriptor}")
                if name.startswith("socket:"):
                    sockets.add(name)
    return sockets
