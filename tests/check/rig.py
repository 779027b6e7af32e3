"""The local server of a check in the reactor of the test, behind a proxy that may be faulty."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from seance.bench.local_server import LocalServerFactory
from seance.check.environment import Environment
from tests.bench.rig import listening, reactor
from tests.check.faulty_proxy import Fault, FaultyProxy

__all__ = ["checked_server", "reactor"]


@asynccontextmanager
async def checked_server(
    fault: Fault = Fault.NONE, *, delay_seconds: float = 0.5
) -> AsyncIterator[Environment]:
    """Provide an environment with a proxy as its tunnel."""
    async with listening(LocalServerFactory(reactor)) as direct:
        proxy = FaultyProxy(direct.port, fault, delay_seconds)
        async with listening(proxy) as tunnel:
            yield Environment(reactor, tunnel, tunnel.at("yjs"), direct, relay_words="ws://h", room="r")
