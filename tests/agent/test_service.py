"""The agent: its dials, its status, and that no error ends its loop."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock

from seance.agent import service as agent_module
from seance.agent.service import Agent, AgentState, AgentStatus
from seance.core.settings import AgentSettings
from seance.errors import CarrierLost, ConfigError
from tests.conftest import Watch
from tests.relay.rig import Player, Rig, reactor, request, turn, until


class Dials:
    """Replaces ``seance.carrier.dial``: each attempt waits until the test ends it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.attempts: list[Deferred[Any]] = []
        self.cancelled: list[Deferred[Any]] = []
        monkeypatch.setattr(agent_module, "dial", self.dial)

    def dial(self, *args: object, **kwargs: object) -> Deferred[Any]:
        attempt: Deferred[Any] = Deferred(self.cancelled.append)
        self.attempts.append(attempt)
        return attempt

    def fail(self, error: Exception) -> None:
        self.attempts[-1].errback(error)


def started(monkeypatch: pytest.MonkeyPatch, **options: Any) -> tuple[Clock, Dials, Agent]:
    clock = Clock()
    dials = Dials(monkeypatch)
    monkeypatch.setattr(agent_module.random, "random", lambda: 1.0)
    agent = Agent(clock, AgentSettings(room="r", **options))
    agent.startService()
    return clock, dials, agent


def pass_time(clock: Clock, seconds: float) -> None:
    """Advance in small steps, because the agent takes a large step for sleep."""
    whole, rest = divmod(seconds, 0.5)
    clock.pump([0.5] * int(whole) + [rest])


@ensureDeferred
async def test_agent_reports_its_status() -> None:
    async with Rig(with_agent=False) as rig:
        agent = rig.make_agent()
        news: list[AgentStatus] = []
        agent.on_status(news.append)
        assert agent.status.state is AgentState.STOPPED
        agent.startService()
        await agent.when_connected()
        assert agent.client_count == 0
        await agent.stopService()
        assert [status.state for status in news] == [
            AgentState.CONNECTING,
            AgentState.CONNECTED,
            AgentState.STOPPED,
        ]


@ensureDeferred
async def test_when_connected_fires_immediately_if_connected() -> None:
    async with Rig() as rig:
        assert rig.agent.when_connected().called


@ensureDeferred
async def test_agent_reconnects_after_its_relay_was_restarted() -> None:
    async with Rig(agent={"backoff_base_seconds": 0.05, "backoff_cap_seconds": 0.05}) as rig:
        link = rig.relay.rooms._table.find("r")
        link.cut()
        await until(lambda: link not in list(rig.relay.rooms._table) and rig.relay.rooms.room_count == 1)
        await rig.agent.when_connected()
        client, local = await rig.joined()
        client.send(b"again")
        await local.receives(b"again")


@ensureDeferred
async def test_each_attempt_after_a_loss_is_reported() -> None:
    async with Rig(agent={"resume": False, "backoff_base_seconds": 0.05}) as rig:
        news: list[AgentStatus] = []
        rig.agent.on_status(news.append)
        rig.relay.rooms._table.find("r").cut()
        await until(lambda: news and news[-1].state is AgentState.CONNECTED)
        states = [status.state for status in news]
        assert states == [AgentState.WAITING, AgentState.CONNECTING, AgentState.CONNECTED]


@ensureDeferred
async def test_second_agent_is_refused_until_the_room_is_free() -> None:
    async with Rig() as rig:
        second = rig.make_agent(backoff_base_seconds=0.05, backoff_cap_seconds=0.05)
        news: list[AgentStatus] = []
        second.on_status(news.append)
        second.startService()
        await until(lambda: any(status.state is AgentState.WAITING for status in news))
        assert "This room is taken" in news[-1].sentence
        assert rig.agent.status.state is AgentState.CONNECTED
        await rig.agent.stopService()
        await second.when_connected()


@ensureDeferred
async def test_unreachable_relay_is_one_clear_message() -> None:
    async with Rig(with_agent=False) as rig:
        agent = rig.make_agent(relay="ws://127.0.0.1:1")
        news: list[AgentStatus] = []
        agent.on_status(news.append)
        agent.startService()
        await until(lambda: any(status.state is AgentState.WAITING for status in news))
        assert news[-1].sentence == "Nothing listens at the relay's address 127.0.0.1:1"


