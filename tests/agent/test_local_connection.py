"""The agent's side of a client: dials of the local server that fail or are cancelled."""

from __future__ import annotations

import pytest
from pytest_twisted import ensureDeferred

from seance.agent.status import AgentState, AgentStatus
from tests.conftest import Watch
from tests.deaf import deaf_port
from tests.relay.rig import Rig, request, until


@ensureDeferred
async def test_client_that_leaves_while_the_local_server_is_dialled_frees_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("seance.relay.edge.abandoned_upgrade.ORDERLY_SECONDS", 0.1)
    with deaf_port() as port:
        async with Rig(agent={"local": f"127.0.0.1:{port}", "local_dial_seconds": 60.0}) as rig:
            client = await rig.connect(request())
            await until(lambda: rig.agent.client_count == 1)
            client.leg.abortConnection()
            await until(lambda: rig.relay.rooms.client_count == 0 and rig.agent.client_count == 0)


@pytest.mark.parametrize("what", ["tune", "request_with_host", "Splice.start"])
@ensureDeferred
async def test_a_bug_costs_one_client_and_leaves_nothing(
    what: str, monkeypatch: pytest.MonkeyPatch, watch: Watch
) -> None:
    async with Rig() as rig:
        with monkeypatch.context() as patched:
            patched.setattr(f"seance.agent.local_connection.{what}", lambda *_: 1 // 0)
            client = await rig.connect(request())
            await client.ends()
        assert client.received.startswith(b"HTTP/1.1 502 "), client.received
        for local in rig.locals:
            await local.closes_in_order()
        assert len(watch.take(ZeroDivisionError)) == 1
        await until(lambda: rig.relay.rooms.client_count == 0 and rig.agent.client_count == 0)
        await rig.connect(request())
        await until(lambda: rig.agent.client_count == 1)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@ensureDeferred
async def test_local_server_that_refuses_the_connection_is_a_502_and_a_status(host: str) -> None:
    statuses: list[AgentStatus] = []
    with deaf_port() as port:
        async with Rig(agent={"local": f"{host}:{port}", "local_dial_seconds": 0.2}) as rig:
            rig.agent.on_status(statuses.append)
            client = await rig.connect(request())
            await client.ends()
            assert client.received.startswith(b"HTTP/1.1 502 ")
    messages = [status.sentence for status in statuses if status.state is AgentState.LOCAL_TROUBLE]
    why = "no answer within 0.2 s."
    assert messages == [f"The local server {host}:{port} does not take connections: {why}"]
