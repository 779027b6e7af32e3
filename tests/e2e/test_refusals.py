"""A client that cannot be served gets an HTTP status, before any WebSocket opens.

An upgrade that is accepted and then closed makes the stock clients dial 9 to 29 times a second; after a
refusal they back off. The tests check that the WebSocket never opens, the status, and the clients' own
back-off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.processes import free_port

if TYPE_CHECKING:
    from tests.e2e.conftest import TunnelMaker
    from tests.e2e.peers import Peer
    from tests.processes import RelayProcess

pytestmark = pytest.mark.slow

# The number of refusals to wait for, and the milliseconds of the client's own back-off up to the last one.
# y-websocket waits 200, 400, 800 ms; Hocuspocus waits at least a second each time.
KINDS = {"y-websocket-3": (4, 1_300), "y-websocket-1": (4, 1_300), "hocuspocus": (3, 1_900)}


def refused(node: Peer, url: str, status: int) -> None:
    """Check that every kind of client gets only ``status`` from ``url``, and backs off."""
    names = {kind: f"{kind} {url}" for kind in KINDS}
    for kind, name in names.items():
        node.open(name, kind, url, "doc")
    waited = 0
    for kind, name in names.items():
        times, backing_off_ms = KINDS[kind]
        waited += node.ask("when_refused", name=name, times=times)["ms"]
        trace = node.ask("trace", name=name)
        assert set(trace["refusals"]) == {status}, kind
        assert trace["opens"] == 0, kind
        assert waited > backing_off_ms, kind
        node.ask("leave", name=name)


def test_a_room_without_an_agent_is_404(node: Peer, relay: RelayProcess) -> None:
    refused(node, relay.client_url("nobody-is-here"), 404)


def test_a_stopped_local_server_is_502(node: Peer, tunnel: TunnelMaker, relay: RelayProcess) -> None:
    refused(node, tunnel(free_port()).client_url, 502)


@pytest.mark.parametrize(("kind", "suffix"), [("y-websocket-3", "doc"), ("hocuspocus", "")])
def test_an_invalid_room_name_is_400(node: Peer, relay: RelayProcess, kind: str, suffix: str) -> None:
    name = f"bad room {kind}"
    node.open(name, kind, f"{relay.url}/client/{suffix}?room=a%20b", "doc")
    node.ask("when_refused", name=name, times=1)
    assert node.ask("trace", name=name)["refusals"] == [400]
    node.ask("leave", name=name)
