"""Clients that wait for their agent: for how long, how many, and in which order they are served."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from seance.core.settings import RelaySettings
from seance.errors import Refusal
from seance.relay import refusals
from seance.relay.refusals import refusal
from seance.relay.rooms.agent_wait_queue import RELEASE_SECONDS, AgentWaitQueue
from tests.relay.rig import Player, Rig, answer_101, request, turn, until
from tests.relay.test_active_grants import AGENT, CLIENT, JWT, TokenRig, Verifier, attach_raw, bearer


@pytest.fixture(autouse=True)
def longest_retry_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "randint", lambda least, most: most)


class WaitQueueRig:
    """A wait queue on a clock, and a record of the result for each client."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.back: set[str] = set()
        self.wait_queue = AgentWaitQueue(self.clock, RelaySettings(**settings), self.back.__contains__)
        self.released: list[str] = []
        self.refused: dict[str, Refusal] = {}

    def add_client(self, name: str, room: str = "r") -> Deferred[None]:
        waiting = self.wait_queue.when_back(room)

        def refuse(failure: Any) -> None:
            if not failure.check(CancelledError):
                self.refused[name] = failure.value

        waiting.addCallbacks(lambda _: self.released.append(name), refuse)
        return waiting

    def bring_back(self, room: str = "r") -> None:
        self.back.add(room)
        self.wait_queue.note_back(room)

    def pass_seconds(self, seconds: float) -> None:
        """Advance the clock in small steps, as a reactor does."""
        for _ in range(round(seconds / RELEASE_SECONDS)):
            self.clock.advance(RELEASE_SECONDS)


@pytest.fixture
def queue_rig() -> Iterator[WaitQueueRig]:
    queue_rig = WaitQueueRig()
    yield queue_rig
    queue_rig.wait_queue.close()
    assert len(queue_rig.wait_queue) == 0
    assert queue_rig.clock.getDelayedCalls() == []
    assert queue_rig.wait_queue._rooms == {}


def test_a_client_is_released_when_the_agent_is_back(queue_rig: WaitQueueRig) -> None:
    queue_rig.add_client("a")
    queue_rig.pass_seconds(10.0)
    assert not queue_rig.released
    queue_rig.bring_back()
    queue_rig.pass_seconds(RELEASE_SECONDS)
    assert queue_rig.released == ["a"]
    assert queue_rig.clock.getDelayedCalls() == []


def test_clients_are_released_in_a_later_turn_of_the_reactor(queue_rig: WaitQueueRig) -> None:
    queue_rig.add_client("a")
    queue_rig.bring_back()
    assert not queue_rig.released


def test_clients_are_released_one_by_one_in_order_of_arrival(queue_rig: WaitQueueRig) -> None:
    names = [f"{number}" for number in range(100)]
    for name in names:
        queue_rig.add_client(name)
    queue_rig.bring_back()
    queue_rig.clock.advance(0.1)
    assert queue_rig.released == names[:1]
    queue_rig.pass_seconds(0.1 - RELEASE_SECONDS)
    assert queue_rig.released == names[:20]
    queue_rig.pass_seconds(0.4)
    assert queue_rig.released == names


def test_rooms_whose_agents_are_back_alternate(queue_rig: WaitQueueRig) -> None:
    for name in ("a1", "a2", "a3", "b1", "b2"):
        queue_rig.add_client(name, name[0])
    queue_rig.bring_back("a")
    queue_rig.bring_back("b")
    queue_rig.pass_seconds(1.0)
    assert queue_rig.released == ["a1", "b1", "a2", "b2", "a3"]


def test_clients_keep_waiting_if_the_agent_disconnects_again(queue_rig: WaitQueueRig) -> None:
    for name in ("a", "b"):
        queue_rig.add_client(name)
    queue_rig.bring_back()
    queue_rig.pass_seconds(RELEASE_SECONDS)
    queue_rig.back.clear()
    queue_rig.pass_seconds(5.0)
    assert (queue_rig.released, queue_rig.refused) == (["a"], {})
    queue_rig.bring_back()
    queue_rig.pass_seconds(RELEASE_SECONDS)
    assert queue_rig.released == ["a", "b"]


