"""The verifier over time: keys that come and go, tokens that are taken back, people who wait."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.logger import LogEvent

from seance.auth.service import MOST_LISTENERS, AuthService
from seance.core.interfaces import Grant, TokenRole
from seance.errors import ConfigError
from seance.net.files import CHECK_SECONDS
from tests.auth.conftest import Start
from tests.auth.tokens import (
    NOW,
    ROOM,
    SECRET,
    auth_service,
    claims,
    code,
    ed_key,
    enter,
    grant_of,
    pem,
    public_pem,
    refusal_of,
    secret_key,
    sign,
    token,
    write_jwks,
)
from tests.conftest import Watch

# Grants


def test_a_grant_says_what_the_token_allows(service: AuthService) -> None:
    grant = enter(service, token(room=["team-*", "x"], sub="zoe", jti="t", max={"clients": 2}))
    assert (grant.rooms, grant.subject, grant.token_id) == (("team-*", "x"), "zoe", "t")
    assert (grant.key_id, grant.max_clients, grant.expires_at) == ("ed", 2, NOW + 3600)


def test_a_grant_does_not_show_keys(service: AuthService) -> None:
    assert "Key(" not in repr(enter(service, token()))


def test_an_admin_needs_no_room_but_may_name_one(service: AuthService) -> None:
    text = token(role="admin", room="team-*")
    everywhere = grant_of(service.verify(text, TokenRole.ADMIN, ""))
    assert everywhere.allows_room("team-7")
    assert not everywhere.allows_room("other")
    assert grant_of(service.verify(text, TokenRole.ADMIN, ROOM)).role is TokenRole.ADMIN
    assert refusal_of(service.verify(text, TokenRole.ADMIN, "other")).status == 403


def test_a_grant_is_good_until_its_last_second(service: AuthService, clock: Clock) -> None:
    grant = enter(service, token(exp=int(NOW) + 60))
    assert service.is_still_good(grant)
    clock.advance(59)
    assert service.is_still_good(grant)
    clock.advance(1)
    assert not service.is_still_good(grant)


def test_a_grant_of_somebody_else_is_none(service: AuthService) -> None:
    assert not service.is_still_good(Grant(TokenRole.CLIENT, ("*",), NOW + 60, key_id="ed"))


# Keys that come and go


def test_the_only_key_needs_no_name(start: Start, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(public_pem(ed_key().signing))
    service = start(keys=[tmp_path / "key"])
    assert enter(service, sign(claims(), kid=...)).key_id == service._key_files[0].content[0].key_id
    assert code(service, token()) == "token_key_unknown"


def test_keys_rotate_by_their_names(start: Start, clock: Clock, tmp_path: Path) -> None:
    path = write_jwks(tmp_path / "keys", ed_key())
    service = start(keys=[path])
    old, new = token(), sign(claims(), kid="ed-2", material=ed_key("ed-2").signing)
    grant = enter(service, old)
    assert code(service, new) == "token_key_unknown"
    write_jwks(path, ed_key(), ed_key("ed-2"))
    clock.advance(CHECK_SECONDS)
    assert service.is_still_good(enter(service, new))
    assert service.is_still_good(grant)
    write_jwks(path, ed_key("ed-2"))
    clock.advance(CHECK_SECONDS)
    assert not service.is_still_good(grant)
    assert code(service, old) == "token_key_unknown"
    assert enter(service, new)


def test_another_key_under_the_same_name_ends_what_the_first_has_signed(
    start: Start, clock: Clock, tmp_path: Path
) -> None:
    path = write_jwks(tmp_path / "keys", secret_key("main"))
    service = start(keys=[path])
    grant = enter(service, sign(claims(), material=SECRET, algorithm="HS256", kid="main"))
    write_jwks(path, secret_key("main", bytes(32)))
    clock.advance(CHECK_SECONDS)
    assert not service.is_still_good(grant)


def test_the_same_key_written_in_another_way_ends_nothing(start: Start, clock: Clock, tmp_path: Path) -> None:
    path = write_jwks(tmp_path / "keys", ed_key())
    service = start(keys=[path])
    grant = enter(service, token())
    path.write_text(json.dumps(ed_key().public_jwk(), indent=4))
    clock.advance(CHECK_SECONDS)
    assert service.is_still_good(grant)


def test_no_keys_let_nobody_in(start: Start, clock: Clock, tmp_path: Path) -> None:
    path = write_jwks(tmp_path / "keys", ed_key())
    service = start(keys=[path])
    grant = enter(service, token())
    path.write_text('{"keys": []}')
    clock.advance(CHECK_SECONDS)
    assert not service.is_still_good(grant)
    assert code(service, sign(claims(), kid=...)) == "token_key_unknown"


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("<<<<<<<"), Path.touch])
def test_a_spoilt_key_file_throws_nobody_out(
    spoil: Callable[[Path], object], start: Start, clock: Clock, tmp_path: Path
) -> None:
    path = write_jwks(tmp_path / "keys", ed_key())
    service = start(keys=[path])
    grant = enter(service, token())
    spoil(path)
    for _ in range(5):
        clock.advance(CHECK_SECONDS)
    assert service.is_still_good(grant)
    assert enter(service, token())


def test_several_files_are_one_ring(start: Start, tmp_path: Path) -> None:
    (tmp_path / "pem").write_bytes(pem(ed_key("ed-2").signing))
    (tmp_path / "pem").chmod(0o600)
    set_path = tmp_path / "set"
    set_path.write_text(json.dumps({"keys": [ed_key("ed-3").public_jwk(), {"kty": "quantum"}]}))
    service = start(keys=[write_jwks(tmp_path / "jwk", ed_key()), tmp_path / "pem"], jwks=set_path)
    assert enter(service, token())
    assert enter(service, sign(claims(), kid="ed-3", material=ed_key("ed-3").signing))
    assert len(service._ring) == 3


def test_files_that_change_together_are_one_change(start: Start, clock: Clock, tmp_path: Path) -> None:
    paths = [write_jwks(tmp_path / name, ed_key(name)) for name in ("a", "b")]
    service = start(keys=paths)
    heard: list[int] = []
    service.on_change(lambda: heard.append(1))
    for path in paths:
        path.write_text('{"keys": []}')
    clock.advance(CHECK_SECONDS)
    assert heard == [1]
    assert service._ring == {}


def test_of_two_keys_with_one_name_the_first_file_wins(
    start: Start, tmp_path: Path, log: list[LogEvent]
) -> None:
    first = write_jwks(tmp_path / "one", secret_key("k"))
    second = write_jwks(tmp_path / "two", secret_key("k", bytes(32)))
    service = start(keys=[first, second, first])
    assert enter(service, sign(claims(), material=SECRET, algorithm="HS256", kid="k"))
    assert [(event["event"], event["key_id"]) for event in log] == [("auth.key_shadowed", "k")]


@pytest.mark.parametrize("option", ["keys", "jwks", "deny"])
def test_a_file_that_will_not_do_keeps_it_from_starting(option: str, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "file"
    service = auth_service(clock, **{option: [path] if option == "keys" else path})
    with pytest.raises(ConfigError, match=r"file cannot be read \(No such file"):
        service.startService()
    path.write_text("?")
    with pytest.raises(ConfigError, match=r"file (is not JSON|has an entry in line 1)"):
        service.startService()
    assert not service.running
    assert clock.getDelayedCalls() == []


def test_before_the_start_nobody_is_let_in(clock: Clock, tmp_path: Path) -> None:
    deny = tmp_path / "deny"
    deny.touch()
    service = auth_service(clock, keys=[write_jwks(tmp_path / "keys", ed_key())], deny=deny)
    service.reread()
    assert code(service, token()) == "token_key_unknown"


def test_it_can_be_started_again(start: Start, clock: Clock, tmp_path: Path) -> None:
    service = start(keys=[write_jwks(tmp_path / "keys", ed_key())])
    service.stopService()
    service.stopService()
    assert clock.getDelayedCalls() == []
    service.startService()
    assert enter(service, token())


# Taking back


@pytest.mark.parametrize(
    ("line", "denied"),
    [
        ("jti:t", (401, "token_denied")),
        ("sub:zoe", (401, "token_denied")),
        (f"room:{ROOM}", (403, "room_denied")),
        ("room:team-*", (403, "room_denied")),
    ],
)
def test_who_is_denied_is_out_at_the_next_look_and_nobody_else(
    line: str, denied: tuple[int, str], start: Start, clock: Clock, tmp_path: Path
) -> None:
    deny = tmp_path / "deny"
    deny.touch()
    service = start(keys=[write_jwks(tmp_path / "keys", ed_key())], deny=deny)
    text, other = token(room="*", jti="t", sub="zoe"), token(room="*", jti="t2", sub="max")
    grant = enter(service, text)
    others = [enter(service, other, "elsewhere"), enter(service, other, "team")]
    deny.write_text(f"# {line}\n")
    clock.advance(CHECK_SECONDS)
    assert service.is_still_good(grant)
    deny.write_text(f"{line}\n")
    clock.advance(CHECK_SECONDS)
    assert not service.is_still_good(grant)
    assert all(service.is_still_good(one) for one in others)
    refusal = refusal_of(service.verify(text, TokenRole.CLIENT, ROOM))
    assert (refusal.status, refusal.code) == denied
    deny.write_text("")
    clock.advance(CHECK_SECONDS)
    assert service.is_still_good(grant)


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("jti:t\nzoe\n")])
def test_a_spoilt_deny_list_lets_nobody_back_in(
    spoil: Callable[[Path], object], start: Start, clock: Clock, tmp_path: Path, log: list[LogEvent]
) -> None:
    deny = tmp_path / "deny"
    deny.write_text("jti:t\n")
    service = start(keys=[write_jwks(tmp_path / "keys", ed_key())], deny=deny)
    spoil(deny)
    for _ in range(3):
        clock.advance(CHECK_SECONDS)
    assert code(service, token(jti="t")) == "token_denied"
    assert [event["event"] for event in log] == ["file.kept"]


# Listeners


def test_listeners_hear_of_changes_after_they_were_made(start: Start, clock: Clock, tmp_path: Path) -> None:
    path = write_jwks(tmp_path / "keys", ed_key())
    service = start(keys=[path])
    grant = enter(service, token())
    heard: list[bool] = []
    remove = service.on_change(lambda: heard.append(service.is_still_good(grant)))
    clock.advance(CHECK_SECONDS)
    assert heard == []
    write_jwks(path, ed_key("ed-2"))
    clock.advance(CHECK_SECONDS)
    assert heard == [False]
    remove()
    remove()
    write_jwks(path, ed_key())
    clock.advance(CHECK_SECONDS)
    assert heard == [False]
    assert service.is_still_good(grant)


def test_a_listener_that_fails_keeps_nobody_from_hearing(
    start: Start, clock: Clock, tmp_path: Path, watch: Watch
) -> None:
    path = write_jwks(tmp_path / "keys", ed_key())
    service = start(keys=[path])
    heard: list[int] = []

    def fall_over() -> None:
        heard.append(1)
        raise LookupError

    service.on_change(fall_over)
    service.on_change(lambda: heard.append(2))
    for key in (ed_key("ed-2"), ed_key()):
        write_jwks(path, key)
        clock.advance(CHECK_SECONDS)
    assert heard == [1, 2, 1, 2]
    assert len(watch.take(LookupError)) == 2


def test_the_same_listener_may_listen_twice(start: Start, tmp_path: Path) -> None:
    path = write_jwks(tmp_path / "keys", ed_key())
    service = start(keys=[path])
    heard: list[int] = []

    def listen() -> None:
        heard.append(1)

    remove = service.on_change(listen)
    service.on_change(listen)
    remove()
    write_jwks(path, ed_key("ed-2"))
    service.reread()
    assert heard == [1]


def test_a_listener_may_leave_while_it_is_told(start: Start, tmp_path: Path) -> None:
    path = write_jwks(tmp_path / "keys", ed_key())
    service = start(keys=[path])
    heard: list[int] = []
    removers: list[Callable[[], None]] = []

    def listen_once() -> None:
        heard.append(1)
        removers.pop()()

    removers.append(service.on_change(listen_once))
    service.on_change(lambda: heard.append(2))
    write_jwks(path, ed_key("ed-2"))
    service.reread()
    assert heard == [1, 2]


def test_listeners_are_bounded(service: AuthService) -> None:
    for _ in range(MOST_LISTENERS):
        service.on_change(lambda: None)
    with pytest.raises(RuntimeError, match="forgets"):
        service.on_change(lambda: None)


def test_a_mistake_of_ours_in_looking_is_logged(
    service: AuthService, clock: Clock, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    def fall_over(*, force: bool) -> bool:
        raise LookupError

    monkeypatch.setattr(service._key_files[0], "_read_changed", fall_over)
    clock.advance(CHECK_SECONDS)
    watch.take(LookupError)


@pytest_twisted.ensureDeferred
async def test_a_hangup_signal_rereads_in_the_running_process(tmp_path: Path) -> None:
    """As a door does it. The time and size of the file are the same, so that only the signal tells."""
    from twisted.internet import reactor

    path = write_jwks(tmp_path / "keys", secret_key("main"))
    service = AuthService(reactor, keys=[path], now=lambda: NOW)
    service.startService()
    before = signal.signal(signal.SIGHUP, lambda *_: reactor.callFromThread(service.reread))
    try:
        grant = await service.verify(
            sign(claims(), material=SECRET, algorithm="HS256", kid="main"), TokenRole.CLIENT, ROOM
        )
        status = path.stat()
        write_jwks(path, secret_key("main", bytes(32)))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert path.stat().st_size == status.st_size
        heard: Deferred[None] = Deferred()
        service.on_change(lambda: heard.callback(None))
        os.kill(os.getpid(), signal.SIGHUP)
        await heard
        assert not service.is_still_good(grant)
    finally:
        signal.signal(signal.SIGHUP, before)
        await deferLater(reactor, 0, service.stopService)
