"""The token check: claims, and the response of the relay."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from seance.auth.service import AuthService
from seance.core.interfaces import TokenRole
from seance.doctor.findings import Hop, HopFailed, HopStatus
from seance.doctor.tokens import format_duration, format_time, read_tokens
from seance.relay.rooms.active_grants import ActiveGrants
from tests.auth.tokens import claims, ed_key, sign, write_jwks
from tests.doctor.rig import (
    HEALTHY,
    StubServer,
    diagnose,
    finding,
    only_failure,
    reply,
    running_tunnel,
)
from tests.relay.rig import Rig, reactor

ROOM = "r"
NOW = 1_800_000_000.0


def token(**changes: Any) -> str:
    """Return a client's token for the room that is valid for an hour."""
    return sign(claims(**{"room": ROOM, "exp": int(time.time()) + 3600, **changes}))


def write_token(folder: Path, text: str, name: str = "token") -> str:
    path = folder / name
    path.write_text(text + "\n")
    return str(path)


@asynccontextmanager
async def relay_with_auth(folder: Path, *, deny: str = "") -> AsyncIterator[Rig]:
    """A tunnel with a relay that requires tokens."""
    (folder / "deny").write_text(deny)
    keys = [write_jwks(folder / "keys", ed_key())]
    service = AuthService(reactor, keys=keys, deny=folder / "deny")
    service.startService()
    try:
        async with running_tunnel(
            lambda **options: _with(Rig(**options), service), agent={"token": token(role="agent")}
        ) as (rig, _):
            yield rig
    finally:
        service.stopService()


def _with(rig: Rig, service: AuthService) -> Rig:
    rig.relay.context.verifier, rig.relay.context.grants = service, ActiveGrants(reactor, service)
    return rig


@ensureDeferred
async def test_clients_token_allows_all_checks(tmp_path: Path) -> None:
    async with relay_with_auth(tmp_path) as rig:
        report = await diagnose(rig.relay_url, ROOM, token_files=(write_token(tmp_path, token()),))
        assert report.exit_code == 0
        found = finding(report, Hop.TOKEN).message
        assert found.startswith("the relay accepts it; the token is a client's token for r, valid until ")


@ensureDeferred
async def test_agents_token_is_verified_and_checks_without_permission_are_not_tried(tmp_path: Path) -> None:
    async with relay_with_auth(tmp_path) as rig:
        path = write_token(tmp_path, token(role="agent"))
        report = await diagnose(rig.relay_url, ROOM, token_files=(path,), local=rig.agent.settings.local)
        assert report.exit_code == 0
        assert (
            "the relay accepts its signature; the token is an agent's" in finding(report, Hop.TOKEN).message
        )
        left = [one for one in report.findings if one.status is HopStatus.NOT_TRIED]
        assert [one.hop for one in left] == [Hop.AGENT, Hop.TUNNEL, Hop.SYNC]
        assert "second --token-file" in left[0].advice
        assert finding(report, Hop.LOCAL).status is HopStatus.OK


@ensureDeferred
async def test_clients_token_is_preferred(tmp_path: Path) -> None:
    async with relay_with_auth(tmp_path) as rig:
        paths = (write_token(tmp_path, token(), "c"), write_token(tmp_path, token(role="agent"), "a"))
        report = await diagnose(rig.relay_url, ROOM, token_files=paths)
        assert report.exit_code == 0
        assert HopStatus.NOT_TRIED not in {one.status for one in report.findings}


@ensureDeferred
async def test_missing_token_is_reported(tmp_path: Path) -> None:
    async with relay_with_auth(tmp_path) as rig:
        failed = only_failure(await diagnose(rig.relay_url, ROOM), Hop.TOKEN)
        assert "none was given" in failed.message
        assert "--token-file" in failed.advice


@ensureDeferred
async def test_token_of_an_unknown_key_is_reported_with_the_key_id(tmp_path: Path) -> None:
    async with relay_with_auth(tmp_path) as rig:
        forged = sign(claims(room=ROOM, exp=int(time.time()) + 60), material=ed_key("x").signing, kid="x")
        report = await diagnose(rig.relay_url, ROOM, token_files=(write_token(tmp_path, forged),))
        failed = only_failure(report, Hop.TOKEN)
        assert "rejects the token" in failed.message
        assert "does not have the key that signed it (key ID x)" in failed.advice


@ensureDeferred
async def test_revoked_token_is_reported(tmp_path: Path) -> None:
    async with relay_with_auth(tmp_path, deny="jti:stolen\n") as rig:
        path = write_token(tmp_path, token(jti="stolen"))
        failed = only_failure(await diagnose(rig.relay_url, ROOM, token_files=(path,)), Hop.TOKEN)
        assert "revoked" in failed.advice


