"""What the doctor finds in the document servers that people have, asked directly and through the tunnel."""

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

SPEECH = {
    "y-websocket": "answers a Yjs sync",
    "pycrdt": "answers a Yjs sync",
    "hocuspocus": "answers pings; a Yjs sync it does not answer",
    "echo": "echoes",
}


@pytest.fixture(params=SPEECH)
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """A stock server: its kind and its port."""
    if request.param == "echo":
        with running_node("echo_server.mjs", ready="on port", env={"PORT": "0"}) as process:
            yield "echo", int(process.output.split()[-1])
    else:
        with LocalAddress(request.param) as started:
            yield request.param, started.port


@ensureDeferred
async def test_a_stock_server_is_well_and_known(server: tuple[str, int]) -> None:
    kind, port = server
    local = f"127.0.0.1:{port}"
    async with Rig(agent={"local": local}) as rig:
        report = await diagnose(rig.relay_url, "r", local=local)
        assert report.exit_code == 0, report.findings
        assert SPEECH[kind] in finding(report, Hop.LOCAL).sentence
        assert SPEECH[kind] in finding(report, Hop.SYNC).sentence
        assert set(report.round_trips) == {"tcp", "local", "tunnel"}
