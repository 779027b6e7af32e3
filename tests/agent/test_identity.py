"""One agent per room: which agent the relay accepts, and how the old link ends.

End to end: relay and agents over TCP, frozen carriers, raw requests with all kinds of proofs.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from seance.agent.identity import IdentityHandshake
from seance.agent.service import Agent, AgentState, AgentStatus
from seance.auth.agent_key import AgentKey
from seance.auth.identity import NONCE_SECONDS, IdentityChecker
from seance.core.settings import AgentSettings
from seance.errors import Refusal
from seance.relay.rooms.agent_link import AgentLink
from tests.relay.rig import Player, Rig, reactor, request, turn, until

ALICE, MALLORY = AgentKey(b"a" * 32), AgentKey(b"m" * 32)
QUICK = {"backoff_base_seconds": 0.02, "backoff_cap_seconds": 0.02}


class IdentityRig(Rig):
    """A rig with a relay that checks identities, with a clock that the test may move."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("with_agent", False)
        super().__init__(**options)
        self.checker = IdentityChecker()
        self.relay.context.identities = self.checker

    async def __aenter__(self) -> IdentityRig:
        await super().__aenter__()
        return self

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def attach_as(self, key: AgentKey | None, **options: Any) -> Agent:
        agent = self.make_agent_as(key, **options)
        agent.startService()
        await agent.when_connected()
        return agent

    def make_agent_as(self, key: AgentKey | None, **options: Any) -> Agent:
        local = f"127.0.0.1:{self.local_port.getHost().port}"
        settings = {"room": "r", "relay": self.relay_url, "local": local, **QUICK, **options}
        agent = Agent(reactor, AgentSettings(**settings), identity=key)
        self._agents.append(agent)
        return agent

    async def ask(self, claim: str = "", *fields: str, room: str = "r", host: str = "") -> Player:
        """Send an agent's request; return when the response head has arrived."""
        claims = [f"Seance-Agent: {claim}"] if claim else []
        head = request(f"/agent?room={room}", *claims, *fields, host=host or self.host)
        player = await self.connect(head)
        await player.receives(b"\r\n\r\n")
        return player

    async def status(self, claim: str = "", *fields: str, room: str = "r", host: str = "") -> int:
        return status_of(await self.ask(claim, *fields, room=room, host=host))

    def nonce(self) -> str:
        return self.checker.challenge(reactor.seconds())


def status_of(player: Player) -> int:
    return int(player.received[9:12])


def field_of(player: Player, name: bytes) -> str:
    lines = bytes(player.received).partition(b"\r\n\r\n")[0].split(b"\r\n")
    (value,) = [line.partition(b": ")[2] for line in lines if line.startswith(name + b": ")]
    return value.decode()


def carrier_of(agent: Agent) -> Any:
    assert agent._relay_link is not None
    return agent._relay_link.carrier


def freeze(agent: Agent) -> None:
    """Simulate a machine that is unreachable: it neither reads nor writes."""
    raw = carrier_of(agent).transport
    raw.pauseProducing()
    raw.write = raw.writeSequence = lambda data: None


def thaw(agent: Agent, transport: Any) -> None:
    del transport.write, transport.writeSequence
    transport.resumeProducing()


@pytest.fixture
def audit() -> Iterator[list[LogEvent]]:
    """The log events about rooms."""
    events: list[LogEvent] = []

    def note(event: LogEvent) -> None:
        if str(event.get("event", "")).startswith("room."):
            events.append(event)

    globalLogPublisher.addObserver(note)  # type: ignore[arg-type]  # a function will do
    yield events
    globalLogPublisher.removeObserver(note)  # type: ignore[arg-type]


# The same agent


@ensureDeferred
async def test_same_agent_replaces_its_own_stale_link_immediately(audit: list[LogEvent]) -> None:
    async with IdentityRig() as rig:
        old = await rig.attach_as(ALICE)
        client, local = await rig.joined()
        stale = rig.relay.rooms._table.find("r")
        raw = carrier_of(old).transport
        freeze(old)
        await rig.attach_as(ALICE)
        assert rig.relay.rooms._table.find("r") is not stale
        assert not stale.is_attached
        await client.ends()
        await rig.joined()
        assert [event["event"] for event in audit] == ["room.taken_over"]
        assert audit[0]["room"] == "r"
        assert audit[0]["identity"] == ALICE.identity(rig.host)[:8]
        assert audit[0]["address"] == "127.0.0.1"
        thaw(old, raw)
        await local.goes()


