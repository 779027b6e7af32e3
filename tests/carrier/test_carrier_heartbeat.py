"""How soon a dead peer is detected, and that a live one is never cut."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from twisted.internet.error import ConnectionAborted

from seance.carrier import CarrierHeartbeat
from tests.carrier.peers import PING, PONG, Answered, Dialled, frame
from tests.ears import pattern
from tests.wire import run

IDLE_SECONDS, OWED_SECONDS, PROBE_SECONDS = 10.0, 6.0, 3.0
"""The documented limits; a probe's two seconds end with the next check."""

STEP_SECONDS = 1 / 16
"""The sums are exact in binary, so checks occur exactly every second."""


class Patient:
    """One carrier with a heartbeat; the test plays the peer, which may die.

    Attributes:
        is_alive: Whether pings are answered.
        is_owed: Whether the peer has something to acknowledge.
    """

    def __init__(self, ends: Answered | Dialled) -> None:
        self.ends = ends
        self.clock = ends.clock
        self.is_alive, self.is_owed = True, False
        self._answered = 0
        self.heartbeat = CarrierHeartbeat(ends.clock, ends.carrier, lambda: self.is_owed)

    @property
    def is_cut(self) -> bool:
        return self.ends.ear.is_lost

    @property
    def pings(self) -> int:
        return sum(one.opcode == PING for one in self.ends.far.frames)

    def answer(self) -> None:
        """Answer a ping if the peer is alive."""
        if self.is_alive and self.pings > self._answered and not self.is_cut:
            self._answered = self.pings
            self.say(PONG)

    def say(self, opcode: int = 2) -> None:
        self.ends.far.transport.write(frame(b"", opcode, is_masked=self.ends.masks))
        run(self.clock)

    def pass_time(self, seconds: float, step_seconds: float = STEP_SECONDS) -> None:
        for _ in range(round(seconds / step_seconds)):
            self.clock.advance(step_seconds)
            self.answer()

    def seconds_to_the_cut(self) -> float:
        began = self.clock.seconds()
        while not self.is_cut:
            assert self.clock.seconds() < began + 60, "the dead peer was not detected"
            self.pass_time(STEP_SECONDS)
        return self.clock.seconds() - began

    def end(self) -> None:
        self.heartbeat.stop()
        self.ends.end()


@pytest.fixture(params=["relay", "agent", "towards a plain agent", "towards a plain relay"])
def patient(request: pytest.FixtureRequest) -> Iterator[Patient]:
    makers: dict[str, Callable[[], Answered | Dialled]] = {
        "relay": Answered,
        "agent": lambda: Dialled().open(),
        "towards a plain agent": lambda: Answered(offers=()),
        "towards a plain relay": lambda: Dialled().open(None),
    }
    patient = Patient(makers[request.param]())
    yield patient
    patient.end()


# Dead peers


@pytest.mark.parametrize("life_seconds", [0.0, 0.55, 1.0, 3.45, 8.9, 100.0])
def test_dead_peer_of_an_idle_carrier_is_detected_within_ten_seconds(
    patient: Patient, life_seconds: float
) -> None:
    patient.pass_time(life_seconds)
    patient.is_alive = False
    patient.say()
    assert patient.seconds_to_the_cut() <= IDLE_SECONDS + STEP_SECONDS
    assert patient.ends.ear.was_lost_with(ConnectionAborted)


@pytest.mark.parametrize("life_seconds", [0.0, 0.55, 1.0, 3.45, 8.9])
def test_dead_peer_with_data_in_flight_is_detected_within_six_seconds(
    patient: Patient, life_seconds: float
) -> None:
    patient.pass_time(life_seconds)
    patient.is_alive = False
    patient.say()
    patient.is_owed = True
    assert 4 <= patient.seconds_to_the_cut() <= OWED_SECONDS + STEP_SECONDS


@pytest.mark.parametrize("life_seconds", [0.0, 0.55, 4.2, 5.95])
def test_probe_waits_two_seconds_and_no_more_than_three(patient: Patient, life_seconds: float) -> None:
    patient.pass_time(life_seconds)
    patient.is_alive = False
    pings = patient.pings
    patient.heartbeat.probe()
    run(patient.clock)
    assert patient.pings == pings + 1
    assert 2 <= patient.seconds_to_the_cut() + STEP_SECONDS <= PROBE_SECONDS + 2 * STEP_SECONDS


