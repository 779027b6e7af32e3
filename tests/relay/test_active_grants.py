"""Connections by token: their limits, and what ends when a token ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred, fail, succeed

from seance.core.interfaces import Grant, TokenRole
from seance.errors import Refusal
from seance.relay.edge import frontend as front_module
from seance.relay.edge.admission import BURST_SECONDS
from seance.relay.rooms.active_grants import ActiveGrants
from tests.relay.rig import Rig, answer_101, reactor, request, turn, until


def status(received: bytes) -> int:
    return int(received.split(b" ", 2)[1])


class Verifier:
    """A verifier controlled by the test; the real one is in ``seance.auth``."""

    def __init__(self, grants: dict[str, Grant]) -> None:
        self.grants = grants
        self.asked: list[tuple[str, TokenRole, str]] = []
        self.listeners: list[Any] = []
        self.waiting: Deferred[None] | None = None

    def verify(self, token: str, role: TokenRole, room: str) -> Deferred[Grant]:
        self.asked.append((token, role, room))
        if self.waiting is not None:
            return self.waiting.addCallback(lambda _: self._judge(token))
        try:
            return succeed(self._judge(token))
        except Refusal:
            return fail()

    def _judge(self, token: str) -> Grant:
        if token not in self.grants:
            raise Refusal(401, "This token is not good.", code="token")
        return self.grants[token]

    def is_still_good(self, grant: Grant) -> bool:
        return grant in self.grants.values()

    def on_change(self, listener: Any) -> Any:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)


AGENT = Grant(TokenRole.AGENT, ("r",), 0.0, subject="host")
CLIENT = Grant(TokenRole.CLIENT, ("r",), 0.0, token_id="c1")


class TokenRig(Rig):
    def __init__(self, verifier: Verifier, **options: Any) -> None:
        super().__init__(with_agent=False, **options)
        self.relay.context.verifier = verifier
        self.relay.context.grants = ActiveGrants(reactor, verifier)


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


JWT = "eyJ0eXAiOiJzZWFuY2Urand0In0.e30."
"""Return a token that looks like ours (header ``{"typ":"seance+jwt"}``); its end names its grant."""


async def attach_raw(rig: Rig, token: str = JWT + "a") -> Any:
    agent = await rig.connect(request("/agent?room=r", bearer(token)))
    await agent.ends() if b"HTTP/1.1 4" in agent.received else await agent.receives(b"\r\n\r\n")
    return agent


@ensureDeferred
async def test_a_connection_without_a_valid_token_is_refused() -> None:
    verifier = Verifier({JWT + "a": AGENT})
    async with TokenRig(verifier) as rig:
        for target in ("/agent?room=r", "/client?room=r", "/client?room=unknown"):
            stranger = await rig.connect(request(target, bearer(JWT + "x")))
            await stranger.ends()
            assert status(stranger.received) == 401
        assert rig.relay.rooms.room_count == 0
        assert [role for _, role, _ in verifier.asked] == [TokenRole.AGENT, *[TokenRole.CLIENT] * 2]


@ensureDeferred
async def test_a_client_ends_when_its_token_becomes_invalid() -> None:
    verifier = Verifier({JWT + "a": AGENT, JWT + "c": CLIENT})
    async with TokenRig(verifier) as rig:
        await attach_raw(rig)
        client = await rig.connect(request("/client?room=r", bearer(JWT + "c")))
        await until(lambda: rig.relay.rooms.client_count == 1)
        assert rig.relay.context.grants is not None
        assert len(rig.relay.context.grants) == 2
        del verifier.grants[JWT + "c"]
        verifier.listeners[0]()
        await client.ends()
        assert status(client.received) == 401
        assert len(rig.relay.context.grants) == 1
        assert rig.relay.rooms.room_count == 1


@pytest.mark.slow
@ensureDeferred
async def test_an_agent_ends_within_two_seconds_of_its_token() -> None:
    verifier = Verifier({JWT + "a": AGENT})
    async with TokenRig(verifier) as rig:
        agent = await attach_raw(rig)
        verifier.grants.clear()
        await agent.goes()
        await until(lambda: rig.relay.rooms.room_count == 0)
        assert rig.relay.context.grants is not None
        assert len(rig.relay.context.grants) == 0


@ensureDeferred
async def test_a_token_limits_its_own_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    # The raw agent does not answer, so an ended client counts until its stream has lingered.
    monkeypatch.setattr("seance.relay.edge.abandoned_upgrade.ORDERLY_SECONDS", 0.1)
    verifier = Verifier({JWT + "a": AGENT, JWT + "c": replace(CLIENT, max_clients=1)})
    async with TokenRig(verifier) as rig:
        await attach_raw(rig)
        first = await rig.connect(request("/client?room=r", bearer(JWT + "c")))
        await until(lambda: rig.relay.rooms.client_count == 1)
        second = await rig.connect(request("/client?room=r", bearer(JWT + "c")))
        await second.ends()
        assert status(second.received) == 429
        first.leg.abortConnection()
        await until(lambda: rig.relay.rooms.client_count == 0)
        await rig.connect(request("/client?room=r", bearer(JWT + "c")))
        await until(lambda: rig.relay.rooms.client_count == 1)


@ensureDeferred
async def test_an_agents_token_limits_the_clients_of_its_room() -> None:
    verifier = Verifier({JWT + "a": replace(AGENT, max_clients=1), JWT + "c": CLIENT})
    async with TokenRig(verifier) as rig:
        await attach_raw(rig)
        await rig.connect(request("/client?room=r", bearer(JWT + "c")))
        await until(lambda: rig.relay.rooms.client_count == 1)
        second = await rig.connect(request("/client?room=r", bearer(JWT + "c")))
        await second.ends()
        assert status(second.received) == 429


@pytest.mark.slow
@ensureDeferred
async def test_the_same_subject_replaces_its_link_and_another_is_refused() -> None:
    other = Grant(TokenRole.AGENT, ("r",), 0.0, subject="other")
    verifier = Verifier({JWT + "a": AGENT, JWT + "b": other})
    async with TokenRig(verifier) as rig:
        old = await attach_raw(rig)
        thief = await rig.connect(request("/agent?room=r", bearer(JWT + "b")))
        await thief.ends()
        assert status(thief.received) == 409
        new = await attach_raw(rig)
        await old.goes()
        assert new.lost is None
        assert rig.relay.rooms.room_count == 1
        new.leg.abortConnection()
        await until(lambda: rig.relay.rooms.room_count == 0)
        thief = await rig.connect(request("/agent?room=r", bearer(JWT + "b")))
        await thief.ends()
        assert b"is reserved for the agent" in thief.received


@ensureDeferred
async def test_a_page_of_an_origin_that_the_token_does_not_allow_is_refused() -> None:
    only = replace(CLIENT, origins=("https://app.example",))
    verifier = Verifier({JWT + "a": AGENT, JWT + "c": only})
    async with TokenRig(verifier) as rig:
        await attach_raw(rig)
        page = await rig.connect(request("/client?room=r", bearer(JWT + "c"), "Origin: https://evil.example"))
        await page.ends()
        assert status(page.received) == 403


@ensureDeferred
async def test_a_client_may_send_or_disconnect_while_its_token_is_verified() -> None:
    verifier = Verifier({JWT + "a": AGENT, JWT + "c": CLIENT})
    async with TokenRig(verifier) as rig:
        agent = await attach_raw(rig)
        verifier.waiting = Deferred()
        patient = await rig.connect(request("/client?room=r", bearer(JWT + "c")) + b"early")
        await until(lambda: len(verifier.asked) == 2)
        patient.send(b" bird")
        verifier.waiting.callback(None)
        await until(lambda: rig.relay.rooms.client_count == 1)
        verifier.waiting = Deferred()
        hasty = await rig.connect(request("/client?room=r", bearer(JWT + "c")))
        await until(lambda: len(verifier.asked) == 3)
        hasty.leg.abortConnection()
        await turn(0.05)
        assert rig.relay.rooms.client_count == 1
        assert agent.lost is None
        verifier.waiting = Deferred()
        flooding = await rig.connect(request("/client?room=r", bearer(JWT + "c")))
        await until(lambda: len(verifier.asked) == 4)
        flooding.send(b"x" * 100_000)
        await flooding.goes()
        verifier.waiting = Deferred()
        unlucky = await rig.connect(request("/client?room=r", bearer(JWT + "c")))
        await until(lambda: len(verifier.asked) == 5)
        verifier.waiting.cancel()
        await unlucky.goes()


@ensureDeferred
async def test_a_room_can_be_closed_by_an_operator() -> None:
    async with Rig() as rig:
        client, _ = await rig.joined()
        assert rig.relay.rooms.close_room("r", "closed by hand")
        await client.ends()
        await until(lambda: rig.relay.rooms.room_count == 0)
        assert not rig.relay.rooms.close_room("unknown", "")


@ensureDeferred
async def test_a_token_limits_the_byte_rate_of_its_client() -> None:
    verifier = Verifier({JWT + "a": AGENT, JWT + "c": replace(CLIENT, max_bytes_per_second=1_000_000)})
    async with TokenRig(verifier) as rig:
        await rig.attach(token=JWT + "a")
        client = await rig.connect(request("/client?room=r", bearer(JWT + "c")))
        local = await rig.local()
        began = reactor.seconds()
        # The burst of one second arrives immediately, and the last read of up to 256 KiB before it is
        # counted.
        local.send(answer_101() + b"x" * 1_600_000)
        await until(lambda: len(client.received) > 1_600_000)
        assert reactor.seconds() - began > 0.2


@ensureDeferred
async def test_agents_have_the_same_rate_limits_as_clients() -> None:
    verifier = Verifier({JWT + "a": AGENT})
    async with TokenRig(verifier, relay={"upgrades_per_room": 1}) as rig:
        for _ in range(int(BURST_SECONDS)):
            await attach_raw(rig)
        agent = await rig.connect(request("/agent?room=r", bearer(JWT + "a")))
        await agent.ends()
        assert status(agent.received) == 429


@ensureDeferred
async def test_an_agent_whose_token_is_verified_during_the_stop_is_refused() -> None:
    verifier = Verifier({JWT + "a": AGENT})
    async with TokenRig(verifier) as rig:
        verifier.waiting = Deferred()
        agent = await rig.connect(request("/agent?room=r", bearer(JWT + "a")))
        await until(lambda: verifier.asked)
        waiting, verifier.waiting = verifier.waiting, None
        await rig.relay.stopService()
        await agent.goes()
        if not waiting.called:
            waiting.callback(None)
        assert rig.relay.rooms.room_count == 0
        with pytest.raises(Refusal, match="stopping"):
            await rig.relay.rooms.claim("r")


@ensureDeferred
async def test_a_hanging_verifier_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front_module, "VERIFY_SECONDS", 0.05)
    verifier = Verifier({JWT + "a": AGENT})
    async with TokenRig(verifier) as rig:
        verifier.waiting = Deferred()
        agent = await rig.connect(request("/agent?room=r", bearer(JWT + "a")))
        await agent.ends()
        assert status(agent.received) == 503
