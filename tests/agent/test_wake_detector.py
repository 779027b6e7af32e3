"""The events that ``WakeDetector`` reports, and cases in which it reports none."""

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


class Machine:
    """A machine with two clocks, an address and a detector.

    Attributes:
        events: The reported events, each with the seconds slept.
    """

    def __init__(self, address: str | None = "192.0.2.1") -> None:
        self.clock = Clock()
        self.wall_ahead = 1_700_000_000.0
        self.address = address
        self.events: list[tuple[str, float]] = []
        self.detector = WakeDetector(
            self.clock,
            lambda what, slept: self.events.append((what, slept)),
            own_address=lambda: self.address,
            wall_seconds=lambda: self.clock.seconds() + self.wall_ahead,
        )
        self.detector.start()

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 2)):
            self.clock.advance(0.5)

    @property
    def whats(self) -> list[str]:
        return [what for what, _ in self.events]


@pytest.mark.parametrize("address", ["192.0.2.1", None])
def test_a_normal_hour_has_no_event(address: str | None) -> None:
    machine = Machine(address)
    machine.pass_time(3600)
    assert machine.events == []
    machine.detector.stop()
    assert machine.clock.getDelayedCalls() == []


def test_sleep_with_a_stopped_monotonic_clock_is_noticed_within_a_second() -> None:
    machine = Machine()
    machine.pass_time(10.5)
    machine.wall_ahead += 600
    machine.pass_time(1)
    assert machine.whats == [SLEPT]
    assert machine.events[0][1] == pytest.approx(600)
    machine.pass_time(60)
    assert len(machine.events) == 1


def test_interval_that_took_a_minute_counts_as_sleep() -> None:
    machine = Machine()
    machine.pass_time(10)
    machine.clock.advance(61)
    assert machine.whats == [SLEPT]
    assert machine.events[0][1] == pytest.approx(60, abs=1)
    machine.pass_time(60)
    assert len(machine.events) == 1


def test_sleep_on_both_clocks_counts_once() -> None:
    machine = Machine()
    machine.pass_time(10)
    machine.wall_ahead += 100
    machine.clock.advance(21)
    assert machine.whats == [SLEPT]
    assert machine.events[0][1] == pytest.approx(120, abs=1)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.4])
def test_busy_loop_and_small_clock_changes_are_not_sleep(seconds: float) -> None:
    machine = Machine()
    for _ in range(20):
        machine.pass_time(5)
        machine.clock.advance(seconds)
        machine.wall_ahead += seconds / 2
        machine.pass_time(5)
        machine.wall_ahead -= seconds
    assert machine.events == []


def test_clock_set_back_is_not_sleep() -> None:
    machine = Machine()
    machine.pass_time(5)
    machine.wall_ahead -= 3600
    machine.pass_time(60)
    assert machine.events == []


def test_changed_address_is_another_network() -> None:
    machine = Machine()
    machine.pass_time(5)
    machine.address = "198.51.100.7"
    machine.pass_time(1)
    assert machine.events == [(CHANGED, 0.0)]
    machine.pass_time(60)
    assert len(machine.events) == 1


def test_loss_of_the_network_is_no_event_and_its_return_is() -> None:
    machine = Machine()
    machine.pass_time(5)
    machine.address = None
    machine.pass_time(60)
    assert machine.events == []
    machine.address = "192.0.2.1"
    machine.pass_time(60)
    assert machine.events == [(BACK, 0.0)]


def test_sleep_with_a_changed_network_is_one_event() -> None:
    machine = Machine()
    machine.pass_time(5)
    machine.address = "198.51.100.7"
    machine.wall_ahead += 3600
    machine.pass_time(60)
    assert machine.whats == [SLEPT]


def test_each_sleep_is_noticed() -> None:
    machine = Machine()
    for _ in range(5):
        machine.pass_time(5)
        machine.wall_ahead += 30
    machine.pass_time(5)
    assert machine.whats == [SLEPT] * 5


def test_failing_listener_does_not_stop_the_checks(watch: Watch) -> None:
    machine = Machine()

    def fail(what: str, slept: float) -> None:
        machine.events.append((what, slept))
        raise ZeroDivisionError

    detector = WakeDetector(
        machine.clock, fail, wall_seconds=lambda: machine.clock.seconds() + machine.wall_ahead
    )
    machine.detector.stop()
    detector.start()
    for _ in range(2):
        machine.wall_ahead += 60
        with pytest.raises(ZeroDivisionError):
            machine.pass_time(2)
        assert len(machine.clock.getDelayedCalls()) == 1, "the next check is scheduled"
    detector.stop()


def test_stopped_detector_can_be_started_again() -> None:
    machine = Machine()
    machine.detector.stop()
    machine.detector.stop()
    assert machine.clock.getDelayedCalls() == []
    machine.wall_ahead += 3600
    machine.address = "198.51.100.7"
    machine.detector.start()
    machine.pass_time(60)
    assert machine.events == [], "events during the stop are not reported"
    machine.detector.stop()


@pytest.mark.parametrize(("peer", "own"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1")])
def test_own_address_is_the_source_address_towards_the_peer(peer: str, own: str) -> None:
    assert address_towards(peer) in (own, None)
    assert address_towards("127.0.0.1") == "127.0.0.1"


@pytest.mark.parametrize("peer", ["not an address", "256.1.1.1", "::zz"])
def test_invalid_peer_address_has_no_source_address(peer: str) -> None:
    assert address_towards(peer) is None


def test_network_that_appears_after_the_start_is_an_event() -> None:
    """An agent that starts before the network does not wait for its next attempt."""
    machine = Machine(None)
    machine.pass_time(5)
    machine.address = "192.0.2.1"
    machine.pass_time(60)
    assert machine.events == [(BACK, 0.0)]
    machine.detector.stop()


def test_source_address_towards_another_peer_is_no_event() -> None:
    machine = Machine()
    machine.pass_time(5)
    machine.address = "127.0.0.1"
    machine.detector.take_address()
    machine.pass_time(60)
    assert machine.events == []
    machine.detector.stop()


def test_changed_wall_clock_is_not_sleep_if_there_is_a_boot_time_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    boot_time = getattr(time, "CLOCK_BOOTTIME", None)
    before = seconds_with_sleep()
    monkeypatch.setattr(time, "time", lambda: 4_000_000_000.0)
    assert (seconds_with_sleep() - before < 100) is (boot_time is not None)


def test_a_check_without_a_descriptor_is_no_event(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    machine.pass_time(5)
    out_of_descriptors = OSError(errno.EMFILE, "Too many open files")

    def no_socket(*_: object) -> None:
        raise out_of_descriptors

    def own_address() -> str | None:
        raise out_of_descriptors

    machine.detector._own_address = own_address
    machine.pass_time(5)
    machine.detector.take_address()
    machine.detector._own_address = lambda: "192.0.2.1"
    machine.pass_time(5)
    assert machine.events == []
    machine.detector.stop()
    monkeypatch.setattr("seance.agent.wake_detector.socket.socket", no_socket)
    with pytest.raises(OSError, match="Too many"):
        address_towards("192.0.2.1")
    out_of_descriptors = OSError(errno.EAFNOSUPPORT, "no such family")
    assert address_towards("2001:db8::1") is None
