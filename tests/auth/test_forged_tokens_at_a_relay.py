"""Forged tokens at a whole relay: one response for all, before any other work."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import LogEvent

from seance.auth.service import AuthService
from seance.core.interfaces import TokenRole
from seance.relay.edge import frontend as front_module
from seance.relay.rooms.active_grants import ActiveGrants
from tests.auth.test_forged_tokens import NOT_ACCEPTED, NOT_ALLOWED
from tests.auth.tokens import ROOM, token
from tests.relay.rig import Rig, reactor, request

SENDABLE = re.compile(r"[!-+\--~]{1,12000}")
"""Characters that are allowed in a subprotocol: ASCII without space and comma."""


def offering(target: str, text: str) -> bytes:
    return request(target, f"Sec-WebSocket-Protocol: seance.v1, seance.token.{text}")


def is_whole(received: bytes) -> bool:
    return received.endswith(b"\n") and b"\r\n\r\n" in received


@ensureDeferred
@pytest.mark.timeout(60)
async def test_forged_tokens_get_one_response_before_any_other_work(
    service: AuthService, log: list[LogEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = Rig(relay={"upgrades_per_room": 100_000}, agent={"room": ROOM, "token": token(role="agent")})
    rig.relay.context.verifier, rig.relay.context.grants = service, ActiveGrants(reactor, service)
    made: list[Any] = []
    leg = front_module.ClientConnection
    monkeypatch.setattr(
        front_module, "ClientConnection", lambda *args, **kw: made.append(args) or leg(*args, **kw)
    )

    async def answer(target: str, text: str) -> bytes:
        client = await rig.connect(offering(target, text))
        await client.ends()
        assert is_whole(client.received)
        return bytes(client.received)

    forged = [make() for one in NOT_ACCEPTED.values() for make in one.values()]
    sendable = [text for text in forged if SENDABLE.fullmatch(text)]
    assert len(sendable) > 100
    misplaced = [
        make() for make, role, room in NOT_ALLOWED.values() if (role, room) == (TokenRole.CLIENT, ROOM)
    ]
    async with rig:
        links = rig.relay.rooms.room_count
        # The responses for a room with an agent and for an unknown room are equal.
        for target in (f"/c/{ROOM}/doc", "/client?room=nobody"):
            answers = {await answer(target, text) for text in sendable}
            assert [one[:13] for one in answers] == [b"HTTP/1.1 401 "]
        for target in (f"/c/{ROOM}/doc", f"/client?room={ROOM}"):
            answers = {await answer(target, text) for text in misplaced}
            assert [one[:13] for one in answers] == [b"HTTP/1.1 403 "]
        answers = {await answer(f"/agent?room={room}", text) for room in (ROOM, "free") for text in sendable}
        assert [one[:13] for one in answers] == [b"HTTP/1.1 401 "]
        assert (made, rig.locals, len(rig.relay.context.grants or ())) == ([], [], links)
        assert rig.relay.rooms.room_count == links == 1
        assert log == []
        client = await rig.connect(offering(f"/c/{ROOM}/doc", token()))
        await rig.local()
        assert len(made) == 1
        client.leg.abortConnection()
