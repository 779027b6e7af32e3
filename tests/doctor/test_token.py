"""Tokens: what they say of themselves, and what the relay says of them."""

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
from seance.doctor.findings import Hop, Mark, Trouble
from seance.doctor.tokens import age, moment, read_papers
from seance.relay.rooms.active_grants import ActiveGrants
from tests.auth.tokens import claims, ed_key, sign, write_jwks
from tests.doctor.rig import HEALTHY, Stand, diagnose, finding, hosted, nothing_but, plain
from tests.relay.rig import Rig, reactor

ROOM = "r"
NOW = 1_800_000_000.0


def token(**changes: Any) -> str:
    """A client's token for the room, good for an hour from now on."""
    return sign(claims(**{"room": ROOM, "exp": int(time.time()) + 3600, **changes}))


def kept(folder: Path, text: str, name: str = "token") -> str:
    path = folder / name
    path.write_text(text + "\n")
    return str(path)


@asynccontextmanager
async def guarded(folder: Path, *, deny: str = "") -> AsyncIterator[Rig]:
    """A room of a relay that asks for tokens."""
    (folder / "deny").write_text(deny)
    keys = [write_jwks(folder / "keys", ed_key())]
    service = AuthService(reactor, keys=keys, deny=folder / "deny")
    service.startService()
    try:
        async with hosted(
            lambda **options: _with(Rig(**options), service), agent={"token": token(role="agent")}
        ) as (rig, _):
            yield rig
    finally:
        service.stopService()


def _with(rig: Rig, service: AuthService) -> Rig:
    rig.relay.context.verifier, rig.relay.context.grants = service, ActiveGrants(reactor, service)
    return rig


@ensureDeferred
async def test_a_clients_token_leads_all_the_way(tmp_path: Path) -> None:
    async with guarded(tmp_path) as rig:
        report = await diagnose(rig.relay_url, ROOM, token_files=(kept(tmp_path, token()),))
        assert report.exit_code == 0
        found = finding(report, Hop.TOKEN).sentence
        assert found.startswith("the relay lets it in; it is a client's for r, good until ")


@ensureDeferred
async def test_an_agents_token_is_found_good_and_what_it_may_not_ask_is_not_tried(tmp_path: Path) -> None:
    async with guarded(tmp_path) as rig:
        path = kept(tmp_path, token(role="agent"))
        report = await diagnose(rig.relay_url, ROOM, token_files=(path,), local=rig.agent.settings.local)
        assert report.exit_code == 0
        assert "the relay knows its key; it is an agent's" in finding(report, Hop.TOKEN).sentence
        left = [one for one in report.findings if one.mark is Mark.NOT_TRIED]
        assert [one.hop for one in left] == [Hop.AGENT, Hop.TUNNEL, Hop.SYNC]
        assert "second --token-file" in left[0].advice
        assert finding(report, Hop.LOCAL).mark is Mark.WELL


@ensureDeferred
async def test_of_two_tokens_the_clients_is_the_one_that_asks(tmp_path: Path) -> None:
    async with guarded(tmp_path) as rig:
        paths = (kept(tmp_path, token(), "c"), kept(tmp_path, token(role="agent"), "a"))
        report = await diagnose(rig.relay_url, ROOM, token_files=paths)
        assert report.exit_code == 0
        assert Mark.NOT_TRIED not in {one.mark for one in report.findings}


@ensureDeferred
async def test_no_token_where_one_is_asked_for_is_named(tmp_path: Path) -> None:
    async with guarded(tmp_path) as rig:
        failed = nothing_but(await diagnose(rig.relay_url, ROOM), Hop.TOKEN)
        assert "none was given" in failed.sentence
        assert "--token-file" in failed.advice


@ensureDeferred
async def test_a_token_of_another_key_is_named_with_the_name_of_that_key(tmp_path: Path) -> None:
    async with guarded(tmp_path) as rig:
        forged = sign(claims(room=ROOM, exp=int(time.time()) + 60), material=ed_key("x").signing, kid="x")
        report = await diagnose(rig.relay_url, ROOM, token_files=(kept(tmp_path, forged),))
        failed = nothing_but(report, Hop.TOKEN)
        assert "does not take the token" in failed.sentence
        assert "a key that the relay does not have (it names x)" in failed.advice


@ensureDeferred
async def test_a_token_that_was_taken_back_is_named(tmp_path: Path) -> None:
    async with guarded(tmp_path, deny="jti:stolen\n") as rig:
        path = kept(tmp_path, token(jti="stolen"))
        failed = nothing_but(await diagnose(rig.relay_url, ROOM, token_files=(path,)), Hop.TOKEN)
        assert "taken back" in failed.advice


@ensureDeferred
async def test_a_room_on_the_deny_list_is_named(tmp_path: Path) -> None:
    async with guarded(tmp_path, deny="room:q\n") as rig:
        path = kept(tmp_path, token(room=[ROOM, "q"]))
        failed = nothing_but(await diagnose(rig.relay_url, "q", token_files=(path,)), Hop.TOKEN)
        assert "keeps it out of the room q" in failed.sentence


