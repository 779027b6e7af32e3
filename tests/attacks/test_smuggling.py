"""Request smuggling end to end: a hostile client, a hostile local server, and relay and agent between them.

``tests/heads/test_smuggling.py`` tests the parsers with each attack. Here the same bytes go through sockets,
and the local server records what reaches it. The claim is always the same: a connection carries one request
to the local server, and one answer back.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import h11
import pytest
from pytest_twisted import ensureDeferred

import tests.heads
from tests.heads.samples import ACCEPT, KEY, SWITCHING, fields_of, upgrade
from tests.heads.test_smuggling import BODIES, INNER, OTHERS, PASSING
from tests.relay.rig import Player, Rig, turn, until
from tests.tools import require

pytestmark = pytest.mark.timeout(20)

MORE = upgrade() + INNER
"""A second request behind the attack: the local server would serve it if it arrived."""


def only_answer(received: bytes | bytearray) -> h11.Response:
    """Return the only answer of a closed connection; fail if there is more or less."""
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(method=b"GET", target=b"/", headers=[("Host", "a"), ("Connection", "close")])
    connection.send(request)
    connection.send(h11.EndOfMessage())
    connection.receive_data(bytes(received))
    connection.receive_data(b"")
    answer = connection.next_event()
    while isinstance(answer, h11.InformationalResponse):
        answer = connection.next_event()
    assert isinstance(answer, h11.Response), answer
    event = connection.next_event()
    while isinstance(event, h11.Data):
        event = connection.next_event()
    assert isinstance(event, h11.EndOfMessage), event
    assert connection.trailing_data == (b"", True)
    assert (b"connection", b"close") in [(name, value.lower()) for name, value in answer.headers]
    return answer


def check_one_request(head: bytes | bytearray) -> None:
    """Check that these bytes are one upgrade request without a body, and nothing else."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(bytes(head))
    request = connection.next_event()
    assert isinstance(request, h11.Request), request
    assert isinstance(connection.next_event(), h11.EndOfMessage)
    assert connection.trailing_data == (b"", False)
    assert (b"upgrade", b"websocket") in list(request.headers)


async def whole_head(rig: Rig) -> Player:
    """Return the only connection of the local server, with all bytes that a waiting client sent."""
    local = await rig.local()
    await turn(0.02)
    return local


@ensureDeferred
@pytest.mark.parametrize("raw", [*BODIES.values(), *OTHERS.values()], ids=[*BODIES, *OTHERS])
async def test_a_refused_request_does_not_reach_the_local_server(raw: bytes) -> None:
    async with Rig(agent={"room": "a"}) as rig:
        client = await rig.connect(raw + MORE)
        await client.ends()
        answer = only_answer(client.received)
        assert answer.status_code >= 400
        client.send(MORE)
        await turn(0.02)
        assert len(rig.locals) == 0
        assert only_answer(client.received) == answer
        assert b"evil" not in client.received.lower()


@ensureDeferred
@pytest.mark.parametrize("raw", PASSING.values(), ids=PASSING)
async def test_the_local_server_gets_one_request_and_no_early_bytes(raw: bytes) -> None:
    behind = raw.partition(b"\r\n\r\n")[2]
    async with Rig(agent={"room": "a"}) as rig:
        client = await rig.connect(raw)
        client.send(MORE)
        local = await whole_head(rig)
        client.send(MORE)
        await turn(0.02)
        check_one_request(local.received)
        assert b"evil" not in local.received.lower()
        local.received = b""
        local.send(SWITCHING)
        await local.receives(behind + MORE + MORE)
        assert local.received == behind + MORE + MORE
        assert len(rig.locals) == 1


SECRET = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
FIELDS = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"

