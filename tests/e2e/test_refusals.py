"""A client that cannot be served is told so by an HTTP status, before any WebSocket opens.

An upgrade that is accepted and then closed makes these clients dial 9 to 29 times a second; a refused
one makes them back off. So what is tested is: never opened, always a status, and their own back-off.
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

# Refusals to wait for, and the milliseconds that the client's own back-off takes up to the last of
# them: y-websocket waits 200, 400, 800 ms; Hocuspocus at least a second each time.
KINDS = {"y-websocket-3": (4, 1_300), "y-websocket-1": (4, 1_300), "hocuspocus": (3, 1_900)}


def refused(node: Peer, url: str, status: int) -> None:
    """Every kind of client dials ``url`` and gets nothing but ``status``, at its own slow pace."""
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


def test_a_dead_local_server_is_502(node: Peer, tunnel: TunnelMaker, relay: RelayProcess) -> None:
    refused(node, tunnel(free_port()).client_url, 502)


@pytest.mark.parametrize(("kind", "suffix"), [("y-websocket-3", "doc"), ("hocuspocus", "")])
def test_a_room_name_that_cannot_be_one_is_400(
    node: Peer, relay: RelayProcess, kind: str, suffix: str
) -> None:
    name = f"bad room {kind}"
    node.open(name, kind, f"{relay.url}/client/{suffix}?room=a%20b", "doc")
    node.ask("when_refused", name=name, times=1)
    assert node.ask("trace", name=name)["refusals"] == [400]
    node.ask("leave", name=name)
