"""Draining: the slots of agents, the rate of client closes, and the limits of both, on a clock."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from seance.core.settings import RelaySettings
from seance.net import OneShotEvent
from seance.relay.drain import AGENTS_PER_SECOND, GRACE_SECONDS, Departures, Drain, slots
from tests.relay.rig import Rig, request, turn, until


class Agent:
    """A link, as the drain sees it."""

    def __init__(self, clock: Clock, departures: Departures, *, is_plain: bool = False) -> None:
        self._clock = clock
        self._departures = departures
        self._is_plain = is_plain
        self._lost: OneShotEvent[None] = OneShotEvent()
        self.is_attached = True
        self.clients: list[Client] = []
        self.told: list[tuple[float, float, float]] = []
        self.left: list[tuple[float, int]] = []
        self.was_cut = False
        self.leaves_when_asked = True

    def notice_drain(self, in_seconds: float, try_seconds: float, on_moved: Callable[[], None]) -> bool:
        if not self._is_plain:
            self.told.append((self._clock.seconds(), in_seconds, try_seconds))
        return not self._is_plain

    def leave(self, reason: str, code: int = 1001) -> None:
        self.left.append((self._clock.seconds(), code))
        if self.leaves_when_asked:
            self.go()

    def cut(self) -> None:
        self.was_cut = True

    def when_lost(self) -> Deferred[None]:
        return self._lost.when()

    def go(self) -> None:
        """Lose the carrier: its clients lose their streams, then the link is removed."""
        for client in self.clients:
            if not client.seen_off_at:
                self._departures.lost_agent(client)
        self._lost.fire(None)


class Client:
    """A client; its connection ends as soon as the drain closes it."""

    def __init__(self, clock: Clock, departures: Departures, agent: Agent, *, stays: bool = False) -> None:
        self._clock = clock
        self._departures = departures
        self._agent = agent
        self._stays = stays
        self.seen_off_at: float | None = None
        self.was_cut = False
        agent.clients.append(self)
        departures.add(self, agent)

    def close_gracefully(self) -> None:
        assert self.seen_off_at is None, "once"
        self.seen_off_at = self._clock.seconds()
        if not self._stays:
            self.go()

    def cut(self) -> None:
        self.was_cut = True
        self.go()

    def go(self) -> None:
        self._departures.remove(self, self._agent)


class Scene:
    """A relay that is about to stop."""

    def __init__(
        self, *, agents: int = 0, clients: int = 0, is_plain: bool = False, **settings: float
    ) -> None:
        self.clock = Clock()
        self.departures = Departures(self.clock)
        self.agents = [Agent(self.clock, self.departures, is_plain=is_plain) for _ in range(agents)]
        self.clients = [self.client(agent) for agent in self.agents for _ in range(clients)]
        numbers = random.Random(4)
        told = RelaySettings(**settings)  # type: ignore[arg-type]  # numbers, as there
        self.drain = Drain(self.clock, told, self.departures, random=numbers.random)

    def client(self, agent: Agent, *, stays: bool = False) -> Client:
        return Client(self.clock, self.departures, agent, stays=stays)

    def begin(self) -> None:
        self.drain.begin(self.agents)

    def run(self, seconds: float) -> None:
        self.clock.pump([0.01] * round(seconds * 100))

    @property
    def is_over(self) -> bool:
        return self.drain.when_over().called

    def check_clean(self) -> None:
        assert self.is_over
        assert self.clock.getDelayedCalls() == []
        assert len(self.departures) == 0


def most_in_a_second(times: list[float]) -> int:
    return max(sum(start <= time < start + 1 for time in times) for start in times)


def test_a_relay_without_connections_finishes_immediately() -> None:
    scene = Scene()
    scene.begin()
    scene.check_clean()


@given(st.integers(0, 500), st.floats(0, 45), st.randoms(use_true_random=False))
def test_slots_are_one_per_equal_part_of_the_time(count: int, spread: float, numbers: random.Random) -> None:
    times = slots(count, spread, numbers.random)
    assert len(times) == count
    for number, time in enumerate(times):
        assert number * spread / count <= time <= (number + 1) * spread / count


def test_agents_are_notified_one_per_equal_part_of_the_spread() -> None:
    scene = Scene(agents=200, drain_spread_seconds=5.0, drain_try_seconds=4.0)
    scene.begin()
    scene.run(5)
    told = [agent.told[0] for agent in scene.agents]
    assert all(len(agent.told) == 1 for agent in scene.agents)
    assert {(in_seconds, try_seconds) for _, in_seconds, try_seconds in told} == {(0.0, 4.0)}
    times = [time for time, _, _ in told]
    assert max(times) > 4.9
    assert most_in_a_second(times) <= 42
    for agent in scene.agents:
        agent.go()
    scene.check_clean()


def test_few_agents_do_not_wait_for_the_whole_spread() -> None:
    scene = Scene(agents=2, drain_spread_seconds=5.0)
    scene.begin()
    scene.run(2 / AGENTS_PER_SECOND + 0.02)
    assert all(agent.told for agent in scene.agents)


def test_a_plain_agent_gets_1012_at_its_slot() -> None:
    scene = Scene(agents=1, is_plain=True)
    scene.begin()
    scene.run(0.2)
    [(time, code)] = scene.agents[0].left
    assert code == 1012
    assert time <= 1 / AGENTS_PER_SECOND + 0.02
    scene.check_clean()


def test_clients_are_closed_at_the_configured_rate() -> None:
    scene = Scene(agents=2, clients=150, drain_clients_per_second=50)
    scene.begin()
    scene.run(0.2)
    for agent in scene.agents:
        agent.go()  # they have moved
    scene.run(0.5)
    assert not scene.is_over
    scene.run(7)
    times = [client.seen_off_at or 0.0 for client in scene.clients]
    assert most_in_a_second(times) <= 52
    assert max(times) - min(times) == pytest.approx(6.0, abs=0.2)
    scene.check_clean()


def test_a_rate_below_one_per_tick_is_kept() -> None:
    scene = Scene(agents=1, clients=5, drain_clients_per_second=1)
    scene.begin()
    scene.agents[0].go()
    scene.run(6)
    times = sorted(client.seen_off_at or 0.0 for client in scene.clients)
    assert all(later - earlier >= 0.97 for earlier, later in itertools.pairwise(times))
    scene.check_clean()


def test_an_agent_that_finds_no_other_relay_is_closed_after_its_clients() -> None:
    scene = Scene(agents=1, clients=10, drain_try_seconds=3.0)
    scene.begin()
    scene.run(3.0)
    assert not any(client.seen_off_at for client in scene.clients), "they go on working meanwhile"
    scene.run(GRACE_SECONDS + 0.5)
    assert all(client.seen_off_at for client in scene.clients)
    [(time, code)] = scene.agents[0].left
    assert code == 1012
    assert time >= max(client.seen_off_at or 0.0 for client in scene.clients)
    scene.check_clean()


def test_the_drain_does_not_wait_for_a_session_without_a_carrier() -> None:
    scene = Scene(agents=1, clients=3)
    scene.agents[0].is_attached = False
    scene.begin()
    scene.run(0.5)
    assert not scene.agents[0].told
    scene.check_clean()


def test_the_rate_rises_if_the_time_would_not_suffice() -> None:
    scene = Scene(agents=1, clients=1000, drain_clients_per_second=10, drain_seconds=10.0)
    scene.begin()
    scene.run(1.0)
    scene.agents[0].go()
    scene.run(8.9)
    scene.check_clean()
    assert not any(client.was_cut for client in scene.clients)


def test_agents_with_the_last_slots_are_closed_before_the_timeout() -> None:
    scene = Scene(agents=80, drain_seconds=4.0)
    scene.begin()
    scene.run(3.2)
    scene.check_clean()
    assert all(agent.left and not agent.was_cut for agent in scene.agents)


def test_a_blocked_reactor_does_not_cause_a_burst_afterwards() -> None:
    scene = Scene(agents=1, clients=1000, drain_clients_per_second=100, drain_seconds=60.0)
    scene.begin()
    scene.agents[0].go()
    scene.clock.advance(5.0)
    assert sum(client.seen_off_at is not None for client in scene.clients) <= 25
    scene.run(11)
    scene.check_clean()


def test_all_remaining_connections_are_cut_after_the_timeout() -> None:
    scene = Scene(agents=1, drain_seconds=4.0)
    deaf = scene.client(scene.agents[0], stays=True)
    scene.agents[0].leaves_when_asked = False
    scene.begin()
    scene.run(3.9)
    assert deaf.seen_off_at
    assert not scene.is_over
    scene.run(0.2)
    assert deaf.was_cut
    assert scene.agents[0].was_cut
    scene.check_clean()


def test_a_client_that_disconnects_does_not_use_a_slot() -> None:
    scene = Scene(agents=1, clients=4, drain_clients_per_second=1)
    scene.begin()
    scene.agents[0].go()
    scene.run(0.1)
    waiting = [client for client in scene.clients if not client.seen_off_at]
    for client in waiting[:-1]:
        client.go()
    scene.run(2.1)
    assert waiting[-1].seen_off_at
    scene.check_clean()


def test_without_a_drain_a_client_without_its_agent_is_closed_immediately() -> None:
    scene = Scene(agents=1, clients=3)
    scene.agents[0].go()
    assert all(client.seen_off_at == 0.0 for client in scene.clients)
    assert len(scene.departures) == 0
    assert scene.clock.getDelayedCalls() == []


@pytest.mark.parametrize("seed", range(30))
def test_all_connections_end_in_time_for_any_behaviour(seed: int) -> None:
    """Agents that move, stay, or disconnect and return at random; clients that close or do not."""
    numbers = random.Random(seed)
    scene = Scene(
        agents=numbers.randrange(20),
        drain_seconds=numbers.choice([0.5, 3.0, 12.0]),
        drain_spread_seconds=numbers.choice([0.01, 5.0, 45.0]),
        drain_clients_per_second=numbers.choice([5, 200]),
    )
    for agent in scene.agents:
        agent._is_plain = numbers.random() < 0.3
        agent.is_attached = numbers.random() < 0.9
        agent.leaves_when_asked = numbers.random() < 0.8
        for _ in range(numbers.randrange(30)):
            scene.client(agent, stays=numbers.random() < 0.05)
    scene.begin()
    acts: list[Callable[[], None]] = [agent.go for agent in scene.agents]
    for act in numbers.sample(acts, len(acts) // 2):
        scene.clock.callLater(numbers.random() * 12, act)
    scene.run(scene.drain._settings.drain_seconds + 0.05)
    assert scene.is_over
    assert len(scene.departures) == 0
    assert all(agent.was_cut or agent.when_lost().called for agent in scene.agents)


@ensureDeferred
async def test_new_clients_during_the_drain_get_503_with_retry_after() -> None:
    async with Rig(relay={"drain_seconds": 1.0}) as rig:
        late = await rig.connect(b"GET /health HTTP/1.1\r\n")
        later = await rig.connect(request()[:-2])
        _, local = await rig.joined()
        stopping = rig.relay.stopService()
        assert rig.relay.is_draining
        late.send(b"Host: h\r\n\r\n")
        later.send(b"\r\n")
        await late.ends()
        await later.ends()
        assert late.received.startswith(b"HTTP/1.1 503 ")
        assert late.received.endswith(b"draining")
        assert later.received.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: " in later.received
        local.send(b"\x82\x02hi")
        await rig.clients[2].receives(b"hi")
        await stopping


@ensureDeferred
async def test_an_agent_moves_to_the_relay_that_takes_the_port() -> None:
    """Both in one process on one port: the new one listens while the old one drains."""
    async with Rig() as rig:
        client, local = await rig.joined()
        local.send(b"\x82\x05hello")
        await client.receives(b"hello")
        stopping = rig.relay.stopService()
        await turn(0.05)
        old, rig.relay = (
            rig.relay,
            type(rig.relay)(
                rig.relay._reactor, RelaySettings(listen=(f"tcp:{rig.port}:interface=127.0.0.1",))
            ),
        )
        rig.relay.startService()
        await client.ends()
        assert client.received[7:8] == b"\x88"
        client.leg.loseConnection()
        await stopping
        assert old.rooms.room_count == 0
        assert rig.relay.rooms.room_count == 1
        again, local = await rig.joined()
        local.send(b"\x82\x02hi")
        await again.receives(b"hi")


@ensureDeferred
async def test_clients_are_served_until_their_slot_after_the_agent_has_moved() -> None:
    async with Rig(relay={"drain_clients_per_second": 4.0}) as rig:
        joined = [await rig.joined() for _ in range(6)]
        [agent] = rig._agents
        stopping = rig.relay.stopService()
        await turn(0.05)
        old, rig.relay = (
            rig.relay,
            type(rig.relay)(
                rig.relay._reactor, RelaySettings(listen=(f"tcp:{rig.port}:interface=127.0.0.1",))
            ),
        )
        rig.relay.startService()
        await until(lambda: rig.relay.rooms.room_count == 1)
        new, new_local = await rig.joined()
        assert old.rooms.room_count == 1, "it still serves those who are left"
        assert agent.client_count >= 2
        client, local = joined[-1]
        client.send(b"\x82\x80\0\0\0\0")
        await local.receives(b"\x82\x80")
        local.send(b"\x82\x02hi")
        await client.receives(b"hi")
        for client, _ in joined:
            await client.ends()
            assert b"\x03\xf4" in client.received, "closed with 1012"
            client.leg.loseConnection()
        await stopping
        assert old.rooms.room_count == 0
        new_local.send(b"\x82\x02hi")
        await new.receives(b"hi")
        await until(lambda: agent.client_count == 1)


@ensureDeferred
async def test_a_stopping_agent_does_not_move() -> None:
    async with Rig() as rig:
        await rig.joined()
        [agent] = rig._agents
        stopping = agent.stopService()
        rig.relay.rooms._table.find("r").notice_drain(0.0, 5.0, lambda: None)
        await stopping
        await turn(0.1)
        assert agent._search is None
        assert rig.relay.rooms.room_count == 0