def test_waits_double_up_to_the_cap_and_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, dials, agent = started(monkeypatch)
    seen = []
    for _ in range(9):
        dials.fail(CarrierLost("no"))
        assert agent.status.retry_seconds is not None
        seen.append(agent.status.retry_seconds)
        pass_time(clock, seen[-1])
    assert seen == [0.5, 1, 2, 4, 8, 10, 10, 10, 10]
    agent.stopService()
    assert clock.getDelayedCalls() == []


def test_bug_in_the_handling_of_a_refusal_does_not_end_the_loop(
    monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    clock, dials, agent = started(monkeypatch)
    monkeypatch.setattr(agent_module, "retry_after_seconds", lambda error: 1 / 0)
    dials.fail(CarrierLost("no"))
    assert agent.status.state is AgentState.WAITING
    clock.advance(0.5)
    assert len(dials.attempts) == 2
    watch.take(ZeroDivisionError)
    agent.stopService()


def test_unexpected_error_is_logged_and_the_agent_dials_again(
    monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    clock, dials, agent = started(monkeypatch)
    dials.fail(ZeroDivisionError("unexpected"))
    assert agent.status.state is AgentState.WAITING
    clock.advance(0.5)
    assert len(dials.attempts) == 2
    watch.take(ZeroDivisionError)
    agent.stopService()


def test_stopping_while_dialling_cancels_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    _, dials, agent = started(monkeypatch)
    agent.stopService()
    assert dials.cancelled == dials.attempts
    assert agent.status.state is AgentState.STOPPED


def test_stopping_while_waiting_prevents_the_next_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, dials, agent = started(monkeypatch)
    dials.fail(CarrierLost("no"))
    agent.stopService()
    clock.advance(100)
    assert len(dials.attempts) == 1


def test_attempt_that_fails_because_of_the_stop_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    attempts: list[Deferred[Any]] = []

    def dial(*args: object, **kwargs: object) -> Deferred[Any]:
        attempts.append(Deferred(lambda attempt: attempt.errback(CarrierLost("no"))))
        return attempts[-1]

    monkeypatch.setattr(agent_module, "dial", dial)
    agent = Agent(clock, AgentSettings(room="r"))
    agent.startService()
    agent.stopService()
    assert len(attempts) == 1
    assert agent.status.state is AgentState.STOPPED
    assert clock.getDelayedCalls() == []


def test_stopped_agent_can_be_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    _, dials, agent = started(monkeypatch)
    agent.stopService()
    agent.startService()
    assert len(dials.attempts) == 2
    agent.stopService()


def test_failing_listener_does_not_affect_other_listeners(
    monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    news: list[AgentStatus] = []

    def fail(status: AgentStatus) -> None:
        raise ZeroDivisionError

    _, dials, agent = started(monkeypatch)
    agent.on_status(fail)
    remove = agent.on_status(news.append)
    dials.fail(CarrierLost("no"))
    assert [status.retry_seconds for status in news] == [0.5]
    remove()
    agent.stopService()
    assert len(news) == 1
    watch.take(ZeroDivisionError)


@ensureDeferred
async def test_local_trouble_ends_when_the_local_server_accepts_a_connection() -> None:
    async with Rig() as rig:
        news: list[AgentStatus] = []
        rig.agent.on_status(news.append)
        connected = rig.agent.status
        await rig.while_local_server_is_away()
        [trouble] = news
        assert (trouble.state, trouble.code) == (AgentState.LOCAL_TROUBLE, "local_server_refused")
        await rig.joined()
        await rig.joined()
        assert news == [trouble, connected]
        assert rig.agent.status is connected


@ensureDeferred
async def test_healthy_link_resets_the_waits() -> None:
    options = {"backoff_base_seconds": 0.001, "backoff_cap_seconds": 0.4, "healthy_seconds": 0.0}
    async with Rig(agent=options) as rig:
        for _ in range(9):
            rig.agent._waits.usual.next_seconds()
        link = rig.relay.rooms._table.find("r")
        link.cut()
        await until(lambda: link not in list(rig.relay.rooms._table) and rig.relay.rooms.room_count == 1)
        assert rig.agent._waits.usual._bound_seconds < 0.4


@ensureDeferred
async def test_relay_that_never_answers_is_given_up_in_time() -> None:
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    factory = Factory.forProtocol(Player)
    port = await endpoint.listen(factory)
    settings = AgentSettings(room="r", relay=f"ws://127.0.0.1:{port.getHost().port}", dial_seconds=0.1)
    agent = Agent(reactor, settings)
    news: list[AgentStatus] = []
    agent.on_status(news.append)
    agent.startService()
    await until(lambda: any(status.state is AgentState.WAITING for status in news))
    assert "did not answer within 0.1 s" in news[-1].sentence
    await agent.stopService()
    await port.stopListening()


@ensureDeferred
async def test_stream_without_a_head_gets_400_in_time() -> None:
    async with Rig(agent={"head_seconds": 0.05}) as rig:
        stream = rig.relay.rooms._table.find("r").open_stream(player := Player())
        stream.write(b"GET / HT")
        await player.ends()
        assert player.received.startswith(b"HTTP/1.1 400 ")
        assert b"No request head came within 0.05 s" in player.received


@ensureDeferred
async def test_stream_that_is_not_http_gets_400() -> None:
    async with Rig() as rig:
        rig.relay.rooms._table.find("r").open_stream(player := Player()).write(b"\x00\x01\x02\r\n\r\n")
        await player.ends()
        assert player.received.startswith(b"HTTP/1.1 400 ")


@ensureDeferred
async def test_head_over_the_agents_bound_is_told_so() -> None:
    async with Rig(agent={"head_bytes": 1000}) as rig:
        client = await rig.connect(request("/client?room=r", "X: " + "y" * 2000))
        await client.ends()
        assert client.received.startswith(b"HTTP/1.1 431 ")


@ensureDeferred
async def test_data_after_the_head_waits_for_the_local_server_and_arrives() -> None:
    async with Rig() as rig:
        rig.relay.rooms._table.find("r").open_stream(player := Player()).write(request("/doc") + b"early")
        local = await rig.local()
        await local.receives(b"early")
        player.leg.abortConnection()
        await local.closes_in_order()


@ensureDeferred
async def test_agent_bounds_its_streams() -> None:
    async with Rig(agent={"streams": 2}) as rig:
        for _ in range(2):
            await rig.joined()
        third = await rig.connect(request())
        await third.ends()
        assert third.received.startswith(b"HTTP/1.1 503 ")


@ensureDeferred
async def test_local_server_behind_a_unix_socket(tmp_path: Any) -> None:
    from twisted.internet.endpoints import UNIXServerEndpoint

    async with Rig(with_agent=False) as rig:
        path = str(tmp_path / "local.sock")
        players: list[Player] = []
        factory = Factory.forProtocol(Player)
        build = factory.buildProtocol
        factory.buildProtocol = lambda addr: players.append(build(addr)) or players[-1]  # type: ignore[method-assign]
        port = await UNIXServerEndpoint(reactor, path).listen(factory)
        await rig.attach(local=f"unix:{path}")
        client = await rig.connect(request())
        await until(lambda: players and b"\r\n\r\n" in players[0].received)
        assert b"Host: localhost\r\n" in players[0].received
        client.leg.abortConnection()
        await players[0].ends()  # a UNIX socket has no reset
        players[0].leg.loseConnection()
        await port.stopListening()


@pytest.mark.parametrize(
    ("field", "value"),
    [("room", ""), ("room", "a b"), ("room", ".."), ("relay", "ftp://x"), ("local", "nowhere")],
)
def test_bad_setting_raises_with_a_message(field: str, value: str) -> None:
    with pytest.raises(ConfigError, match=r"\.$|use "):
        Agent(Clock(), AgentSettings(**{"room": "r", field: value}))


@ensureDeferred
async def test_stopping_twice_is_fine() -> None:
    async with Rig() as rig:
        await rig.agent.stopService()
        await rig.agent.stopService()
        await turn()


@ensureDeferred
async def test_stop_does_not_wait_for_a_relay_that_does_not_close() -> None:
    async with Rig(agent={"drain_seconds": 0.05}) as rig:
        link = rig.relay.rooms._table.find("r")
        assert link._mux is not None
        lasting: Any = link._mux.transport
        raw = lasting.carrier.transport
        raw.pauseProducing()
        await rig.agent.stopService()
        raw.resumeProducing()
        await until(lambda: rig.relay.rooms.room_count == 0)


@ensureDeferred
async def test_agent_stopped_by_a_status_listener_keeps_no_link() -> None:
    async with Rig(with_agent=False) as rig:
        agent = rig.make_agent()
        stopping: list[object] = []

        def stop(status: AgentStatus) -> None:
            if status.state is AgentState.CONNECTING and not stopping:
                stopping.append(agent.stopService())

        agent.on_status(stop)
        agent.startService()
        await until(lambda: agent.status.state is AgentState.STOPPED)
        await turn(0.2)
        assert rig.relay.rooms.room_count == 0
