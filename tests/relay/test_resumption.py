"""An agent that loses its carrier resumes, and no connected client is affected."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from seance.agent.relay_link import RelayLink
from seance.agent.service import AgentState, AgentStatus
from seance.errors import CarrierLost
from seance.relay.rooms.agent_link import AgentLink
from tests.relay.rig import Player, Rig, request, turn, until

QUICK = {"backoff_base_seconds": 0.02, "resume_backoff_cap_seconds": 0.02}


def raw_of(link: AgentLink) -> Any:
    """Return the relay's transport of a link."""
    lasting: Any = link._mux.transport  # type: ignore[union-attr]  # it is attached
    return lasting.carrier.transport


def session_of(link: AgentLink) -> Any:
    return link._session


async def cut_off(kept: RelayLink | None) -> RelayLink:
    """An endpoint that fails, as without a network."""
    raise CarrierLost("The network is gone.")


async def back(rig: Rig, link: AgentLink) -> None:
    await until(lambda: link.is_attached and rig.agent.status.state is AgentState.CONNECTED)


@ensureDeferred
async def test_a_cut_disconnects_no_client_and_loses_no_byte() -> None:
    async with Rig(agent=QUICK) as rig:
        pairs = [await rig.joined() for _ in range(5)]
        link = rig.relay.rooms._table.find("r")
        for player in (one for pair in pairs for one in pair):
            player.received = b""
        sent = b""
        for number in range(6):
            words = b"".join(b"<%d %d>" % (number, word) for word in range(200))
            sent += words
            for client, local in pairs:
                client.send(words)
                local.send(words)
            raw_of(link).abortConnection()
            await until(lambda: link.is_resuming or link.is_attached)
            await back(rig, link)
        players = [one for pair in pairs for one in pair]
        await until(lambda: all(len(one.received) >= len(sent) for one in players))
        for client, local in pairs:
            assert bytes(client.received) == bytes(local.received) == sent
            assert client.lost is None
            assert local.lost is None
        assert rig.relay.rooms._table.find("r") is link


@ensureDeferred
async def test_a_cut_agent_reports_resuming_and_not_waiting() -> None:
    async with Rig(agent=QUICK) as rig:
        await rig.joined()
        news: list[AgentStatus] = []
        rig.agent.on_status(news.append)
        link = rig.relay.rooms._table.find("r")
        raw_of(link).abortConnection()
        await until(lambda: news and news[-1].state is AgentState.CONNECTED)
        states = {status.state for status in news}
        assert states == {AgentState.RESUMING, AgentState.CONNECTED}


@ensureDeferred
async def test_a_client_may_connect_or_disconnect_during_the_resumption() -> None:
    async with Rig(agent=QUICK | {"backoff_base_seconds": 0.3, "resume_backoff_cap_seconds": 0.3}) as rig:
        client, local = await rig.joined()
        link = rig.relay.rooms._table.find("r")
        raw_of(link).abortConnection()
        await until(lambda: link.is_resuming)
        client.leg.abortConnection()
        newcomer = await rig.connect(request("/client?room=r"))
        await local.goes()
        await back(rig, link)
        await until(lambda: len(rig.locals) == 2)
        assert rig.relay.rooms.client_count == rig.agent.client_count == 1
        newcomer.leg.abortConnection()


@ensureDeferred
async def test_an_agent_that_does_not_return_in_time_loses_its_clients() -> None:
    async with Rig(relay={"resume_seconds": 0.2}, agent=QUICK) as rig:
        client, local = await rig.joined()
        link = rig.relay.rooms._table.find("r")
        raw = raw_of(link)
        rig.agent._dial = cut_off  # type: ignore[method-assign]
        raw.abortConnection()
        await until(lambda: link.is_resuming)
        await client.ends()
        await until(lambda: rig.relay.rooms.room_count == 0)
        await rig.agent.stopService()
        await local.goes()


@ensureDeferred
async def test_a_session_that_the_relay_has_dropped_ends_at_the_agent_too() -> None:
    async with Rig(agent=QUICK) as rig:
        client, local = await rig.joined()
        link = rig.relay.rooms._table.find("r")
        raw_of(link).abortConnection()
        await until(lambda: link.is_resuming)
        session_of(link).end("forgotten")
        await client.ends()
        await local.goes()
        await until(lambda: rig.agent.status.state is AgentState.CONNECTED)
        assert rig.relay.rooms._table.find("r") is not link
        await rig.joined()


@ensureDeferred
async def test_a_wrong_resume_secret_is_refused_and_affects_no_client() -> None:
    async with Rig(agent=QUICK) as rig:
        client, local = await rig.joined()
        link = rig.relay.rooms._table.find("r")
        resume_request = f"sid={session_of(link).sid}; token=AAAAAAAAAAAAAAAAAAAAAAAA; recv=0; crc=00000000"
        for _ in range(50):
            stranger = await rig.connect(
                request(
                    "/agent?room=r",
                    "Sec-WebSocket-Protocol: seance.resume.v1",
                    f"Seance-Resume: {resume_request}",
                )
            )
            await stranger.ends()
            assert stranger.received.startswith(b"HTTP/1.1 409 ")
        client.send(b"still here")
        await local.receives(b"still here")
        assert rig.relay.rooms._table.find("r") is link
        assert link.is_attached


