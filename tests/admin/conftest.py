"""Fixtures: an ``AuthService`` on a ``Clock``, and a certificate authority."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.internet.task import Clock

from seance.admin import event_stream
from seance.auth.service import AuthService
from tests.auth.tokens import auth_service, ed_key, write_jwks
from tests.certificates import Authority

__all__ = ["authority", "clock", "deny", "service", "update_often"]


@pytest.fixture(autouse=True)
def update_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Send figures twenty times a second instead of once."""
    assert event_stream.UPDATE_SECONDS == 1.0
    monkeypatch.setattr(event_stream, "UPDATE_SECONDS", 0.05)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def deny(tmp_path: Path) -> Path:
    """The deny list of ``service``; empty."""
    path = tmp_path / "deny"
    path.touch()
    return path


@pytest.fixture
def service(clock: Clock, tmp_path: Path, deny: Path) -> Iterator[AuthService]:
    keys = write_jwks(tmp_path / "keys", ed_key())
    service = auth_service(clock, keys=[keys], deny=deny)
    service.startService()
    yield service
    service.stopService()
    assert clock.getDelayedCalls() == []


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)
