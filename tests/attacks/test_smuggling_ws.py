"""Request smuggling with stock servers behind the tunnel: Node's HTTP server, and the ws package on it.

``test_smuggling.py`` has a scripted local server; this file tests how real parsers count requests. Relay,
agent and server are processes, and the server reports its requests. The claim is the same: one request per
connection, whether the server upgrades, refuses, or ignores upgrades and would serve the next bytes of the
connection as a request.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.attacks.test_smuggling import MORE
from tests.e2e.wire import Wire, upgrade
from tests.heads.test_smuggling import BODIES, OTHERS, PASSING
from tests.processes import Process, RelayProcess, running_agent, running_node, running_relay, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

ROOM = "a"
"""The target of the attacks."""

STATUS = {"ws": 101, "refuse": 401, "plain": 200}


@dataclass(frozen=True, slots=True)
class Attacked:
    """A tunnel to a server that reports its requests."""

    relay: RelayProcess
    server: Process
    mode: str

    def attack(self, raw: bytes) -> int:
        """Send an attack and, in the same segment, a second request; return the status of the only answer."""
        with Wire.dial(("127.0.0.1", self.relay.port)) as client:
            client.send(raw + MORE)
            head = client.read_head()
            with contextlib.suppress(ConnectionError):
                client.send(MORE)
            answered = b""
            with contextlib.suppress(ConnectionError):
                answered = client.read_to_end()
        assert re.search(rb"HTTP/1.1 [1-5]", answered) is None
        assert b"evil" not in repr(head).lower().encode() + answered.lower()
        return head.status

    def seen(self) -> list[dict[str, Any]]:
        """Return the requests that the server has seen, up to one that is sent now."""
        with contextlib.suppress(ConnectionError), Wire.dial(("127.0.0.1", self.relay.port)) as client:
            client.send(upgrade(f"/c/{ROOM}/last"))
            client.read_head()
        until(
            "the server has reported all requests",
            lambda: self._lines()[-1:] == [{"saw": "end", "requests": 1}],
        )
        lines = self._lines()
        assert [one["url"] for one in lines if "url" in one][-1] == "/last"
        return lines

    def _lines(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.server.output.split("\n") if line.startswith("{")]
        is_over = sum(one["saw"] == "end" for one in lines) == sum("url" in one for one in lines)
        return lines if is_over and any(one.get("url") == "/last" for one in lines) else []


@pytest.fixture(params=STATUS)
def attacked(request: pytest.FixtureRequest) -> Iterator[Attacked]:
    mode: str = request.param
    ready = r"running on port \d+"
    with running_node("witness.mjs", ready=ready, env={"MODE": mode}) as server, running_relay() as relay:
        port = int(server.output.rpartition(" ")[2])
        with running_agent(relay, ROOM, local_port=port):
            yield Attacked(relay, server, mode)


def test_a_stock_server_gets_one_request_per_forwarded_attack_and_no_other(
    attacked: Attacked,
) -> None:
    for name, raw in (BODIES | OTHERS).items():
        assert attacked.attack(raw) >= 400, name
    for name, raw in PASSING.items():
        assert attacked.attack(raw) == STATUS[attacked.mode], name
    lines = attacked.seen()
    requests = [one for one in lines if "url" in one]
    assert [one["saw"] for one in requests] == [requests[0]["saw"]] * (len(PASSING) + 1)
    assert {one["method"] for one in requests} == {"GET"}
    assert {one.get("glued", 0) for one in requests} == {0}
    assert not any("admin" in one["url"] for one in requests)
    assert [one["requests"] for one in lines if one["saw"] == "end"] == [1] * len(requests)
    # The server may cut a connection that it refuses; bytes that are no request must not arrive.
    assert {one["code"] for one in lines if one["saw"] == "error"} <= {"ECONNRESET"}
