"""Wrong input gets one clear message on the side that sent it, and does not affect others.

Every test at a relay runs beside a connected client, which sends an echo before and after. Every relay and
agent must have no traceback in its log.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING

import pytest

from tests.e2e.wire import KEY, Exchange, Head, Listener, Wire, frame, read_frame, upgrade
from tests.processes import (
    AgentProcess,
    Process,
    environment,
    free_port,
    running_agent,
    running_relay,
    twistd,
    until,
)

pytestmark = pytest.mark.slow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.processes import RelayProcess

KIB = 1024


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    with Listener() as listener:
        yield listener


@pytest.fixture(scope="module")
def served(relay: RelayProcess, listener: Listener) -> Iterator[AgentProcess]:
    """The agent of the room ``served``."""
    with running_agent(relay, "served", local_port=listener.port) as agent:
        yield agent


@pytest.fixture(scope="module")
def undisturbed(relay: RelayProcess, served: AgentProcess, listener: Listener) -> Iterator[Exchange]:
    with Exchange.open(("127.0.0.1", relay.port), "/c/served/doc", listener) as exchange:
        yield exchange


@pytest.fixture
def bystander(undisturbed: Exchange) -> Iterator[Exchange]:
    """A client that is connected before and after; both directions work each time."""
    check_alive(undisturbed)
    yield undisturbed
    check_alive(undisturbed)


def check_alive(exchange: Exchange) -> None:
    up, down = frame(1, b"up", masked=True), frame(1, b"down")
    exchange.client.send(up)
    exchange.server.send(down)
    assert exchange.server.read_exactly(len(up)) == up
    assert exchange.client.read_exactly(len(down)) == down


def answer_to(relay: RelayProcess, request: bytes) -> tuple[Head, str]:
    """Return the bytes that the relay sends before it closes the connection."""
    with Wire.dial(("127.0.0.1", relay.port)) as client:
        client.send(request)
        head = client.read_head()
        return head, client.read_to_end().decode()


def is_message(text: str) -> bool:
    """Return whether the text is one line of 3 to 49 words with a capital letter and a final full stop."""
    line = text.strip()
    return (
        line[0].isupper() and line.endswith((".", ")")) and 3 <= len(line.split()) < 50 and "\n" not in line
    )


def get(target: str, fields: bytes = b"") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: relay.example\r\n".encode("latin-1") + fields + b"\r\n"


# At the relay, as a client

REFUSED = [
    (upgrade("/client"), 400, "Missing room parameter"),
    (upgrade("/client?room="), 400, "Missing room parameter"),
    (upgrade("/client/doc?x=1"), 400, "Missing room parameter"),
    (upgrade("/client?room=a%20b"), 400, "room name"),
    (upgrade("/client?room=" + "r" * 129), 400, "room name"),
    (upgrade("/c/r%00/doc"), 400, "room name"),
    (upgrade("/client?room=served&room=other"), 400, "several different values"),
    (upgrade("/client?room=nobody"), 404, "Room not found"),
    (upgrade("/nowhere"), 404, "Unknown path"),
    (get("/nowhere"), 404, "Unknown path"),
    (get("/client?room=served"), 426, "WebSocket"),
    (get("/c/served", b"Accept: text/html\r\n"), 426, "WebSocket"),
    (get("/agent?room=other"), 426, "WebSocket"),
    (upgrade("/agent"), 400, "Missing room parameter"),
    (upgrade("/agent?room=a/b"), 400, "room name"),
    (upgrade("/client?room=served").replace(b"Version: 13", b"Version: 8"), 426, "13"),
    (upgrade("/client?room=served").replace(KEY, b"short"), 400, "Key"),
    (upgrade("/client?room=served").replace(b"HTTP/1.1", b"HTTP/1.0"), 400, "HTTP/1.1"),
    (upgrade("/client?room=served").replace(b"GET", b"POST"), 405, "GET"),
    (upgrade("/client?room=served", b"Content-Length: 5\r\n") + b"hello", 400, "body"),
    (upgrade("/client?room=served", b"Transfer-Encoding: chunked\r\n"), 400, "body"),
    (upgrade("/client?room=served", b"X-Fold: a\r\n b\r\n"), 400, "well-formed"),
    (upgrade("/client?room=served", b"Host: twice\r\n"), 400, "well-formed"),
    (upgrade("/client?room=served", b"X-Flood: " + b"x" * 20 * KIB + b"\r\n"), 431, "too large"),
    (upgrade("/client?room=served", b"X-Flood: x\r\n" * 200), 431, "too large"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2, 400, "well-formed"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", 400, "well-formed"),
    (b"\r\n\r\nhello\r\n\r\n", 400, "well-formed"),
]


@pytest.mark.parametrize(("request_bytes", "status", "words"), REFUSED)
def test_a_request_that_cannot_be_served_gets_the_reason(
    request_bytes: bytes, status: int, words: str, relay: RelayProcess, bystander: Exchange
) -> None:
    head, body = answer_to(relay, request_bytes)
    assert head.status == status
    assert words in body
    assert is_message(body)
    assert head.all(b"Content-Type") == [b"text/plain; charset=utf-8"]


def test_health_is_ok(relay: RelayProcess) -> None:
    head, body = answer_to(relay, get("/health"))
    assert (head.status, body.strip()) == (200, "OK")


def test_a_flood_of_header_bytes_is_not_kept(relay: RelayProcess, bystander: Exchange) -> None:
    """32 MiB of a head that never ends: the relay refuses it at 16 KiB and reads no more."""
    before = relay.resident_bytes()
    for _ in range(16):
        with Wire.dial(("127.0.0.1", relay.port)) as client:
            client.send(b"GET /client?room=served HTTP/1.1\r\nHost: a\r\nX: ")
            with contextlib.suppress(ConnectionError):
                for _ in range(32):
                    client.send(b"x" * 64 * KIB)
    until(
        "the relay's memory has grown by a fraction of it only",
        lambda: relay.resident_bytes() < before + 16 * 1024 * KIB,
    )


@pytest.mark.slow
def test_a_client_that_never_finishes_its_head_gets_408(relay: RelayProcess, bystander: Exchange) -> None:
    with Wire.dial(("127.0.0.1", relay.port)) as client:
        client.send(b"GET /client?room=served HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        assert client.read_to_end().startswith(b"HTTP/1.1 408 ")


def test_connections_that_end_within_a_head_leave_nothing_behind(
    relay: RelayProcess, bystander: Exchange
) -> None:
    before = len(relay.open_descriptors())
    for end in ("finish", "cut", "close"):
        for sent in (b"", b"G", b"GET /client?room=served HTTP/1.1\r\nHost: a\r\n"):
            client = Wire.dial(("127.0.0.1", relay.port))
            if sent:
                client.send(sent)
            getattr(client, end)()
            client.close()
    until("the relay has closed them", lambda: len(relay.open_descriptors()) <= before)


# At the relay, as an agent


GO_AWAY_PROTOCOL_ERROR = bytes.fromhex("00030000000000000000 0001")
"""The yamux specification, "Go Away": type 3, stream 0, code 1 (protocol error)."""


def agent_upgrade(room: str) -> bytes:
    return upgrade(f"/agent?room={room}")


@pytest.mark.parametrize(
    "message",
    [
        b"this is not yamux at all, by no means",
        bytes(12 * 8),
        b"\x01" + bytes(11),
        b"\x00\x09" + bytes(10),
        b"\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00\x05hello",
        b"\x00\x00\x00\x01\x00\x00\x00\x01\xff\xff\xff\xff",
        random.Random(1).randbytes(8 * KIB),
    ],
    ids=["text", "zeros", "version", "type", "unknown stream", "huge frame", "random"],
)
def test_an_agent_that_does_not_speak_yamux_is_disconnected(
    message: bytes, relay: RelayProcess, bystander: Exchange, new_room: str
) -> None:
    with Wire.dial(("127.0.0.1", relay.port)) as agent:
        agent.send(agent_upgrade(new_room))
        assert agent.read_head().status == 101
        agent.send(frame(2, message, masked=True))
        agent.send(frame(2, b"and more of it" * 100, masked=True))
        said = b""
        while (heard := read_frame(agent.read_exactly))[0] != 0x88:
            said += heard[1]
        assert said.endswith(GO_AWAY_PROTOCOL_ERROR)
    until("the room is free again", lambda: room_is_free(relay, new_room))
    relay.when_line(new_room)


@pytest.mark.parametrize(
    "garbage",
    [
        frame(1, b"text from a peer that negotiated nothing", masked=True),
        frame(2, b"unmasked"),
        frame(3, b"reserved", masked=True),
        b"\xff" * 200,
        frame(8, b"\x03\xe8bye", masked=True),
    ],
    ids=["text", "unmasked", "reserved opcode", "no frame", "close"],
)
def test_an_agent_that_violates_websocket_does_not_affect_others(
    garbage: bytes, relay: RelayProcess, bystander: Exchange, new_room: str
) -> None:
    with Wire.dial(("127.0.0.1", relay.port)) as agent:
        agent.send(agent_upgrade(new_room))
        assert agent.read_head().status == 101
        agent.send(garbage)
        agent.finish()
        with contextlib.suppress(ConnectionResetError):
            agent.read_to_end()
    until("the room is free again", lambda: room_is_free(relay, new_room))


def room_is_free(relay: RelayProcess, room: str) -> bool:
    asking = f"GET /c/{room}/status HTTP/1.1\r\nHost: relay.example\r\n\r\n"
    return '"online"' not in answer_to(relay, asking.encode())[1]


def test_the_first_agent_keeps_a_room(
    relay: RelayProcess, listener: Listener, new_room: str, bystander: Exchange
) -> None:
    """Neither agent has a key, so the room is free as soon as the first one has disconnected."""
    head, body = answer_to(relay, agent_upgrade("served"))
    assert head.status == 409
    assert is_message(body)
    plain = ("--identity", "none")
    with running_agent(relay, new_room, *plain, local_port=listener.port) as first:
        place = f"127.0.0.1:{free_port()}"
        with AgentProcess(new_room, "--relay", relay.url, "--local", place, *plain) as second:
            second.when_line("409|taken")
            with Exchange.open(("127.0.0.1", relay.port), f"/c/{new_room}/doc", listener) as exchange:
                check_alive(exchange)
                first.stop()
                second.when_connected()
        second.check_quiet()


# At the agent


@pytest.mark.slow
def test_an_agent_waits_for_a_relay_that_does_not_listen(listener: Listener, new_room: str) -> None:
    port = free_port()
    agent_options = ("--relay", f"ws://127.0.0.1:{port}", "--local", f"127.0.0.1:{listener.port}")
    with AgentProcess(new_room, *agent_options) as agent:
        for _ in range(2):
            agent.when_line(rf"Nothing listens at the relay's address 127\.0\.0\.1:{port}")
        assert agent.exit_code is None
        with running_relay(listen=f"tcp:{port}:interface=127.0.0.1") as relay:
            agent.when_connected()
            with Exchange.open(("127.0.0.1", relay.port), f"/c/{new_room}/doc", listener) as exchange:
                check_alive(exchange)
            agent.stop()
    agent.check_quiet()


def test_an_agent_logs_the_status_of_a_server_that_is_no_relay(listener: Listener, new_room: str) -> None:
    """The agent logs the status of a web server in place of the relay, and tries again."""
    with AgentProcess(new_room, "--relay", f"ws://127.0.0.1:{listener.port}") as agent:
        for _ in range(2):
            with listener.accept() as server:
                assert server.read_head().target == f"/agent?room={new_room}".encode()
                server.send(b"HTTP/1.1 418 I'm a teapot\r\nContent-Length: 3\r\n\r\ntea")
                agent.when_line("418")
        assert agent.exit_code is None
    agent.check_quiet()


# The messages for each option are tested in tests/options and tests/cli.
WRONG_OPTIONS: list[tuple[str, list[str], str]] = [
    ("seance-agent", ["--room", "r", "--local", "tls://"], "--local"),
    ("seance-agent", ["--room", "r", "--nonsense"], "nonsense"),
    ("seance-relay", ["--listen", "carrier-pigeon:1"], "--listen"),
]


@pytest.mark.parametrize(("plugin", "options", "named"), WRONG_OPTIONS)
def test_a_wrong_option_is_one_message_and_exit_1(plugin: str, options: list[str], named: str) -> None:
    with agent_or_relay(plugin, options) as process:
        assert process.when_exited() == 1
        lines = [line for line in process.output.splitlines() if line.strip()]
        assert len(lines) == 1, process.output
        assert named in lines[0]
        process.check_quiet()


def test_a_port_in_use_is_one_message_and_exit_1(relay: RelayProcess) -> None:
    with agent_or_relay("seance-relay", ["--listen", f"tcp:{relay.port}:interface=127.0.0.1"]) as process:
        assert process.when_exited() == 1
        assert str(relay.port) in process.output
        process.check_quiet()


@contextlib.contextmanager
def agent_or_relay(plugin: str, options: list[str]) -> Iterator[Process]:
    """Start a process without waiting until it is ready."""
    with Process(twistd(plugin, *options), name=plugin, env=environment()) as process:
        yield process
