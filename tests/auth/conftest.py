"""Fixtures: a verifier with one key of every kind, on a fake clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher

from seance.auth.service import AuthService
from tests.auth.tokens import auth_service, ed_key, es_private, jwk_of, rsa_private, secret_key, write_jwks

__all__ = ["Start", "clock", "log", "service", "start"]

Start = Callable[..., AuthService]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def service(clock: Clock, tmp_path: Path) -> Iterator[AuthService]:
    """Keys ``ed``, ``ed-2``, ``hs``, ``rs`` and ``es``, and a deny list."""
    keys = write_jwks(
        tmp_path / "keys",
        ed_key(),
        ed_key("ed-2"),
        secret_key(),
        jwk_of(rsa_private(), "RS256", kid="rs"),
        jwk_of(es_private(), "ES256", kid="es"),
    )
    deny = tmp_path / "deny"
    deny.write_text("jti:stolen\nsub:mallory\nroom:closed\nroom:old-*\n")
    service = auth_service(clock, keys=[keys], deny=deny)
    service.startService()
    yield service
    service.stopService()
    assert clock.getDelayedCalls() == []


@pytest.fixture
def log() -> Iterator[list[LogEvent]]:
    """Events of ``auth`` and of watched files that are logged during the test."""
    events: list[LogEvent] = []

    def note(event: LogEvent) -> None:
        if str(event.get("event", "")).startswith(("auth.", "file.")):
            events.append(event)

    globalLogPublisher.addObserver(note)
    yield events
    globalLogPublisher.removeObserver(note)


@pytest.fixture
def start(clock: Clock) -> Iterator[Start]:
    """Return a function that starts a service; all services are stopped after the test."""
    started: list[AuthService] = []

    def start(**options: Any) -> AuthService:
        started.append(auth_service(clock, **options))
        started[-1].startService()
        return started[-1]

    yield start
    for service in started:
        service.stopService()
    assert clock.getDelayedCalls() == []
