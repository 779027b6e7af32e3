"""SIGHUP: the process reads its files again, or stops if its terminal was closed."""

from __future__ import annotations

import os
import pty
import signal
import sys
import threading
from collections.abc import Callable

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from seance.cli import reload_on_sighup
from seance.cli.reload_on_sighup import CHECK_SECONDS, ReloadOnSighup
from tests.conftest import Watch
from tests.processes import Process, environment
from tests.tools import require

SCRIPT = """
import os
import sys
from twisted.application.service import MultiService
from twisted.internet import reactor
from seance.cli.foreground import run_in_foreground
from seance.cli.reload_on_sighup import ReloadOnSighup
from seance.relay_tap import Options


class Service(MultiService):
    def startService(self):
        super().startService()
        print("started", os.getpid(), flush=True)

    def stopService(self):
        print("stopping", file=sys.stderr, flush=True)
        return super().stopService()


def make(options):
    service = Service()
    ReloadOnSighup(reactor, lambda: print("rereading", file=sys.stderr, flush=True)).setServiceParent(service)
    return service


sys.exit(run_in_foreground("seance test", Options(), make, []))
"""


@ensureDeferred
async def test_a_signal_calls_all_functions_and_the_handler_is_restored(watch: Watch) -> None:
    before = signal.getsignal(signal.SIGHUP)
    called: Deferred[None] = Deferred()

    def reread() -> None:
        assert threading.current_thread() is threading.main_thread()
        called.callback(None)

    def fail() -> None:
        raise ZeroDivisionError

    service = ReloadOnSighup(reactor, fail, reread)
    service.startService()
    os.kill(os.getpid(), signal.SIGHUP)
    await called
    assert len(watch.take(ZeroDivisionError)) == 1
    service.stopService()
    assert signal.getsignal(signal.SIGHUP) is before


def test_in_another_thread_the_handler_stays_unchanged() -> None:
    before = signal.getsignal(signal.SIGHUP)
    service = ReloadOnSighup(reactor)
    thread = threading.Thread(target=service.startService)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGHUP) is before
    service.stopService()


PREFIXES = {
    "stdin": [],
    "no stdin": ["sh", "-c", 'exec "$0" "$@" </dev/null'],
    "the child of a shell": ["sh", "-c", '"$0" "$@" </dev/null; exit $?'],
    "the job of an interactive shell": ["bash", "--norc", "-ic", '"$0" "$@" </dev/null & wait'],
}
"""The command between ``setsid -c`` and the program."""


@pytest.mark.parametrize("is_open", [True, False], ids=["an open terminal", "a closed terminal"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_closed_terminal_stops_its_process(prefix: str, is_open: bool) -> None:
    require("setsid", *(["bash"] if "bash" in PREFIXES[prefix] else []))
    ours, theirs = pty.openpty()
    # setsid -c makes the terminal the controlling terminal of the process, as a terminal window does.
    argv = ["setsid", "-c", *PREFIXES[prefix], sys.executable, "-c", SCRIPT]
    with Process(argv, name="in a terminal", env=environment(), stdin=theirs) as process:
        os.close(theirs)
        pid = int(process.when_line(r"started (\d+)")[1])
        if is_open:
            os.kill(pid, signal.SIGHUP)
            process.when_line("rereading")
            assert process.exit_code is None
            os.kill(pid, signal.SIGTERM)
        else:
            os.close(ours)
        process.when_line("stopping")
        code = process.when_exited()
        if is_open:
            os.close(ours)
        else:
            assert "rereading" not in process.output
        if pid == process.pid:
            assert code == 0


def test_a_closed_terminal_does_not_stop_a_process_that_ignores_the_signal() -> None:
    require("setsid", "nohup")
    ours, theirs = pty.openpty()
    argv = ["setsid", "-c", "sh", "-c", 'trap \'\' HUP; exec "$0" "$@"', sys.executable, "-c", SCRIPT]
    with Process(argv, name="under nohup", env=environment(), stdin=theirs) as process:
        os.close(theirs)
        process.when_line("started")
        os.close(ours)
        process.signal(signal.SIGHUP)
        process.signal(signal.SIGTERM)
        process.when_line("stopping")
        assert process.when_exited() == 0
        assert "rereading" not in process.output
        assert "terminal is closed" not in process.output


class FakeReactor(Clock):
    """A clock that is a reactor for ``ReloadOnSighup``."""

    def __init__(self) -> None:
        super().__init__()
        self.stops = 0

    def callFromThread(self, function: Callable[[], None]) -> None:  # noqa: N802  # Twisted's name
        function()

    def stop(self) -> None:
        self.stops += 1


@pytest.mark.parametrize("checks", [0, 1, 2])
def test_a_detached_process_reads_its_files_again(monkeypatch: pytest.MonkeyPatch, checks: int) -> None:
    """After ``disown`` the terminal disappears without a signal. A SIGHUP much later is not a hangup."""
    has_terminal = True
    monkeypatch.setattr(reload_on_sighup, "has_terminal", lambda: has_terminal)
    before = signal.getsignal(signal.SIGHUP)
    clock, rereads = FakeReactor(), []
    service = ReloadOnSighup(clock, lambda: rereads.append("read"))
    service.startService()
    try:
        clock.advance(10 * CHECK_SECONDS)
        has_terminal = False
        for _ in range(checks):
            clock.advance(CHECK_SECONDS)
        signal.raise_signal(signal.SIGHUP)
        assert (clock.stops, rereads) == ((0, ["read"]) if checks == 2 else (1, []))
    finally:
        service.stopService()
        signal.signal(signal.SIGHUP, before)
    assert not clock.getDelayedCalls()


def test_a_command_with_one_task_stops_in_order_when_its_terminal_closes() -> None:
    require("setsid")
    script = """
import sys
from twisted.internet.defer import CancelledError, Deferred
from seance.cli.terminal import run

async def work(reactor):
    print("started", flush=True)
    try:
        await Deferred()
    except CancelledError:
        print("stopping", file=sys.stderr, flush=True)
        raise

sys.exit(run("seance test", work))
"""
    ours, theirs = pty.openpty()
    argv = ["setsid", "-c", "sh", "-c", 'exec "$0" "$@" </dev/null', sys.executable, "-c", script]
    with Process(argv, name="a command", env=environment(), stdin=theirs) as process:
        os.close(theirs)
        process.when_line("started")
        os.close(ours)
        process.when_line("stopping")
        assert process.when_exited() == 1
