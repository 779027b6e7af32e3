"""The metrics of an agent with ``--admin``."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread

from seance.admin.port import AgentAdmin
from seance.agent.service import Agent, AgentState
from seance.core.events import Refused
from seance.metrics.catalogue import AGENT, PROCESS
from seance.metrics.exposition import counts
from tests.admin.rig import ask_at
from tests.metrics.pages import families, value
from tests.relay.rig import Rig, reactor, request, until
from tests.tools import require

QUICK = {"backoff_base_seconds": 0.02, "resume_backoff_cap_seconds": 0.02}


class AgentRig(Rig):
    """A ``Rig`` in which the agent has an admin port."""

    def __init__(self, **options: Any) -> None:
        super().__init__(with_agent=False, agent=QUICK, **options)

    async def __aenter__(self) -> AgentRig:
        await super().__aenter__()
        settings = replace(self.make_agent().settings, admin="tcp:0:interface=127.0.0.1")
        self.admin = AgentAdmin(reactor, settings)
        self.agent = Agent(reactor, settings, observer=self.admin.observer)
        self._agents[:] = [self.agent]
        self.admin.watch(self.agent)
        self.admin.startService()
        port: Any = await self.admin.when_listening()
        self.url = f"http://127.0.0.1:{port.getHost().port}"
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.admin.stopService()
        await super().__aexit__(*args)

    async def listen(self) -> Any:
        """Listen on a free port, with a server that never answers."""
        return await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Factory())

    async def start(self) -> None:
        self.agent.startService()
        await self.agent.when_connected()

    async def page(self) -> str:
        return (await ask_at(f"{self.url}/metrics")).text


@ensureDeferred
async def test_agent_is_ready_while_its_link_is_up() -> None:
    async with AgentRig() as rig:
        before = await ask_at(f"{rig.url}/readyz")
        assert (before.status_code, before.text) == (503, "stopped\n")
        assert (await ask_at(f"{rig.url}/healthz")).status_code == 200
        await rig.start()
        assert (await ask_at(f"{rig.url}/readyz")).status_code == 200
        await rig.agent.stopService()
        assert (await ask_at(f"{rig.url}/readyz")).status_code == 503


@ensureDeferred
async def test_agent_has_no_rooms_events_or_pages() -> None:
    async with AgentRig() as rig:
        for path in ("/api/rooms", "/api/events", "/"):
            assert (await ask_at(rig.url + path)).status_code == 404


@ensureDeferred
async def test_agents_counts_are_exact() -> None:
    async with AgentRig() as rig:
        await rig.start()
        for number in range(3):
            client, local = await rig.joined()
            client.send(b"u" * 100 * number)
            local.send(b"d" * 200 * number)
            await until(
                lambda client=client, local=local, number=number: (
                    len(local.received) == 100 * number and len(client.received) == 200 * number
                )
            )
        client.leg.abortConnection()
        await until(lambda: rig.agent.client_count == 2 and local.lost)
        head = len(b"".join([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"]))
        text = await rig.page()
        assert value(text, "seance_agent_clients") == 2
        assert value(text, "seance_agent_streams_opened_total") == 3
        assert value(text, "seance_agent_streams_ended_total", reason="near_gone") == 1
        assert value(text, "seance_agent_local_sent_bytes_total") == 300
        answers = value(text, "seance_agent_local_received_bytes_total") - 600
        assert answers % 3 == 0
        assert answers / 3 > head
        assert value(text, "seance_agent_local_dial_seconds_count") == 3
        assert value(text, "seance_agent_links_total", change="attached") == 1
        assert value(text, "seance_agent_state", state="connected") == 1


@ensureDeferred
async def test_missing_local_server_is_counted_as_a_refusal() -> None:
    async with AgentRig() as rig:
        await rig.start()
        text = await rig.page()
        assert value(text, "seance_agent_refusals_total", code="local_server_refused") == 0
        port, rig.local_port = rig.local_port, await rig.listen()
        await port.stopListening()
        client = await rig.connect(request())
        await client.receives(b" 502 ")
        text = await rig.page()
        assert value(text, "seance_agent_refusals_total", code="local_server_refused") == 1
        assert value(text, "seance_agent_streams_ended_total", reason="refused") == 1
        assert value(text, "seance_agent_clients") == 0


@ensureDeferred
async def test_lost_carrier_and_resumption_are_counted() -> None:
    async with AgentRig() as rig:
        await rig.start()
        link: Any = rig.relay.rooms._table.find("r")
        link._below.carrier.transport.abortConnection()
        await until(lambda: counts(rig.admin._metrics._changes)["resumed"] == 1)
        text = await rig.page()
        found = {one: value(text, "seance_agent_links_total", change=one) for one in ("detached", "resumed")}
        assert found == {"detached": 1, "resumed": 1}


@ensureDeferred
async def test_page_has_exactly_the_metrics_of_the_catalogue_and_promtool_accepts_it() -> None:
    require("promtool")
    async with AgentRig() as rig:
        await rig.start()
        await rig.joined()
        await rig.page()
        relay_link: Any = rig.agent.relay_link
        await until(lambda: relay_link.round_trip_seconds is not None)
        rig.admin.observer.notify(Refused("test"))
        text = await rig.page()
        found = families(text)
        assert found.keys() == {metric.name.removesuffix("_total") for metric in (*AGENT, *PROCESS)}
        states = {sample.labels["state"] for sample in found["seance_agent_state"].samples}
        assert states == {state.value for state in AgentState} - {"local_trouble"}

        def check() -> subprocess.CompletedProcess[str]:
            command = ["promtool", "check", "metrics"]
            return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

        checked = await deferToThread(check)
        assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
