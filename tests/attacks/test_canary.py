"""Only the relay sees a token: no log, no local server and no refusal shows one.

Each token here carries marks that occur nowhere else: its payload, its signature, or all of it if it is not a
JWT. Valid and invalid tokens are sent in every place where a token may be, and every output is searched for
the marks.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogPublisher
from zope.interface import implementer

from seance.agent import service as agent_module
from seance.auth.service import AuthService
from seance.relay.rooms.active_grants import ActiveGrants
from tests.attacks.parties import EchoServer, RawAgent
from tests.auth.tokens import claims, secret_key, sign, write_jwks
from tests.canaries import tokens_in
from tests.commands import started
from tests.conftest import Watch
from tests.e2e.wire import Wire, upgrade
from tests.processes import (
    AgentProcess,
    Process,
    RelayProcess,
    environment,
    running_agent,
    running_relay,
    twistd,
    until,
)
from tests.relay.rig import Rig, reactor, request, turn
from tests.relay.rig import until as when

ROOM = "canary-room"
QUERY = "canary-in-the-query"
"""The secret that an app has in its own query: its local server gets it, no log shows it."""

PLACES = {
    "bearer": ("/c/{room}/doc", "Authorization: Bearer {token}"),
    "bearer, client form": ("/client?room={room}", "Authorization: bearer {token}"),
    "subprotocol": ("/c/{room}/doc", "Sec-WebSocket-Protocol: seance.v1, seance.token.{token}"),
    "subprotocols": ("/c/{room}/doc", "Sec-WebSocket-Protocol: seance.token.{token}, yjs, seance.v1"),
    "query": ("/client?room={room}&access_token={token}", ""),
    "query before the room": ("/client?access_token={token}&room={room}", ""),
    "query of a document": ("/client/doc?room={room}&x=1&access_token={token}&y=2", ""),
    "query behind a pasted room": ("/client?room={room}/doc?access_token={token}", ""),
    "query of a share link": ("/c/{room}?access_token={token}", ""),
    "query of a shared document": ("/c/{room}/doc?x=1&access_token={token}", ""),
    "query with a document behind it": ("/c/{room}?access_token={token}/doc", ""),
    "query with a document and a query": ("/c/{room}?access_token={token}/doc?x=1", ""),
    "query in escapes": ("/c/{room}/doc?access_token={escaped}", ""),
    "second query": ("/c/{room}?x=1/doc?access_token={token}", ""),
    "everywhere": (
        "/c/{room}/doc?access_token={token}&access_token={token}",
        "Authorization: Bearer {token}\r\nSec-WebSocket-Protocol: seance.v1, seance.token.{token}",
    ),
}


@dataclass
class Canaries:
    """Makes tokens and records the marks of each."""

    marks: list[str] = field(default_factory=lambda: [QUERY])

    def token(self, *, role: str = "client", room: str = ROOM, seconds: float = 3600, **more: Any) -> str:
        key = secret_key()
        named = claims(role=role, room=room, exp=int(time.time() + seconds), sub="canary", **more)
        named["nonce"] = len(self.marks)
        return self._marked(sign(named, material=key.signing, algorithm="HS256", kid=key.key_id))

    def forged(self) -> str:
        return self._marked(self.token()[:-6] + "canary")

    def garbage(self) -> str:
        self.marks.append(f"garbage-canary-{len(self.marks)}")
        return self.marks[-1]

    def _marked(self, token: str) -> str:
        self.marks += token.split(".")[1:]
        return token

    def bad(self) -> list[str]:
        """Return tokens that are invalid for a client of the room, each for another reason."""
        return [
            self.token(seconds=-3600),
            self.token(room="another-room"),
            self.token(role="agent"),
            self.token(aud="somebody-else"),
            self.forged(),
            self.garbage(),
        ]

    def check_unseen(self, text: str) -> None:
        seen = [mark for mark in self.marks if mark in text]
        assert seen == [], f"of {len(self.marks)} marks in:\n{text}"


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    return str(write_jwks(tmp_path / "keys", secret_key()))


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


def asking(place: str, token: str) -> tuple[str, str]:
    """Return target and header line of a request with the token in this place, and with the app's own
    secret.
    """
    target, line = PLACES[place]
    filled = target.format(room=ROOM, token=token, escaped="".join(f"%{ord(one):02X}" for one in token))
    return f"{filled}{'&' if '?' in filled else '?'}q={QUERY}", line.format(token=token)


def ask(relay: RelayProcess, target: str, line: str) -> tuple[int, str]:
    """Return the status of the answer, and all of it as text."""
    with Wire.dial(("127.0.0.1", relay.port)) as client:
        client.send(upgrade(target, f"{line}\r\n".encode() if line else b""))
        head = client.read_head()
        rest = b"" if head.status == 101 else client.read_to_end()
        return head.status, repr(head) + rest.decode("latin-1")


@pytest.mark.slow
def test_no_output_of_relay_and_agent_shows_a_token(
    key_file: str, tmp_path: Path, canaries: Canaries
) -> None:
    """Refused agents log as text; ``tests/logs`` tests the formats."""
    log = ("--log-format", "json")
    file = tmp_path / "token"
    file.write_text(canaries.token(role="agent") + "\n")
    with EchoServer(keeps=True) as server, running_relay("--auth-key", key_file, *log) as relay:
        with running_agent(relay, ROOM, "--token-file", str(file), *log, local_port=server.port) as agent:
            answers = []
            for place in PLACES:
                seen = len(server.heads)
                status, text = ask(relay, *asking(place, canaries.token()))
                assert status == 101, f"{place}: {text}"
                assert len(server.heads) == seen + 1
                answers.append(text)
                for token in canaries.bad():
                    status, text = ask(relay, *asking(place, token))
                    assert status in (401, 403), f"{place}: {text}"
                    answers.append(text)
            assert len(server.heads) == len(PLACES)
            relay.when_line("left after")
            # The agent renews its token over the link: with a valid token, one of another subject, and
            # garbage.
            file.write_text(canaries.token(role="agent"))
            relay.when_line("has renewed its token")
            file.write_text(canaries.token(role="agent", agt="somebody-else"))
            relay.when_line("the token of another agent")
            file.write_text(canaries.garbage())
            relay.when_line("an invalid token")
        refused = [canaries.token(role="agent", seconds=-3600)]
        outputs = [refused_agent(relay, "--token", token) for token in refused]
        file.write_text(f"{canaries.garbage()}\n{canaries.garbage()}\n")
        outputs.append(refused_agent(relay, "--token-file", str(file)))
        for token in (canaries.token(), *canaries.bad()):
            status, text = ask(relay, f"/agent?room=another-one&access_token={token}", "")
            assert status in (401, 403)
            answers.append(text)
    for text in (relay.output, agent.output, *outputs, *answers):
        canaries.check_unseen(text)
    at_local_server = b"".join(server.heads) + bytes(server.received)
    assert at_local_server.count(QUERY.encode()) == len(PLACES)
    canaries.marks.remove(QUERY)
    canaries.check_unseen(at_local_server.decode("latin-1"))


def refused_agent(relay: RelayProcess, *options: str) -> str:
    """Return the output of an agent that is refused, from its start to its end."""
    with AgentProcess("another-room", "--relay", relay.url, "--local", "127.0.0.1:9", *options) as agent:
        agent.when_line(r"\[Agent\] Next attempt")
    agent.check_quiet()
    return agent.output


@pytest.mark.slow
def test_an_invalid_token_is_not_shown_on_stderr(canaries: Canaries) -> None:
    for wrong in (f"{canaries.garbage()} {canaries.garbage()}", canaries.garbage() * 500):
        argv = twistd("seance-agent", "--room", ROOM, "--token", wrong)
        with Process(argv, name="agent", env=environment()) as agent:
            assert agent.when_exited() == 1
        assert "token" in agent.output
        canaries.check_unseen(agent.output)


def test_link_control_shows_no_token(key_file: str, canaries: Canaries) -> None:
    """The agent is not ours, and renews with any text."""
    with running_relay("--auth-key", key_file) as relay:
        bearer = f"Authorization: Bearer {canaries.token(role='agent')}\r\n"
        control = b"Sec-WebSocket-Protocol: seance.link.v1\r\n"
        with RawAgent(relay, ROOM, bearer.encode() + control) as agent:
            assert agent.head.status == 101
            for token in (canaries.token(role="agent"), *canaries.bad()):
                agent.say_text(json.dumps({"t": "token", "token": token}).encode())
                relay.when_line(r"has renewed its token|invalid token|the token of another agent")
            agent.say_text(b'{"t": "token", "token": "%s"' % canaries.garbage().encode())
            assert agent.lingering_close() == []
        until("the link is over", lambda: "has left" in relay.output)
    canaries.check_unseen(relay.output)


@ensureDeferred
@pytest.mark.timeout(40)
async def test_no_log_event_of_any_level_shows_a_token(
    key_file: str,
    tmp_path: Path,
    canaries: Canaries,
    monkeypatch: pytest.MonkeyPatch,
    watch: Watch,
) -> None:
    """Every event is rendered with all its fields, including DEBUG events and tracebacks."""
    written: list[str] = []

    @implementer(ILogObserver)
    def write(event: LogEvent) -> None:
        written.append(eventAsText(event))
        written.append(repr({name: value for name, value in event.items() if name != "log_failure"}))

    monkeypatch.setattr(agent_module, "TOKEN_CHECK_SECONDS", 0.02)
    globalLogPublisher.addObserver(write)
    file = tmp_path / "token"
    file.write_text(canaries.token(role="agent"))
    auth = AuthService(reactor, keys=[key_file])
    auth.startService()
    rig = Rig(with_agent=False, agent={"room": ROOM, "token_file": str(file)})
    rig.relay.context.verifier, rig.relay.context.grants = auth, ActiveGrants(reactor, auth)
    try:
        async with rig:
            await rig.attach()
            for place in PLACES:
                for token in (canaries.token(), *canaries.bad()):
                    target, line = asking(place, token)
                    client = await rig.connect(request(target, *filter(None, [line])))
                    await when(lambda client=client: client.has_ended or len(rig.locals) > 0)
                    while rig.locals:
                        await rig.local()
                        local = rig.locals.pop()
                        written.append(bytes(local.received).decode("latin-1").replace(QUERY, ""))
                        client.leg.abortConnection()
                        local.leg.loseConnection()
                        await local.goes()
            for token in (canaries.token(role="agent"), canaries.garbage()):
                said = len(written)
                file.write_text(token)
                await when(lambda said=said: any("token" in text for text in written[said:]))
            monkeypatch.setattr(rig.relay.rooms, "find", fail)
            for place in PLACES:
                target, line = asking(place, canaries.token())
                client = await rig.connect(request(target, *filter(None, [line])))
                await client.goes()
            await turn()
            assert len(watch.take(ZeroDivisionError)) == len(PLACES)
    finally:
        auth.stopService()
        globalLogPublisher.removeObserver(write)
    assert sum("Traceback" in text for text in written) >= len(PLACES)
    canaries.check_unseen("\n".join(written))


def fail(room: str) -> None:
    raise ZeroDivisionError


class Parrot:
    """A server that refuses and returns the request as text, as a debugging proxy or an error page does."""

    def __enter__(self) -> Parrot:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            with client:
                client.settimeout(5)
                head = b""
                with contextlib.suppress(OSError):
                    while not head.endswith(b"\r\n\r\n") and (data := client.recv(65536)):
                        head += data
                    self.heard.append(head)
                    client.sendall(self.answer(head))

    def answer(self, head: bytes) -> bytes:
        # All on one line, because the programs cut it short when they quote it.
        lines = sorted(head.split(b"\r\n"), key=lambda line: b"eyJ" not in line)
        status, body = "403 Forbidden" if b"eyJ" in head else "400 Bad Request", b" ".join(lines)
        if head.startswith(b"GET /health"):
            status, body = "200 OK", b"OK"
        fields = ["Content-Type: text/plain", "Connection: close", "", ""]
        return "\r\n".join([f"HTTP/1.1 {status}", *fields]).encode() + body


@pytest.mark.parametrize(
    "words",
    [
        "agent --relay {url} --room {room} --token-file {file} --status-json",
        "doctor --relay {url} --room {room} --token-file {file}",
        "doctor --relay {url} --room {room} --token-file {file} --json",
        "check --relay {url} --room {room} --token-file {file} --only clients --quick",
        "bench --url {url}/c/{room} --token-file {file} --quick",
        "bench --url {url}/c/{room}?access_token={token}&q={query} --quick",
    ],
)
def test_a_token_that_a_peer_returns_is_not_shown(words: str, tmp_path: Path, canaries: Canaries) -> None:
    file = tmp_path / "token"
    token = canaries.token(role="agent" if words.startswith("agent") else "client")
    file.write_text(token)
    with Parrot() as parrot:
        url = f"ws://127.0.0.1:{parrot.port}"
        filled = words.format(url=url, room=ROOM, file=file, token=token, query=QUERY)
        with started(*filled.split()) as process:
            if words.startswith("agent"):
                process.when_line('"code":"http_403"')
                process.stop()
            assert process.when_exited() != 0 or words.startswith("agent")
        assert any(canaries.marks[-1] in head.decode("latin-1") for head in parrot.heard), (
            "the token was not sent"
        )
    canaries.check_unseen(process.output)


@pytest.mark.slow
def test_admin_pages_and_status_show_no_token(key_file: str, tmp_path: Path, canaries: Canaries) -> None:
    """The admin ports, the status of the room, and the status lines of the agent for its parent process."""
    file = tmp_path / "token"
    file.write_text(canaries.token(role="agent"))
    pages: list[str] = []
    with (
        EchoServer(keeps=True) as server,
        running_relay("--auth-key", key_file, "--admin", "tcp:0:interface=127.0.0.1") as relay,
        running_agent(
            *(relay, ROOM, "--token-file", str(file), "--admin", "0", "--status-json"), local_port=server.port
        ) as agent,
        httpx.Client(trust_env=False) as operator,
        contextlib.ExitStack() as clients,
    ):
        operator.headers["Authorization"] = f"Bearer {canaries.token(role='admin', room='*')}"
        ports = [re.findall(r"Admin pages: (\S+\d)/", process.output)[0] for process in (relay, agent)]
        events = clients.enter_context(operator.stream("GET", f"{ports[0]}/api/events"))
        for place in PLACES:
            for token in (canaries.token(), *canaries.bad()):
                target, line = asking(place, token)
                client = clients.enter_context(Wire.dial(("127.0.0.1", relay.port)))
                client.send(upgrade(target, f"{line}\r\n".encode() if line else b""))
                client.read_head()
        bearer = {"Authorization": f"Bearer {canaries.token()}"}
        pages.append(httpx.get(f"http://127.0.0.1:{relay.port}/c/{ROOM}/status", headers=bearer).text)
        assert '"online"' in pages[-1]
        paths = ("/metrics", "/api/rooms", f"/api/rooms/{ROOM}")
        pages += [operator.get(f"{ports[0]}{path}").raise_for_status().text for path in paths]
        assert pages[-1].count('"address"') == len(PLACES)
        pages.append(operator.get(f"{ports[1]}/metrics").raise_for_status().text)
        for text in events.iter_text():
            pages.append(text)
            if "client" in text:
                break
        assert '"type":"status"' in agent.output
    for text in (*pages, relay.output, agent.output):
        canaries.check_unseen(text)


# The search for tokens in the whole suite


def test_a_process_that_shows_a_token_fails_its_test(canaries: Canaries) -> None:
    code = f"print('GET /doc?access_token={canaries.token()}')"
    with (
        pytest.raises(AssertionError, match="careless shows a token"),
        Process([sys.executable, "-c", code], name="careless") as careless,
    ):
        careless.when_exited()
    with Process([sys.executable, "-c", code], name="there to do so", may_show_tokens=True) as allowed:
        allowed.when_exited()


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("seance.token.eyJ0eXAi.e30.x", True),
        ("Sec-WebSocket-Protocol: yjs, seance.token.garbage-canary", True),
        ("offer seance.v1, seance.token.*** or seance.token.<jwt>", False),
        ("the module seance.cli.tokens, only an eyJ", False),
    ],
)
def test_tokens_in_text_are_found(text: str, is_one: bool) -> None:
    assert bool(tokens_in(text)) == is_one


def test_a_logged_token_fails_the_test(canaries: Canaries) -> None:
    watching = Watch(reactor)
    watching({"log_format": "Upgrade for {target}", "target": f"/c/r?access_token={canaries.token()}"})
    [noticed] = watching.failures()
    assert noticed.startswith("a token was logged")
    canaries.check_unseen(noticed)
