"""Fixtures of the TLS tests: an authority, and a server with one of its certificates."""

from __future__ import annotations

from pathlib import Path

import pytest

from seance.net import ServerTls
from tests.certificates import Authority

__all__ = ["authority", "server"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def server(authority: Authority) -> ServerTls:
    """A loaded ``ServerTls`` for localhost."""
    files = authority.issue("localhost")
    tls = ServerTls(files.chain, files.key)
    tls.load()
    return tls