@ensureDeferred
async def test_a_token_that_has_ended_is_named_and_the_relay_is_not_bothered(tmp_path: Path) -> None:
    async with guarded(tmp_path) as rig:
        path = kept(tmp_path, token(exp=int(time.time()) - 90))
        failed = nothing_but(await diagnose(rig.relay_url, ROOM, token_files=(path,)), Hop.TOKEN)
        assert "has ended" in failed.sentence
        assert "1 min 30 s ago" in failed.sentence or "1 min 31 s ago" in failed.sentence
        assert "seance token" in failed.advice


@pytest.mark.parametrize(
    ("status", "words"), [(429, "Too many connections"), (503, "could not be verified in time")]
)
@ensureDeferred
async def test_a_relay_that_does_not_say_is_named_and_not_the_token(status: int, words: str) -> None:
    def answer(head: bytes) -> bytes:
        if b"/status" in head:
            return plain(status, f"{words}; try again.")
        return plain(400, "A key.") if b"Upgrade" in head else HEALTHY

    async with Stand(answer) as relay:
        failed = nothing_but(await diagnose(relay.url, ROOM), Hop.TOKEN)
        assert words in failed.sentence
        assert "try again" in failed.advice


@ensureDeferred
async def test_a_relay_that_knows_no_status_is_asked_for_the_tunnel_all_the_same() -> None:
    def answer(head: bytes) -> bytes:
        if b"/status" in head:
            return plain(426, "A WebSocket is needed")
        if b"Sec-WebSocket-Key: seance-doctor\r\n" in head:
            return plain(400, "A key.")
        return plain(404, "Room not found (agent not connected)") if b"Upgrade" in head else HEALTHY

    async with Stand(answer) as relay:
        report = await diagnose(relay.url, ROOM)
        assert report.failed is Hop.AGENT
        assert "Room not found" in finding(report, Hop.AGENT).sentence


# What a token says of itself


def trouble(folder: Path, text: str, now: float = NOW) -> Trouble:
    with pytest.raises(Trouble) as caught:
        read_papers([kept(folder, text)], ROOM, now)
    assert caught.value.advice
    return caught.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"exp": int(NOW)}, "has ended: on 2027-01-15 08:00 UTC, 0 s ago"),
        ({"nbf": int(NOW) + 31}, "is not yet valid: it begins at 2027-01-15 08:00 UTC, in 31 s"),
        ({"iat": int(NOW) + 7200, "nbf": int(NOW)}, "in 2 h"),
        ({"aud": "somebody"}, "is not for a Seance relay"),
        ({"role": "king"}, "'role'"),
        ({"role": "admin"}, "is an admin's, which lets in neither agents nor clients"),
        ({"role": "admin", "room": ...}, "is an admin's, which"),
        ({"exp": ...}, "'exp'"),
        ({"exp": "soon"}, "'exp'"),
        ({"room": "another"}, "is not for the room r: it is a client's for another"),
        ({"room": ...}, "is not for the room r: it is a client's for no room"),
    ],
)
def test_a_token_that_no_relay_would_take_is_told_why(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    good = {"room": ROOM, "exp": int(NOW) + 60}
    assert words in trouble(tmp_path, sign(claims(**{**good, **changes}))).sentence


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
def test_a_file_without_a_token_is_named_by_its_path(text: str, tmp_path: Path) -> None:
    sentence = trouble(tmp_path, text).sentence
    assert str(tmp_path / "token") in sentence
    assert not text or text not in sentence


def test_a_file_that_is_not_there_is_named_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(Trouble, match=r"missing cannot be read: No such file"):
        read_papers([str(tmp_path / "missing")], ROOM, NOW)


def test_the_relays_clock_is_what_counts(tmp_path: Path) -> None:
    path = kept(tmp_path, sign(claims(room=ROOM, exp=int(NOW) + 60)))
    assert TokenRole.CLIENT in read_papers([path], ROOM, NOW + 59)
    with pytest.raises(Trouble, match="has ended"):
        read_papers([path], ROOM, NOW + 60)


def test_a_token_is_never_shown(tmp_path: Path) -> None:
    text = sign(claims(room=ROOM, exp=int(NOW) + 60))
    paper = read_papers([kept(tmp_path, text)], ROOM, NOW)[TokenRole.CLIENT]
    assert paper.text == text
    assert text not in repr(paper) + str(paper)


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
def test_an_age_has_two_units_at_most(seconds: float, words: str) -> None:
    assert age(seconds) == words


def test_a_moment_beyond_every_calendar_is_said_to_be_one() -> None:
    assert moment(0) == "1970-01-01 00:00 UTC"
    assert moment(1e30) == "a time that no calendar has"
