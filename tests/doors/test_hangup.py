"""SIGHUP: files are read again, unless it says that the terminal is gone."""

from __future__ import annotations

import os
import pty
import signal
import sys
import threading

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from seance.hangup import OnHangUp
from tests.conftest import Watch
from tests.processes import Process, environment
from tests.tools import require

SCRIPT = """
import sys
from twisted.application.service import MultiService
from twisted.internet import reactor
from seance.foreground import run_in_foreground
from seance.hangup import OnHangUp
from seance.relay_tap import Options


class Service(MultiService):
    def startService(self):
        super().startService()
        print("started", flush=True)

    def stopService(self):
        print("stopping", file=sys.stderr, flush=True)
        return super().stopService()


def make(options):
    service = Service()
    OnHangUp(reactor, lambda: print("rereading", file=sys.stderr, flush=True)).setServiceParent(service)
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

    hangup = OnHangUp(reactor, fail, reread)
    hangup.startService()
    os.kill(os.getpid(), signal.SIGHUP)
    await heard
    assert len(watch.take(ZeroDivisionError)) == 1
    hangup.stopService()
    assert signal.getsignal(signal.SIGHUP) is before


def test_in_another_thread_the_signal_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGHUP)
    hangup = OnHangUp(reactor)
    thread = threading.Thread(target=hangup.startService)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGHUP) is before
    hangup.stopService()


@pytest.mark.parametrize("stays", [True, False], ids=["a person's signal", "a closed terminal"])
def test_a_closed_terminal_ends_what_runs_in_it(stays: bool) -> None:
    require("setsid")
    ours, theirs = pty.openpty()
    # setsid -c makes the terminal the process's own, as a shell's window does.
    argv = ["setsid", "-c", sys.executable, "-c", SCRIPT]
    with Process(argv, name="in a terminal", env=environment(), stdin=theirs) as process:
        os.close(theirs)
        process.when_line("started")
        if stays:
            process.signal(signal.SIGHUP)
            process.when_line("rereading")
            assert process.exit_code is None
            process.signal(signal.SIGTERM)
        else:
            os.close(ours)
        process.when_line("stopping")
        assert process.when_exited() == 0
        if stays:
            os.close(ours)
        else:
            assert "rereading" not in process.output
