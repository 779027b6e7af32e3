"""The examples run, and their output equals the output on the pages."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.docs.pages import DOCS, README, Block, noted
from tests.processes import Process, environment, running_agent, running_relay
from tests.tools import ROOT

pytestmark = pytest.mark.slow

EXAMPLES = sorted((DOCS / "examples").glob("*.py"))
PRINTS = dict(noted("prints"))


def running(example: str, *arguments: str) -> Process:
    argv = [sys.executable, str(DOCS / "examples" / example), *arguments]
    return Process(argv, name=example, env=environment())


def end(process: Process) -> None:
    """Ctrl-C."""
    os.kill(process.pid, signal.SIGINT)
    process.when_exited()


def as_printed(process: Process) -> str:
    """Return its output, with the default port in place of its port."""
    process.check_quiet()
    return re.sub(r"(localhost|127\.0\.0\.1):(?!1234\b)\d+", "localhost:8080", process.output) + "\n"


def test_every_example_has_its_output_on_a_page() -> None:
    assert sorted(PRINTS) == [path.name for path in EXAMPLES]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_can_be_imported_and_has_a_main(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert next(iter(inspect.signature(module.main).parameters)) == "reactor"


def test_embed_agent() -> None:
    with running_relay() as relay, running("embed_agent.py", relay.url) as process:
        process.when_line("^Share this")
        end(process)
        assert as_printed(process) == PRINTS["embed_agent.py"].text


def test_embed_agent_takes_the_room_of_the_agent_that_twistd_runs() -> None:
    """A reader of the README still runs the agent of its first section."""
    with (
        running_relay() as relay,
        running_agent(relay, "test-room", local_port=1234) as first,
        running("embed_agent.py", relay.url) as second,
    ):
        second.when_line("^Share this")
        first.when_line("Another process with this agent's key has taken the room")
        end(second)
        second.check_quiet()


def test_embed_asyncio() -> None:
    with running_relay() as relay, running("embed_asyncio.py", relay.url) as process:
        assert process.when_exited() == 0, process.output
        assert as_printed(process) == PRINTS["embed_asyncio.py"].text


def test_relay_and_agent() -> None:
    with echo_server() as local, running("relay_and_agent.py", "0", local) as process:
        url = process.when_line(r"clients dial (\S+)$")[1]
        with connect(url) as socket:
            socket.send("through both")
            assert socket.recv() == "through both"
        end(process)
        assert as_printed(process) == PRINTS["relay_and_agent.py"].text


def test_stream_endpoints() -> None:
    with running("stream_endpoints.py") as process:
        assert process.when_exited() == 0, process.output
        assert as_printed(process) == PRINTS["stream_endpoints.py"].text


@contextlib.contextmanager
def echo_server() -> Iterator[str]:
    """Run a WebSocket server of another library on a free port; yield its address."""

    def echo(socket: ServerConnection) -> None:
        for message in socket:
            socket.send(message)

    with serve(echo, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(("place", "block"), noted("from"))
def test_a_quoted_block_is_in_its_file(place: str, block: Block) -> None:
    assert block.text in (ROOT / place).read_text("utf-8")


def test_the_program_of_the_readme_is_short() -> None:
    [block] = [block for _, block in noted("from") if block.page == README]
    assert len(block.text.splitlines()) <= 10
