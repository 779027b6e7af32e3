"""Who waits while others load their document, for how long, and when nobody does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from seance.tunnel.initial_syncs import (
    CALM_SECONDS,
    FAST_BYTES,
    LOOK_SECONDS,
    SYNC_BYTES,
    UNKNOWN_SECONDS,
    WATCHED_SECONDS,
    InitialSyncs,
    Sync,
)
from seance.tunnel.settings import RelaySettings
from tests.tunnel.rig import Rig, answer_101, reactor, request, turn, until

SLOW = 1_000_000
"""Bytes per second of 8 Mbit/s."""


@dataclass(eq=False)
class Tab:
    """A client that loads as fast as the link lets it."""

    missing_bytes: float = 0.0
    sent_bytes: int = 0
    is_behind: bool = False
    sync: Sync | None = None
    let_in_seconds: float | None = None
    done_seconds: float | None = None


class Door:
    """A link with a clock. Whoever is let in joins, and loads in its turn: decision 15, made simple."""

    def __init__(self, bytes_per_second: float = SLOW, **settings: Any) -> None:
        self.clock = Clock()
        self.bytes_per_second = bytes_per_second
        self.syncs = InitialSyncs(self.clock, RelaySettings(**settings))
        self.tabs: list[Tab] = []

    def come(self, size: float = 0.0) -> Tab:
        tab = Tab(size)
        tab_in = self.syncs.when_let_in(self.clock.seconds())

        def join(sync: Sync) -> None:
            tab.sync, tab.let_in_seconds = sync, self.clock.seconds()
            sync.joined(tab)
            self.tabs.append(tab)

        tab_in.addCallback(join)
        return tab

    def pass_seconds(self, seconds: float) -> None:
        step = 0.05
        for _ in range(round(seconds / step)):
            left = self.bytes_per_second * step
            line = [tab for tab in self.tabs if tab.missing_bytes >= 1]
            for tab in line:
                is_last = tab is line[-1]
                count = int(min(left if is_last else left * 3 / 4, tab.missing_bytes))
                left -= count
                tab.sent_bytes += count
                tab.missing_bytes -= count
                if tab.missing_bytes < 1 and tab.done_seconds is None:
                    tab.done_seconds = self.clock.seconds()
            self.clock.advance(step)

    def let_in(self, *tabs: Tab) -> int:
        return sum(tab.let_in_seconds is not None for tab in tabs)


@pytest.fixture
def door() -> Iterator[Door]:
    door = Door()
    yield door
    door.syncs.close()
    assert door.clock.getDelayedCalls() == []


def test_two_load_and_the_third_waits_until_one_is_done(door: Door) -> None:
    first, second, third = (door.come(5e6) for _ in range(3))
    assert door.let_in(first, second) == 2
    door.pass_seconds(6.5)
    assert third.let_in_seconds is None
    door.pass_seconds(2.0)
    assert first.done_seconds is not None
    assert third.let_in_seconds is not None
    assert third.let_in_seconds - first.done_seconds < 1.5


def test_eight_tabs_that_begin_together_each_have_their_document_within_their_patience(door: Door) -> None:
    """40 s of the path, for clients that give up 30 s after they were let in."""
    tabs = [door.come(5e6) for _ in range(8)]
    door.pass_seconds(45.0)
    assert all(tab.done_seconds is not None for tab in tabs)
    assert max((tab.done_seconds or 99) - (tab.let_in_seconds or 0) for tab in tabs) < 30.0
    assert max(tab.let_in_seconds or 0 for tab in tabs) <= 15.1


def test_nobody_waits_for_longer_than_he_may(door: Door) -> None:
    tabs = [door.come(1e9) for _ in range(10)]
    door.pass_seconds(14.9)
    assert door.let_in(*tabs) == 2
    door.pass_seconds(0.3)
    assert door.let_in(*tabs) == 10


def test_time_spent_waiting_for_the_agent_counts(door: Door) -> None:
    for _ in range(2):
        door.come(1e9)
    door.pass_seconds(20.0)
    assert door.syncs.when_let_in(door.clock.seconds() - 15.0).called


def test_they_are_let_in_in_order_of_arrival(door: Door) -> None:
    for _ in range(2):
        door.come(5e6)
    waiting = [door.come(5e6) for _ in range(3)]
    door.pass_seconds(8.5)
    assert [tab.let_in_seconds is not None for tab in waiting] == [True, False, False]


def test_where_nobody_loads_only_the_third_of_a_crowd_waits_and_half_a_second(door: Door) -> None:
    crowd = [door.come(2000) for _ in range(100)]
    assert door.let_in(*crowd) == 2
    door.pass_seconds(UNKNOWN_SECONDS + LOOK_SECONDS)
    assert door.let_in(*crowd) == 100
    assert door.let_in(*(door.come(2000) for _ in range(100))) == 100, "and then nobody for a while"
    door.pass_seconds(CALM_SECONDS)


def test_clients_that_come_one_after_the_other_never_wait(door: Door) -> None:
    for _ in range(20):
        assert door.come(SYNC_BYTES / 2).let_in_seconds is not None
        door.pass_seconds(0.3)


def test_a_link_that_has_shown_to_be_fast_holds_nobody() -> None:
    door = Door(bytes_per_second=2 * FAST_BYTES / LOOK_SECONDS)
    for _ in range(2):
        door.come(1e9)
    third = door.come(1e9)
    door.pass_seconds(LOOK_SECONDS + 0.05)
    assert third.let_in_seconds is not None
    assert door.let_in(*(door.come(1e9) for _ in range(50))) == 50
    door.syncs.close()


def test_who_reads_slowly_keeps_nobody_waiting(door: Door) -> None:
    slow = [door.come(1e9) for _ in range(2)]
    for tab in slow:
        tab.is_behind = True
    door.pass_seconds(1.0)
    assert door.come(5e6).let_in_seconds is not None


def test_who_has_loaded_and_goes_on_typing_keeps_nobody_waiting(door: Door) -> None:
    typing = [door.come(5e5) for _ in range(2)]
    for _ in range(8):
        door.pass_seconds(0.25)
        for tab in typing:
            tab.missing_bytes += 500
    tab = door.come(5e6)
    door.pass_seconds(LOOK_SECONDS)
    assert tab.let_in_seconds is not None


def test_a_hiccup_of_the_line_is_no_end(door: Door) -> None:
    third = [door.come(5e6) for _ in range(3)][2]
    door.pass_seconds(2.0)
    door.bytes_per_second = 0
    door.pass_seconds(0.3)
    door.bytes_per_second = SLOW
    door.pass_seconds(2.0)
    assert third.let_in_seconds is None


def test_a_transfer_that_does_not_end_is_no_initial_sync(door: Door) -> None:
    for _ in range(2):
        door.come(1e12)
    door.pass_seconds(WATCHED_SECONDS + LOOK_SECONDS)
    assert door.come(5e6).let_in_seconds is not None


def test_who_leaves_makes_room_at_once(door: Door) -> None:
    first, _, third = (door.come(5e6) for _ in range(3))
    door.pass_seconds(2.0)
    assert third.let_in_seconds is None
    assert first.sync is not None
    first.sync.left()
    first.sync.left()
    door.clock.advance(0)
    assert third.let_in_seconds == door.clock.seconds()


def test_who_gives_up_waiting_gives_the_place_back(door: Door) -> None:
    for _ in range(2):
        door.come(5e6)
    waiting: Deferred[Sync] = door.syncs.when_let_in(0.0)
    waiting.addErrback(lambda failure: None)
    waiting.cancel()
    assert len(door.syncs) == 0


def test_whoever_the_local_server_does_not_answer_keeps_nobody_waiting_for_long(door: Door) -> None:
    for _ in range(2):
        assert door.syncs.when_let_in(0.0).called
    tab = door.come()
    door.pass_seconds(1.3)
    assert tab.let_in_seconds is not None


def test_clients_that_wait_are_bounded_and_the_next_ones_pass() -> None:
    door = Door(parked_per_room=3)
    tabs = [door.come(5e6) for _ in range(6)]
    assert door.let_in(*tabs) == 3
    assert len(door.syncs) == 3
    door.syncs.close()
    assert door.let_in(*tabs) == 6
    assert door.clock.getDelayedCalls() == []


@pytest.mark.parametrize("settings", [{"hold_seconds": 0.0}, {"initial_syncs": 1000}])
def test_it_can_be_turned_off_or_up(settings: dict[str, Any]) -> None:
    door = Door(**settings)
    assert door.let_in(*(door.come(5e6) for _ in range(50))) == 50
    door.syncs.close()
    assert door.clock.getDelayedCalls() == []


def test_after_the_end_of_the_link_nobody_waits(door: Door) -> None:
    tabs = [door.come(5e6) for _ in range(5)]
    door.syncs.close()
    assert door.let_in(*tabs, door.come(5e6)) == 6


@ensureDeferred
async def test_a_held_client_is_not_answered_and_the_local_server_knows_nothing_of_it() -> None:
    async with Rig(relay={"initial_syncs": 1, "hold_seconds": 2.0}) as rig:
        first, local = await rig.joined()
        second = await rig.connect(request())
        await turn(0.1)
        assert (bytes(second.received), len(rig.locals)) == (b"", 1)
        first.leg.abortConnection()
        other = await rig.local(1)
        other.send(answer_101())
        await second.receives(b"101 Switching")
        await local.goes()


@ensureDeferred
async def test_a_held_client_that_goes_is_forgotten() -> None:
    async with Rig(relay={"initial_syncs": 1, "hold_seconds": 2.0}) as rig:
        await rig.joined()
        second = await rig.connect(request())
        link = rig.relay.link_of("r")
        assert link is not None
        await until(lambda: len(link.syncs) == 1)
        second.leg.abortConnection()
        await until(lambda: len(link.syncs) == 0)
        assert len(rig.locals) == 1


@ensureDeferred
async def test_a_held_client_whose_agent_goes_waits_for_it_to_come_back() -> None:
    async with Rig(relay={"initial_syncs": 1}) as rig:
        await rig.joined()
        second = await rig.connect(request())
        link = rig.relay.link_of("r")
        assert link is not None
        await until(lambda: len(link.syncs) == 1)
        await rig.agent.stopService()
        await until(lambda: len(rig.relay.parking) == 1)
        await rig.attach()
        other = await rig.local(1)
        other.send(answer_101())
        await second.receives(b"101 Switching")


@ensureDeferred
async def test_held_clients_whose_agent_is_replaced_are_held_by_the_next_link_too() -> None:
    """Not all let in at once by the end of the old one, which is when everybody loads."""
    async with Rig(relay={"initial_syncs": 1}, agent={"resume": False}) as rig:
        await rig.joined()
        held = [await rig.connect(request()) for _ in range(4)]
        old: Any = rig.relay.link_of("r")
        await until(lambda: len(old.syncs) == len(held))
        await rig.agent.stopService()
        await until(lambda: len(rig.relay.parking) == len(held))
        await rig.attach()
        await until(lambda: len(rig.relay.parking) == 0)
        link: Any = rig.relay.link_of("r")
        await until(lambda: len(link.syncs) == len(held) - 1)
        assert len(rig.locals) == 2
        for one in held:
            one.leg.abortConnection()
        await until(lambda: len(link.syncs) == 0)


@ensureDeferred
async def test_the_time_of_being_held_is_a_part_of_the_time_for_an_agent_that_goes() -> None:
    settings = {"initial_syncs": 1, "hold_seconds": 0.4, "park_seconds": 0.4}
    async with Rig(relay=settings, agent={"resume": False}) as rig:
        await rig.joined()
        began_seconds = reactor.seconds()
        second = await rig.connect(request())
        await turn(0.3)
        await rig.agent.stopService()
        await second.ends()
        assert second.received.startswith(b"HTTP/1.1 503 ")
        assert reactor.seconds() - began_seconds < 0.6
        assert len(rig.relay.parking) == 0


@ensureDeferred
async def test_who_is_refused_after_it_was_let_in_keeps_nobody_waiting() -> None:
    async with Rig(relay={"initial_syncs": 1}) as rig:
        await until(lambda: rig.relay.link_of("r"))
        link: Any = rig.relay.link_of("r")
        link.most_clients = 0
        refused = await rig.connect(request())
        await refused.ends()
        assert refused.received.startswith(b"HTTP/1.1 429 ")
        assert not link.syncs._watched
        link.most_clients = None
        await rig.joined()
