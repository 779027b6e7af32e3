"""The proxies of ``deploy/`` with a relay, an agent and clients: what a person gets who copies the files."""

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
"""The second for slow machines: through a proxy with TLS everybody is there a little later."""


@dataclass(slots=True)
class Tunnel:
    """A proxy, a relay behind it, an agent that came through it, and the local server."""

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


def test_clients_and_the_agent_itself_pass(tmp_path: Path, name: str) -> None:
    with tunnel(tmp_path, name) as here, here.dial(source_address=("127.0.0.7", 0)) as client:
        for message in ("text", b"\x00binary", "x" * 1_000_000):
            client.send(message)
            assert client.recv(DEADLINE_SECONDS) == message
        [head] = here.local.heads
        assert head["X-Forwarded-For"] == "127.0.0.7"
        assert head["X-Forwarded-Proto"] == "https"
        assert head["X-Forwarded-Host"] == f"localhost:{here.front.port}", "Host was left alone"


def test_a_claim_of_the_clients_own_is_not_believed(tmp_path: Path, name: str) -> None:
    lies = {"X-Forwarded-For": "203.0.113.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "evil.example"}
    with tunnel(tmp_path, name) as here, here.dial(additional_headers=lies):
        [head] = here.local.heads
        told = [head[f"X-Forwarded-{what}"] for what in ("For", "Proto", "Host")]
        assert told == ["127.0.0.1", "https", f"localhost:{here.front.port}"]


def test_refusals_pass_with_their_status_and_sentence(tmp_path: Path, name: str) -> None:
    with tunnel(tmp_path, name) as here:
        with pytest.raises(InvalidStatus) as refused, dial(f"{here.front.url}/c/nobody", here.front.context):
            pass
        assert refused.value.response.status_code == 404
        assert b"agent not connected" in (refused.value.response.body or b"")


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_pings_keep_silent_connections_beyond_the_proxys_patience(tmp_path: Path, name: str) -> None:
    """The local server's pings keep its clients, the carrier's own keep the agent."""
    with tunnel(tmp_path, name, ping_seconds=IDLE_SECONDS / 4) as here:
        with here.dial() as client:
            time.sleep(2.5 * IDLE_SECONDS)
            client.send("still there")
            assert client.recv(DEADLINE_SECONDS) == "still there"
        assert "Disconnected" not in here.agent.output
        assert "resum" not in here.agent.output.lower(), "the carrier was never lost"


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_without_pings_the_proxy_cuts_a_silent_client_and_the_agent_stays(tmp_path: Path, name: str) -> None:
    """So the test above shows something; and why the time in the files is as long as it is."""
    with tunnel(tmp_path, name) as here, here.dial() as client:
        with pytest.raises(ConnectionClosed):
            client.recv(3 * IDLE_SECONDS)
        check_echo(here)
        assert "resum" not in here.agent.output.lower()


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_nobody_is_lost_when_the_proxy_reads_its_configuration_again(tmp_path: Path, name: str) -> None:
    with tunnel(tmp_path, name) as here, talkers(20, here.link, here.front.context) as crowd:
        for _ in range(3):
            here.front.reload()
            check_echo(here)
            until_all_go_on(crowd)
        assert here.agent.output.count("Connected to relay") == 1


def until_all_go_on(crowd: list[Talker]) -> None:
    """Each was heard five times from now on, or has something else to tell."""
    counts = [talker.count for talker in crowd]

    def have_gone_on() -> bool:
        pairs = zip(crowd, counts, strict=True)
        return all(talker.count > count + 5 or talker.trouble for talker, count in pairs)

    until("all go on", have_gone_on, deadline_seconds=PATIENCE_SECONDS)


def check_echo(here: Tunnel) -> None:
    with here.dial() as client:
        client.send("hello")
        assert client.recv(DEADLINE_SECONDS) == "hello"


def test_whom_caddy_closes_at_its_reload_is_back_at_once(tmp_path: Path) -> None:
    """It tells clients and agents 1001, unless there is a ``stream_close_delay``, which needs Caddy 2.7."""
    with tunnel(tmp_path, "caddy") as here, here.dial() as client:
        here.front.reload()
        with pytest.raises(ConnectionClosed) as told:
            client.recv(DEADLINE_SECONDS)
        # Once in a while it closes without having said it.
        assert told.value.rcvd is None or told.value.rcvd.code == 1001
        here.agent.when_line(r"\[Agent\] Resumed")
        check_echo(here)


def test_the_status_of_a_room_comes_as_it_happens(tmp_path: Path, name: str) -> None:
    """A proxy that collects an answer would hold the first event back until the next."""
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


@pytest.mark.parametrize("name", ["nginx", "haproxy"])
def test_no_query_is_in_the_proxys_log(tmp_path: Path, name: str) -> None:
    with tunnel(tmp_path, name) as here:
        with dial(f"{here.link}?access_token=SECRET", here.front.context):
            pass
        log = here.front.log

        def logged() -> str:
            return log.read_text("utf-8") if log else here.front.process.output

        until("the request is logged", lambda: "/c/room" in logged())
        assert "SECRET" not in logged()


@pytest.mark.parametrize("make_front", [nginx, haproxy], ids=lambda front: front.__name__)
def test_limits_count_the_address_that_a_balancer_in_front_of_the_proxy_says(
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
    """With two connections for each address, the third of one is refused and the first of another is not."""
    with dial(url, context, claims="203.0.113.7"), dial(url, context, claims="203.0.113.7"):
        with pytest.raises(InvalidStatus) as refused, dial(url, context, claims="203.0.113.7"):
            pass
        assert refused.value.response.status_code == 429
        with dial(url, context, claims="203.0.113.8"):
            pass


@contextlib.contextmanager
def behind_passthrough(folder: Path, *, speaks_proxy: bool, agent_port: int = 0) -> Iterator[Tunnel]:
    """A relay with TLS of its own; the agent comes through HAProxy, or by a port that it has besides."""
    authority = Authority(folder)
    certificate = authority.issue("localhost", "127.0.0.1")
    listen = ("--listen", f"tcp:{agent_port}:interface=127.0.0.1") if agent_port else ()
    files = ("--tls-cert", str(certificate.chain), "--tls-key", str(certificate.key))
    options = (*BEHIND_A_PROXY, *files, *listen, "--connections-per-address", "2")
    with EchoServer() as local, running_relay(*options, listen="haproxy:tcp:0:interface=127.0.0.1") as relay:
        place = Place(folder, certificate, authority.file, (relay.port,), speaks_proxy)
        with passthrough(place) as front:
            door = agent_port or front.port
            through = ("--relay", f"wss://localhost:{door}", "--tls-ca", str(authority.file))
            with running_agent(relay, "room", *through, local_port=local.port) as agent:
                yield Tunnel(front, relay, agent, local)


def test_the_proxy_protocol_tells_a_relay_with_tls_of_its_own_who_comes(tmp_path: Path) -> None:
    """Bytes pass; the PROXY header is the one thing that HAProxy adds. The agent comes the same way."""
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