def test_only_clients_that_have_waited_for_15_s_are_refused(queue_rig: WaitQueueRig) -> None:
    queue_rig.add_client("a")
    queue_rig.pass_seconds(10.0)
    queue_rig.add_client("b", "other")
    queue_rig.pass_seconds(4.9)
    assert not queue_rig.refused
    queue_rig.pass_seconds(0.2)
    assert list(queue_rig.refused) == ["a"]
    assert (queue_rig.refused["a"].status, queue_rig.refused["a"].code) == (503, "agent_away")
    queue_rig.pass_seconds(9.7)
    assert list(queue_rig.refused) == ["a"]
    queue_rig.pass_seconds(0.3)
    assert list(queue_rig.refused) == ["a", "b"]


def test_each_refused_client_gets_its_own_retry_time(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([2, 3])
    monkeypatch.setattr(refusals, "randint", lambda least, most: next(times))
    clock = Clock()
    wait_queue = AgentWaitQueue(clock, RelaySettings(), lambda room: False)
    headers: list[tuple[bytes, bytes]] = []
    for _ in range(2):
        wait_queue.when_back("r").addErrback(lambda failure: headers.extend(failure.value.headers))
    clock.advance(15.0)
    assert headers == [(b"Retry-After", b"2"), (b"Retry-After", b"3")]


def test_retry_time_is_within_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    seconds = {int(value) for _ in range(200) for _, value in refusal("agent_away").headers}
    assert seconds == {2, 3, 4, 5}


def test_waiting_clients_per_room_are_limited() -> None:
    queue_rig = WaitQueueRig(parked_per_room=2)
    for name in ("a", "b", "c"):
        queue_rig.add_client(name)
    queue_rig.add_client("d", "other")
    assert list(queue_rig.refused) == ["c"]
    assert (queue_rig.refused["c"].status, queue_rig.refused["c"].code) == (503, "parking_full")
    assert queue_rig.refused["c"].headers == ((b"Retry-After", b"5"),)
    queue_rig.wait_queue.close()


def test_waiting_clients_in_total_are_limited() -> None:
    queue_rig = WaitQueueRig(parked=2)
    for name in ("a", "b", "c"):
        queue_rig.add_client(name, name)
    assert list(queue_rig.refused) == ["c"]
    assert queue_rig.refused["c"].code == "parking_full"
    queue_rig.wait_queue.close()


def test_a_client_that_disconnects_frees_its_place_immediately() -> None:
    queue_rig = WaitQueueRig(parked=1)
    queue_rig.add_client("a").cancel()
    assert len(queue_rig.wait_queue) == 0
    assert queue_rig.clock.getDelayedCalls() == []
    queue_rig.add_client("b")
    assert not queue_rig.refused
    queue_rig.wait_queue.close()


def test_a_client_that_disconnects_does_not_delay_the_others(queue_rig: WaitQueueRig) -> None:
    places = [queue_rig.add_client(name) for name in ("a", "b", "c")]
    queue_rig.bring_back()
    places[0].cancel()
    queue_rig.pass_seconds(RELEASE_SECONDS)
    assert queue_rig.released == ["b"]
    places[2].cancel()
    assert queue_rig.clock.getDelayedCalls() == []


def test_closing_refuses_all_waiting_and_later_clients(queue_rig: WaitQueueRig) -> None:
    queue_rig.add_client("a")
    queue_rig.add_client("b", "other")
    queue_rig.wait_queue.close()
    queue_rig.add_client("c")
    assert {one.code for one in queue_rig.refused.values()} == {"relay_stopping"}
    assert len(queue_rig.refused) == 3
    queue_rig.wait_queue.open()
    queue_rig.add_client("d")
    assert len(queue_rig.wait_queue) == 1


# In a relay


def status(player: Player) -> int:
    return int(player.received.split(b" ", 2)[1])


async def agent_goes(rig: Rig) -> None:
    await rig.agent.stopService()
    await until(lambda: rig.relay.rooms.room_count == 0)


@ensureDeferred
async def test_a_waiting_client_is_served_when_its_agent_is_back() -> None:
    async with Rig() as rig:
        await agent_goes(rig)
        client = await rig.connect(request("/client/doc?room=r") + b"early")
        await until(lambda: len(rig.relay.rooms.wait_queue) == 1)
        client.send(b" bird")
        await turn(0.05)
        assert not client.received
        assert not rig.locals
        await rig.attach()
        local = await rig.local()
        assert local.received.startswith(b"GET /doc HTTP/1.1\r\n")
        local.received = b""
        local.send(answer_101())
        await client.receives(b"\r\n\r\n")
        await local.receives(b"early bird")
        assert len(rig.relay.rooms.wait_queue) == 0


@ensureDeferred
async def test_an_unknown_room_is_refused_immediately() -> None:
    async with Rig() as rig:
        await agent_goes(rig)
        client = await rig.connect(request("/client?room=other"))
        await client.ends()
        assert status(client) == 404
        assert len(rig.relay.rooms.wait_queue) == 0


@ensureDeferred
async def test_a_room_whose_agent_left_long_ago_is_refused_immediately() -> None:
    async with Rig(relay={"known_room_seconds": 0.05}) as rig:
        await agent_goes(rig)
        await turn(0.06)
        client = await rig.connect(request())
        await client.ends()
        assert status(client) == 404


@ensureDeferred
async def test_a_client_whose_agent_does_not_return_gets_503_with_retry_after() -> None:
    async with Rig(relay={"park_seconds": 0.1}) as rig:
        await agent_goes(rig)
        client = await rig.connect(request())
        await client.ends()
        assert status(client) == 503
        assert b"\r\nRetry-After: " in client.received
        assert b"is offline" in client.received


@ensureDeferred
async def test_a_client_that_disconnects_while_it_waits_is_removed() -> None:
    async with Rig() as rig:
        await agent_goes(rig)
        hasty = await rig.connect(request())
        half = await rig.connect(request())
        await until(lambda: len(rig.relay.rooms.wait_queue) == 2)
        hasty.leg.abortConnection()
        half.leg.loseWriteConnection()
        await until(lambda: len(rig.relay.rooms.wait_queue) == 0)


@ensureDeferred
async def test_a_client_that_sends_too_much_while_it_waits_is_cut() -> None:
    async with Rig() as rig:
        await agent_goes(rig)
        client = await rig.connect(request() + b"x" * 100_000)
        await client.goes()
        await until(lambda: len(rig.relay.rooms.wait_queue) == 0)


@ensureDeferred
async def test_a_stopping_relay_refuses_waiting_clients() -> None:
    async with Rig() as rig:
        await agent_goes(rig)
        client = await rig.connect(request())
        await until(lambda: len(rig.relay.rooms.wait_queue) == 1)
        await rig.relay.stopService()
        await client.ends()
        assert status(client) == 503
        assert b"This relay is stopping" in client.received


@ensureDeferred
async def test_a_request_is_checked_before_it_waits() -> None:
    async with Rig(relay={"origins": ("https://app.example",)}) as rig:
        await agent_goes(rig)
        page = await rig.connect(request("/client?room=r", "Origin: https://evil.example"))
        await page.ends()
        assert status(page) == 403


@ensureDeferred
async def test_a_client_gets_429_if_the_room_is_full_after_the_wait() -> None:
    async with Rig(relay={"streams_per_agent": 1}) as rig:
        await agent_goes(rig)
        clients = [await rig.connect(request()) for _ in range(2)]
        await until(lambda: len(rig.relay.rooms.wait_queue) == 2)
        await rig.attach()
        await until(lambda: any(b"429" in client.received for client in clients))
        assert rig.relay.rooms.client_count == 1


@ensureDeferred
async def test_a_token_that_ends_ends_the_wait_of_its_client() -> None:
    verifier = Verifier({JWT + "a": AGENT, JWT + "c": CLIENT})
    async with TokenRig(verifier) as rig:
        agent = await attach_raw(rig)
        agent.leg.abortConnection()
        await until(lambda: rig.relay.rooms.room_count == 0)
        stranger = await rig.connect(request("/client?room=r", bearer(JWT + "x")))
        await stranger.ends()
        assert status(stranger) == 401
        client = await rig.connect(request("/client?room=r", bearer(JWT + "c")))
        await until(lambda: len(rig.relay.rooms.wait_queue) == 1)
        assert rig.relay.context.grants is not None
        assert len(rig.relay.context.grants) == 1
        del verifier.grants[JWT + "c"]
        verifier.listeners[0]()
        await client.ends()
        assert status(client) == 401
        assert len(rig.relay.rooms.wait_queue) == len(rig.relay.context.grants) == 0


@ensureDeferred
async def test_the_grant_of_a_client_that_waited_in_vain_is_released() -> None:
    verifier = Verifier({JWT + "a": AGENT, JWT + "c": CLIENT})
    async with TokenRig(verifier, relay={"park_seconds": 0.1}) as rig:
        agent = await attach_raw(rig)
        agent.leg.abortConnection()
        await until(lambda: rig.relay.rooms.room_count == 0)
        client = await rig.connect(request("/client?room=r", bearer(JWT + "c")))
        await client.ends()
        assert status(client) == 503
        assert rig.relay.context.grants is not None
        assert len(rig.relay.context.grants) == 0
