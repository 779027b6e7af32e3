"""Tests of the verifier with the key set of a URL: waiting, frequency of fetches, removed keys."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from seance.auth import service as service_module
from seance.auth.jwks import REFRESH_SECONDS, RETRY_SECONDS
from seance.core.interfaces import Grant, TokenRole
from seance.errors import ConfigError
from tests.auth.conftest import Start
from tests.auth.tokens import (
    ROOM,
    SECRET,
    auth_service,
    claims,
    code,
    ed_key,
    enter,
    refusal_of,
    secret_key,
    sign,
    token,
    write_jwks,
)


class KeySets:
    """Replaces ``KeySetUrl``. Answers fetches immediately, or not at all if ``answer`` is None."""

    def __init__(self) -> None:
        self.answer: list[str] | None = ["ed"]
        self.asked: list[Deferred[bytes]] = []

    def __call__(self, url: str) -> KeySets:
        self.name = url
        return self

    def fetch(self, *_: object) -> Deferred[bytes]:
        self.asked.append(Deferred() if self.answer is None else succeed(self.text(*self.answer)))
        return self.asked[-1]

    @staticmethod
    def text(*names: str) -> bytes:
        return json.dumps({"keys": [ed_key(name).public_jwk() for name in names]}).encode()


@pytest.fixture
def key_sets(monkeypatch: pytest.MonkeyPatch) -> KeySets:
    key_sets = KeySets()
    monkeypatch.setattr(service_module, "KeySetUrl", key_sets)
    return key_sets


NEW = "ed-2"


def new_token() -> str:
    return sign(claims(), kid=NEW, material=ed_key(NEW).signing)


def test_unknown_key_waits_for_one_fetch(start: Start, clock: Clock, key_sets: KeySets) -> None:
    service = start(jwks="https://keys.example/set")
    assert enter(service, token())
    clock.advance(RETRY_SECONDS)
    key_sets.answer = None
    results: list[object] = []
    service.verify(new_token(), TokenRole.CLIENT, ROOM).addBoth(results.append)
    service.verify(sign(claims(), kid="nobody"), TokenRole.CLIENT, ROOM).addErrback(results.append)
    assert results == []
    assert enter(service, token()), "a token with a known key waits"
    key_sets.asked[-1].callback(key_sets.text("ed", NEW))
    assert isinstance(results[0], Grant)
    assert results[1].value.code == "token_key_unknown"  # type: ignore[attr-defined]
    assert service.is_still_good(results[0])


def test_waiting_ends_when_the_fetch_fails(start: Start, clock: Clock, key_sets: KeySets) -> None:
    key_sets.answer = None
    service = start(jwks="https://keys.example/set")
    waiting = service.verify(token(), TokenRole.CLIENT, ROOM)
    clock.advance(5)
    assert refusal_of(waiting).code == "token_key_unknown"


def test_waiting_token_is_refused_when_the_service_stops(start: Start, key_sets: KeySets) -> None:
    key_sets.answer = None
    service = start(jwks="https://keys.example/set")
    waiting = service.verify(token(), TokenRole.CLIENT, ROOM)
    service.stopService()
    assert refusal_of(waiting).code == "token_key_unknown"


def test_token_without_kid_does_not_wait(start: Start, key_sets: KeySets) -> None:
    key_sets.answer = None
    service = start(jwks="https://keys.example/set")
    assert code(service, sign(claims(), kid=...)) == "token_key_unknown"


def test_ten_thousand_invented_kids_cause_one_fetch_a_minute(
    start: Start, clock: Clock, key_sets: KeySets
) -> None:
    service = start(jwks="https://keys.example/set")
    invented = [sign(claims(), kid=f"k{number}") for number in range(100)]
    began_at: list[float] = []
    for number in range(10_000):
        if len(began_at) < len(key_sets.asked):
            began_at.append(clock.seconds())
        assert code(service, invented[number % 100]) == "token_key_unknown"
        clock.advance(0.06)
    assert 9 <= len(began_at) <= 11
    assert all(later - earlier >= RETRY_SECONDS for earlier, later in pairwise(began_at))


def test_removed_key_ends_its_grants(start: Start, clock: Clock, key_sets: KeySets) -> None:
    key_sets.answer = ["ed", NEW]
    service = start(jwks="https://keys.example/set")
    grant, other = enter(service, token()), enter(service, new_token())
    heard: list[int] = []
    service.on_change(lambda: heard.append(1))
    key_sets.answer = [NEW]
    clock.advance(REFRESH_SECONDS)
    assert heard == [1]
    assert not service.is_still_good(grant)
    assert service.is_still_good(other)


def test_files_take_precedence_over_the_set(
    start: Start, key_sets: KeySets, tmp_path: Path, log: list[LogEvent]
) -> None:
    path = write_jwks(tmp_path / "keys", secret_key("ed"))
    service = start(keys=[path], jwks="https://keys.example/set")
    assert enter(service, sign(claims(), material=SECRET, algorithm="HS256", kid="ed"))
    assert code(service, token()) == "token_algorithm"
    assert [event["event"] for event in log].count("auth.key_shadowed") == 1


def test_invalid_url_is_a_config_error(clock: Clock) -> None:
    with pytest.raises(ConfigError, match="use https"):
        auth_service(clock, jwks="http://keys.example/set")


def test_reread_reads_files_and_set_immediately(start: Start, key_sets: KeySets, tmp_path: Path) -> None:
    path = write_jwks(tmp_path / "keys", ed_key(NEW))
    service = start(keys=[path], jwks="https://keys.example/set")
    write_jwks(path, ed_key("ed-3"))
    key_sets.answer = ["ed-4"]
    service.reread()
    assert set(service._keys) == {"ed-3", "ed-4"}
