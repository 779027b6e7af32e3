"""SIGHUP: files are read again, unless it says that the terminal is gone."""

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

from seance import hangup as hangup_module
from seance.cli.reload_on_sighup import LOOK_SECONDS, ReloadOnSighup
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
async def test_a_signal_reads_again_and_is_given_back(watch: Watch) -> None:
    before = signal.getsignal(signal.SIGHUP)
    heard: Deferred[None] = Deferred()

    def reread() -> None:
        assert threading.current_thread() is threading.main_thread()
        heard.callback(None)

    def fail() -> None:
        raise ZeroDivisionError

    hangup = ReloadOnSighup(reactor, fail, reread)
    hangup.startService()
    os.kill(os.getpid(), signal.SIGHUP)
    await heard
    assert len(watch.take(ZeroDivisionError)) == 1
    hangup.stopService()
    assert signal.getsignal(signal.SIGHUP) is before


def test_in_another_thread_the_signal_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGHUP)
    hangup = ReloadOnSighup(reactor)
    thread = threading.Thread(target=hangup.startService)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGHUP) is before
    hangup.stopService()


OWNER = {
    "stdin": [],
    "no stdin": ["sh", "-c", 'exec "$0" "$@" </dev/null'],
    "the child of a shell": ["sh", "-c", '"$0" "$@" </dev/null; exit $?'],
    "the job of an interactive shell": ["bash", "--norc", "-ic", '"$0" "$@" </dev/null & wait'],
}
"""How the process came to its terminal: what stands between ``setsid -c`` and the program."""


@pytest.mark.parametrize("stays", [True, False], ids=["a person's signal", "a closed terminal"])
@pytest.mark.parametrize("owner", OWNER)
def test_a_closed_terminal_ends_what_runs_in_it(owner: str, stays: bool) -> None:
    require("setsid", *(["bash"] if "bash" in OWNER[owner] else []))
    ours, theirs = pty.openpty()
    # setsid -c makes the terminal the process's own, as a shell's window does.
    argv = ["setsid", "-c", *OWNER[owner], sys.executable, "-c", SCRIPT]
    with Process(argv, name="in a terminal", env=environment(), stdin=theirs) as process:
        os.close(theirs)
        pid = int(process.when_line(r"started (\d+)")[1])
        if stays:
            os.kill(pid, signal.SIGHUP)
            process.when_line("rereading")
            assert process.exit_code is None
            os.kill(pid, signal.SIGTERM)
        else:
            os.close(ours)
        process.when_line("stopping")
        code = process.when_exited()
        if stays:
            os.close(ours)
        else:
            assert "rereading" not in process.output
        if pid == process.pid:
            assert code == 0


def test_a_terminal_that_closes_is_nothing_to_a_process_that_ignores_the_signal() -> None:
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


class Looks(Clock):
    """A clock that is a reactor for ``ReloadOnSighup``."""

    def __init__(self) -> None:
        super().__init__()
        self.stops = 0

    def callFromThread(self, function: Callable[[], None]) -> None:  # noqa: N802  # Twisted's name
        function()

    def stop(self) -> None:
        self.stops += 1


@pytest.mark.parametrize("looks", [0, 1, 2])
def test_a_process_that_was_detached_reads_its_files_again(
    monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """``disown``: the terminal goes without a signal. A signal that comes much later is no hangup."""
    has_terminal = True
    monkeypatch.setattr(hangup_module, "has_terminal", lambda: has_terminal)
    before = signal.getsignal(signal.SIGHUP)
    clock, rereads = Looks(), []
    hangup = ReloadOnSighup(clock, lambda: rereads.append("read"))
    hangup.startService()
    try:
        clock.advance(10 * LOOK_SECONDS)
        has_terminal = False
        for _ in range(looks):
            clock.advance(LOOK_SECONDS)
        signal.raise_signal(signal.SIGHUP)
        assert (clock.stops, rereads) == ((0, ["read"]) if looks == 2 else (1, []))
    finally:
        hangup.stopService()
        signal.signal(signal.SIGHUP, before)
    assert not clock.getDelayedCalls()


def test_commands_of_one_run_stop_in_order_when_their_terminal_closes() -> None:
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
