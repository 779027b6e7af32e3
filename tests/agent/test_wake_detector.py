"""What the vigil notices, and that it keeps quiet otherwise."""

from __future__ import annotations

import errno
import time

import pytest
from twisted.internet.task import Clock

from seance.agent.wake_detector import WakeDetector, address_towards, seconds_with_sleep
from tests.conftest import Watch

SLEPT, CHANGED, BACK = (
    "the machine or this process has slept",
    "the network has changed",
    "the network is back",
)


class Night:
    """A machine with two clocks and an address.

    Attributes:
        events: What the vigil has said, with the seconds that were slept.
    """

    def __init__(self, address: str | None = "192.0.2.1") -> None:
        self.clock = Clock()
        self.wall_ahead = 1_700_000_000.0
        self.address = address
        self.events: list[tuple[str, float]] = []
        self.vigil = WakeDetector(
            self.clock,
            lambda what, slept: self.events.append((what, slept)),
            own_address=lambda: self.address,
            wall_seconds=lambda: self.clock.seconds() + self.wall_ahead,
        )
        self.vigil.start()

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 2)):
            self.clock.advance(0.5)

    @property
    def whats(self) -> list[str]:
        return [what for what, _ in self.events]


@pytest.mark.parametrize("address", ["192.0.2.1", None])
def test_nothing_happens_on_a_normal_hour(address: str | None) -> None:
    night = Night(address)
    night.pass_time(3600)
    assert night.events == []
    night.vigil.stop()
    assert night.clock.getDelayedCalls() == []


def test_sleep_in_which_only_the_wall_clock_went_on_is_noticed_within_a_second() -> None:
    night = Night()
    night.pass_time(10.5)
    night.wall_ahead += 600
    night.pass_time(1)
    assert night.whats == [SLEPT]
    assert night.events[0][1] == pytest.approx(600)
    night.pass_time(60)
    assert len(night.events) == 1


def test_second_that_took_a_minute_is_sleep() -> None:
    night = Night()
    night.pass_time(10)
    night.clock.advance(61)
    assert night.whats == [SLEPT]
    assert night.events[0][1] == pytest.approx(60, abs=1)
    night.pass_time(60)
    assert len(night.events) == 1


def test_sleep_that_shows_on_both_clocks_counts_once() -> None:
    night = Night()
    night.pass_time(10)
    night.wall_ahead += 100
    night.clock.advance(21)
    assert night.whats == [SLEPT]
    assert night.events[0][1] == pytest.approx(120, abs=1)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.4])
def test_busy_loop_and_a_clock_that_is_set_a_little_are_no_sleep(seconds: float) -> None:
    night = Night()
    for _ in range(20):
        night.pass_time(5)
        night.clock.advance(seconds)
        night.wall_ahead += seconds / 2
        night.pass_time(5)
        night.wall_ahead -= seconds
    assert night.events == []


def test_clock_that_is_set_back_is_no_sleep() -> None:
    night = Night()
    night.pass_time(5)
    night.wall_ahead -= 3600
    night.pass_time(60)
    assert night.events == []


def test_another_address_is_another_network() -> None:
    night = Night()
    night.pass_time(5)
    night.address = "198.51.100.7"
    night.pass_time(1)
    assert night.events == [(CHANGED, 0.0)]
    night.pass_time(60)
    assert len(night.events) == 1


def test_lost_network_is_no_news_and_its_return_is() -> None:
    night = Night()
    night.pass_time(5)
    night.address = None
    night.pass_time(60)
    assert night.events == []
    night.address = "192.0.2.1"
    night.pass_time(60)
    assert night.events == [(BACK, 0.0)]


def test_sleep_is_told_before_the_network_that_changed_meanwhile_and_that_only_once() -> None:
    night = Night()
    night.pass_time(5)
    night.address = "198.51.100.7"
    night.wall_ahead += 3600
    night.pass_time(60)
    assert night.whats == [SLEPT]


def test_every_further_sleep_is_noticed() -> None:
    night = Night()
    for _ in range(5):
        night.pass_time(5)
        night.wall_ahead += 30
    night.pass_time(5)
    assert night.whats == [SLEPT] * 5


def test_listener_that_fails_does_not_end_the_vigil(watch: Watch) -> None:
    night = Night()

    def fail(what: str, slept: float) -> None:
        night.events.append((what, slept))
        raise ZeroDivisionError

    vigil = WakeDetector(night.clock, fail, wall_seconds=lambda: night.clock.seconds() + night.wall_ahead)
    night.vigil.stop()
    vigil.start()
    for _ in range(2):
        night.wall_ahead += 60
        with pytest.raises(ZeroDivisionError):
            night.pass_time(2)
        assert len(night.clock.getDelayedCalls()) == 1, "it looks again"
    vigil.stop()


def test_stopped_it_looks_no_more_and_can_be_started_again() -> None:
    night = Night()
    night.vigil.stop()
    night.vigil.stop()
    assert night.clock.getDelayedCalls() == []
    night.wall_ahead += 3600
    night.address = "198.51.100.7"
    night.vigil.start()
    night.pass_time(60)
    assert night.events == [], "what happened while nobody looked is not told"
    night.vigil.stop()


@pytest.mark.parametrize(("peer", "own"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1")])
def test_own_address_is_that_from_which_the_peer_would_be_reached(peer: str, own: str) -> None:
    assert address_towards(peer) in (own, None)
    assert address_towards("127.0.0.1") == "127.0.0.1"


@pytest.mark.parametrize("peer", ["not an address", "256.1.1.1", "::zz"])
def test_peer_that_is_no_address_is_reached_from_nowhere(peer: str) -> None:
    assert address_towards(peer) is None


def test_network_that_comes_after_the_start_is_news() -> None:
    """An agent that starts before the network does not wait for its next attempt."""
    night = Night(None)
    night.pass_time(5)
    night.address = "192.0.2.1"
    night.pass_time(60)
    assert night.events == [(BACK, 0.0)]
    night.vigil.stop()


def test_address_towards_somebody_else_is_no_news() -> None:
    night = Night()
    night.pass_time(5)
    night.address = "127.0.0.1"
    night.vigil.take_address()
    night.pass_time(60)
    assert night.events == []
    night.vigil.stop()


def test_clock_that_is_set_is_no_sleep_where_there_is_one_that_nobody_sets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    before = seconds_with_sleep()
    monkeypatch.setattr(time, "time", lambda: 4_000_000_000.0)
    assert (seconds_with_sleep() - before < 100) is (boot_time is not None)


def test_a_process_without_a_descriptor_knows_nothing_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    night = Night()
    night.pass_time(5)
    out_of_descriptors = OSError(errno.EMFILE, "Too many open files")

    def no_socket(*_: object) -> None:
        raise out_of_descriptors

    def own_address() -> str | None:
        raise out_of_descriptors

    night.vigil._own_address = own_address
    night.pass_time(5)
    night.vigil.take_address()
    night.vigil._own_address = lambda: "192.0.2.1"
    night.pass_time(5)
    assert night.events == []
    night.vigil.stop()
    monkeypatch.setattr("seance.agent.wake_detector.socket.socket", no_socket)
    with pytest.raises(OSError, match="Too many"):
        address_towards("192.0.2.1")
    out_of_descriptors = OSError(errno.EAFNOSUPPORT, "no such family")
    assert address_towards("2001:db8::1") is None
