"""The commands for a relay on the internet work, with a certificate of the test."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve

from tests.certificates import Authority
from tests.docs.pages import DOCS, README
from tests.docs.test_commands import typed
from tests.processes import DEADLINE_SECONDS, AgentProcess, RelayProcess, environment, running_relay
from tests.tls_in_threads import trusting

pytestmark = pytest.mark.slow

PAGES = [README, DOCS / "quickstart.md"]
COMMANDS = ("keygen", "seance-relay", "token", "seance-agent", "share")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a working directory with a certificate for ``localhost`` and its authority."""
    files = Authority(tmp_path).issue("localhost")
    (tmp_path / "chain.pem").write_bytes(files.chain.read_bytes())
    (tmp_path / "key.pem").write_bytes(files.key.read_bytes())
    return tmp_path


def steps_of(page: Path) -> list[list[str]]:
    """Return the commands under the heading about the internet, without ``twistd -n`` and ``seance``."""
    own = [words for words in typed(page) if words[0] in ("twistd", "seance")]
    start = next(number for number, words in enumerate(own) if "keygen" in words)
    steps = [words[2:] if words[0] == "twistd" else words[1:] for words in own[start : start + len(COMMANDS)]]
    assert tuple(words[0] for words in steps) == COMMANDS
    return steps


def in_folder(folder: Path, words: list[str]) -> list[str]:
    """Return the words with their files in the folder."""
    return [str(folder / word) if re.search(r"\.(pem|key|pub|token)$", word) else word for word in words]


def run(folder: Path, words: list[str]) -> str:
    """Run a command in the folder and return its output; with ``>`` also write it to the file."""
    command, _, file = shlex.join(words).partition(" '>' ")
    argv = [sys.executable, "-m", "seance", *shlex.split(command)]
    env = environment()
    shown = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True, check=True).stdout
    if file:
        (folder / file).write_text(shown)
    return shown


@contextmanager
def running(folder: Path, words: list[str]) -> Iterator[RelayProcess]:
    """Run the relay of a page on a free loopback port."""
    assert words[1:3] == ["--listen", "tcp:443"]
    with running_relay(*in_folder(folder, words[3:])) as relay:
        yield relay


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_for_the_internet_work(page: Path, folder: Path) -> None:
    make_key, relay_words, make_token, agent_words, make_link = steps_of(page)
    assert "seance.key.pub" in run(folder, make_key)
    run(folder, make_token)
    trust = trusting(folder / "authority.pem")
    with (
        serve(echo, "127.0.0.1", 0) as local,
        local_thread(local),
        running(folder, relay_words) as relay,
    ):
        address = f"wss://localhost:{relay.port}"
        options = [
            word.replace("wss://relay.example", address) for word in in_folder(folder, agent_words[3:])
        ]
        options += ["--tls-ca", str(folder / "authority.pem")]
        options += ["--local", f"127.0.0.1:{local.socket.getsockname()[1]}"]
        with AgentProcess(agent_words[2], *options) as agent:
            agent.when_connected()
            link = run(folder, [word.replace("wss://relay.example", address) for word in make_link]).strip()
            assert link.startswith(address.replace("wss", "https"))
            link = link.replace("https", "wss")
            with connect(link, ssl=trust, proxy=None) as client:
                client.send("hello")
                assert client.recv(DEADLINE_SECONDS) == "hello"
            with pytest.raises(InvalidStatus, match="401"):
                connect(link.partition("?")[0], ssl=trust, proxy=None)
        agent.check_quiet()


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


@contextmanager
def local_thread(local: Server) -> Iterator[None]:
    thread = threading.Thread(target=local.serve_forever)
    thread.start()
    try:
        yield
    finally:
        local.shutdown()
        thread.join()


@pytest.mark.parametrize("protocols", [[], ["http/1.1"], ["h2", "http/1.1"]], ids=str)
def test_a_relay_with_tls_accepts_the_alpn_offers_of_browsers(folder: Path, protocols: list[str]) -> None:
    run(folder, ["keygen"])
    context = trusting(folder / "authority.pem")
    if protocols:
        context.set_alpn_protocols(protocols)
    with (
        running(folder, steps_of(README)[1]) as relay,
        socket.create_connection(("127.0.0.1", relay.port), DEADLINE_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 OK")


def test_an_agent_rejects_a_relay_with_an_untrusted_certificate(folder: Path) -> None:
    run(folder, ["keygen"])
    with running(folder, steps_of(README)[1]) as relay:
        with AgentProcess("test-room", "--relay", f"wss://localhost:{relay.port}") as agent:
            agent.when_line("(?i)certificate")
            agent.when_line("Next attempt in")
        agent.check_quiet()