@ensureDeferred
async def test_late_bytes_of_the_old_carrier_are_dropped() -> None:
    async with IdentityRig() as rig:
        old = await rig.attach_as(ALICE)
        await rig.joined()
        stale = cast(AgentLink, rig.relay.rooms._table.find("r"))
        mux = cast(Any, stale._mux)
        carrier = mux.transport.carrier
        await rig.attach_as(ALICE)
        heard: list[bytes] = []
        mux.session = SimpleNamespace(receive_data=lambda data, now: heard.append(data))
        mux.dataReceived(b"late")
        mux.dataReceived = heard.append
        carrier.binary_arrived(b"late")
        assert heard == []
        assert rig.relay.rooms.room_count == 1
        await until(lambda: old.status.state is not AgentState.CONNECTED)


@pytest.mark.slow
@ensureDeferred
async def test_frozen_carrier_is_aborted_if_it_does_not_close() -> None:
    async with IdentityRig() as rig:
        old = await rig.attach_as(ALICE)
        raw = carrier_of(old).transport
        freeze(old)
        stale = cast(AgentLink, rig.relay.rooms._table.find("r"))
        socket = cast(Any, stale._mux).transport.carrier.transport
        await rig.attach_as(ALICE)
        await until(lambda: not socket.connected)
        thaw(old, raw)


@ensureDeferred
async def test_agent_reattaches_after_a_loss_with_the_nonce_of_its_last_101() -> None:
    async with IdentityRig() as rig:
        agent = await rig.attach_as(ALICE)
        asked: list[str] = []
        check = rig.checker.check

        def note(claim: str, *rest: Any) -> str:
            asked.append(claim)
            return check(claim, *rest)

        rig.checker.check = note  # type: ignore[method-assign]
        rig.relay.rooms._table.find("r").cut()
        await until(lambda: agent.status.state is not AgentState.CONNECTED)
        await agent.when_connected()
        assert len(asked) == 1


@ensureDeferred
async def test_nonce_that_is_too_old_costs_one_more_request_and_no_wait() -> None:
    async with IdentityRig() as rig:
        agent = await rig.attach_as(ALICE)
        rig.checker._advance(reactor.seconds() + NONCE_SECONDS + 1)
        news: list[AgentStatus] = []
        agent.on_status(news.append)
        rig.relay.rooms._table.find("r").cut()
        await until(lambda: agent.status.state is not AgentState.CONNECTED)
        await agent.when_connected()
        assert sum(status.retry_seconds is not None for status in news) == 1


@ensureDeferred
async def test_second_process_with_the_same_key_takes_the_room_and_keeps_it(
    audit: list[LogEvent],
) -> None:
    async with IdentityRig() as rig:
        first = await rig.attach_as(ALICE)
        news: list[AgentStatus] = []
        first.on_status(news.append)
        second = await rig.attach_as(ALICE)
        await until(lambda: sum("room is taken" in status.sentence for status in news) >= 5)
        assert any("Another process with this agent's key" in status.sentence for status in news)
        assert second.status.state is AgentState.CONNECTED
        assert [event["event"] for event in audit][:2] == ["room.taken_over", "room.refused"]
        assert [event["event"] for event in audit].count("room.taken_over") == 1
        await second.stopService()
        await first.when_connected()
        assert [event["event"] for event in audit].count("room.taken_over") == 1


# Another agent


@ensureDeferred
@pytest.mark.parametrize("other", [MALLORY, None], ids=["another", "plain"])
async def test_another_agent_is_refused_while_the_first_is_there_and_for_the_grace_time(
    other: AgentKey | None, audit: list[LogEvent]
) -> None:
    async with IdentityRig(relay={"room_grace_seconds": 0.3}) as rig:
        first = await rig.attach_as(ALICE)
        second = rig.make_agent_as(other)
        news: list[AgentStatus] = []
        second.on_status(news.append)
        second.startService()
        await until(lambda: any("room is taken" in status.sentence for status in news))
        await first.stopService()
        gone_at = reactor.seconds()
        await second.when_connected()
        assert reactor.seconds() - gone_at >= 0.29
        assert any("reserved for the agent" in status.sentence for status in news)
        assert {event["code"] for event in audit} == {"room_taken", "room_reserved"}
        shown = "without a key" if other is None else other.identity(rig.host)[:8]
        assert {event["identity"] for event in audit} == {shown}