@ensureDeferred
async def test_an_agent_whose_101_was_lost_resumes_with_the_previous_secret() -> None:
    async with Rig(agent=QUICK) as rig:
        client, local = await rig.joined()
        link = rig.relay.rooms._table.find("r")
        relay_link: Any = rig.agent._relay_link
        before = relay_link._session
        raw_of(link).abortConnection()
        await until(lambda: link.is_resuming)
        await back(rig, link)
        assert relay_link._session.token != before.token
        # Before an acknowledgement on the new carrier, the relay assumes that the 101 was lost.
        relay_link._session = before
        raw_of(link).abortConnection()
        await until(lambda: relay_link._session is not before)
        client.send(b"here")
        await local.receives(b"here")
        assert rig.relay.rooms._table.find("r") is link


@pytest.mark.slow
@ensureDeferred
async def test_a_session_that_resumes_too_often_must_wait_and_survives() -> None:
    async with Rig(agent=QUICK) as rig:
        client, local = await rig.joined()
        link = rig.relay.rooms._table.find("r")
        for _ in range(5):
            raw_of(link).abortConnection()
            await until(lambda: link.is_resuming)
            await back(rig, link)
        news: list[AgentStatus] = []
        rig.agent.on_status(news.append)
        raw_of(link).abortConnection()
        await until(lambda: any("too often" in status.sentence for status in news))
        await back(rig, link)
        client.send(b"here")
        await local.receives(b"here")


@ensureDeferred
async def test_a_relay_without_resumption_serves_the_agent() -> None:
    async with Rig(relay={"resume_seconds": 0.0}, agent=QUICK) as rig:
        client, local = await rig.joined()
        link = rig.relay.rooms._table.find("r")
        mux: Any = link._mux
        mux.transport.abortConnection()
        await client.ends()
        await local.goes()
        await until(
            lambda: rig.relay.rooms.room_count == 1 and rig.agent.status.state is AgentState.CONNECTED
        )
        await rig.joined()


@ensureDeferred
async def test_an_agent_without_resumption_is_served() -> None:
    async with Rig(agent=QUICK | {"resume": False}) as rig:
        client, _ = await rig.joined()
        link = rig.relay.rooms._table.find("r")
        mux: Any = link._mux
        mux.transport.abortConnection()
        await client.ends()
        assert not link.is_resuming


@pytest.mark.slow
@ensureDeferred
async def test_a_client_that_does_not_read_during_the_resumption_costs_limited_memory() -> None:
    async with Rig(relay={"resume_bytes": 128 * 1024}, agent=QUICK | {"resume_bytes": 128 * 1024}) as rig:
        client, local = await rig.joined()
        link = rig.relay.rooms._table.find("r")
        dial = rig.agent._dial
        rig.agent._dial = cut_off  # type: ignore[method-assign]
        raw_of(link).abortConnection()
        await until(lambda: link.is_resuming)
        block = b"x" * 65536
        for _ in range(100):
            client.send(block)
            local.send(block)
            await turn()
        await turn(0.2)
        assert link.kept_bytes <= 128 * 1024 + 65536
        received = len(local.received)
        rig.agent._dial = dial  # type: ignore[method-assign]
        await back(rig, link)
        await until(lambda: len(local.received) >= received + 100 * 65536)
        assert isinstance(client, Player)


@ensureDeferred
async def test_the_longest_disconnected_agents_are_dropped_when_memory_is_short() -> None:
    async with Rig(relay={"resume_bytes_in_all": 300_000}, agent=QUICK) as rig:
        client, local = await rig.joined()
        link = rig.relay.rooms._table.find("r")
        rig.agent._dial = cut_off  # type: ignore[method-assign]
        raw_of(link).abortConnection()
        await until(lambda: link.is_resuming)
        for _ in range(40):
            client.send(b"x" * 65536)
            await turn()
        assert link.held_bytes < 300_000, "a client is read no further than its stream takes"
        rig.relay.rooms.resume_memory._max_bytes = link.held_bytes
        await client.ends()
        await until(lambda: rig.relay.rooms.room_count == 0)
        await rig.agent.stopService()
        await local.goes()


@ensureDeferred
async def test_agents_are_refused_when_the_resume_memory_is_used_up() -> None:
    async with Rig(with_agent=False) as rig:
        rig.relay.rooms.resume_memory._max_bytes = 0
        agent = rig.make_agent()
        news: list[AgentStatus] = []
        agent.on_status(news.append)
        agent.startService()
        await until(lambda: any("no memory for another agent" in status.sentence for status in news))
        assert news[-1].retry_seconds >= 2  # type: ignore[operator]  # it waits
