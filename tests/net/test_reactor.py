"""FastReactor: the operations that differ from Twisted's reactor, with the same results."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "linux":
    pytest.skip("epoll is Linux's", allow_module_level=True)

from seance.net.reactor import FastReactor
from tests.conftest import Watch

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


class Descriptor:
    """One end of a socket pair; ``say`` makes it readable."""

    def __init__(self, read: Callable[[], object]) -> None:
        self._near, self._far = socket.socketpair()
        self.read = read
        self.lost: list[Any] = []

    def fileno(self) -> int:
        return self._near.fileno()

    def logPrefix(self) -> str:
        return "descriptor"

    def say(self) -> None:
        self._far.send(b"x")

    def doRead(self) -> object:
        self._near.recv(10)
        return self.read()

    def connectionLost(self, reason: Any) -> None:
        self.lost.append(reason)

    def close(self) -> None:
        self._near.close()
        self._far.close()


@pytest.fixture
def reactor() -> Iterator[Any]:
    """A reactor that is not that of this process and does not run; ``iterate`` makes one turn."""
    reactor: Any = FastReactor()
    yield reactor
    reactor.removeAll()
    for waker in reactor._internalReaders:
        waker.connectionLost(None)
    reactor._poller.close()


@pytest.fixture
def told() -> list[object]:
    return []


@pytest.fixture
def join(reactor: Any) -> Iterator[Callable[[Callable[[], object]], Descriptor]]:
    made: list[Descriptor] = []

    def join(read: Callable[[], object]) -> Descriptor:
        made.append(Descriptor(read))
        reactor.addReader(made[-1])
        return made[-1]

    yield join
    for one in made:
        reactor.removeReader(one)
        one.close()


def test_a_call_for_this_turn_runs_after_all_ready_descriptors(
    reactor: Any, join: Any, told: list[object]
) -> None:
    first = join(lambda: reactor.callLater(0, told.append, "call") and told.append("first"))
    second = join(lambda: told.append("second"))
    first.say()
    second.say()
    reactor.iterate()
    assert sorted(map(str, told[:2])) == ["first", "second"]
    assert told[2:] == ["call"]


def test_a_call_added_by_a_call_runs_after_another_poll(reactor: Any, join: Any, told: list[object]) -> None:
    one = join(lambda: told.append("read"))

    def call() -> None:
        told.append("call")
        one.say()
        reactor.callLater(0, told.append, "another")

    reactor.callLater(0, call)
    reactor.iterate()
    assert told == ["call"]
    reactor.iterate(60)  # it does not wait, because there is a call
    assert told == ["call", "read", "another"]


def test_a_cancelled_call_does_not_run(reactor: Any, told: list[object]) -> None:
    call = reactor.callLater(0, told.append, "call")
    assert call.active()
    assert reactor.getDelayedCalls() == [call]
    call.cancel()
    assert reactor.getDelayedCalls() == []
    reactor.iterate()
    assert told == []


def test_calls_may_cancel_each_other(reactor: Any, told: list[object]) -> None:
    reactor.callLater(0, lambda: call.cancel())
    call = reactor.callLater(0, told.append, "call")
    reactor.iterate()
    assert told == []


@pytest.mark.parametrize("put_off", ["delay", "reset"])
def test_a_delayed_call_runs_later(reactor: Any, told: list[object], put_off: str) -> None:
    now = [1000.0]
    reactor.seconds = lambda: now[0]
    call = reactor.callLater(0, told.append, "call")
    getattr(call, put_off)(5)
    reactor.iterate()
    assert told == []
    assert call.active()
    now[0] += 6
    reactor.iterate()
    assert told == ["call"]
    assert not call.active()


def test_a_delayed_call_is_an_ordinary_timer(reactor: Any, told: list[object]) -> None:
    now = [1000.0]
    reactor.seconds = lambda: now[0]
    call = reactor.callLater(0, told.append, "call")
    gone = reactor.callLater(0, told.append, "gone")
    between = reactor.callLater(7, told.append, "between")
    for one in (call, gone):
        one.delay(5)
    reactor.iterate()
    assert set(reactor.getDelayedCalls()) == {call, between, gone}
    call.reset(8)
    gone.cancel()
    assert reactor._cancellations == 1
    now[0] += 6
    reactor.iterate()
    assert told == []
    assert set(reactor.getDelayedCalls()) == {call, between}
    call.reset(0.5)
    now[0] += 0.5
    reactor.iterate()
    assert told == ["call"]
    between.cancel()


def test_a_call_that_fails_is_logged_and_stops_no_other(
    reactor: Any, told: list[object], watch: Watch
) -> None:
    reactor.callLater(0, lambda: 1 // 0)
    reactor.callLater(0, told.append, "call")
    reactor.iterate()
    assert told == ["call"]
    assert len(watch.take(ZeroDivisionError)) == 1


def test_a_failing_descriptor_is_logged_and_only_it_is_lost(
    reactor: Any, join: Any, told: list[object], watch: Watch
) -> None:
    bad, good = join(lambda: 1 // 0), join(lambda: told.append("read"))
    bad.say()
    good.say()
    reactor.iterate()
    assert told == ["read"]
    assert [reason.type for reason in bad.lost] == [ZeroDivisionError]
    assert len(watch.take(ZeroDivisionError)) == 1
    assert bad not in reactor.getReaders()


def test_a_descriptor_closed_in_the_same_turn_is_not_read(
    reactor: Any, join: Any, told: list[object]
) -> None:
    def read() -> None:
        told.append("read")
        for one in both:
            reactor.removeReader(one)

    both = [join(read), join(read)]
    for one in both:
        one.say()
    reactor.iterate()
    assert told == ["read"]


def test_timers_threads_and_stop_are_processed_between_reads(
    reactor: Any, join: Any, told: list[object]
) -> None:
    """The main loop skips the steps that Twisted makes in each turn, unless they are needed."""

    def read() -> None:
        told.append("read")
        if told.count("read") < 3:
            one.say()  # Two turns with nothing but reading ...
        else:
            reactor.callLater(0.01, timed)  # ... then a new timer,

    def timed() -> None:
        told.append("timed")
        threading.Thread(target=reactor.callFromThread, args=(called,)).start()  # a call from a thread,

    def called() -> None:
        told.append("called")
        reactor.callLater(0.01, one.say)
        one.read = stop  # and a stop, called by a reader.

    def stop() -> None:
        told.append("stopped")
        reactor.stop()

    one = join(read)
    one.say()
    reactor.callLater(60, told.append, "never")
    reactor.run(installSignalHandlers=False)
    assert told == ["read", "read", "read", "timed", "called", "stopped"]


def test_a_failure_of_the_loop_is_logged_and_the_loop_continues(
    reactor: Any, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    timeouts = iter([lambda: 1 // 0, lambda: reactor.stop() or 0])
    monkeypatch.setattr(reactor, "timeout", lambda: next(timeouts, int)())
    reactor.run(installSignalHandlers=False)
    assert len(watch.take(ZeroDivisionError)) == 1


@pytest.mark.slow
def test_tcp_keeps_its_contract_on_it() -> None:
    """There is one reactor per process, so another process runs the contract tests."""
    program = (
        "import sys, pytest, seance.net.reactor as ours; ours.install(); sys.exit(pytest.main(sys.argv[1:]))"
    )
    arguments = [
        "-q",
        "-k",
        "Tcp",
        "-p",
        "no:cacheprovider",
        "tests/test_contract.py",
        "tests/carrier/test_sockets.py",
    ]
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stdout[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "status"), [("", 0), ("epoll", 0), ("seance", 0), ("poll", 0), ("nonsense", 1)]
)
def test_another_reactor_can_be_selected(name: str, status: int) -> None:
    program = (
        "import sys; from seance.options.flags import _install_reactor as install; install(sys.argv[1]);"
        "from twisted.internet import reactor; print(type(reactor).__name__)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, name], cwd=ROOT, capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == status
    if status:
        assert "SEANCE_REACTOR: 'nonsense' is not a reactor" in ended.stderr
    else:
        ours = "FastReactor"
        kinds = {"": ours, "seance": ours, "epoll": "EPollReactor", "poll": "PollReactor"}
        assert ended.stdout.strip() == kinds[name]


def test_twistd_knows_it_by_name() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = (
        "from twisted.application.reactors import getReactorTypes;"
        "print(*[one.shortName for one in getReactorTypes()])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=100
    )
    assert "seance" in ended.stdout.split()
