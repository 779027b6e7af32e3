"""Name look-ups: shared, limited, and without waiting for hanging threads."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IHostResolution, IResolutionReceiver
from twisted.internet.task import Clock, deferLater
from zope.interface import implementer
from zope.interface.verify import verifyObject

from seance.errors import ConfigError
from seance.net import lookups, resolve_interface, use_daemon_lookups
from seance.net.lookups import (
    MAX_THREADS,
    MAX_THREADS_PER_NAME,
    MAX_WAITING,
    RETRY_SECONDS,
    NameLookups,
)


@implementer(IResolutionReceiver)
class Receiver:
    """Records the addresses of one request."""

    def __init__(self) -> None:
        self.found: list[IAddress] = []
        self.resolution: IHostResolution | None = None
        self.is_complete = False
        self.when_complete: Deferred[None] = Deferred()

    def resolutionBegan(self, resolution: IHostResolution) -> None:  # noqa: N802
        self.resolution = resolution

    def addressResolved(self, address: IAddress) -> None:  # noqa: N802
        self.found.append(address)

    def resolutionComplete(self) -> None:  # noqa: N802
        self.is_complete = True
        self.when_complete.callback(None)


class Looper(Clock):
    """A clock that keeps the calls from threads until ``run``."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []

    def callFromThread(self, function: Any, *args: Any) -> None:  # noqa: N802
        self.asked.append((function, args))

    def run(self, count: int = 1) -> None:
        """Wait for ``count`` calls and run them."""
        end = 0
        while len(self.asked) < count:
            threading.Event().wait(0.01)
            end += 1
            assert end < 1000
        calls, self.asked = self.asked, []
        for function, args in calls:
            function(*args)


class Resolver:
    """A ``getaddrinfo`` that hangs until it is released."""

    def __init__(self) -> None:
        self.released: dict[str, threading.Event] = {}
        self.calls: list[str] = []
        self.answers: dict[str, list[Any]] = {}
        self.lock = threading.Lock()

    def __call__(self, name: str, port: int, family: int, kind: int) -> list[Any]:
        with self.lock:
            self.calls.append(name)
            event = self.released.setdefault(name, threading.Event())
        event.wait(30)
        if name not in self.answers:
            raise socket.gaierror(-2, "unknown")
        return self.answers[name]

    def release(self, name: str) -> None:
        with self.lock:
            self.released.setdefault(name, threading.Event()).set()


FOUR = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 80))
SIX = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 80, 0, 0))


@pytest.fixture
def resolver() -> Any:
    made = Resolver()
    yield made
    for name in list(made.released):
        made.release(name)


def test_requests_for_one_name_share_a_look_up(resolver: Resolver) -> None:
    loop = Looper()
    names = NameLookups(loop, resolver)
    resolver.answers["relay"] = [FOUR, SIX]
    receivers = [Receiver() for _ in range(3)]
    for receiver in receivers:
        names.resolveHostName(receiver, "relay", 80)
    assert names.thread_count == 1
    resolver.release("relay")
    loop.run()
    for receiver in receivers:
        assert receiver.found == [IPv4Address("TCP", "192.0.2.1", 80), IPv6Address("TCP", "2001:db8::1", 80)]
        assert receiver.is_complete
        assert verifyObject(IHostResolution, receiver.resolution)
    assert names.thread_count == 0


def test_a_request_that_was_cancelled_gets_nothing(resolver: Resolver) -> None:
    loop, receiver = Looper(), Receiver()
    resolver.answers["relay"] = [FOUR]
    NameLookups(loop, resolver).resolveHostName(receiver, "relay").cancel()
    resolver.release("relay")
    loop.run()
    assert not receiver.is_complete


def test_a_name_that_is_unknown_completes_without_an_address(resolver: Resolver) -> None:
    loop, receiver = Looper(), Receiver()
    NameLookups(loop, resolver).resolveHostName(receiver, "relay")
    resolver.release("relay")
    loop.run()
    assert (receiver.found, receiver.is_complete) == ([], True)


def test_a_look_up_that_hangs_gets_company_up_to_a_bound(resolver: Resolver) -> None:
    loop = Looper()
    names = NameLookups(loop, resolver)
    receivers = []
    for _ in range(MAX_THREADS_PER_NAME + 3):
        receivers.append(Receiver())
        names.resolveHostName(receivers[-1], "relay")
        names.resolveHostName(Receiver(), "relay")
        loop.advance(RETRY_SECONDS)
    assert names.thread_count == MAX_THREADS_PER_NAME
    resolver.answers["relay"] = [FOUR]
    resolver.release("relay")
    loop.run(MAX_THREADS_PER_NAME)
    assert all(receiver.found for receiver in receivers)
    assert names.thread_count == 0


