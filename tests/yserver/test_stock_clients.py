"""Stock clients of other projects, connected to the embedded server without any tunnel."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.peers import Peer, node_peer, python_peer
from tests.processes import Process, environment

pytestmark = pytest.mark.slow

KINDS = ["y-websocket-3", "y-websocket-1"]


@pytest.fixture(scope="module")
def node() -> Iterator[Peer]:
    """A Node process full of stock clients."""
    with node_peer() as peer:
        yield peer


@contextlib.contextmanager
def running_server(*arguments: str) -> Iterator[tuple[Process, str]]:
    """The document server as a process, and where it is."""
    argv = [sys.executable, "-m", "tests.yserver.program", *arguments]
    with Process(argv, name="document server", env=environment()) as process:
        port = process.when_line(r"serving documents on port (\d+)")[1]
        yield process, f"ws://127.0.0.1:{port}"
        process.check_quiet()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server shared by the tests that do not damage it."""
    with running_server() as (_, url):
        yield url


@pytest.mark.parametrize("kind", KINDS)
def test_edits_made_together_and_offline_end_in_one_document(node: Peer, url: str, kind: str) -> None:
    ada, ben = f"ada {kind}", f"ben {kind}"
    for name in (ada, ben):
        node.open(name, kind, url, kind)
    node.when_synced(ada, ben)
    node.ask("edits", names=[ada, ben], count=200)
    together = node.when_equal(ada, ben)
    node.ask("offline", name=ada)
    node.ask("when_unconnected", name=ada)
    node.ask("edits", names=[ada, ben], count=50, seed=2)
    node.ask("online", name=ada)
    assert node.when_equal(ada, ben)["sha256"] != together["sha256"]
    assert node.ask("trace", name=ben)["dials"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_presence_comes_and_goes_with_its_client(node: Peer, url: str, kind: str) -> None:
    """Immediately, not after the 30 s after which the other clients drop a silent one."""
    ada, ben, cem = (f"{who} here {kind}" for who in ("ada", "ben", "cem"))
    for name in (ada, ben, cem):
        node.open(name, kind, url, f"presence {kind}".replace(" ", "-"))
        node.when_synced(name)
        node.ask("announce", name=name, user=name)
    for other in (ben, cem):
        node.ask("when_present", name=ada, user=other)
    node.ask("leave", name=ben)
    node.ask("when_absent", name=ada, user=ben)
    node.ask("cut", name=cem)
    node.ask("when_absent", name=ada, user=cem)


def test_python_and_javascript_share_a_document(node: Peer, url: str) -> None:
    with python_peer() as python:
        node.open("js", "y-websocket-3", url, "mixed")
        python.open("py", "pycrdt", url, "mixed")
        node.ask("insert", name="js", text="from JavaScript ")
        python.ask("insert", name="py", text="from Python ")
        node.ask("when_text", name="js", part="from Python")
        python.ask("when_text", name="py", part="from JavaScript")


def test_nothing_is_lost_when_the_server_is_killed_under_edits(node: Peer, tmp_path: Path) -> None:
    """The clients are gone before the server comes back, so what returns was in the file."""
    with running_server(str(tmp_path / "s")) as (server, url):
        node.open("writer", "y-websocket-3", url, "doc")
        node.open("reader", "y-websocket-3", url, "doc")
        node.when_synced("writer", "reader")
        node.ask("edits", names=["writer"], count=700)
        before = node.when_equal("writer", "reader")
        server.kill()
        node.ask("leave", name="writer")
        node.ask("leave", name="reader")
    with running_server(str(tmp_path / "s")) as (_, url):
        node.open("heir", "y-websocket-3", url, "doc")
        node.ask("when_length", name="heir", length=before["length"])
        assert node.ask("state", name="heir")["sha256"] == before["sha256"]
