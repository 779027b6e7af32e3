"""nginx, HAProxy and Caddy with the files of ``deploy/`` in front of a relay, with an agent and clients."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.certificates import Authority
from tests.operations.parties import PATIENCE_SECONDS, EchoServer, Talker, dial, talkers
from tests.operations.proxies import FRONTS, IDLE_SECONDS, Frontend, Place, haproxy, nginx, passthrough
from tests.processes import (
    DEADLINE_SECONDS,
    AgentProcess,
    RelayProcess,
    free_port,
    running_agent,
    running_relay,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

BEHIND_A_PROXY = ("--trusted-proxy", "127.0.0.1", "--head-seconds", "30")
"""``--head-seconds`` is raised for slow machines: a proxy with TLS adds a delay."""


@dataclass(slots=True)
class Tunnel:
    """A proxy, a relay behind it, an agent that is connected through the proxy, and the local server."""

    front: Frontend
    relay: RelayProcess
    agent: AgentProcess
    local: EchoServer

    @property
    def link(self) -> str:
        return f"{self.front.url}/c/room"

    def dial(self, **options: Any) -> Any:
        return dial(self.link, self.front.context, **options)


@contextlib.contextmanager
def tunnel(
    folder: Path, name: str, *relay_options: str, ping_seconds: float | None = None
) -> Iterator[Tunnel]:
    authority = Authority(folder)
    certificate = authority.issue("localhost", "127.0.0.1")
    with contextlib.ExitStack() as stack:
        local = stack.enter_context(EchoServer(ping_seconds))
        relay = stack.enter_context(running_relay(*BEHIND_A_PROXY, *relay_options))
        front = stack.enter_context(FRONTS[name](Place(folder, certificate, authority.file, (relay.port,))))
        through = ("--relay", front.url, "--tls-ca", str(authority.file))
        agent = stack.enter_context(running_agent(relay, "room", *through, local_port=local.port))
        yield Tunnel(front, relay, agent, local)


@pytest.fixture(params=sorted(FRONTS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=sorted(FRONTS))
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tunnel]:
    """A tunnel through each proxy, for tests that do not disturb it."""
    with tunnel(tmp_path_factory.mktemp(request.param), request.param) as here:
        yield here


def test_messages_and_forwarded_fields_pass_through_the_proxy(shared: Tunnel) -> None:
    with shared.dial(source_address=("127.0.0.7", 0)) as client:
        for message in ("text", b"\x00binary", "x" * 1_000_000):
            client.send(message)
            assert client.recv(DEADLINE_SECONDS) == message
    head = shared.local.heads[-1]
    assert head["X-Forwarded-For"] == "127.0.0.7"
    assert head["X-Forwarded-Proto"] == "https"
    assert head["X-Forwarded-Host"] == f"localhost:{shared.front.port}", "the proxy changed Host"


def test_the_proxy_replaces_forwarded_fields_of_the_client(shared: Tunnel) -> None:
    forged = {
        "X-Forwarded-For": "203.0.113.1",
        "X-Forwarded-Proto": "http",
        "X-Forwarded-Host": "evil.example",
    }
    with shared.dial(additional_headers=forged):
        pass
    head = shared.local.heads[-1]
    values = [head[f"X-Forwarded-{field}"] for field in ("For", "Proto", "Host")]
    assert values == ["127.0.0.1", "https", f"localhost:{shared.front.port}"]


def test_a_refusal_passes_with_its_status_and_message(shared: Tunnel) -> None:
    with pytest.raises(InvalidStatus) as refused, dial(f"{shared.front.url}/c/nobody", shared.front.context):
        pass
    assert refused.value.response.status_code == 404
    assert b"agent not connected" in (refused.value.response.body or b"")


@pytest.mark.parametrize("shared", ["nginx", "haproxy"], indirect=True)
def test_the_log_of_the_proxy_has_no_query(shared: Tunnel) -> None:
    with dial(f"{shared.link}?access_token=SECRET", shared.front.context):
        pass
    log = shared.front.log

    def logged() -> str:
        return log.read_text("utf-8") if log else shared.front.process.output

    until("the request is logged", lambda: "/c/room" in logged())
    assert "SECRET" not in logged()


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_pings_keep_idle_connections_open_beyond_the_idle_timeout(tmp_path: Path, name: str) -> None:
    """Pings of the local server keep the clients, and pings of the carrier keep the agent."""
    with tunnel(tmp_path, name, ping_seconds=IDLE_SECONDS / 4) as here:
        with here.dial() as client:
            time.sleep(1.5 * IDLE_SECONDS)
            client.send("still there")
            assert client.recv(DEADLINE_SECONDS) == "still there"
        assert "Disconnected" not in here.agent.output
        assert "resum" not in here.agent.output.lower(), "the carrier was never lost"


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_without_pings_the_idle_timeout_closes_the_client_but_not_the_agent(
    tmp_path: Path, name: str
) -> None:
    """The control for the test above, and the reason for the long timeout in the files."""
    with tunnel(tmp_path, name) as here, here.dial() as client:
        with pytest.raises(ConnectionClosed):
            client.recv(3 * IDLE_SECONDS)
        check_echo(here)
        assert "resum" not in here.agent.output.lower()


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_a_reload_of_the_proxy_disconnects_no_client(tmp_path: Path, name: str) -> None:
    with tunnel(tmp_path, name) as here, talkers(20, here.link, here.front.context) as crowd:
        for _ in range(3):
            here.front.reload()
            check_echo(here)
            wait_for_all(crowd)
        assert here.agent.output.count("Connected to relay") == 1


def wait_for_all(crowd: list[Talker]) -> None:
    """Wait until each client has had five more answers, or has failed."""
    counts = [talker.count for talker in crowd]

    def have_answers() -> bool:
        pairs = zip(crowd, counts, strict=True)
        return all(talker.count > count + 5 or talker.trouble for talker, count in pairs)

    until("all have answers", have_answers, deadline_seconds=PATIENCE_SECONDS)


def check_echo(here: Tunnel) -> None:
    with here.dial() as client:
        client.send("hello")
        assert client.recv(DEADLINE_SECONDS) == "hello"


def test_an_agent_resumes_after_a_reload_of_caddy(tmp_path: Path) -> None:
    """Caddy closes clients and agents with 1001, unless ``stream_close_delay`` (Caddy 2.7) is set."""
    with tunnel(tmp_path, "caddy") as here, here.dial() as client:
        here.front.reload()
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(DEADLINE_SECONDS)
        # Sometimes Caddy closes without a close frame.
        assert closed.value.rcvd is None or closed.value.rcvd.code == 1001
        here.agent.when_line(r"\[Agent\] Resumed")
        check_echo(here)


def test_the_proxy_passes_status_events_without_buffering(tmp_path: Path, name: str) -> None:
    """A proxy that buffers the answer delays each event until the next."""
    with tunnel(tmp_path, name) as here:
        browser = http.client.HTTPSConnection(
            "localhost", here.front.port, context=here.front.context, timeout=6
        )
        browser.request("GET", "/c/room/status", headers={"Accept": "text/event-stream"})
        answer = browser.getresponse()
        assert answer.status == 200
        assert next_event(answer)["state"] == "online"
        here.agent.signal(signal.SIGTERM)
        assert next_event(answer)["state"] in ("away", "resuming")
        browser.close()


def next_event(answer: http.client.HTTPResponse) -> dict[str, Any]:
    while not (line := answer.readline()).startswith(b"data:"):
        assert line, "the stream has ended"
    found: dict[str, Any] = json.loads(line.removeprefix(b"data:"))
    return found


@pytest.mark.parametrize("make_front", [nginx, haproxy], ids=lambda front: front.__name__)
def test_limits_count_the_address_from_a_balancer_in_front_of_the_proxy(
    tmp_path: Path, make_front: Any
) -> None:
    """PROXY lines to the proxy, ``X-Forwarded-For`` to the relay."""
    options = (*BEHIND_A_PROXY, "--connections-per-address", "2")
    authority = Authority(tmp_path)
    certificate = authority.issue("localhost")
    with EchoServer() as local, running_relay(*options) as relay:
        place = Place(tmp_path, certificate, authority.file, (relay.port,), speaks_proxy=True)
        with make_front(place) as front, running_agent(relay, "room", local_port=local.port):
            check_limits(f"{front.url}/c/room", front.context)
            assert [head["X-Forwarded-For"] for head in local.heads] == ["203.0.113.7"] * 2 + ["203.0.113.8"]


def check_limits(url: str, context: ssl.SSLContext) -> None:
    """With two connections per address, the third from one address is refused, the first from another not."""
    with dial(url, context, claims="203.0.113.7"), dial(url, context, claims="203.0.113.7"):
        with pytest.raises(InvalidStatus) as refused, dial(url, context, claims="203.0.113.7"):
            pass
        assert refused.value.response.status_code == 429
        with dial(url, context, claims="203.0.113.8"):
            pass


@contextlib.contextmanager
def behind_passthrough(folder: Path, *, speaks_proxy: bool, agent_port: int = 0) -> Iterator[Tunnel]:
    """A relay that terminates TLS; the agent connects through HAProxy, or to ``agent_port``."""
    authority = Authority(folder)
    certificate = authority.issue("localhost", "127.0.0.1")
    listen = ("--listen", f"tcp:{agent_port}:interface=127.0.0.1") if agent_port else ()
    files = ("--tls-cert", str(certificate.chain), "--tls-key", str(certificate.key))
    options = (*BEHIND_A_PROXY, *files, *listen, "--connections-per-address", "2")
    with EchoServer() as local, running_relay(*options, listen="haproxy:tcp:0:interface=127.0.0.1") as relay:
        place = Place(folder, certificate, authority.file, (relay.port,), speaks_proxy)
        with passthrough(place) as front:
            port = agent_port or front.port
            through = ("--relay", f"wss://localhost:{port}", "--tls-ca", str(authority.file))
            with running_agent(relay, "room", *through, local_port=local.port) as agent:
                yield Tunnel(front, relay, agent, local)


def test_a_relay_with_tls_gets_the_client_address_by_the_proxy_protocol(tmp_path: Path) -> None:
    """HAProxy adds only the PROXY header. The agent connects the same way."""
    with behind_passthrough(tmp_path, speaks_proxy=False) as here, here.dial(source_address=("127.0.0.7", 0)):
        [head] = here.local.heads
        assert (head["X-Forwarded-For"], head["X-Forwarded-Proto"]) == ("127.0.0.7", "https")


def test_limits_and_the_log_have_the_address_of_the_proxy_protocol(tmp_path: Path) -> None:
    with behind_passthrough(tmp_path, speaks_proxy=True, agent_port=free_port()) as here:
        check_limits(here.link, here.front.context)
        rival = f"{here.front.url}/agent?room=room"
        with pytest.raises(InvalidStatus) as refused, dial(rival, here.front.context, claims="203.0.113.9"):
            pass
        assert refused.value.response.status_code == 409
        here.relay.when_line(r"203\.0\.113\.9")
