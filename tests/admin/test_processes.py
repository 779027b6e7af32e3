"""The admin port of real processes, started with twistd and ``seance``."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from seance.errors import ConfigError
from seance.options import Program, options_of, parsers
from seance.options.config import agent_settings, relay_settings
from tests.processes import AgentProcess, Process, RelayProcess, environment, running_relay, twistd
from tests.tools import ROOT

LOCAL = "tcp:0:interface=127.0.0.1"


def admin_url(process: Process) -> str:
    return process.when_line(r"Admin pages: (http://localhost:\d+)/")[1]


@pytest.mark.slow
def test_relay_and_agent_have_separate_admin_ports() -> None:
    with RelayProcess("--admin", LOCAL) as relay, httpx.Client(trust_env=False) as client:
        url = admin_url(relay)
        assert client.get(f"{url}/readyz").text == "ready\n"
        with AgentProcess("test-room", "--relay", relay.url, "--admin", "0") as agent:
            of_agent = admin_url(agent)
            agent.when_connected()
            assert client.get(f"{of_agent}/readyz").text == "ready\n"
            assert 'seance_agent_state{state="connected"} 1.0' in client.get(f"{of_agent}/metrics").text
            [room] = client.get(f"{url}/api/rooms").json()["rooms"]
            assert room["room"] == "test-room"
            assert "seance_agents 1.0" in client.get(f"{url}/metrics").text
            assert agent.stop() == 0
        assert relay.stop() == 0
        relay.check_quiet()


@pytest.mark.slow
def test_stopping_relay_is_not_ready_until_its_last_client_has_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, RelayProcess("--admin", LOCAL) as relay:
        url = admin_url(relay)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with AgentProcess("r", "--relay", relay.url, "--local", address) as agent:
            agent.when_connected()
            with socket.create_connection(("127.0.0.1", relay.port)) as client:
                client.sendall(
                    b"GET /client?room=r HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
                )
                accepted, _ = server.accept()
                with accepted:
                    relay.signal(signal.SIGTERM)
                    relay.when_line("Draining 1 agents and 1 clients")
                    answer = httpx.get(f"{url}/readyz", trust_env=False)
                    assert (answer.status_code, answer.text) == (503, "draining\n")
            assert relay.when_exited() == 0


@pytest.mark.parametrize("command", ["seance", "twistd"])
def test_public_address_without_tokens_is_an_error_with_status_1(command: str, tmp_path: Path) -> None:
    seance = [sys.executable, "-m", "seance", "relay"]
    argv = [*(seance if command == "seance" else twistd("seance-relay")), "--listen", LOCAL]
    ended = subprocess.run(
        [*argv, "--admin", "tcp:0:interface=0.0.0.0"],
        cwd=tmp_path,
        env={**os.environ, **environment()},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 1
    output = ended.stdout + ended.stderr
    assert "Any client of the admin port on 0.0.0.0 could close every room: give --auth-key FILE" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"admin": ["tcp:99999"]}, "--admin: '99999' is not a port"),
        ({"admin": ["nowhere"]}, "--admin: 'nowhere' is not a Twisted endpoint"),
        ({"admin": [""]}, "--admin: '' is not a Twisted endpoint"),
        ({"admin-ca": ["ca.pem"]}, "--admin-ca requires --tls-cert."),
    ],
)
def test_invalid_options_are_reported(flags: dict[str, list[str]], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        relay_settings(flags, {})
    assert said in str(caught.value)


def test_none_opens_no_port() -> None:
    with running_relay("--admin", "none") as relay:
        ports = {target for target in relay.open_descriptors().values() if target.startswith("socket:")}
        assert "Admin pages" not in relay.output
        assert len(ports) <= 4


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("none", "none"),
        ("9091", "tcp:9091:interface=127.0.0.1"),
        ("10.0.0.1:9090", "tcp:9090:interface=10.0.0.1"),
        ("[::1]:9090", r"tcp:9090:interface=\:\:1"),
        ("unix:/run/seance/admin.sock", "unix:/run/seance/admin.sock"),
    ],
)
def test_forms_of_the_endpoint(text: str, endpoint: str) -> None:
    assert parsers.admin_endpoint(text) == endpoint
    assert relay_settings({"admin": [text]}, {}).admin == endpoint
    assert agent_settings({"admin": [text], "room": ["r"]}, {}).admin == endpoint


def test_both_programs_have_the_option() -> None:
    assert all("admin" in {one.name for one in options_of(program)} for program in Program)
    page = (ROOT / "docs" / "options.md").read_text("utf-8")
    assert len(re.findall(r"^\| `--admin ENDPOINT`", page, re.M)) == 2