REFUSING = {
    "A10 200": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "A10 200 that keeps alive": b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n",
    "A10 200 in chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    "A10 204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "A10 304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 40\r\n\r\n",
    "A10 400": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
    "A10 403 that upgrades": b"HTTP/1.1 403 Forbidden\r\n" + FIELDS + b"Content-Length: 0\r\n\r\n",
    "A11 426": b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nSec-WebSocket-Version: 8\r\n\r\n",
    "A10 500": b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops",
    "A10 informed, then 200": (
        b"HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    ),
}
"""Answers of a local server that does not upgrade. Each is complete, so the bytes behind it are another
answer.
"""

FORGED = {
    "A12 no accept": b"HTTP/1.1 101 x\r\n" + FIELDS + b"\r\n",
    "A12 wrong accept": SWITCHING.replace(ACCEPT, b"AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    "A12 long accept": SWITCHING.replace(ACCEPT, ACCEPT + b"x"),
    "A12 two accepts": SWITCHING.replace(ACCEPT, ACCEPT + b"\r\nSec-WebSocket-Accept: eA=="),
    "A12 the key for an accept": SWITCHING.replace(ACCEPT, KEY),
    "A13 h2c": SWITCHING.replace(b"Upgrade: websocket", b"Upgrade: h2c"),
    "A10 no upgrade": SWITCHING.replace(b"Upgrade: websocket\r\n", b""),
    "A10 no connection": SWITCHING.replace(b"Connection: Upgrade\r\n", b""),
    "A15 bare LF": SWITCHING.replace(b"\r\n", b"\n"),
    "A15 folded": SWITCHING.replace(b"Upgrade: w", b"X: a\r\n b\r\nUpgrade: w"),
    "A15 space before colon": SWITCHING.replace(b"Upgrade: w", b"X : a\r\nUpgrade: w"),
    "A22 no HTTP": b"SSH-2.0-OpenSSH_9.9\r\n\r\n",
    "A22 another HTTP": SWITCHING.replace(b"HTTP/1.1", b"HTTP/2.0"),
    "A22 endless head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    "A22 two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 40\r\n\r\n",
    "A22 length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "A22 101 behind a 100": b"HTTP/1.1 100 Continue\r\n\r\n" + SWITCHING.replace(ACCEPT, KEY),
}


@ensureDeferred
@pytest.mark.parametrize("answer", [*REFUSING.values(), *FORGED.values()], ids=[*REFUSING, *FORGED])
@pytest.mark.parametrize("is_first", [False, True], ids=["", "before it is asked"])
async def test_an_answer_other_than_101_ends_both_sides(answer: bytes, is_first: bool) -> None:
    """Bytes of the client behind its request are dropped, and no second answer reaches it."""
    async with Rig(agent={"room": "a"}) as rig:
        client = await rig.connect(upgrade() + INNER)
        if is_first:
            await until(lambda: rig.locals and rig.locals[0].transport)
            local = rig.locals[0]
            local.send(answer + SECRET + SWITCHING)
        else:
            local = await whole_head(rig)
            local.send(answer + SECRET + SWITCHING)
        client.send(MORE)
        await client.ends()
        await local.ends()
        passed_on = only_answer(client.received)
        assert b"secret" not in client.received
        assert passed_on.status_code != 101
        assert INNER not in local.received
        assert b"GET " not in local.received[4:]
        if local.received:
            check_one_request(local.received)
        client.send(MORE)
        await turn(0.02)
        assert len(rig.locals) == 1
        local.leg.loseConnection()
        await until(lambda: rig.relay.rooms.client_count == 0)


@ensureDeferred
@pytest.mark.parametrize("field", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
async def test_fields_of_a_body_on_a_101_do_not_reach_the_client(field: bytes) -> None:
    """A 101 has no body (RFC 9110, 8.6). A client that expected one would take frames for it."""
    async with Rig(agent={"room": "a"}) as rig:
        client = await rig.connect(upgrade())
        local = await whole_head(rig)
        local.send(SWITCHING.replace(b"Upgrade: w", field + b"\r\nUpgrade: w") + b"first")
        await client.receives(b"first")
        head, _, rest = bytes(client.received).partition(b"\r\n\r\n")
        assert rest == b"first"
        assert field.partition(b":")[0].lower() not in head.lower()


@ensureDeferred
async def test_every_parser_reads_the_same_request() -> None:
    """Compare how Node (and so ``ws``) and h11 parse the bytes that the local server gets."""
    require("node")
    heads: list[bytes] = []

    async with Rig(agent={"room": "a"}) as rig:
        for number, raw in enumerate(PASSING.values()):
            client = await rig.connect(raw)
            local = await rig.local(number)
            heads.append(bytes(local.received))
            client.leg.abortConnection()
            local.leg.loseConnection()
    script = Path(tests.heads.__file__).with_name("parsers.js")
    asked = json.dumps([(head + b"glued").decode("latin-1") for head in heads])
    run = subprocess.run(
        ["node", str(script)], input=asked, capture_output=True, encoding="utf-8", check=True, timeout=60
    )
    by_node: list[list[dict[str, Any]]] = json.loads(run.stdout)
    assert len(by_node) == len(heads) == len(PASSING)
    for head, requests in zip(heads, by_node, strict=True):
        check_one_request(head)
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(head)
        seen = connection.next_event()
        assert isinstance(seen, h11.Request)
        [by_other] = requests
        assert by_other["rest"] == "glued"
        assert by_other["method"] == seen.method.decode() == "GET"
        assert by_other["url"] == seen.target.decode("latin-1")
        names, values = by_other["headers"][::2], by_other["headers"][1::2]
        pairs = [(name.lower(), value) for name, value in zip(names, values, strict=True)]
        assert pairs == [(name.decode(), value.decode("latin-1")) for name, value in seen.headers]
        assert [name for name, _ in fields_of(head)] == [name.encode() for name in names]
