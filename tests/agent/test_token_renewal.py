"""An agent's token: its source, and its renewal over a link."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.defer import Deferred

from seance.agent import service as agent_module
from seance.agent.service import AgentState
from seance.agent.token_source import TokenSource
from seance.core.interfaces import Grant, TokenRole
from seance.core.settings import RelaySettings
from seance.errors import CarrierLost, ConfigError
from seance.relay.rooms.agent_link import TOKEN_BURST
from seance.relay.service import Relay
from tests.relay.rig import reactor, request, turn, until
from tests.relay.test_active_grants import AGENT, CLIENT, JWT, TokenRig, Verifier, bearer

OLD, NEW, OTHER = JWT + "old", JWT + "new", JWT + "other"


def test_token_is_the_given_one() -> None:
    assert TokenSource("given", "").read() == "given"


@ensureDeferred
async def test_file_is_read_again_and_a_change_is_reported_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    source = TokenSource("given", str(file))
    assert source.read() == "first"
    assert await source.fetch_changed(reactor) is None
    file.write_text("second")
    assert await source.fetch_changed(reactor) == "second"
    assert await source.fetch_changed(reactor) is None


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines", "tökén".encode(), b"x" * 5000])
@ensureDeferred
async def test_file_without_a_token_raises_and_is_no_change(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    source = TokenSource("", str(file))
    with pytest.raises(CarrierLost, match="does not hold a token"):
        source.read()
    assert await source.fetch_changed(reactor) is None


def test_missing_file_raises_with_a_message(tmp_path: Path) -> None:
    with pytest.raises(CarrierLost, match="cannot be read: No such file"):
        TokenSource("", str(tmp_path / "nowhere")).read()


@ensureDeferred
async def test_agent_sends_its_token_and_the_renewed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent_module, "TOKEN_CHECK_SECONDS", 0.02)
    file = tmp_path / "token"
    file.write_text(OLD)
    verifier = Verifier({OLD: AGENT})
    async with TokenRig(verifier) as rig:
        agent = await rig.attach(token_file=str(file))
        link = rig.relay.rooms._table.find("r")
        renewed = Grant(TokenRole.AGENT, ("r",), 1.0, subject="host")
        verifier.grants[NEW] = renewed
        file.write_text(NEW)
        await until(lambda: link.handle is not None and link.handle.grant == renewed)
        del verifier.grants[OLD]
        verifier.listeners[0]()
        await turn(0.05)
        assert agent.status.state is AgentState.CONNECTED
        assert rig.relay.rooms._table.find("r") is link


@ensureDeferred
@pytest.mark.parametrize(
    "message",
    [
        {"t": "token", "token": OTHER},
        {"t": "token", "token": JWT + "unknown"},
        {"t": "token", "token": 7},
        {"t": "token"},
        {"t": "something else", "token": NEW},
    ],
)
async def test_renewal_with_a_bad_or_foreign_token_changes_nothing(
    message: dict[str, Any],
) -> None:
    other = Grant(TokenRole.AGENT, ("r",), 0.0, subject="other")
    verifier = Verifier({OLD: AGENT, OTHER: other, NEW: AGENT})
    async with TokenRig(verifier) as rig:
        agent = await rig.attach(token=OLD)
        link = rig.relay.rooms._table.find("r")
        handle = link.handle
        assert agent._relay_link is not None
        asked = len(verifier.asked)
        agent._relay_link.send_control(json.dumps(message).encode())
        await until(lambda: len(verifier.asked) > asked) if isinstance(message.get("token"), str) and message[
            "t"
        ] == "token" else await turn(0.05)
        assert link.handle is handle
        assert rig.relay.rooms.room_count == 1


@ensureDeferred
async def test_tokens_that_come_too_fast_over_a_link_are_not_looked_at() -> None:
    verifier = Verifier({OLD: AGENT})
    async with TokenRig(verifier) as rig:
        agent = await rig.attach(token=OLD)
        assert agent._relay_link is not None
        asked = len(verifier.asked)
        for number in range(100):
            message = {"t": "token", "token": f"{JWT}{number}"}
            agent._relay_link.send_control(json.dumps(message).encode())
        await until(lambda: len(verifier.asked) - asked >= TOKEN_BURST)
        await turn(0.1)
        assert len(verifier.asked) - asked <= TOKEN_BURST + 3
        assert rig.relay.rooms.room_count == 1


@ensureDeferred
async def test_agent_without_a_good_token_keeps_trying(tmp_path: Path) -> None:
    file = tmp_path / "token"
    verifier = Verifier({NEW: AGENT})
    async with TokenRig(verifier) as rig:
        agent = rig.make_agent(token_file=str(file), backoff_base_seconds=0.02, backoff_cap_seconds=0.02)
        messages: list[str] = []
        agent.on_status(lambda status: messages.append(status.sentence))
        agent.startService()
        await until(lambda: any("cannot be read" in message for message in messages))
        file.write_text(OLD)
        await until(lambda: any("This token is not good" in message for message in messages))
        file.write_text(NEW)
        await agent.when_connected()


@ensureDeferred
async def test_client_token_never_reaches_the_local_server() -> None:
    token = JWT + "c"
    verifier = Verifier({OLD: AGENT, token: CLIENT})
    async with TokenRig(verifier) as rig:
        await rig.attach(token=OLD)
        shapes: list[tuple[str, tuple[str, ...]]] = [
            ("/client/doc?room=r&x=1", (bearer(token),)),
            (f"/client/doc?room=r&x=1&access_token={token}", ()),
            (f"/c/r/doc?access_token={token}&x=1", ()),
            ("/c/r/doc?x=1", (f"Sec-WebSocket-Protocol: app, seance.v1, seance.token.{token}",)),
        ]
        for number, (target, fields) in enumerate(shapes):
            await rig.connect(request(target, *fields))
            head = (await rig.local(number)).received
            assert token.encode() not in head
            assert head.startswith(b"GET /doc?x=1 HTTP/1.1\r\n")


@ensureDeferred
async def test_relay_without_a_key_does_not_start_on_a_public_address() -> None:
    relay = Relay(reactor, RelaySettings(listen=("tcp:0:interface=0.0.0.0",)))
    with pytest.raises(ConfigError, match=r"--auth-key FILE .* --open"):
        relay.startService()
    open_relay = Relay(reactor, RelaySettings(listen=("tcp:0:interface=0.0.0.0",), open=True))
    open_relay.startService()
    await open_relay.stopService()
    safe = Relay(reactor, RelaySettings(listen=("tcp:0:interface=0.0.0.0",)), verifier=Verifier({}))
    safe.startService()
    await safe.stopService()


@ensureDeferred
@pytest.mark.parametrize("rate", [1_000, 1_000_000, None])
async def test_renewed_token_changes_the_rate_limit_of_connected_clients(rate: int | None) -> None:
    verifier = Verifier(
        {OLD: replace(AGENT, max_bytes_per_second=50_000), NEW: replace(AGENT, max_bytes_per_second=rate)}
    )
    async with TokenRig(verifier) as rig:
        agent = await rig.attach(token=OLD)
        link = rig.relay.rooms._table.find("r")
        pace, handle = link.rate_limit, link.handle
        assert pace is not None
        assert pace.spend(150_000) == pytest.approx(2.0, rel=0.01)
        assert agent._relay_link is not None
        agent._relay_link.send_control(json.dumps({"t": "token", "token": NEW}).encode())
        await until(lambda: link.handle is not handle)
        assert link.rate_limit is pace
        assert pace.spend(3_000) == pytest.approx(0.0 if rate != 1_000 else 2.0, rel=0.01)


@ensureDeferred
async def test_a_hanging_verifier_does_not_block_later_renewals(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("seance.relay.rooms.agent_link.VERIFY_SECONDS", 0.05)
    verifier = Verifier({OLD: AGENT, NEW: AGENT})
    async with TokenRig(verifier) as rig:
        agent = await rig.attach(token=OLD)
        link = rig.relay.rooms._table.find("r")
        handle, verifier.waiting = link.handle, Deferred()
        assert agent._relay_link is not None
        agent._relay_link.send_control(json.dumps({"t": "token", "token": NEW}).encode())
        await until(lambda: "sent an invalid token" in caplog.text)
        verifier.waiting = None
        agent._relay_link.send_control(json.dumps({"t": "token", "token": NEW}).encode())
        await until(lambda: link.handle is not handle)


@ensureDeferred
async def test_a_link_that_ends_during_a_renewal_logs_no_invalid_token(
    caplog: pytest.LogCaptureFixture,
) -> None:
    verifier = Verifier({OLD: AGENT, NEW: AGENT})
    async with TokenRig(verifier, agent={"resume": False}) as rig:
        agent = await rig.attach(token=OLD)
        asked, verifier.waiting = len(verifier.asked), Deferred()
        assert agent._relay_link is not None
        agent._relay_link.send_control(json.dumps({"t": "token", "token": NEW}).encode())
        await until(lambda: len(verifier.asked) > asked)
        await agent.stopService()
        await until(lambda: rig.relay.rooms.room_count == 0)
        assert "invalid token" not in caplog.text
