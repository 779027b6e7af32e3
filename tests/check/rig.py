"""A check's local server in the test's own reactor, with or without a faulty proxy before it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from seance.check.local_server import CheckServerFactory
from seance.check.stage import Stage
from tests.bench.rig import listening, reactor
from tests.check.faulty_proxy import Fault, FaultyProxy

__all__ = ["checked_server", "reactor"]


@asynccontextmanager
async def checked_server(fault: Fault = Fault.NONE, *, delay_seconds: float = 0.5) -> AsyncIterator[Stage]:
    """A stage whose tunnel is a proxy."""
    async with listening(CheckServerFactory(reactor)) as direct:
        proxy = FaultyProxy(direct.port, fault, delay_seconds)
        async with listening(proxy) as tunnel:
            yield Stage(reactor, tunnel, tunnel.at("yjs"), direct, relay_words="ws://h", room="r")