@ensureDeferred
async def test_room_on_the_deny_list_is_reported(tmp_path: Path) -> None:
    async with relay_with_auth(tmp_path, deny="room:q\n") as rig:
        path = write_token(tmp_path, token(room=[ROOM, "q"]))
        failed = only_failure(await diagnose(rig.relay_url, "q", token_files=(path,)), Hop.TOKEN)
        assert "denies access to the room q" in failed.message


@ensureDeferred
async def test_expired_token_is_reported(tmp_path: Path) -> None:
    async with relay_with_auth(tmp_path) as rig:
        path = write_token(tmp_path, token(exp=int(time.time()) - 90))
        failed = only_failure(await diagnose(rig.relay_url, ROOM, token_files=(path,)), Hop.TOKEN)
        assert "expired on" in failed.message
        assert "1 min 30 s ago" in failed.message or "1 min 31 s ago" in failed.message
        assert "seance token" in failed.advice


@pytest.mark.parametrize(
    ("status", "words"), [(429, "Too many connections"), (503, "could not be found out in time")]
)
@ensureDeferred
async def test_refusal_that_is_not_about_the_token_is_not_attributed_to_it(status: int, words: str) -> None:
    def answer(head: bytes) -> bytes:
        if b"/status" in head:
            return reply(status, f"{words}; try again.")
        return reply(400, "A key.") if b"Upgrade" in head else HEALTHY

    async with StubServer(answer) as relay:
        failed = only_failure(await diagnose(relay.url, ROOM), Hop.TOKEN)
        assert words in failed.message
        assert "Try again" in failed.advice


@ensureDeferred
async def test_tunnel_is_checked_on_a_relay_without_the_status_request() -> None:
    def answer(head: bytes) -> bytes:
        if b"/status" in head:
            return reply(426, "A WebSocket is needed")
        if b"Sec-WebSocket-Key: seance-doctor\r\n" in head:
            return reply(400, "A key.")
        return reply(404, "Room not found (agent not connected)") if b"Upgrade" in head else HEALTHY

    async with StubServer(answer) as relay:
        report = await diagnose(relay.url, ROOM)
        assert report.failed is Hop.AGENT
        assert "Room not found" in finding(report, Hop.AGENT).message


# Claims


def rejected(folder: Path, text: str, now: float = NOW) -> HopFailed:
    with pytest.raises(HopFailed) as caught:
        read_tokens([write_token(folder, text)], ROOM, now)
    assert caught.value.advice
    return caught.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exp": int(NOW)}, "expired on 2027-01-15 08:00 UTC, 0 s ago"),
        ({"nbf": int(NOW) + 31}, "is not valid before 2027-01-15 08:00 UTC, in 31 s"),
        ({"iat": int(NOW) + 7200, "nbf": int(NOW)}, "in 2 h"),
        ({"aud": "somebody"}, "is not for a Seance relay"),
        ({"role": "king"}, "'role'"),
        ({"role": "admin"}, "is an admin's token, which is not valid for agents or clients"),
        ({"role": "admin", "room": ...}, "is an admin's token, which"),
        ({"exp": ...}, "'exp'"),
        ({"exp": "soon"}, "'exp'"),
        ({"room": "another"}, "is not for the room r: it is a client's token for another"),
        ({"room": ...}, "is not for the room r: it is a client's token for no room"),
    ],
)
def test_invalid_claims_are_reported(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    good = {"room": ROOM, "exp": int(NOW) + 60}
    assert words in rejected(tmp_path, sign(claims(**{**good, **changes}))).message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "abc",
        "a.b.c",
        "a b",
        "eyJhbGciOiJub25lIn0.e30.x",
        "x" * 5000,
        "https://r.example/c/r?access_token=a",
    ],
)
def test_file_without_a_token_is_reported_with_its_path(text: str, tmp_path: Path) -> None:
    message = rejected(tmp_path, text).message
    assert str(tmp_path / "token") in message
    assert not text or text not in message


def test_missing_file_is_reported_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(HopFailed, match=r"missing cannot be read: No such file"):
        read_tokens([str(tmp_path / "missing")], ROOM, NOW)


def test_expiry_is_compared_with_the_relays_clock(tmp_path: Path) -> None:
    path = write_token(tmp_path, sign(claims(room=ROOM, exp=int(NOW) + 60)))
    assert TokenRole.CLIENT in read_tokens([path], ROOM, NOW + 59)
    with pytest.raises(HopFailed, match="expired on"):
        read_tokens([path], ROOM, NOW + 60)


def test_token_is_not_in_its_text_representation(tmp_path: Path) -> None:
    text = sign(claims(room=ROOM, exp=int(NOW) + 60))
    token = read_tokens([write_token(tmp_path, text)], ROOM, NOW)[TokenRole.CLIENT]
    assert token.text == text
    assert text not in repr(token) + str(token)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (-5, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3661, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (86_400, "1 d"),
    ],
)
def test_duration_has_at_most_two_units(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_time_out_of_range() -> None:
    assert format_time(0) == "1970-01-01 00:00 UTC"
    assert format_time(1e30) == "a time out of range"
