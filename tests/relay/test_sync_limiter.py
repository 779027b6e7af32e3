"""The initial-sync queue: which clients wait, for how long, and when none does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from seance.core.settings import RelaySettings
from seance.relay.rooms.sync_limiter import (
    FAST_BYTES,
    FORGET_SAMPLES,
    LOAD_SECONDS,
    MAX_ROUND_SECONDS,
    MAX_SYNC_SECONDS,
    NEWCOMERS,
    PROOF_SECONDS,
    SAMPLE_SECONDS,
    TICK_SECONDS,
    UPGRADE_SECONDS,
    InitialSyncLimiter,
    Sync,
)

SLOW = 1_000_000
"""Bytes per second of 8 Mbit/s."""

STEP_SECONDS = 0.01


@dataclass(eq=False)
class Tab:
    """A client that downloads its document as fast as the link delivers.

    Attributes:
        missing_bytes: Rest of its document.
        link_seconds: Round trip between relay and agent: from its release to the 101.
        round_trip_seconds: Round trip of the client connection.
    """

    missing_bytes: float = 0.0
    link_seconds: float = 0.0
    round_trip_seconds: float = 0.0
    sent_bytes: int = 0
    is_behind: bool = False
    sync: Sync | None = None
    came_seconds: float = 0.0
    admitted_seconds: float | None = None
    joined_seconds: float | None = None
    done_seconds: float | None = None

    @property
    def is_in_message(self) -> bool:
        return self.sent_bytes > 0 and self.missing_bytes >= 1

    @property
    def waited_seconds(self) -> float:
        assert self.admitted_seconds is not None
        return self.admitted_seconds - self.came_seconds

    def asks_at(self) -> float:
        """Return when its document begins to arrive, if the link is free."""
        joined = 1e9 if self.joined_seconds is None else self.joined_seconds
        return joined + self.round_trip_seconds + self.link_seconds


class Rig:
    """A link on a clock. Its agent sends one document after the other, as in decision 15, simplified."""

    def __init__(self, bytes_per_second: float = SLOW, **settings: Any) -> None:
        self.clock = Clock()
        self.bytes_per_second = bytes_per_second
        self.syncs = InitialSyncLimiter(self.clock, RelaySettings(**settings))
        self.tabs: list[Tab] = []

    def come(self, size: float = 0.0, link_seconds: float = 0.0, round_trip_seconds: float = 0.0) -> Tab:
        tab = Tab(size, link_seconds, round_trip_seconds, came_seconds=self.clock.seconds())

        def admitted(sync: Sync) -> None:
            tab.sync, tab.admitted_seconds = sync, self.clock.seconds()
            self.tabs.append(tab)
            if link_seconds:
                self.clock.callLater(link_seconds, join)
            else:
                join()

        def join() -> None:
            tab.joined_seconds = self.clock.seconds()
            assert tab.sync is not None
            tab.sync.joined(tab)

        self.syncs.when_may_load(self.clock.seconds()).addCallback(admitted)
        return tab

    def pass_seconds(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP_SECONDS)):
            left = self.bytes_per_second * STEP_SECONDS
            now = self.clock.seconds()
            line = [tab for tab in self.tabs if tab.missing_bytes >= 1 and tab.asks_at() <= now]
            for tab in line:
                is_last = tab is line[-1]
                count = int(min(left if is_last else left * 3 / 4, tab.missing_bytes))
                left -= count
                tab.sent_bytes += count
                tab.missing_bytes -= count
                if tab.missing_bytes < 1 and tab.done_seconds is None:
                    tab.done_seconds = now
            self.clock.advance(STEP_SECONDS)

    def admitted(self, *tabs: Tab) -> int:
        return sum(tab.admitted_seconds is not None for tab in tabs)

    def full(self, count: int = 2) -> list[Tab]:
        """Start endless downloads of some clients, and wait until the limiter knows them."""
        tabs = [self.come(1e12) for _ in range(count)]
        self.pass_seconds(LOAD_SECONDS + 2 * SAMPLE_SECONDS)
        return tabs


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.syncs.close()
    rig.clock.advance(1.0)  # for the 101 of the clients that this released
    assert rig.clock.getDelayedCalls() == []


# -- a link that is not full holds no client ---------------------------------------------------------------


@given(
    offsets=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=60),
    link_seconds=st.sampled_from([0.0, 0.001, 0.04, 0.2]),
    client_seconds=st.sampled_from([0.0, 0.05, 0.3]),
)
def test_clients_without_a_document_join_at_any_offsets(
    offsets: list[float], link_seconds: float, client_seconds: float
) -> None:
    """No client waits while at most four are new; sixty clients are connected after two rounds of
    observation.
    """
    rig = Rig()
    tabs = []
    for offset in sorted(offsets):
        rig.pass_seconds(offset - rig.clock.seconds())
        recent = [tab for tab in tabs if tab.came_seconds > rig.clock.seconds() - 1.5]
        tabs.append(rig.come(link_seconds=link_seconds, round_trip_seconds=client_seconds))
        if len(recent) < NEWCOMERS:
            assert tabs[-1].admitted_seconds is not None, "held, though few came lately"
    rig.pass_seconds(2.5)
    assert rig.admitted(*tabs) == len(tabs)
    round_seconds = link_seconds + MAX_ROUND_SECONDS + min(0.5, 2 * client_seconds) + TICK_SECONDS
    assert max(tab.waited_seconds for tab in tabs) <= 2 * round_seconds + 1e-6
    rig.syncs.close()


@given(
    offset=st.floats(0.0, 1.0),
    count=st.sampled_from([3, 30, 300]),
    size=st.sampled_from([0.0, 300.0, 20_000.0]),
)
def test_many_clients_join_an_idle_fast_link_at_any_offset(offset: float, count: int, size: float) -> None:
    """One client, a second one, then many at the same moment: all are connected within 0.2 s."""
    rig = Rig(bytes_per_second=200e6)
    tabs = [rig.come(size, 0.001)]
    rig.pass_seconds(offset)
    tabs.append(rig.come(size, 0.001))
    rig.pass_seconds(0.02)
    tabs += [rig.come(size, 0.001) for _ in range(count)]
    rig.pass_seconds(0.2)
    assert rig.admitted(*tabs) == len(tabs)
    assert max(tab.waited_seconds for tab in tabs[:3]) == 0.0
    rig.syncs.close()


def test_a_page_that_opens_a_few_documents_never_waits(rig: Rig) -> None:
    for _ in range(5):
        assert rig.admitted(*(rig.come(2000, 0.04) for _ in range(NEWCOMERS))) == NEWCOMERS
        rig.pass_seconds(1.0)


def test_clients_that_receive_small_messages_are_not_in_initial_sync(rig: Rig) -> None:
    """Two clients get 200 kB/s each, as cursors and edits: the link is not full."""
    talking = [rig.come() for _ in range(2)]
    for _ in range(100):
        for tab in talking:
            tab.sent_bytes += 4000
        rig.pass_seconds(0.02)
    tabs = [rig.come(2000) for _ in range(100)]
    rig.pass_seconds(0.2)
    assert rig.admitted(*tabs) == 100


def test_a_slow_local_server_queues_no_client(rig: Rig) -> None:
    tabs = [rig.come(0.0, 2.0) for _ in range(100)]
    rig.pass_seconds(4 * (UPGRADE_SECONDS + TICK_SECONDS))
    assert rig.admitted(*tabs) == 100
    rig.pass_seconds(3.0)


def test_clients_of_a_slow_local_server_are_limited_once_documents_arrive(
    rig: Rig,
) -> None:
    tabs = [rig.come(5e6, 0.4) for _ in range(8)]
    rig.pass_seconds(2.0)
    assert rig.admitted(*tabs) == 3
    rig.pass_seconds(90.0)
    assert rig.admitted(*tabs) == 8


def test_a_finished_or_small_sync_queues_no_client(rig: Rig) -> None:
    for size in (5e6, 50_000):
        first = rig.come(size)
        rig.pass_seconds(size / SLOW + 0.1)
        assert first.done_seconds is not None
        tabs = [rig.come() for _ in range(60)]
        rig.pass_seconds(0.3)
        assert rig.admitted(*tabs) == 60
        rig.pass_seconds(PROOF_SECONDS + 1)


def test_a_stalled_message_queues_no_client(rig: Rig) -> None:
    """A local server hangs within a message, or the agent is disconnected: nothing is delivered."""
    rig.full()
    rig.bytes_per_second = 0
    rig.pass_seconds(3 * SAMPLE_SECONDS)
    tabs = [rig.come() for _ in range(4)]
    rig.pass_seconds(LOAD_SECONDS + TICK_SECONDS)
    assert rig.admitted(*tabs) == 4


def test_a_fast_link_queues_no_client() -> None:
    rig = Rig(bytes_per_second=2 * FAST_BYTES / SAMPLE_SECONDS)
    tabs = [rig.come(1e9) for _ in range(NEWCOMERS + 1)]
    assert rig.admitted(*tabs) == NEWCOMERS
    rig.pass_seconds(SAMPLE_SECONDS + 2 * TICK_SECONDS)
    assert rig.admitted(*tabs) == NEWCOMERS + 1
    assert rig.admitted(*(rig.come(1e9) for _ in range(50))) == 50
    rig.syncs.close()


def test_a_new_carrier_resets_the_measured_speed() -> None:
    rig = Rig(bytes_per_second=2 * FAST_BYTES / SAMPLE_SECONDS)
    rig.full()
    rig.syncs.note_carrier()
    rig.bytes_per_second = SLOW
    rig.pass_seconds(SAMPLE_SECONDS)
    assert rig.admitted(*(rig.come(1e9) for _ in range(50))) == 0
    rig.syncs.close()


def test_a_slow_reader_queues_no_client(rig: Rig) -> None:
    for tab in rig.full():
        tab.is_behind = True
    rig.pass_seconds(3 * SAMPLE_SECONDS)
    assert rig.come(5e6).admitted_seconds is not None


def test_an_endless_transfer_is_not_an_initial_sync(rig: Rig) -> None:
    rig.full()
    rig.pass_seconds(MAX_SYNC_SECONDS)
    assert rig.come(5e6).admitted_seconds is not None


def test_an_idle_client_is_checked_for_a_short_time_only(rig: Rig) -> None:
    rig.come(2000)
    rig.pass_seconds((FORGET_SAMPLES + 2) * SAMPLE_SECONDS)
    assert rig.clock.getDelayedCalls() == []


# -- a full link does --------------------------------------------------------------------------------------


@pytest.mark.parametrize("link_seconds", [0.001, 0.04, 0.15])
@pytest.mark.parametrize("client_seconds", [0.0, 0.04, 0.2])
def test_eight_tabs_that_begin_together_each_sync_within_30_s(
    rig: Rig, link_seconds: float, client_seconds: float
) -> None:
    """Together 40 s of transfer, for clients that give up 30 s after their 101."""
    tabs = [rig.come(5e6, link_seconds, client_seconds) for _ in range(8)]
    rig.pass_seconds(45.0)
    assert all(tab.done_seconds is not None for tab in tabs)
    assert max((tab.done_seconds or 99) - (tab.joined_seconds or 0) for tab in tabs) < 30.0
    assert max(tab.waited_seconds for tab in tabs) <= 15.1


def test_eight_tabs_with_different_round_trips_each_sync_within_30_s(rig: Rig) -> None:
    tabs = [rig.come(5e6, 0.04, 0.03 * number) for number in range(8)]
    rig.pass_seconds(45.0)
    assert max((tab.done_seconds or 99) - (tab.joined_seconds or 0) for tab in tabs) < 30.0


def test_clients_that_join_during_an_initial_sync_wait_until_it_ends(rig: Rig) -> None:
    first = rig.come(5e6, 0.04)
    rig.pass_seconds(1.0)
    crowd = [rig.come(5e6, 0.04) for _ in range(7)]
    rig.pass_seconds(3.0)
    assert rig.admitted(*crowd) == 1
    rig.pass_seconds(4.0)
    assert first.done_seconds is not None
    assert rig.admitted(*crowd) == 2


def test_two_clients_sync_and_the_third_waits_until_one_is_done(rig: Rig) -> None:
    first, _ = (rig.come(5e6) for _ in range(2))
    rig.pass_seconds(1.0)
    third = rig.come(5e6)
    rig.pass_seconds(5.0)
    assert third.admitted_seconds is None
    rig.pass_seconds(2.0)
    assert first.done_seconds is not None
    assert third.admitted_seconds is not None
    assert third.admitted_seconds - first.done_seconds < 0.5


def test_no_client_waits_for_longer_than_the_bound(rig: Rig) -> None:
    rig.full()
    tabs = [rig.come(1e9) for _ in range(10)]
    rig.pass_seconds(14.9)
    assert rig.admitted(*tabs) == 0
    rig.pass_seconds(0.3)
    assert rig.admitted(*tabs) == 10


def test_time_spent_waiting_for_the_agent_counts(rig: Rig) -> None:
    rig.full()
    rig.pass_seconds(20.0)
    assert rig.syncs.when_may_load(rig.clock.seconds() - 15.0).called


def test_clients_are_released_in_order_of_arrival(rig: Rig) -> None:
    for _ in range(2):
        rig.come(5e6)
    rig.pass_seconds(1.0)
    waiting = [rig.come(5e6) for _ in range(3)]
    rig.pass_seconds(7.5)
    assert [tab.admitted_seconds is not None for tab in waiting] == [True, False, False]


def test_a_short_pause_of_the_line_is_not_the_end_of_a_sync(rig: Rig) -> None:
    rig.full()
    third = rig.come(5e6)
    rig.pass_seconds(1.0)
    rig.bytes_per_second = 0
    rig.pass_seconds(0.3)
    rig.bytes_per_second = SLOW
    rig.pass_seconds(2.0)
    assert third.admitted_seconds is None


def test_a_client_that_disconnects_frees_its_slot_immediately(rig: Rig) -> None:
    first, _ = rig.full()
    third = rig.come(5e6)
    rig.pass_seconds(1.0)
    assert third.admitted_seconds is None
    assert first.sync is not None
    first.sync.left()
    first.sync.left()
    rig.clock.advance(0)
    assert third.admitted_seconds == rig.clock.seconds()


def test_a_waiting_client_that_disconnects_is_removed(rig: Rig) -> None:
    rig.full()
    waiting: Deferred[Sync] = rig.syncs.when_may_load(rig.clock.seconds())
    waiting.addErrback(lambda failure: None)
    waiting.cancel()
    assert len(rig.syncs) == 0


def test_the_queue_is_limited_and_further_clients_pass() -> None:
    rig = Rig(parked_per_room=3)
    rig.full()
    tabs = [rig.come(5e6) for _ in range(4)]
    assert rig.admitted(*tabs) == 1
    assert len(rig.syncs) == 3
    rig.syncs.close()
    assert rig.admitted(*tabs) == 4
    assert rig.clock.getDelayedCalls() == []


@pytest.mark.parametrize("settings", [{"hold_seconds": 0.0}, {"initial_syncs": 1000}])
def test_the_limit_can_be_disabled_or_raised(settings: dict[str, Any]) -> None:
    rig = Rig(**settings)
    rig.full()
    assert rig.admitted(*(rig.come(5e6) for _ in range(50))) == 50
    rig.syncs.close()
    assert rig.clock.getDelayedCalls() == []


def test_no_client_waits_after_the_end_of_the_link(rig: Rig) -> None:
    rig.full()
    tabs = [rig.come(5e6) for _ in range(5)]
    rig.syncs.close()
    assert rig.admitted(*tabs, rig.come(5e6)) == 6
