"""Stock Yjs clients through the tunnel converge with a client that is connected to the server directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.peers import LocalAddress

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.e2e.conftest import Tunnel, TunnelMaker
    from tests.e2e.peers import Peer

MIB = 1024 * 1024
KINDS = ["y-websocket-3", "y-websocket-1", "hocuspocus"]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of client; it determines the server."""
    found: str = request.param
    return found


@pytest.fixture
def shared(kind: str, tunnel: TunnelMaker, request: pytest.FixtureRequest) -> Tunnel:
    """A shared local server behind the tunnel; tests do not stop it."""
    name = "hocuspocus_server" if kind == "hocuspocus" else "y_websocket_server"
    server: LocalAddress = request.getfixturevalue(name)
    return tunnel(server.port)


@pytest.fixture
def names(request: pytest.FixtureRequest, kind: str) -> Callable[[str], str]:
    """Return client names that no other test of the module uses."""
    test = request.function.__name__
    return lambda role: f"{role} of {test} {kind}"


@pytest.fixture
def doc(request: pytest.FixtureRequest, kind: str) -> str:
    """A document name that no other test uses, with a slash and an escape in it."""
    return f"folder/{request.function.__name__}%20{kind}"


def test_concurrent_and_offline_edits_converge(
    node: Peer, kind: str, shared: Tunnel, doc: str, names: Callable[[str], str]
) -> None:
    alice, bob, local = names("alice"), names("bob"), names("local")
    node.open(alice, kind, shared.client_url, doc)
    node.open(bob, kind, shared.client_url, doc)
    node.open(local, kind, shared.direct_url, doc)
    node.when_synced(alice, bob, local)

    node.ask("edits", names=[alice, bob, local], count=150)
    together = node.when_equal(alice, bob, local)
    assert together["length"] > 1000

    node.ask("offline", name=alice)
    node.ask("when_unconnected", name=alice)
    node.ask("edits", names=[alice, bob, local], count=50, seed=2)
    node.ask("online", name=alice)
    merged = node.when_equal(alice, bob, local)

    assert merged["sha256"] != together["sha256"]
    assert node.ask("trace", name=bob)["closes"] == []
    assert node.ask("trace", name=bob)["dials"] == 1


def test_documents_of_one_server_are_separate(
    node: Peer, kind: str, shared: Tunnel, doc: str, names: Callable[[str], str]
) -> None:
    one, other, local = names("one"), names("other"), names("local")
    node.open(one, kind, shared.client_url, doc)
    node.open(other, kind, shared.client_url, f"{doc}-2")
    node.open(local, kind, shared.direct_url, doc)
    node.when_synced(one, other, local)
    node.ask("insert", name=other, text="two")
    node.ask("insert", name=one, text="one")
    node.when_equal(one, local)
    assert node.ask("text", name=local) == "one"
    assert node.ask("text", name=other) == "two"


def test_a_cursor_appears_and_disappears(
    node: Peer,
    kind: str,
    shared: Tunnel,
    doc: str,
    names: Callable[[str], str],
) -> None:
    """It disappears by the close, not by the 30 s after which clients drop a silent peer."""
    local, leaver, crasher = names("local"), names("leaver"), names("crasher")
    for name, url in [(local, shared.direct_url), (leaver, shared.client_url), (crasher, shared.client_url)]:
        node.open(name, kind, url, doc)
    node.when_synced(local, leaver, crasher)

    node.ask("announce", name=leaver, user="leaver")
    node.ask("announce", name=crasher, user="crasher")
    node.ask("announce", name=local, user="local")
    waits = {
        "appears": node.ask("when_present", name=local, user="leaver"),
        "appears here": node.ask("when_present", name=leaver, user="local"),
        "also": node.ask("when_present", name=local, user="crasher"),
    }
    node.ask("leave", name=leaver)
    waits["gone after close"] = node.ask("when_absent", name=local, user="leaver")
    node.ask("when_present", name=local, user="crasher")
    node.ask("cut", name=crasher)
    waits["gone after reset"] = node.ask("when_absent", name=local, user="crasher")
    print(kind, {what: f"{wait['ms']} ms" for what, wait in waits.items()})


@pytest.mark.slow
def test_a_document_of_20_mib_is_uploaded_and_downloaded(
    node: Peer, kind: str, shared: Tunnel, doc: str, names: Callable[[str], str]
) -> None:
    """In both directions it is one WebSocket message, larger than any window of the tunnel."""
    size_mib = 20
    author, local, reader = (names(role) for role in ("author", "local", "reader"))
    node.open(author, kind, shared.client_url, doc, offline=True)
    node.ask("insert", name=author, text="0123456789abcdef" * (size_mib * MIB // 16))
    node.ask("online", name=author)
    node.open(local, kind, shared.direct_url, doc)
    up = node.when_equal(author, local)
    assert up["length"] == size_mib * MIB

    node.open(reader, kind, shared.client_url, doc)
    down = node.when_equal(author, local, reader)
    assert down["sha256"] == up["sha256"]
    trace = node.ask("trace", name=reader)
    assert trace["largestMessage"] > 0.9 * up["bytes"]
    assert trace["closes"] == []
    assert node.ask("trace", name=author)["closes"] == []
    for name in (author, local, reader):
        node.ask("leave", name=name)


@pytest.mark.slow
def test_no_edit_is_lost_when_the_local_server_is_killed(
    node: Peer, kind: str, tunnel: TunnelMaker, doc: str, names: Callable[[str], str]
) -> None:
    alice, bob, local = names("alice"), names("bob"), names("local")
    with LocalAddress("hocuspocus" if kind == "hocuspocus" else "y-websocket") as server:
        shared = tunnel(server.port)
        node.open(alice, kind, shared.client_url, doc)
        node.open(bob, kind, shared.client_url, doc)
        node.open(local, kind, shared.direct_url, doc)
        node.when_synced(alice, bob, local)
        node.ask("edits", names=[alice, bob, local], count=40)

        server.kill()
        for name in (alice, bob, local):
            node.ask("when_unconnected", name=name)
        node.ask("edits", names=[alice, bob, local], count=40, seed=2)
        for author, name in [("Alice", alice), ("Bob", bob), ("Local", local)]:
            node.ask("insert", name=name, text=f"<{author} was here>")
        server.restart()

        node.when_equal(alice, bob, local)
        text = node.ask("text", name=local)
        for author in ("Alice", "Bob", "Local"):
            assert f"<{author} was here>" in text
        if shared.relay is not None:
            assert set(node.ask("trace", name=alice)["refusals"]) <= {502}
        for name in (alice, bob, local):
            node.ask("leave", name=name)
