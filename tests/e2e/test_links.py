"""Every form of client URL leads to the document of the same name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import TunnelMaker
    from tests.e2e.peers import LocalAddress, Peer
    from tests.processes import RelayProcess

Y_WEBSOCKET_FORMS: list[tuple[str, dict[str, Any]]] = [
    ("{relay}/client", {"params": {"room": "{room}"}}),
    ("{relay}/client", {"params": {"room": "{room}", "yauth": "a b+c"}}),
    ("{relay}/client", {"params": {"first": "1", "room": "{room}"}}),
    ("{relay}/client?room={room}", {}),
    ("{relay}/client?room={room}", {"params": {"token": "of-the-app"}}),
    ("{relay}/c/{room}", {}),
    ("{relay}/c/{room}/", {"params": {"token": "of-the-app"}}),
]
HOCUSPOCUS_FORMS = [
    "{relay}/client?room={room}",
    "{relay}/client/?room={room}",
    "{relay}/client/some/path?room={room}&app=1",
    "{relay}/c/{room}",
    "{relay}/c/{room}/some/path?app=1",
]


def filled(form: Any, relay: RelayProcess, room: str) -> Any:
    """Return the form with the relay's URL and the room filled in."""
    if isinstance(form, dict):
        return {name: filled(value, relay, room) for name, value in form.items()}
    return form.format(relay=relay.url, room=room)


@pytest.mark.parametrize(
    ("kind", "doc"),
    [
        ("y-websocket-3", "doc"),
        ("y-websocket-3", "folder/doc 1"),
        ("y-websocket-3", "ünï"),
        ("y-websocket-1", "ünï"),
    ],
)
def test_every_form_opens_the_document_of_a_local_y_websocket_client(
    kind: str,
    doc: str,
    relay: RelayProcess,
    node: Peer,
    tunnel: TunnelMaker,
    y_websocket_server: LocalAddress,
) -> None:
    """The document ``doc`` of a local client is ``doc`` through the tunnel, not ``client/doc``."""
    shared = tunnel(y_websocket_server.port)
    local = f"local {kind} {doc}"
    node.open(local, kind, shared.direct_url, doc)
    node.ask("insert", name=local, text=f"<{local}>")
    for number, (url, options) in enumerate(Y_WEBSOCKET_FORMS):
        name = f"{number} {kind} {doc}"
        node.open(name, kind, filled(url, relay, shared.room), doc, **filled(options, relay, shared.room))
        node.ask("when_text", name=name, part=f"<{local}>")
        assert node.ask("trace", name=name)["dials"] == 1
        node.ask("leave", name=name)
    node.ask("leave", name=local)


def test_every_form_opens_the_document_of_a_local_hocuspocus_client(
    relay: RelayProcess, node: Peer, tunnel: TunnelMaker, hocuspocus_server: LocalAddress
) -> None:
    shared = tunnel(hocuspocus_server.port)
    node.open("local", "hocuspocus", shared.direct_url, "doc")
    for form in HOCUSPOCUS_FORMS:
        remote = f"remote {form}"
        node.ask("insert", name="local", text=f"<{form}>")
        node.open(remote, "hocuspocus", filled(form, relay, shared.room), "doc")
        node.ask("when_text", name=remote, part=f"<{form}>")
        assert node.ask("trace", name=remote)["dials"] == 1
        node.ask("leave", name=remote)
    node.ask("leave", name="local")


def test_a_token_that_hocuspocus_refuses_is_refused_in_band(
    node: Peer, tunnel: TunnelMaker, hocuspocus_server: LocalAddress
) -> None:
    """The local server refuses by a message on the open connection; the tunnel adds no close."""
    shared = tunnel(hocuspocus_server.port)
    node.open("unauthorized", "hocuspocus", shared.client_url, "doc", token="wrong")
    node.ask("when_refused", name="unauthorized", times=1)
    trace = node.ask("trace", name="unauthorized")
    assert trace["opens"] == trace["dials"] == 1
    assert trace["closes"] == []
    node.ask("leave", name="unauthorized")
