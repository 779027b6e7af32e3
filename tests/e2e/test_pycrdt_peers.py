"""pycrdt-websocket behind the tunnel: Python and JavaScript clients share one document with a local client.

Yjs and pycrdt encode the same document differently. Bytes are therefore compared between clients of one kind.
Across kinds, one client's update is read into an empty document of the other kind.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

import pytest

from tests.e2e.peers import LocalAddress

if TYPE_CHECKING:
    from tests.e2e.conftest import Tunnel, TunnelMaker
    from tests.e2e.peers import Peer

pytestmark = pytest.mark.slow

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def shared(pycrdt_server: LocalAddress, tunnel: TunnelMaker) -> Tunnel:
    return tunnel(pycrdt_server.port)


def test_python_and_javascript_clients_converge(node: Peer, python: Peer, shared: Tunnel) -> None:
    python.open("far", "pycrdt", shared.client_url, "both")
    python.open("near", "pycrdt", shared.direct_url, "both")
    node.open("js far", "y-websocket-3", shared.client_url, "both")
    node.open("js near", "y-websocket-3", shared.direct_url, "both")
    node.when_synced("js far", "js near")
    python.when_synced("far", "near")

    python.ask("edits", names=["far", "near"], count=60)
    node.ask("edits", names=["js far", "js near"], count=60)
    python.ask("insert", name="far", text="<python>")
    node.ask("insert", name="js far", text="<javascript>")
    for part in ("<python>", "<javascript>"):
        python.ask("when_text", name="near", part=part)
        node.ask("when_text", name="js near", part=part)

    # Each side's last insertion has reached the other one, so all edits have arrived or one is lost.
    in_python = python.when_equal("far", "near")
    in_javascript = node.when_equal("js far", "js near")
    node.ask("when_length", name="js far", length=in_python["length"])
    text = python.ask("text", name="near")
    assert node.ask("text", name="js far") == text
    read_by_javascript = node.ask("read_update", update=python.ask("update", name="near"))
    assert read_by_javascript["sha256"] == in_javascript["sha256"]


def test_a_document_of_5_mb_is_uploaded_and_downloaded(node: Peer, python: Peer, shared: Tunnel) -> None:
    node.open("author", "y-websocket-3", shared.client_url, "large", offline=True)
    node.ask("insert", name="author", text="0123456789abcdef" * (5 * MIB // 16))
    node.ask("online", name="author")
    node.open("local", "y-websocket-3", shared.direct_url, "large")
    up = node.when_equal("author", "local")

    python.open("reader", "pycrdt", shared.client_url, "large")
    python.ask("when_length", name="reader", length=5 * MIB)
    assert python.ask("state", name="reader")["sha256"] == up["sha256"]
    assert node.ask("trace", name="author")["closes"] == []


def test_a_cursor_appears_and_disappears(node: Peer, shared: Tunnel) -> None:
    """This server forwards a client's awareness removal, but does not create one for a client that was
    reset.
    """
    node.open("watcher", "y-websocket-3", shared.direct_url, "presence")
    node.open("guest", "y-websocket-3", shared.client_url, "presence")
    node.when_synced("watcher", "guest")
    node.ask("announce", name="guest", user="guest")
    node.ask("when_present", name="watcher", user="guest")
    node.ask("announce", name="guest", user=None)
    node.ask("when_absent", name="watcher", user="guest")


def test_no_edit_is_lost_when_the_local_server_is_killed(node: Peer, tunnel: TunnelMaker) -> None:
    names = ["alice", "bob", "beside"]
    with LocalAddress("pycrdt") as server:
        shared = tunnel(server.port)
        node.open("alice", "y-websocket-3", shared.client_url, "killed")
        node.open("bob", "y-websocket-1", shared.client_url, "killed")
        node.open("beside", "y-websocket-3", shared.direct_url, "killed")
        node.when_synced(*names)
        node.ask("edits", names=names, count=40)
        server.kill()
        for name in names:
            node.ask("when_unconnected", name=name)
        node.ask("edits", names=names, count=40, seed=2)
        node.ask("insert", name="alice", text="<Alice was here>")
        server.restart()
        node.when_equal(*names)
        assert "<Alice was here>" in node.ask("text", name="beside")
        for name in names:
            node.ask("leave", name=name)


def test_a_state_is_the_digest_of_the_encoded_document(node: Peer) -> None:
    """The control of the comparison."""
    node.open("alone", "y-websocket-3", "ws://127.0.0.1:9", "nowhere", offline=True)
    node.ask("insert", name="alone", text="hello")
    update = base64.b64decode(node.ask("update", name="alone"))
    assert b"hello" in update
    assert node.ask("state", name="alone")["sha256"] == hashlib.sha256(update).hexdigest()
