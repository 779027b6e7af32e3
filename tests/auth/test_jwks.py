"""Tests of JWK sets of other issuers: usable keys, and refreshing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import LogEvent

from seance.auth.jwks import MAX_WAITING, REFRESH_SECONDS, RETRY_SECONDS, RemoteKeys, keys_from_jwks
from tests.auth.tokens import ed_key, es_private, jwk_of, rsa_private, secret_key
from tests.conftest import Watch


def jwks(*members: object) -> bytes:
    return json.dumps({"keys": members}).encode()


ONE = jwks(ed_key().public_jwk())
TWO = jwks(ed_key().public_jwk(), ed_key("ed-2").public_jwk())


def names(text: bytes) -> list[str]:
    return [key.key_id for key in keys_from_jwks(text)]


# Sets


def test_keys_of_other_kinds_and_purposes_are_ignored() -> None:
    text = jwks(
        jwk_of(rsa_private(), "RS256", kid="rs", use="sig"),
        jwk_of(rsa_private(), "RS256", kid="rs-enc", use="enc"),
        jwk_of(rsa_private(), "RS256", kid="rs-512", alg="RS512"),
        jwk_of(es_private(), "ES256", kid="es"),
        {"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA", "kid": "p521"},
        {"kty": "quantum"},
        "text",
        None,
        ed_key().public_jwk(),
    )
    assert names(text) == ["rs", "es", "ed"]


def test_secrets_and_private_keys_are_ignored() -> None:
    assert names(jwks(ed_key().private_jwk(), secret_key().private_jwk(), ed_key("b").public_jwk())) == ["b"]


def test_first_of_two_keys_with_one_name_is_used() -> None:
    [key] = keys_from_jwks(jwks(ed_key("x").public_jwk(), jwk_of(es_private(), "ES256", kid="x")))
    assert key == ed_key("x")


def test_set_may_be_empty() -> None:
    assert names(b'{"keys": []}') == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"<html>", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "not a JWK set"),
        (b'{"keys": {}}', "not a JWK set"),
        (jwks(*[{}] * 65), "at most 64 keys"),
        (jwks(secret_key().private_jwk()), "no public key"),
        (b'{"keys": [], "keys": []}', "twice"),
    ],
)
def test_invalid_set_is_an_error(text: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        keys_from_jwks(text)


# Refreshing


class Source:
    """Answers fetches immediately, or leaves them to the test if ``answer`` is None."""

    def __init__(self) -> None:
        self.answer: bytes | Exception | None = ONE
        self.asked: list[Deferred[bytes]] = []

    def fetch(self) -> Deferred[bytes]:
        if self.answer is None:
            self.asked.append(Deferred())
        elif isinstance(self.answer, Exception):
            self.asked.append(fail(self.answer))
        else:
            self.asked.append(succeed(self.answer))
        return self.asked[-1]


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def changes() -> list[None]:
    return []


@pytest.fixture
def remote(clock: Clock, source: Source, changes: list[None]) -> Iterator[RemoteKeys]:
    remote = RemoteKeys(
        clock, source.fetch, name="https://keys.example/set", on_change=lambda: changes.append(None)
    )
    yield remote
    remote.stop()
    assert clock.getDelayedCalls() == []


def known(remote: RemoteKeys) -> list[str]:
    return [key.key_id for key in remote.keys]


def results_of(waiting: Deferred[Any] | None) -> list[object]:
    assert waiting is not None
    results: list[object] = []
    waiting.addBoth(results.append)
    return results


def test_set_is_fetched_at_the_start_and_every_five_minutes(
    remote: RemoteKeys, source: Source, clock: Clock, changes: list[None]
) -> None:
    remote.start()
    assert known(remote) == ["ed"]
    assert len(changes) == 1
    clock.advance(REFRESH_SECONDS - 1)
    assert len(source.asked) == 1
    source.answer = TWO
    clock.advance(1)
    assert known(remote) == ["ed", "ed-2"]
    assert len(changes) == 2


def test_removed_key_is_dropped(
    remote: RemoteKeys, source: Source, clock: Clock, changes: list[None]
) -> None:
    source.answer = TWO
    remote.start()
    source.answer = ONE
    clock.advance(REFRESH_SECONDS)
    assert known(remote) == ["ed"]
    assert len(changes) == 2


def test_equal_set_is_no_change(remote: RemoteKeys, clock: Clock, changes: list[None]) -> None:
    remote.start()
    clock.advance(REFRESH_SECONDS)
    assert len(changes) == 1


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (ValueError("responded with status 500"), "responded with status 500"),
        (ConnectionError("secret details"), "could not be fetched (ConnectionError)"),
        (b"<html>", "is not JSON"),
        (jwks(secret_key().private_jwk()), "contains no public key for EdDSA, RS256 or ES256"),
    ],
)
def test_failed_fetch_keeps_the_keys_and_is_retried(
    answer: bytes | Exception,
    problem: str,
    remote: RemoteKeys,
    source: Source,
    clock: Clock,
    changes: list[None],
    log: list[LogEvent],
) -> None:
    remote.start()
    source.answer = answer
    clock.advance(REFRESH_SECONDS)
    assert known(remote) == ["ed"]
    assert len(changes) == 1
    assert [(event["event"], event["problem"]) for event in log] == [("auth.key_set_kept", problem)]
    source.answer = TWO
    clock.advance(RETRY_SECONDS)
    assert known(remote) == ["ed", "ed-2"]


def test_fetch_times_out_after_five_seconds(
    remote: RemoteKeys, source: Source, clock: Clock, log: list[LogEvent]
) -> None:
    source.answer = None
    remote.start()
    results = results_of(remote.when_refreshed())
    clock.advance(4.9)
    assert results == []
    clock.advance(0.1)
    assert results == [None]
    assert [event["problem"] for event in log] == ["did not arrive within 5 s"]


def test_unknown_key_causes_one_fetch_a_minute_at_most(
    remote: RemoteKeys, source: Source, clock: Clock
) -> None:
    remote.start()
    clock.advance(RETRY_SECONDS - 1)
    assert remote.when_refreshed() is None
    clock.advance(1)
    source.answer = TWO
    assert results_of(remote.when_refreshed()) == [None]
    assert known(remote) == ["ed", "ed-2"]
    assert remote.when_refreshed() is None
    clock.advance(REFRESH_SECONDS - 1)
    assert len(source.asked) == 2
    clock.advance(1)
    assert len(source.asked) == 3


def test_tokens_wait_for_the_same_fetch(remote: RemoteKeys, source: Source, clock: Clock) -> None:
    remote.start()
    clock.advance(RETRY_SECONDS)
    source.answer = None
    waiting = [results_of(remote.when_refreshed()) for _ in range(5)]
    assert waiting == [[]] * 5
    source.asked[-1].callback(TWO)
    assert waiting == [[None]] * 5
    assert len(source.asked) == 2


def test_tokens_can_wait_for_the_first_fetch(remote: RemoteKeys, source: Source) -> None:
    source.answer = None
    remote.start()
    results = results_of(remote.when_refreshed())
    source.asked[0].callback(ONE)
    assert results == [None]


def test_waiting_tokens_are_bounded(remote: RemoteKeys, source: Source) -> None:
    source.answer = None
    remote.start()
    waiting = [remote.when_refreshed() for _ in range(MAX_WAITING)]
    assert None not in waiting
    assert remote.when_refreshed() is None
    waiting[0].addErrback(lambda _: None).cancel()
    assert remote.when_refreshed() is not None
    assert remote.when_refreshed() is None


def test_callback_may_cancel_another_waiting_token(remote: RemoteKeys, source: Source) -> None:
    source.answer = None
    remote.start()
    first, second = remote.when_refreshed(), remote.when_refreshed()
    first.addCallback(lambda _: second.cancel())
    cancelled = results_of(second)
    source.asked[0].callback(ONE)
    assert len(cancelled) == 1


def test_refresh_ignores_the_retry_time(remote: RemoteKeys, source: Source, clock: Clock) -> None:
    remote.start()
    remote.refresh()
    assert len(source.asked) == 2
    source.answer = None
    remote.refresh()
    remote.refresh()
    assert len(source.asked) == 3
    source.asked[-1].callback(ONE)
    assert len(clock.getDelayedCalls()) == 1


def test_stopping_cancels_the_fetch_without_a_log_line(
    remote: RemoteKeys, source: Source, log: list[LogEvent]
) -> None:
    source.answer = None
    remote.start()
    results = results_of(remote.when_refreshed())
    remote.stop()
    assert results == [None]
    assert log == []
    assert remote.when_refreshed() is None
    remote.refresh()
    assert len(source.asked) == 1


def test_nothing_to_wait_for_before_the_start(remote: RemoteKeys) -> None:
    assert remote.when_refreshed() is None


def test_error_in_on_change_does_not_end_the_fetching(clock: Clock, source: Source, watch: Watch) -> None:
    def fall_over() -> None:
        raise LookupError

    remote = RemoteKeys(clock, source.fetch, name="x", on_change=fall_over)
    remote.start()
    watch.take(LookupError)
    clock.advance(RETRY_SECONDS)
    assert len(source.asked) == 2
    remote.stop()
