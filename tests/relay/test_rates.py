"""Clients, status requests and other agents cannot keep an agent from its room by using up rates."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from seance.auth.agent_key import AgentKey
from seance.carrier.link_control import SUBPROTOCOLS
from seance.relay import service as relay_module
from seance.relay.edge import admission as admission_module
from seance.resume import ResumeRequest
from tests.agent.test_identity import IdentityRig
from tests.relay.rig import Player, Rig, request, turn, until
from tests.relay.test_active_grants import AGENT, CLIENT, JWT, TokenRig, Verifier, bearer
from tests.relay.test_resumption import QUICK, back, raw_of

ONE_EACH = {"upgrades_per_address": 0, "upgrades_per_room": 0}
"""A bucket with one token that is never filled again."""

STATUS = b"GET /c/r/status HTTP/1.1\r\nHost: relay.example\r\n\r\n"


@pytest.fixture(autouse=True)
def far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Count all connections by address, although the tests dial from loopback."""
    monkeypatch.setattr(admission_module, "_is_loopback", lambda holder: False)
    return


async def answer(rig: Rig, sent: bytes) -> bytes:
    """Return the status and the retry time of a refusal."""
    player = await rig.connect(sent)
    await player.receives(b"\r\n\r\n")
    player.leg.abortConnection()
    return bytes(player.received)


async def status(rig: Rig, sent: bytes) -> int:
    return int((await answer(rig, sent))[9:12])


def resuming(resume_request: ResumeRequest, *fields: str) -> bytes:
    """Return the upgrade request of an agent that resumes a session."""
    offer = "Sec-WebSocket-Protocol: " + ", ".join(SUBPROTOCOLS)
    return request("/agent?room=r", offer, f"Seance-Resume: {resume_request.written()}", *fields)


@ensureDeferred
async def test_an_agent_resumes_although_the_rate_is_used_up() -> None:
    async with Rig(relay=ONE_EACH, agent=QUICK) as rig:
        client, local = await rig.joined()
        for sent in (request("/c/r"), request("/agent?room=r"), STATUS, STATUS):
            await answer(rig, sent)
        link = rig.relay.rooms._table.find("r")
        for _ in range(3):
            raw_of(link).abortConnection()
            await until(lambda: link.is_resuming)
            await back(rig, link)
        client.send(b"still here")
        await local.receives(b"still here")


@ensureDeferred
async def test_an_agent_without_proof_of_its_session_is_limited_with_a_short_retry_time() -> None:
    """An agent never waits for longer between two attempts than a session is kept."""
    resume_request = ResumeRequest("s" * 22, "t" * 43, 0, 0)
    async with Rig(relay=ONE_EACH) as rig:
        said = await answer(rig, resuming(resume_request))
        assert said.startswith(b"HTTP/1.1 429 ")
        assert b"\r\nRetry-After: 2\r\n" in said
        link = rig.relay.rooms._table.find("r")
        kept: Any = link._session
        half = replace(resume_request, sid=kept.sid)
        assert await status(rig, resuming(half)) == 429
        assert link.is_attached


@ensureDeferred
async def test_clients_agents_and_status_requests_have_separate_rates() -> None:
    async with Rig(relay=ONE_EACH, with_agent=False) as rig:
        assert await status(rig, STATUS) == 200
        assert await status(rig, STATUS) == 429
        assert await status(rig, request("/c/r")) == 404
        assert await status(rig, request("/c/r")) == 429
        await rig.attach()
        assert await status(rig, request("/agent?room=r")) == 429


@ensureDeferred
async def test_only_authorized_clients_use_up_the_rate_of_a_room() -> None:
    verifier = Verifier({JWT + "agent": AGENT, JWT + "client": CLIENT})
    rates = {"upgrades_per_address": 100, "upgrades_per_room": 0}
    async with TokenRig(verifier, relay=rates) as rig:
        for target in ("/agent?room=r", "/c/r"):
            for _ in range(3):
                assert await status(rig, request(target, bearer(JWT + "forged"))) == 401
        stranger = b"Authorization: Bearer " + JWT.encode() + b"forged\r\n"
        assert await status(rig, STATUS.replace(b"\r\n\r\n", b"\r\n" + stranger + b"\r\n")) == 401
        agent = await rig.connect(request("/agent?room=r", bearer(JWT + "agent")))
        await agent.receives(b" 101 ")
        client = await rig.connect(request("/c/r", bearer(JWT + "client")))
        await until(lambda: rig.relay.rooms.client_count == 1)
        assert await status(rig, request("/c/r", bearer(JWT + "client"))) == 429
        for player in (agent, client):
            player.leg.abortConnection()


@ensureDeferred
async def test_forged_tokens_are_limited_by_address() -> None:
    verifier = Verifier({})
    async with TokenRig(verifier, relay=ONE_EACH) as rig:
        for target in ("/agent?room=r", "/c/r"):
            told = [await status(rig, request(target, bearer(JWT + "forged"))) for _ in range(3)]
            assert told == [401, 429, 429]
        assert len(verifier.asked) == 2


@ensureDeferred
async def test_an_agent_with_another_key_does_not_use_up_the_hosts_rate() -> None:
    host, stranger = AgentKey(b"h" * 32), AgentKey(b"s" * 32)
    async with IdentityRig(relay={"upgrades_per_address": 100, "upgrades_per_room": 0}) as rig:
        claim = lambda: stranger.prove(rig.nonce(), "r", rig.host)  # noqa: E731
        players: list[Player] = [await rig.ask(claim())]
        assert b" 101 " in players[0].received
        players[0].leg.abortConnection()
        await until(lambda: rig.relay.rooms.room_count == 0)
        rig.relay.rooms._table._reserved.clear()
        assert await rig.status(claim()) == 429
        await rig.attach_as(host)


@ensureDeferred
async def test_waiting_clients_are_limited_by_the_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 50 connections 40 are for clients, and of those 8 for waiting ones."""
    monkeypatch.setattr(relay_module, "descriptor_limit", lambda: 50)
    async with Rig(relay={"upgrades_per_address": 1000}) as rig:
        await rig.attach(room="other")
        await rig.agent.stopService()
        waiting = [await rig.connect(request("/c/r")) for _ in range(8)]
        await until(lambda: len(rig.relay.rooms.wait_queue) == 8)
        assert await status(rig, request("/c/r")) == 503
        events = STATUS.replace(b"\r\n\r\n", b"\r\nAccept: text/event-stream\r\n\r\n")
        watching = [await rig.connect(events) for _ in range(8)]
        await until(lambda: rig.relay.front.presence.watcher_count == 8)
        assert await status(rig, events) == 429
        await rig.joined("/c/other")
        for player in waiting + watching:
            player.leg.abortConnection()
        await turn()