def test_cut_carrier_has_no_heartbeat(patient: Patient) -> None:
    patient.is_alive = False
    patient.seconds_to_the_cut()
    patient.heartbeat.probe()
    patient.heartbeat.stop()
    patient.heartbeat.stop()
    run(patient.clock)
    assert patient.clock.getDelayedCalls() == []


# Live peers


def test_idle_carrier_stays_open_with_one_ping_in_five_seconds(patient: Patient) -> None:
    patient.pass_time(300)
    assert not patient.is_cut
    assert 50 <= patient.pings <= 75


def test_busy_carrier_is_never_pinged_or_cut(patient: Patient) -> None:
    patient.is_alive, patient.is_owed = False, True
    for _ in range(100):
        patient.say()
        patient.pass_time(0.9)
    assert not patient.is_cut
    assert patient.pings == 0


def test_any_received_byte_keeps_the_carrier_open(patient: Patient) -> None:
    patient.is_alive, patient.is_owed = False, True
    message = frame(pattern(60), is_masked=patient.ends.masks)
    for at in range(len(message)):
        patient.ends.far.transport.write(message[at : at + 1])
        patient.pass_time(1)
    assert not patient.is_cut
    assert patient.ends.ear.data == pattern(60)


def test_answer_that_comes_at_the_last_moment_counts(patient: Patient) -> None:
    patient.is_alive = False
    for _ in range(20):
        pings = patient.pings
        while patient.pings == pings:
            patient.pass_time(STEP_SECONDS)
        patient.pass_time(3.5)
        patient.say(PONG)
    assert not patient.is_cut


def test_probe_that_is_answered_changes_nothing(patient: Patient) -> None:
    for _ in range(50):
        patient.heartbeat.probe()
        patient.pass_time(1.3)
    assert not patient.is_cut


# Stalls


@pytest.mark.parametrize("stall_seconds", [1.3, 1.6, 3.0, 60.0])
@pytest.mark.parametrize("before_seconds", [0.0, 0.9, 3.95, 4.0, 7.95, 8.9])
@pytest.mark.parametrize("is_owed", [False, True], ids=["idle", "owed"])
def test_carrier_survives_a_stall_of_this_process(
    patient: Patient, stall_seconds: float, before_seconds: float, is_owed: bool
) -> None:
    """A stalled event loop or a stopped process: data that arrived meanwhile is read after the timers."""
    patient.is_owed = is_owed
    if is_owed:
        for _ in range(9):
            patient.say()
            patient.pass_time(before_seconds / 9)
    else:
        patient.pass_time(before_seconds)
    patient.clock.advance(stall_seconds)
    run(patient.clock)
    assert not patient.is_cut
    patient.answer()
    patient.say()
    patient.pass_time(1.9)
    assert not patient.is_cut


@pytest.mark.parametrize("stall_seconds", [3.0, 60.0])
def test_after_a_stall_a_dead_peer_has_two_seconds_and_no_more_than_three(
    patient: Patient, stall_seconds: float
) -> None:
    patient.pass_time(5.5)
    patient.is_alive = False
    patient.clock.advance(stall_seconds)
    pings = patient.pings
    run(patient.clock)
    assert patient.pings >= pings
    assert not patient.is_cut
    assert 1.9 <= patient.seconds_to_the_cut() <= PROBE_SECONDS


def test_stall_right_after_a_probe_leaves_time_for_the_answer(patient: Patient) -> None:
    patient.pass_time(6 - STEP_SECONDS)
    patient.heartbeat.probe()
    patient.clock.advance(STEP_SECONDS)
    patient.clock.advance(2.25)
    run(patient.clock)
    assert not patient.is_cut


@pytest.mark.parametrize("is_alive", [True, False])
def test_repeated_probes_do_not_delay_the_cut(patient: Patient, is_alive: bool) -> None:
    """A program that probes on every event of an unstable network."""
    patient.is_alive = is_alive
    began = patient.clock.seconds()
    while patient.clock.seconds() < began + 30 and not patient.is_cut:
        patient.heartbeat.probe()
        patient.pass_time(0.25)
    assert patient.is_cut is not is_alive
    assert is_alive or patient.clock.seconds() - began <= PROBE_SECONDS