@ensureDeferred
async def test_grace_time_is_for_the_agent_that_disconnected() -> None:
    async with IdentityRig(relay={"room_grace_seconds": 60.0}) as rig:
        first = await rig.attach_as(ALICE)
        await first.stopService()
        assert await rig.status() == 409
        assert await rig.status(MALLORY.prove(rig.nonce(), "r", rig.host)) == 409
        await rig.attach_as(ALICE)


@ensureDeferred
async def test_other_rooms_are_not_affected() -> None:
    async with IdentityRig() as rig:
        await rig.attach_as(ALICE)
        await rig.attach_as(ALICE, room="other")
        await rig.attach_as(MALLORY, room="third")
        assert rig.relay.rooms.room_count == 3


# Plain agents


@ensureDeferred
async def test_agent_without_a_key_loses_its_room_when_it_disconnects() -> None:
    async with IdentityRig() as rig:
        first = await rig.attach_as(None)
        assert await rig.status() == 409
        assert await rig.status(ALICE.prove(rig.nonce(), "r", rig.host)) == 409
        await first.stopService()
        assert await rig.status() == 101


@ensureDeferred
async def test_relay_without_identities_ignores_the_key_of_an_agent() -> None:
    async with IdentityRig() as rig:
        rig.relay.context.identities = None
        agent = await rig.attach_as(ALICE)
        await agent.stopService()
        assert await rig.status() == 101


# Proofs


@ensureDeferred
async def test_first_response_asks_for_a_proof_and_the_101_has_the_next_nonce() -> None:
    async with IdentityRig() as rig:
        asked = await rig.ask(ALICE.announce(rig.host))
        assert status_of(asked) == 401
        assert field_of(asked, b"WWW-Authenticate") == "Seance-Agent"
        attached = await rig.ask(ALICE.prove(field_of(asked, b"Seance-Nonce"), "r", rig.host))
        assert status_of(attached) == 101
        nonce = field_of(attached, b"Seance-Nonce")
        assert await rig.status(ALICE.prove(nonce, "r", rig.host)) == 101


@ensureDeferred
@pytest.mark.parametrize(
    "kind", ["forged", "replayed", "other room", "other host", "expired", "garbage", "twice"]
)
async def test_bad_proof_is_refused_before_the_old_link_is_touched(kind: str) -> None:
    async with IdentityRig() as rig:
        first = await rig.attach_as(ALICE)
        nonce = rig.nonce()
        claim = ALICE.prove(nonce, "r", rig.host)
        fields: list[str] = []
        if kind == "forged":
            signature = MALLORY.prove(nonce, "r", rig.host).rpartition(".")[2]
            claim = f"{ALICE.announce(rig.host)}.{nonce}.{signature}"
        elif kind == "replayed":
            rig.checker.check(claim, "r", rig.host, reactor.seconds())
        elif kind == "other room":
            claim = ALICE.prove(nonce, "r2", rig.host)
        elif kind == "other host":
            claim = ALICE.prove(nonce, "r", "evil.example")
        elif kind == "expired":
            rig.checker._advance(reactor.seconds() + NONCE_SECONDS + 1)
        elif kind == "garbage":
            claim = "v1.\xe9"
        else:
            fields.append(f"Seance-Agent: {claim}")
        answer = await rig.ask(claim, *fields)
        assert status_of(answer) == 401
        assert first.status.state is AgentState.CONNECTED
        assert rig.relay.rooms._table.find("r").is_attached
        fresh = field_of(answer, b"Seance-Nonce")
        assert await rig.status(ALICE.prove(fresh, "r", rig.host)) == 101


@ensureDeferred
async def test_proof_for_another_relay_is_refused() -> None:
    """A hostile relay repeats the nonce, room, proof and Host of an agent that has dialled it."""
    async with IdentityRig() as rig:
        await rig.attach_as(ALICE)
        proof = ALICE.prove(rig.nonce(), "r", "evil.example:8080")
        assert await rig.status(proof, host="evil.example:8080") == 409