def test_names_that_hang_leave_threads_for_others_up_to_a_bound(resolver: Resolver) -> None:
    loop = Looper()
    names = NameLookups(loop, resolver)
    for number in range(MAX_THREADS):
        names.resolveHostName(Receiver(), f"hangs{number}")
    receiver = Receiver()
    names.resolveHostName(receiver, "one more")
    assert (receiver.found, receiver.is_complete) == ([], True)
    assert names.thread_count == MAX_THREADS
    resolver.release("hangs0")
    loop.run()
    later = Receiver()
    resolver.answers["one more"] = [FOUR]
    resolver.release("one more")
    names.resolveHostName(later, "one more")
    loop.run()
    assert later.found


def test_requests_that_wait_are_bounded(resolver: Resolver) -> None:
    names = NameLookups(Looper(), resolver)
    for _ in range(MAX_WAITING):
        names.resolveHostName(Receiver(), "relay")
    receiver = Receiver()
    names.resolveHostName(receiver, "relay")
    assert receiver.is_complete


@pytest.mark.parametrize(
    ("kinds", "family"),
    [
        (None, socket.AF_UNSPEC),
        ([IPv4Address], socket.AF_INET),
        ([IPv6Address], socket.AF_INET6),
        ([IPv4Address, IPv6Address], socket.AF_UNSPEC),
    ],
)
def test_the_family_is_the_one_that_was_asked_for(kinds: Any, family: int) -> None:
    asked: list[int] = []

    def getaddrinfo(name: str, port: int, family: int, kind: int) -> list[Any]:
        asked.append(family)
        return []

    loop = Looper()
    NameLookups(loop, getaddrinfo).resolveHostName(Receiver(), "relay", 0, kinds)
    loop.run()
    assert asked == [family]


@ensureDeferred
async def test_the_reactor_of_a_program_uses_it() -> None:
    before = reactor.nameResolver  # type: ignore[attr-defined]
    try:
        use_daemon_lookups(reactor)
        first = reactor.nameResolver  # type: ignore[attr-defined]
        assert isinstance(first, NameLookups)
        use_daemon_lookups(reactor)
        assert reactor.nameResolver is first  # type: ignore[attr-defined]
        receiver = Receiver()
        first.resolveHostName(receiver, "127.0.0.1", 80)
        await receiver.when_complete
        assert receiver.found == [IPv4Address("TCP", "127.0.0.1", 80)]
        await deferLater(reactor, 0)  # type: ignore[arg-type]
    finally:
        reactor.installNameResolver(before)  # type: ignore[attr-defined]
    use_daemon_lookups(Clock())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp:0:interface=relay.example", "tcp:0:interface=192.0.2.7"),
        ("ssl:443:interface=relay.example:privateKey=a", "ssl:443:interface=192.0.2.7:privateKey=a"),
        ("tcp:0:interface=127.0.0.1", "tcp:0:interface=127.0.0.1"),
        (r"tcp:0:interface=\:\:1", r"tcp:0:interface=\:\:1"),
        ("unix:/run/a", "unix:/run/a"),
        ("8080", "8080"),
    ],
)
def test_a_host_name_of_a_listener_is_resolved(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    answer = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))
    monkeypatch.setattr(lookups.socket, "getaddrinfo", lambda *_: [answer])
    assert resolve_interface(text) == expected


def test_a_host_name_of_a_listener_that_is_unknown_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(lookups.socket, "getaddrinfo", fail)
    with pytest.raises(ConfigError, match=r"'tcp:0:interface=no' has an interface that cannot be resolved"):
        resolve_interface("tcp:0:interface=no")


def test_a_thread_that_cannot_be_started_fails_one_request_only(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    loop = Looper()
    names = NameLookups(loop, resolver)
    resolver.answers["relay"] = [FOUR]
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        names.resolveHostName(receiver := Receiver(), "relay", 80)
    assert receiver.is_complete
    assert names.thread_count == 0
    names.resolveHostName(receiver := Receiver(), "relay", 80)
    resolver.release("relay")
    loop.run()
    assert receiver.found
