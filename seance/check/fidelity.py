"""The third check: WebSockets arrive as they were sent.

Each case is something that tunnels and proxies have broken: bytes after a head are lost, fragments are
joined, text is changed, pings are answered on the way, close codes are replaced, large messages are
refused, the end of one direction closes both, idle connections are dropped, connections leak. The local
server reports what it has received.

Most cases are turns: frames to send to one path of the local server, and the frames that have to arrive then.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from seance.bench.local_server import GREETING
from seance.check.check_case import CaseFailed, expect, run_case
from seance.check.environment import Environment
from seance.check.report import CheckResult
from seance.errors import Gone, SeanceError
from seance.heads.fields import field_values
from seance.wsclient import WsConnection
from seance.wsclient.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, close_payload

__all__ = ["CASES", "check_fidelity", "is_idle_kept"]

BIG_BYTES = 16 * 1024 * 1024
BIG_SECONDS = 100.0
"""Time limit for 16 MiB in both directions; 3 Mbit/s are enough."""

SIZES = (0, 1, 125, 126, 65_535, 65_536, 262_145)
"""Around each length encoding of a frame, and beyond the initial window of a stream."""

TEXT_SAMPLE = "Grüße, ÄÖÜ, MiXeD CaSe, \u65e5\u672c\u8a9e, \U0001f47b, tab\there"

ANSWER_SECONDS = 20.0

EOF_SECONDS = 3.0
"""Time limit for a FIN after the last byte; a later one was held back on the way."""

DISCONNECT_SECONDS = 20.0
"""Time limit for the local server to see clients disconnect; a longer-lived connection has leaked."""

FIRST_FRAME_SECONDS = 5.0
"""Time limit for bytes that were sent in one write with a head; if they are late, they are lost."""

CODES = (1000, 1001, 1009, 1011, 3000, 4401, 4999)
REASON = "Because, as the Local Server says: \u00e4"

VISITS = 20

OPCODES = {0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}

Turn = tuple[Sequence[Frame], Sequence[Frame]]
"""Frames to send in one write, and the frames that have to arrive then."""


async def check_fidelity(environment: Environment) -> CheckResult:
    """Run all cases except ``is_idle_kept``, which runs at the same time as the other checks."""
    check = CheckResult("fidelity", "WebSockets arrive as they were sent")
    for name, (words, case) in CASES.items():
        run = partial(case, environment)
        part = await run_case(environment.reactor, name, words, run, timeout_seconds=BIG_SECONDS)
        check.parts.append(part)
    return check


async def is_idle_kept(environment: Environment, seconds: float) -> str:
    """Wait ``seconds`` without data; return a message if the connection still works then."""
    async with environment.connect("") as connection:
        try:
            await connection.when_eof(seconds)
        except Gone:
            turn = [Frame(TEXT, b"still there?")]
            await _take_turns(connection, f"the echo after {seconds:g} s without data", (turn, turn))
            return f"A connection without data for {seconds:g} s stays open and works."
        raise CaseFailed(f"A connection without data was closed within {seconds:g} s.")


async def _first_server_frame(environment: Environment) -> str:
    turn: Turn = ([], [Frame(TEXT, GREETING.encode())])
    await _exchange(environment, "first", "the server's first frame", turn, seconds=FIRST_FRAME_SECONDS)
    return "A frame that the server sends together with its 101 arrives."


async def _first_client_frame(environment: Environment) -> str:
    first = Frame(BINARY, b"first words")
    # The client asks after the 101, so that the server's answer does not follow a head itself.
    turn = ([Frame(TEXT)], [first])
    what = "the client's first frame"
    await _exchange(environment, "gathering", what, turn, first=[first], seconds=FIRST_FRAME_SECONDS)
    return "A frame that the client sends together with its request arrives."


async def _request(environment: Environment) -> str:
    protocols = ["seance-Check", "other"]
    async with environment.connect("asked?x=1&Y=%2Fa", subprotocols=protocols) as connection:
        connection.send(Frame(TEXT))
        seen = json.loads((await connection.receive()).payload)
        chosen = field_values(connection.fields, b"sec-websocket-protocol")
    target = seen["target"]
    is_same = target.startswith("/asked?") and target.endswith("x=1&Y=%2Fa")
    expect(is_same, f"The target arrived as {target!r} instead of '/asked?x=1&Y=%2Fa'.")
    offered = [value for name, value in seen["fields"] if name.lower() == "sec-websocket-protocol"]
    expect(offered == ["seance-Check, other"], f"The offered subprotocols arrived as {offered}.")
    expect(chosen == [b"seance-Check"], f"The chosen subprotocol arrived as {chosen}.")
    return "Path, query and subprotocols arrive byte for byte."


async def _text_and_binary(environment: Environment) -> str:
    frames = [Frame(TEXT, TEXT_SAMPLE.encode()), Frame(BINARY, bytes(range(256)))]
    frames += [Frame(opcode, _noise(size, opcode)) for size in SIZES for opcode in (BINARY, TEXT)]
    await _exchange(environment, "", "message", (frames, frames))
    return f"{len(frames)} messages of 0 to {max(SIZES):,} bytes came back as they were sent."


async def _fragments(environment: Environment) -> str:
    start, middle = Frame(TEXT, b"one, ", is_final=False), Frame(CONTINUATION, is_final=False)
    ping, last = Frame(PING, b"in the middle"), Frame(CONTINUATION, b"two")
    turn = ([start, ping, middle, last], [start, Frame(PONG, ping.payload), middle, last])
    await _exchange(environment, "", "fragment", turn)
    return "Fragments stay as they are, with a ping between them."


async def _pings(environment: Environment) -> str:
    longest, text = _noise(125, BINARY), b"Ping me"
    by_client = ([Frame(PING, longest), Frame(PING)], [Frame(PONG, longest), Frame(PONG)])
    by_server = ([Frame(BINARY, text)], [Frame(PING, text)])
    report = ([Frame(PONG, text)], [Frame(BINARY, text)])
    await _exchange(environment, "pinging", "frame", by_client, by_server, report)
    return "Pings and pongs pass in both directions with their payload, and only the other end answers."


async def _close_codes(environment: Environment) -> str:
    for code in CODES:
        by_server = Frame(CLOSE, close_payload(code, REASON))
        path = f"closing?code={code}&reason={quote(REASON)}"
        what = f"the server's close frame with {code}"
        await _exchange(environment, path, what, ([Frame(TEXT)], [by_server]), ([by_server], []))
        turn = [Frame(CLOSE, close_payload(code, "Client says So"))]
        await _exchange(environment, "", f"the answer to a close frame with {code}", (turn, turn))
    return f"{len(CODES)} codes with their reasons pass in both directions."


async def _big_message(environment: Environment) -> str:
    turn = [Frame(BINARY, _noise(BIG_BYTES, BINARY))]
    await _exchange(environment, "", "the message of 16 MiB", (turn, turn), seconds=BIG_SECONDS)
    return "A single frame of 16 MiB comes back unchanged."


async def _client_ends(environment: Environment) -> str:
    if environment.tunnel.is_secure:
        return "Not tried: TLS cannot end one direction only."
    async with environment.connect("finishing") as connection:
        connection.send(*[Frame(TEXT, b"One")] * 3)
        connection.send_eof()
        what = "the server's answer after the client's end of data"
        await _take_turns(connection, what, ([], [Frame(TEXT, b"3")]), seconds=EOF_SECONDS)
        await _expect_eof(connection)
    return "The client may end its direction, and the answer still arrives."


async def _server_ends(environment: Environment) -> str:
    name = secrets.token_hex(8)
    async with environment.connect(f"leaving?name={name}") as connection:
        turn = [Frame(TEXT, b"leave")]
        await _take_turns(connection, "the server's last message", (turn, turn))
        await _expect_eof(connection)
        if environment.tunnel.is_secure:
            return "The server's end arrives. (TLS cannot end one direction only.)"
        connection.send(Frame(TEXT, b"Still here"))
        connection.send_eof()
        wanted = Frame(BINARY, b"Still here")
        await _until_reported(environment, f"heard?name={name}", wanted, "A message", EOF_SECONDS)
    return "The server may end its direction, and still receives."


async def _reconnects(environment: Environment) -> str:
    name = secrets.token_hex(8)
    connections: list[WsConnection] = []
    try:
        for number in range(VISITS):
            target = environment.tunnel.at("visiting", f"name={name}")
            connection = await WsConnection.open(environment.reactor, target)
            connections.append(connection)
            turn = [Frame(TEXT, f"visit {number}".encode())]
            await _take_turns(connection, f"the echo of visit {number + 1}", (turn, turn))
            if number % 4 == 0:
                turn = [Frame(CLOSE, close_payload(1000))]
                await _take_turns(connection, "the answer to a close frame", (turn, turn))
            (connection.close, connection.send_eof, connection.close, connection.abort)[number % 4]()
        what = f"The end of {VISITS} connections"
        path = f"visits?name={name}"
        await _until_reported(environment, path, Frame(TEXT, b"0"), what, DISCONNECT_SECONDS)
    finally:
        for connection in connections:
            connection.abort()
    return f"{VISITS} connections were closed in four ways, and the local server saw each of them end."


CASES: dict[str, tuple[str, Callable[[Environment], Coroutine[Deferred[Any], Any, str]]]] = {
    "glued_to_the_answer": ("first server frame", _first_server_frame),
    "glued_to_the_request": ("first client frame", _first_client_frame),
    "request": ("path, subprotocol", _request),
    "text_and_binary": ("text and binary", _text_and_binary),
    "fragments": ("fragments", _fragments),
    "pings": ("ping and pong", _pings),
    "close_codes": ("close codes", _close_codes),
    "big_message": ("16 MiB message", _big_message),
    "client_ends": ("client's half-close", _client_ends),
    "server_ends": ("server's half-close", _server_ends),
    "reconnects": ("reconnects", _reconnects),
}
"""By the name in JSON: the name in text, and the case. In the order of the report."""


async def _exchange(
    environment: Environment,
    path: str,
    what: str,
    *turns: Turn,
    first: Sequence[Frame] = (),
    seconds: float = ANSWER_SECONDS,
) -> None:
    """Connect to ``path`` and take turns; ``first`` is sent in one write with the request."""
    async with environment.connect(path, first=first) as connection:
        await _take_turns(connection, what, *turns, seconds=seconds)


async def _take_turns(
    connection: WsConnection, what: str, *turns: Turn, seconds: float = ANSWER_SECONDS
) -> None:
    """Send and compare frames; ``what`` is the name of an expected frame in messages.

    Raises:
        CaseFailed: A frame did not arrive within ``seconds`` or is not the expected one.
    """
    number, total = 0, sum(len(expected) for _, expected in turns)
    for sent, expected in turns:
        connection.send(*sent)
        for wanted in expected:
            number += 1
            name = what[:1].upper() + what[1:] + (f" {number} of {total}" if total > 1 else "")
            try:
                frame = await connection.receive(seconds)
            except SeanceError as error:
                raise CaseFailed(f"{name} did not arrive: {error}.") from error
            expect(
                frame == wanted, f"{name} arrived as {_describe_frame(frame)}, not {_describe_frame(wanted)}."
            )


async def _expect_eof(connection: WsConnection) -> None:
    try:
        await connection.when_eof(EOF_SECONDS)
    except Gone:
        raise CaseFailed(f"The server's end of data did not arrive within {EOF_SECONDS:g} s.") from None


async def _until_reported(
    environment: Environment, path: str, wanted: Frame, what: str, seconds: float
) -> None:
    """Ask the local server until it answers with ``wanted``.

    Raises:
        CaseFailed: It did not within ``seconds``.
    """
    waited, answer = 0.0, wanted
    async with environment.connect(path) as connection:
        while waited < seconds:
            connection.send(Frame(TEXT))
            answer = await connection.receive()
            if answer == wanted:
                return
            await deferLater(environment.reactor, 0.05)
            waited += 0.05
    shown = f"{_describe_frame(answer)}, not {_describe_frame(wanted)}"
    raise CaseFailed(f"{what} did not reach the local server within {seconds:g} s; it reports {shown}.")


def _noise(size: int, opcode: int) -> bytes:
    """Return bytes with a long period; letters of both cases for text."""
    if opcode == BINARY:
        block = b"".join(hashlib.sha256(bytes((number,))).digest() for number in range(251))
    else:
        block = bytes(65 + number * 7 % 26 + 32 * (number % 2) for number in range(1994))
    return (block * (size // len(block) + 1))[:size]


def _describe_frame(frame: Frame) -> str:
    cut = "..." if len(frame.payload) > 24 else ""
    final = "" if frame.is_final else " (not final)"
    name = OPCODES.get(frame.opcode, f"opcode {frame.opcode}")
    return f"{name}{final} of {len(frame.payload)} bytes {frame.payload[:24]!r}{cut}"