@ensureDeferred
async def test_trusted_proxy_may_change_the_host_if_it_sends_the_original() -> None:
    async with IdentityRig(relay={"trusted_proxy": ("127.0.0.1",)}) as rig:
        proof = ALICE.prove(rig.nonce(), "r", "relay.example")
        assert await rig.status(proof, "X-Forwarded-Host: relay.example", host="backend:1") == 101


@ensureDeferred
async def test_untrusted_proxy_may_not_change_the_host() -> None:
    async with IdentityRig() as rig:
        proof = ALICE.prove(rig.nonce(), "r", "relay.example")
        assert await rig.status(proof, "X-Forwarded-Host: relay.example", host="backend:1") == 401


# The agent


@ensureDeferred
async def test_wrong_clock_on_the_agent_is_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock of the reactor is used only for waits and figures; here it is in the year 1970."""
    async with IdentityRig() as rig:
        agent = rig.make_agent_as(ALICE)
        clock = Clock()
        monkeypatch.setattr("time.time", lambda: 0.0)
        monkeypatch.setattr(agent, "_reactor", _OtherClock(clock))
        agent.startService()
        await agent.when_connected()


class _OtherClock:
    """The real reactor with another clock."""

    def __init__(self, clock: Clock) -> None:
        self.seconds = clock.seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


@ensureDeferred
async def test_relay_that_refuses_every_proof_is_dialled_twice_per_attempt() -> None:
    async with IdentityRig() as rig:
        agent = rig.make_agent_as(ALICE, backoff_base_seconds=60.0, backoff_cap_seconds=60.0)
        claims: list[str] = []

        def refuse(claim: str, room: str, host: str, now: float) -> str:
            claims.append(claim)
            raise Refusal(401, "No.", code="identity_proof", headers=((b"Seance-Nonce", b"nonce"),))

        rig.checker.check = refuse  # type: ignore[method-assign]
        agent.startService()
        await until(lambda: agent.status.state is AgentState.WAITING)
        await turn(0.05)
        assert [claim.count(".") for claim in claims] == [1, 3]
        assert agent.status.sentence == "No."


@pytest.mark.parametrize(
    ("status", "headers", "answers"),
    [
        (401, ((b"seance-nonce", b"abc"),), True),
        (401, ((b"Seance-Nonce", b"abc"),), True),
        (401, (), False),
        (401, ((b"www-authenticate", b"Bearer"),), False),
        (403, ((b"seance-nonce", b"abc"),), False),
        (401, ((b"seance-nonce", b""),), False),
        (401, ((b"seance-nonce", b"a" * 129),), False),
        (401, ((b"seance-nonce", b"a b"),), False),
        (401, ((b"seance-nonce", b"\xe9"),), False),
        (401, ((b"seance-nonce", b"a.b"),), False),
    ],
)
def test_agent_sends_a_proof_only_after_a_challenge(
    status: int, headers: tuple[tuple[bytes, bytes], ...], answers: bool
) -> None:
    handshake = IdentityHandshake(ALICE, "r", "h")
    assert handshake.headers() == {"Seance-Agent": ALICE.announce("h")}
    assert handshake.is_asked(Refusal(status, "No.", code="x", headers=headers)) is answers
    assert (handshake.headers()["Seance-Agent"].count(".") == 3) is answers


def test_agent_without_a_key_sends_no_identity_and_no_proof() -> None:
    handshake = IdentityHandshake(None, "r", "h")
    assert handshake.headers() == {}
    refusal = Refusal(401, "No.", code="x", headers=((b"seance-nonce", b"abc"),))
    assert not handshake.is_asked(refusal)
    assert handshake.headers() == {}


def test_replaced_agent_does_not_replace_until_it_is_attached_again() -> None:
    handshake = IdentityHandshake(None, "r", "h")
    handshake.note_replaced()
    assert handshake.headers() == handshake.headers() == {"Seance-Replace": "no"}
    handshake.note_attached({})
    assert handshake.headers() == {}


def test_nonce_is_used_once() -> None:
    handshake = IdentityHandshake(ALICE, "r", "h")
    handshake.note_attached({"seance-nonce": "abc"})
    assert handshake.headers()["Seance-Agent"] == ALICE.prove("abc", "r", "h")
    assert handshake.headers()["Seance-Agent"] == ALICE.announce("h")
