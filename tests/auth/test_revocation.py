"""Revocation at a whole relay: revoked sessions end within two seconds, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from seance.relay.rooms.active_grants import ActiveGrants
from tests.auth.tokens import NOW, ROOM, auth_service, claims, ed_key, secret_key, sign, token, write_jwks
from tests.relay.rig import Player, Rig, answer_101, request, turn


class LockedRig(Rig):
    """A relay with two keys and a deny list; a fake clock gives the time for tokens."""

    def __init__(self, folder: Path) -> None:
        super().__init__(with_agent=False, agent={"room": ROOM})
        self.clock = Clock()
        self.keys = write_jwks(folder / "keys", ed_key(), secret_key())
        self.deny = folder / "deny"
        self.deny.write_text("")
        self.auth = auth_service(self.clock, keys=[self.keys], deny=self.deny)
        self.relay.context.verifier = self.auth
        self.relay.context.grants = ActiveGrants(self.clock, self.auth)

    async def __aenter__(self) -> LockedRig:
        self.auth.startService()
        await super().__aenter__()
        return self

    async def __aexit__(self, *args: object) -> None:
        await super().__aexit__(*args)
        self.auth.stopService()
        assert self.clock.getDelayedCalls() == []

    async def enter(self, text: str) -> Player:
        """Return a spliced client with this token."""
        number = len(self.locals)
        client = await self.connect(request(f"/c/{ROOM}/doc", f"Authorization: Bearer {text}"))
        (await self.local(number)).send(answer_101())
        await client.receives(b"\r\n\r\n")
        return client

    async def two_seconds(self) -> None:
        """Advance the clock by two seconds."""
        for _ in range(8):
            self.clock.advance(0.25)
            await turn()


def by_secret(**changes: object) -> str:
    key = secret_key()
    return sign(claims(**changes), material=key.signing, algorithm="HS256", kid=key.key_id)


async def remaining(rig: LockedRig, clients: dict[str, Player]) -> set[str]:
    await turn(0.05)
    assert rig.relay.rooms.room_count == 1
    return {name for name, client in clients.items() if client.lost is None and not client.has_ended}


@ensureDeferred
@pytest.mark.timeout(40)
async def test_revoked_sessions_end_within_two_seconds_and_others_stay(tmp_path: Path) -> None:
    async with LockedRig(tmp_path) as rig:
        agent = await rig.attach(token=by_secret(role="agent", jti="agent"))
        clients = {
            "stolen": await rig.enter(by_secret(jti="stolen")),
            "carol": await rig.enter(by_secret(jti="fine", sub="carol")),
            "short": await rig.enter(by_secret(jti="short", exp=int(NOW) + 7)),
            "other key": await rig.enter(token()),
            "good": await rig.enter(by_secret(jti="good")),
        }
        assert await remaining(rig, clients) == set(clients)
        await rig.two_seconds()
        assert await remaining(rig, clients) == set(clients)

        rig.deny.write_text("jti:stolen\n")
        await rig.two_seconds()
        assert await remaining(rig, clients) == {"carol", "short", "other key", "good"}

        rig.deny.write_text("jti:stolen\nsub:carol\n")
        write_jwks(rig.keys, secret_key())
        await rig.two_seconds()
        assert await remaining(rig, clients) == {"short", "good"}

        await rig.two_seconds()
        assert await remaining(rig, clients) == {"good"}
        assert agent.client_count == 1

        rig.deny.write_text("jti:agent\n")
        await rig.two_seconds()
        await clients["good"].ends()
        assert rig.relay.rooms.room_count == 0


@ensureDeferred
async def test_invalid_files_revoke_nothing(tmp_path: Path) -> None:
    async with LockedRig(tmp_path) as rig:
        await rig.attach(token=by_secret(role="agent"))
        clients = {"good": await rig.enter(by_secret())}
        rig.deny.write_text("somebody\n")
        rig.keys.write_text("{")
        await rig.two_seconds()
        assert await remaining(rig, clients) == {"good"}
        rig.keys.unlink()
        await rig.two_seconds()
        assert await remaining(rig, clients) == {"good"}
