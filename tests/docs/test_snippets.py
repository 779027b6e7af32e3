"""The JavaScript and the output in the pages, tested with real processes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.docs.pages import README, Block, blocks, noted
from tests.e2e.peers import LocalAddress
from tests.processes import (
    PEERS,
    AgentProcess,
    Process,
    RelayProcess,
    node_modules,
    running_agent,
    running_process,
    running_relay,
)

pytestmark = pytest.mark.slow

SYNCED = {"y-websocket": "sync", "hocuspocus": "synced"}
"""The event of a provider that reports synchronisation with the server."""

BEFORE = "import { WebSocket as Socket } from 'ws'; globalThis.WebSocket ??= Socket\n"
"""Older versions than Node 22 have no global WebSocket."""

AFTER = "provider.on('{event}', () => {{ console.log('there it is'); process.exit(0) }})\n"


@pytest.fixture(scope="module", params=sorted(SYNCED))
def tunnel(request: pytest.FixtureRequest) -> Iterator[tuple[str, RelayProcess]]:
    """Run a Yjs server, a relay, and an agent for ``test-room``, as the pages assume."""
    with (
        LocalAddress(request.param) as local,
        running_relay() as relay,
        running_agent(relay, "test-room", local_port=local.port),
    ):
        yield request.param, relay


def test_the_javascript_of_the_pages_reaches_the_document(tunnel: tuple[str, RelayProcess]) -> None:
    kind, relay = tunnel
    node_modules()
    snippets = [block for wanted, block in noted("runs") if wanted == kind]
    assert {block.page for block in snippets} >= {README}
    for block in snippets:
        code = block.text.replace("localhost:8080", f"127.0.0.1:{relay.port}")
        assert str(relay.port) in code
        code = BEFORE + code + AFTER.format(event=SYNCED[kind])
        argv = ["node", "--input-type=module", "-e", code]
        with running_process(argv, name=str(block), ready="there it is", cwd=PEERS) as process:
            assert process.when_exited() == 0


def shown_by(block: Block) -> list[str]:
    """Return the lines of output in a block, without their time."""
    lines = block.text.splitlines()[1:]
    return [re.sub(r"^\S+ ", "", line) for line in lines]


def test_the_output_in_the_readme_equals_that_of_the_programs() -> None:
    shown = {block.text.splitlines()[0]: shown_by(block) for block in blocks(README, "console")}
    with RelayProcess() as relay:
        relay.when_line("Client endpoint")
        assert shown["$ twistd -n seance-relay"] == said_by(relay, relay.port)
        with AgentProcess("test-room", "--relay", relay.url) as agent:
            agent.when_line("Tunneling")
            assert shown["$ twistd -n seance-agent --room test-room"] == said_by(agent, relay.port)


def said_by(process: Process, port: int) -> list[str]:
    """Return Seance's lines of the log, without their time, with the default port in place of its port."""
    said = re.sub(rf"(127\.0\.0\.1|localhost):{port}", "localhost:8080", process.output)
    lines = said.replace(f"port {port}", "port 8080").splitlines()
    return [re.sub(r"^\S+ ", "", line) for line in lines if "[seance." in line]
