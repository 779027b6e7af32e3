"""The agent logs clients that the local server refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import LogEvent, formatEvent, globalLogPublisher

from seance.agent import answer_watch
from tests.relay.rig import Rig, answer_101, request, until


@contextmanager
def refusals() -> Iterator[list[str]]:
    lines: list[str] = []

    def hear(event: LogEvent) -> None:
        if event.get("event") == "local.refused":
            lines.append(formatEvent(event))

    globalLogPublisher.addObserver(hear)  # type: ignore[arg-type]  # a function will do
    try:
        yield lines
    finally:
        globalLogPublisher.removeObserver(hear)  # type: ignore[arg-type]


async def ask(rig: Rig, answer: bytes, *fields: str) -> bytes:
    number = len(rig.locals)
    client = await rig.connect(request("/c/r/doc?secret=1", *fields))
    local = await rig.local(number)
    if answer:
        local.send(answer)
    else:
        local.leg.loseConnection()
    await client.ends()
    local.leg.loseConnection()
    return bytes(client.received)


SENTENCES = {
    b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n": "WebSocket request with 403 Forbidden.",
    b"HTTP/1.0 400\r\nContent-Length: 0\r\n\r\n": "answered a client's WebSocket request with 400.",
    b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 502 Bad\xff\r\nContent-Length: 0\r\n\r\n": "with 502 Bad\xff.",
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok": "answered a client's WebSocket request with 200 OK.",
    b"HTTP/1.1 307 " + b"x" * 99 + b"\r\nLocation: /?a=b\r\nContent-Length: 0\r\n\r\n": "with 307 "
    + "x" * 60
    + ".",
    b"SSH-2.0-x\r\n\r\n": "is not well-formed HTTP.",
    answer_101(b"another"): "does not match the key of this request.",
    answer_101().replace(b"Upgrade: websocket", b"Upgrade: h2c"): "is not well-formed HTTP.",
    b"": "The local server closed a connection before it answered the client.",
}


@pytest.mark.parametrize(("answer", "sentence"), SENTENCES.items())
@ensureDeferred
async def test_refusal_of_the_local_server_is_logged_by_the_agent(answer: bytes, sentence: str) -> None:
    with refusals() as lines:
        async with Rig() as rig:
            assert b" 101 " not in (await ask(rig, answer)).partition(b"\r\n")[0]
            await until(lambda: rig.agent.client_count == 0)
    assert len(lines) == 1
    assert lines[0].startswith("[Agent] The local server")
    assert lines[0].endswith(sentence)
    assert "secret" not in lines[0]


@ensureDeferred
async def test_repeated_refusals_are_counted_in_one_line() -> None:
    with refusals() as lines:
        async with Rig() as rig:
            for _ in range(5):
                await ask(rig, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
            await ask(rig, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
    assert [line.rpartition("with ")[2] for line in lines] == ["403 Forbidden.", "401 Unauthorized."]


@ensureDeferred
async def test_accepted_client_is_not_logged_and_the_watch_is_removed() -> None:
    with refusals() as lines:
        async with Rig() as rig:
            client = await rig.connect(request())
            local = await rig.local()
            for piece in (answer_101()[:20], answer_101()[20:] + b"glued"):
                local.send(piece)
            await client.receives(b"glued")
            local.leg.loseConnection()
            await client.ends()
    assert lines == []


@ensureDeferred
async def test_slow_local_server_is_logged_and_a_client_that_leaves_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with refusals() as lines:
        async with Rig(relay={"upgrade_seconds": 0.2}) as rig:
            client = await rig.connect(request())
            await rig.local()
            client.leg.abortConnection()
            await until(lambda: rig.agent.client_count == 0)
            assert lines == []
            monkeypatch.setattr(answer_watch, "SLOW_SECONDS", 0.1)
            client = await rig.connect(request())
            await client.receives(b" 502 ")
            await until(lambda: lines)
    assert "had not answered a client after " in lines[0]
    assert "--upgrade-seconds" in lines[0]


@pytest.mark.parametrize(
    ("origin", "is_hinted"), [("http://relay.example", True), ("https://app.example", False)]
)
@ensureDeferred
async def test_403_to_a_page_of_the_relay_names_the_option(origin: str, is_hinted: bool) -> None:
    with refusals() as lines:
        async with Rig() as rig:
            await ask(rig, b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", f"Origin: {origin}")
    assert ("--rewrite-origin" in lines[0]) is is_hinted


@ensureDeferred
async def test_refusal_by_the_agent_is_logged_too() -> None:
    with refusals() as lines:
        async with Rig(agent={"head_bytes": 1000}) as rig:
            client = await rig.connect(request("/client?room=r", "X: " + "y" * 2000))
            await client.receives(b" 431 ")
    assert lines == [
        "[Agent] A client was refused: The request head is too large: the limits are 1000 bytes and 103"
        " header fields."
    ]
