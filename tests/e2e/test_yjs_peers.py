"""Stock Yjs clients through the tunnel end up with the same document as one beside the server."""

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
    """The client; its server follows from it."""
    found: str = request.param
    return found


@pytest.fixture
def shared(kind: str, tunnel: TunnelMaker, request: pytest.FixtureRequest) -> Tunnel:
    """A local server that is left alive, behind the tunnel."""
    name = "hocuspocus_server" if kind == "hocuspocus" else "y_websocket_server"
    server: LocalAddress = request.getfixturevalue(name)
    return tunnel(server.port)


@pytest.fixture
def names(request: pytest.FixtureRequest, kind: str) -> Callable[[str], str]:
    """Names for clients that no other test of the module uses."""
    test = request.function.__name__
    return lambda who: f"{who} of {test} {kind}"


@pytest.fixture
def doc(request: pytest.FixtureRequest, kind: str) -> str:
    """A document that no other test uses; a slash and an escape in its name are the client's own."""
    return f"folder/{request.function.__name__}%20{kind}"


def test_edits_made_together_and_offline_end_in_one_document(
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


def test_documents_of_one_server_stay_apart(
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


def test_a_cursor_appears_and_goes(
    node: Peer,
    kind: str,
    shared: Tunnel,
    doc: str,
    names: Callable[[str], str],
) -> None:
    """Gone means: heard of, not forgotten after the 30 s after which clients give up by themselves."""
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
    waits["gone after goodbye"] = node.ask("when_absent", name=local, user="leaver")
    node.ask("when_present", name=local, user="crasher")
    node.ask("cut", name=crasher)
    waits["gone after reset"] = node.ask("when_absent", name=local, user="crasher")
    print(kind, {what: f"{wait['ms']} ms" for what, wait in waits.items()})


@pytest.mark.parametrize("size_mib", [5, pytest.param(40, marks=pytest.mark.slow)])
def test_a_large_document_goes_up_and_comes_down(
    size_mib: int, node: Peer, kind: str, shared: Tunnel, doc: str, names: Callable[[str], str]
) -> None:
    """Up and down it is one WebSocket message, larger than any window of the tunnel."""
    doc = f"{doc}-{size_mib}"
    author, local, reader = (names(f"{who} of {size_mib} MiB") for who in ("author", "local", "reader"))
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
def test_nothing_is_lost_when_the_local_server_is_killed_under_edits(
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
        for who, name in [("Alice", alice), ("Bob", bob), ("Local", local)]:
            node.ask("insert", name=name, text=f"<{who} was here>")
        server.restart()

        node.when_equal(alice, bob, local)
        text = node.ask("text", name=local)
        for who in ("Alice", "Bob", "Local"):
            assert f"<{who} was here>" in text
        if shared.relay is not None:
            assert set(node.ask("trace", name=alice)["refusals"]) <= {502}
        for name in (alice, bob, local):
            node.ask("leave", name=name)
