"""The doctor against common document servers, directly and through the tunnel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_twisted import ensureDeferred

from seance.doctor.findings import Hop
from tests.doctor.rig import diagnose, finding
from tests.e2e.peers import LocalAddress
from tests.processes import running_node
from tests.relay.rig import Rig

pytestmark = pytest.mark.slow

MESSAGES = {
    "y-websocket": "answers a Yjs sync",
    "pycrdt": "answers a Yjs sync",
    "hocuspocus": "answers pings but not a Yjs sync",
    "echo": "echoes",
}


@pytest.fixture(params=MESSAGES)
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A stock server: its kind and its port."""
    if request.param == "echo":
        with running_node("echo_server.mjs", ready="on port", env={"PORT": "0"}) as process:
            yield "echo", int(process.output.split()[-1])
    else:
        with LocalAddress(request.param) as started:
            yield request.param, started.port


@ensureDeferred
async def test_stock_server_passes_and_is_recognised(server: tuple[str, int]) -> None:
    kind, port = server
    local = f"127.0.0.1:{port}"
    async with Rig(agent={"local": local}) as rig:
        report = await diagnose(rig.relay_url, "r", local=local)
        assert report.exit_code == 0, report.findings
        assert MESSAGES[kind] in finding(report, Hop.LOCAL).message
        assert MESSAGES[kind] in finding(report, Hop.SYNC).message
        assert set(report.round_trips) == {"tcp", "local", "tunnel"}
