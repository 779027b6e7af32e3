"""Tokens from each place where a page can put them, through a relay that requires one: Chromium and stock
providers.

``test_browser_protocols.py`` tests ``seance.heads`` without processes. Here all programs are real: a relay
with a key, an agent with a token, and ws servers with their defaults.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.auth.tokens import claims, secret_key, sign, write_jwks
from tests.e2e.peers import LocalAddress, Peer
from tests.e2e.test_browser_protocols import DIAL
from tests.pad.browser import Browser, running_browser
from tests.processes import Process, RelayProcess, running_agent, running_node, running_relay

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROOM = "tokens"


def token(**changes: Any) -> str:
    """Return a valid token for the room, apart from ``changes``."""
    key = secret_key()
    said = claims(**{"room": ROOM, "exp": int(time.time()) + 600, **changes})
    return sign(said, material=key.signing, algorithm="HS256", kid=key.key_id)


def offer(text: str) -> list[str]:
    return ["seance.v1", f"seance.token.{text}"]


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the relay's origin in a browser."""

    browser: Browser
    relay: RelayProcess

    def dial(self, offered: list[str], target: str = f"/c/{ROOM}/doc") -> dict[str, Any]:
        """Let the page open a WebSocket, send a message and close; return the result."""
        arguments = json.dumps([f"http://127.0.0.1:{self.relay.port}{target}", offered])
        answer: dict[str, Any] = self.browser.ask("evaluate", who="ada", expression=f"({DIAL})({arguments})")
        return answer


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RelayProcess]:
    """A relay that requires tokens."""
    keys = write_jwks(tmp_path_factory.mktemp("keys") / "keys", secret_key())
    with running_relay("--auth-key", str(keys)) as relay:
        yield relay


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("agent") / "token"
    file.write_text(token(role="agent"))
    return file


@pytest.fixture(scope="module")
def page(locked: RelayProcess) -> Iterator[Page]:
    with running_browser() as browser:
        browser.ask("open", who="ada", url=f"http://127.0.0.1:{locked.port}/health")
        yield Page(browser, locked)


@pytest.fixture
def observer(locked: RelayProcess, token_file: Path) -> Iterator[Process]:
    """``ws`` with its defaults: it selects the first offered subprotocol, and reports the offer."""
    with running_node("witness.mjs", ready=r"running on port \d+") as server:
        port = int(server.output.rpartition(" ")[2])
        with running_agent(locked, ROOM, "--token-file", str(token_file), local_port=port):
            yield server


@pytest.fixture
def choosing(locked: RelayProcess, token_file: Path) -> Iterator[None]:
    """A ``ws`` server that selects ``y.chosen`` if it is offered, and otherwise nothing."""
    with running_node("echo_server.mjs", ready="on port", env={"PORT": "0"}) as server:
        port = int(server.output.rpartition(" ")[2])
        with running_agent(locked, ROOM, "--token-file", str(token_file), local_port=port):
            yield


def test_a_page_with_a_token_reaches_a_server_that_selects_the_first_offer(
    page: Page, observer: Process
) -> None:
    secret = token()
    for offered, selected, left in (
        (offer(secret), "seance.v1", ""),
        (offer(secret)[::-1], "seance.v1", ""),
        ([*offer(secret), "yjs"], "yjs", "yjs"),
        (["yjs", *offer(secret)], "yjs", "yjs"),
        ([offer(secret)[1], "Yjs.V2", "seance.v1", "yjs"], "Yjs.V2", "Yjs.V2, yjs"),
    ):
        assert page.dial(offered) == {"protocol": selected, "data": "hello"}
        assert json.loads(observer.when_line('"saw":"upgrade"').string)["offered"] == left
    address = f"/c/{ROOM}/doc?token=own&access_token={secret}"
    assert page.dial([], address) == {"protocol": "", "data": "hello"}
    assert json.loads(observer.when_line('"saw":"upgrade"').string)["url"] == "/doc?token=own"
    assert secret not in observer.output


@pytest.mark.usefixtures("choosing")
def test_a_page_with_a_token_reaches_a_server_that_selects_a_known_protocol(page: Page) -> None:
    for offered, selected in (
        (offer(token()), "seance.v1"),
        ([*offer(token()), "yjs"], "seance.v1"),
        ([*offer(token()), "yjs", "y.chosen"], "y.chosen"),
    ):
        assert page.dial(offered) == {"protocol": selected, "data": "hello"}


def test_a_page_without_a_valid_token_is_refused(page: Page, observer: Process) -> None:
    other_page = "https://elsewhere.example"
    for offered in (
        [],
        ["yjs"],
        offer(token(exp=1)),
        offer(token(room="other")),
        offer(token(role="agent")),
        offer(token(org=other_page)),
    ):
        assert page.dial(offered) == {"error": True}
    assert page.dial(offer(token(org=f"http://127.0.0.1:{page.relay.port}")))["data"] == "hello"
    assert observer.output.count('"saw":"upgrade"') == 1


@pytest.mark.parametrize(
    ("kind", "place"),
    # y-websocket 1 has no protocols option.
    [("y-websocket-3", "protocols"), ("y-websocket-3", "params"), ("y-websocket-1", "params")],
)
def test_provider_with_a_token_in_its_options_shares_a_document(
    kind: str,
    place: str,
    locked: RelayProcess,
    token_file: Path,
    node: Peer,
    y_websocket_server: LocalAddress,
) -> None:
    port = y_websocket_server.port
    with running_agent(locked, ROOM, "--token-file", str(token_file), local_port=port):
        name, beside = f"{kind} {place}", f"{kind} {place} beside"
        secret = token()
        options: dict[str, Any] = {
            "protocols": {"protocols": offer(secret)},
            "params": {"params": {"access_token": secret}},
        }
        node.open(name, kind, locked.client_url(ROOM), name, **options[place])
        node.open(beside, kind, y_websocket_server.url, name)
        node.when_synced(name, beside)
        node.ask("edits", names=[name, beside], count=20)
        assert node.when_equal(name, beside)["length"] > 0
