"""Tests of the verifier over time: changed keys, revoked tokens, listeners."""

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

from seance.auth.service import MAX_LISTENERS, AuthService
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


def test_grant_has_the_permissions_of_the_token(service: AuthService) -> None:
    grant = enter(service, token(room=["team-*", "x"], sub="zoe", jti="t", max={"clients": 2}))
    assert (grant.rooms, grant.subject, grant.token_id) == (("team-*", "x"), "zoe", "t")
    assert (grant.key_id, grant.max_clients, grant.expires_at) == ("ed", 2, NOW + 3600)


def test_repr_of_a_grant_shows_no_key(service: AuthService) -> None:
    assert "Key(" not in repr(enter(service, token()))


def test_admin_may_leave_the_room_out(service: AuthService) -> None:
    text = token(role="admin", room="team-*")
    everywhere = grant_of(service.verify(text, TokenRole.ADMIN, ""))
    assert everywhere.allows_room("team-7")
    assert not everywhere.allows_room("other")
    assert grant_of(service.verify(text, TokenRole.ADMIN, ROOM)).role is TokenRole.ADMIN
    assert refusal_of(service.verify(text, TokenRole.ADMIN, "other")).status == 403


def test_grant_is_valid_until_exp(service: AuthService, clock: Clock) -> None:
    grant = enter(service, token(exp=int(NOW) + 60))
    assert service.is_still_good(grant)
    clock.advance(59)
    assert service.is_still_good(grant)
    clock.advance(1)
    assert not service.is_still_good(grant)


def test_grant_of_another_verifier_is_not_valid(service: AuthService) -> None:
    assert not service.is_still_good(Grant(TokenRole.CLIENT, ("*",), NOW + 60, key_id="ed"))


# Changed keys


def test_only_key_needs_no_kid(start: Start, tmp_path: Path) -> None:
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


def test_replaced_key_ends_grants_of_the_old_key(start: Start, clock: Clock, tmp_path: Path) -> None:
    path = write_jwks(tmp_path / "keys", secret_key("main"))
    service = start(keys=[path])
    grant = enter(service, sign(claims(), material=SECRET, algorithm="HS256", kid="main"))
    write_jwks(path, secret_key("main", bytes(32)))
    clock.advance(CHECK_SECONDS)
    assert not service.is_still_good(grant)


def test_same_key_in_another_form_ends_no_grant(start: Start, clock: Clock, tmp_path: Path) -> None:
    path = write_jwks(tmp_path / "keys", ed_key())
    service = start(keys=[path])
    grant = enter(service, token())
    path.write_text(json.dumps(ed_key().public_jwk(), indent=4))
    clock.advance(CHECK_SECONDS)
    assert service.is_still_good(grant)


def test_empty_set_refuses_all_tokens(start: Start, clock: Clock, tmp_path: Path) -> None:
    path = write_jwks(tmp_path / "keys", ed_key())
    service = start(keys=[path])
    grant = enter(service, token())
    path.write_text('{"keys": []}')
    clock.advance(CHECK_SECONDS)
    assert not service.is_still_good(grant)
    assert code(service, sign(claims(), kid=...)) == "token_key_unknown"


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("<<<<<<<"), Path.touch])
def test_damaged_key_file_keeps_the_keys(
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


def test_keys_of_several_files_are_combined(start: Start, tmp_path: Path) -> None:
    (tmp_path / "pem").write_bytes(pem(ed_key("ed-2").signing))
    (tmp_path / "pem").chmod(0o600)
    set_path = tmp_path / "set"
    set_path.write_text(json.dumps({"keys": [ed_key("ed-3").public_jwk(), {"kty": "quantum"}]}))
    service = start(keys=[write_jwks(tmp_path / "jwk", ed_key()), tmp_path / "pem"], jwks=set_path)
    assert enter(service, token())
    assert enter(service, sign(claims(), kid="ed-3", material=ed_key("ed-3").signing))
    assert len(service._keys) == 3


def test_files_that_change_together_are_one_change(start: Start, clock: Clock, tmp_path: Path) -> None:
    paths = [write_jwks(tmp_path / name, ed_key(name)) for name in ("a", "b")]
    service = start(keys=paths)
    heard: list[int] = []
    service.on_change(lambda: heard.append(1))
    for path in paths:
        path.write_text('{"keys": []}')
    clock.advance(CHECK_SECONDS)
    assert heard == [1]
    assert service._keys == {}


def test_first_file_wins_for_equal_names(start: Start, tmp_path: Path, log: list[LogEvent]) -> None:
    first = write_jwks(tmp_path / "one", secret_key("k"))
    second = write_jwks(tmp_path / "two", secret_key("k", bytes(32)))
    service = start(keys=[first, second, first])
    assert enter(service, sign(claims(), material=SECRET, algorithm="HS256", kid="k"))
    assert [(event["event"], event["key_id"]) for event in log] == [("auth.key_shadowed", "k")]


@pytest.mark.parametrize("option", ["keys", "jwks", "deny"])
def test_invalid_file_prevents_the_start(option: str, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "file"
    service = auth_service(clock, **{option: [path] if option == "keys" else path})
    with pytest.raises(ConfigError, match=r"file cannot be read \(No such file"):
        service.startService()
    path.write_text("?")
    with pytest.raises(ConfigError, match=r"file (is not JSON|has an invalid entry in line 1)"):
        service.startService()
    assert not service.running
    assert clock.getDelayedCalls() == []


def test_tokens_are_refused_before_the_start(clock: Clock, tmp_path: Path) -> None:
    deny = tmp_path / "deny"
    deny.touch()
    service = auth_service(clock, keys=[write_jwks(tmp_path / "keys", ed_key())], deny=deny)
    service.reread()
    assert code(service, token()) == "token_key_unknown"


def test_service_can_be_started_again(start: Start, clock: Clock, tmp_path: Path) -> None:
    service = start(keys=[write_jwks(tmp_path / "keys", ed_key())])
    service.stopService()
    service.stopService()
    assert clock.getDelayedCalls() == []
    service.startService()
    assert enter(service, token())


# Revocation


@pytest.mark.parametrize(
    ("line", "denied"),
    [
        ("jti:t", (401, "token_denied")),
        ("sub:zoe", (401, "token_denied")),
        (f"room:{ROOM}", (403, "room_denied")),
        ("room:team-*", (403, "room_denied")),
    ],
)
def test_denied_grants_end_at_the_next_check_and_others_stay(
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
def test_damaged_deny_list_stays_in_force(
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


def test_listeners_are_called_after_a_change(start: Start, clock: Clock, tmp_path: Path) -> None:
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


def test_failing_listener_does_not_affect_others(
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


def test_listener_may_be_added_twice(start: Start, tmp_path: Path) -> None:
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


def test_listener_may_remove_itself_during_the_call(start: Start, tmp_path: Path) -> None:
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
    for _ in range(MAX_LISTENERS):
        service.on_change(lambda: None)
    with pytest.raises(RuntimeError, match="does not remove"):
        service.on_change(lambda: None)


def test_error_in_checking_files_is_logged(
    service: AuthService, clock: Clock, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    def fall_over(*, force: bool) -> bool:
        raise LookupError

    monkeypatch.setattr(service._key_files[0], "_read_changed", fall_over)
    clock.advance(CHECK_SECONDS)
    watch.take(LookupError)


@pytest_twisted.ensureDeferred
async def test_sighup_rereads_in_a_running_process(tmp_path: Path) -> None:
    """Time and size of the file do not change, so only the signal can cause the reading."""
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
