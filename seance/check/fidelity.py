"""The third check: what a WebSocket may say arrives as it was said.

Each trial is one thing that tunnels and proxies have got wrong: bytes glued to a head lost, fragments joined,
text touched, pings answered on the way, close codes replaced, big messages refused, the end of one direction
taken for the end of both, quiet connections cut, places leaked. The local server says what it has seen.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable
from functools import partial

from twisted.internet.task import deferLater

from seance.check.local_server import GREETING
from seance.check.report import Check
from seance.check.stage import Stage
from seance.check.trial import Failed, attempt, expect
from seance.errors import Gone, SeanceError
from seance.heads.fields import field_values
from seance.wsclient import WsConnection
from seance.wsclient.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    close_payload,
)

__all__ = ["check_fidelity", "is_idle_kept"]

BIG_BYTES = 16 * 1024 * 1024
BIG_SECONDS = 100.0
"""For 16 MiB there and back; 3 Mbit/s are enough."""

SIZES = (0, 1, 125, 126, 65_535, 65_536, 262_145)
"""Where the length of a frame is written in another way, and beyond a stream's first window."""

WORDS = "Grüße, ÄÖÜ, MiXeD CaSe, \u65e5\u672c\u8a9e, \U0001f47b, tab\there"

END_SECONDS = 3.0
"""An end of data that comes later than this behind the last byte was held back somewhere."""

LEAVING_SECONDS = 20.0
"""A connection that is still there so long after its client has gone is a leak."""

GLUED_SECONDS = 5.0
"""What was glued to a head comes with it, or it was lost."""

CODES = (1000, 1001, 1009, 1011, 3000, 4401, 4999)
REASON = "Because, as the Local Server says: \u00e4"

VISITS = 20

Trial = Callable[[Stage], Awaitable[str]]


async def check_fidelity(stage: Stage) -> Check:
    """Make all trials but the one of idleness, which takes its time: ``is_idle_kept``."""
    check = Check("fidelity", "WebSockets arrive as they were sent")
    for name, words, trial in TRIALS:
        seconds = BIG_SECONDS if trial is big_message else 60.0
        part = await attempt(stage.reactor, name, words, partial(trial, stage), timeout_seconds=seconds)
        check.parts.append(part)
    return check


async def glued_to_the_answer(stage: Stage) -> str:
    """The server's first frame, in the same write as its 101."""
    async with stage.talk("first") as talk:
        heard = await _next(talk, "What the local server had glued to its 101 did not arrive", GLUED_SECONDS)
        expect(heard == Frame(TEXT, GREETING.encode()), f"The server's first frame came as {_shown(heard)}.")
    return "What the server sends together with its 101 arrives."


async def glued_to_the_request(stage: Stage) -> str:
    """The client's first frame, in the same write as its request."""
    said = b"first words"
    async with stage.talk("gathering", first=[Frame(BINARY, said)]) as talk:
        # Asked for only now, so that the answer is not glued to anything.
        talk.send(Frame(TEXT))
        heard = await _next(talk, "The local server did not say what it had heard", GLUED_SECONDS)
    expect(heard.payload == said, f"What the client had glued to its request arrived as {heard.payload!r}.")
    return "What the client sends together with its request arrives."


async def request_line(stage: Stage) -> str:
    """Path, query, subprotocol and fields of one's own."""
    async with stage.talk("asked", "x=1&Y=%2Fa", subprotocols=["seance-Check", "other"]) as talk:
        talk.send(Frame(TEXT))
        seen = json.loads((await talk.receive()).payload)
        chosen = field_values(talk.fields, b"sec-websocket-protocol")
    target = seen["target"]
    expect(
        target.startswith("/asked?") and target.endswith("x=1&Y=%2Fa"),
        f"The local server was asked for {target!r} instead of '/asked?x=1&Y=%2Fa'.",
    )
    offered = [value for name, value in seen["fields"] if name.lower() == "sec-websocket-protocol"]
    expect(offered == ["seance-Check, other"], f"The subprotocols were offered as {offered}.")
    expect(chosen == [b"seance-Check"], f"The chosen subprotocol came as {chosen}.")
    return "Path, query and subprotocols arrive byte for byte."


async def text_and_binary(stage: Stage) -> str:
    """Every byte value, every length form, text as text and binary as binary."""
    frames = [Frame(TEXT, WORDS.encode()), Frame(BINARY, bytes(range(256)))]
    frames += [Frame(opcode, _noise(size, opcode)) for size in SIZES for opcode in (BINARY, TEXT)]
    async with stage.talk("") as talk:
        talk.send(*frames)
        for number, sent in enumerate(frames, 1):
            await _expect_frame(talk, sent, f"message {number} of {len(frames)}")
    return f"{len(frames)} messages of 0 to {max(SIZES):,} bytes came back as they were."


async def fragments(stage: Stage) -> str:
    """A message in fragments, an empty one among them, and a ping in the middle."""
    frames = [
        Frame(TEXT, b"one, ", is_final=False),
        Frame(PING, b"in the middle"),
        Frame(CONTINUATION, b"", is_final=False),
        Frame(CONTINUATION, b"two"),
    ]
    async with stage.talk("") as talk:
        talk.send(*frames)
        for sent in frames:
            back = Frame(PONG, sent.payload) if sent.opcode == PING else sent
            await _expect_frame(talk, back, "a fragment")
    return "Fragments stay as they are, with a ping between them."


async def pings(stage: Stage) -> str:
    """Both ways, with payload; and none that nobody sent."""
    longest = _noise(125, BINARY)
    async with stage.talk("pinging") as talk:
        talk.send(Frame(PING, longest), Frame(PING))
        await _expect_frame(talk, Frame(PONG, longest), "the pong")
        await _expect_frame(talk, Frame(PONG), "the empty pong")
        talk.send(Frame(BINARY, b"Ping me"))
        await _expect_frame(talk, Frame(PING, b"Ping me"), "the server's ping")
        talk.send(Frame(PONG, b"Ping me"))
        await _expect_frame(talk, Frame(BINARY, b"Ping me"), "what the server says of the pong")
    return "Pings and pongs pass both ways with their payload, and nobody else answers."


async def close_codes(stage: Stage) -> str:
    """Codes and reasons from both sides."""
    for code in CODES:
        async with stage.talk("closing", f"code={code}&reason={_quoted(REASON)}") as talk:
            talk.send(Frame(TEXT, b"go"))
            payload = close_payload(code, REASON)
            await _expect_frame(talk, Frame(CLOSE, payload), f"the server's close frame with {code}")
            talk.send(Frame(CLOSE, payload))
        async with stage.talk("") as talk:
            payload = close_payload(code, "Client says So")
            talk.send(Frame(CLOSE, payload))
            await _expect_frame(talk, Frame(CLOSE, payload), f"the answer to the client's close with {code}")
    return f"{len(CODES)} codes with their reasons pass both ways."


async def big_message(stage: Stage) -> str:
    """One frame of 16 MiB, there and back."""
    payload = _noise(BIG_BYTES, BINARY)
    wanted = hashlib.sha256(payload).digest()
    async with stage.talk("") as talk:
        talk.send(Frame(BINARY, payload))
        heard = await talk.receive(BIG_SECONDS)
    expect(heard.opcode == BINARY, f"A message of 16 MiB came back as {_shown(heard)}.")
    expect(hashlib.sha256(heard.payload).digest() == wanted, "A message of 16 MiB came back changed.")
    return "A single frame of 16 MiB comes back unchanged."


async def client_ends(stage: Stage) -> str:
    """The client says all and still listens."""
    if stage.tunnel.is_secure:
        return "Not tried: TLS cannot end one direction alone."
    async with stage.talk("finishing") as talk:
        talk.send(*[Frame(TEXT, b"One")] * 3)
        talk.send_eof()
        heard = await _next(
            talk, "After the client had ended its direction, the answer of the server", END_SECONDS
        )
        expect(heard == Frame(TEXT, b"3"), f"Of 3 messages before the end, the server heard {_shown(heard)}.")
        await _expect_end(talk, "of the server")
    return "The client may end its direction and still gets the answer, at once."


async def server_ends(stage: Stage) -> str:
    """The server says all and still listens."""
    name = secrets.token_hex(8)
    async with stage.talk("leaving", f"name={name}") as talk:
        talk.send(Frame(TEXT, b"leave"))
        await _expect_frame(talk, Frame(TEXT, b"leave"), "the server's last message")
        await _expect_end(talk, "of the server")
        if stage.tunnel.is_secure:
            return "The server's end arrives at once. (TLS cannot end one direction alone.)"
        talk.send(Frame(TEXT, b"Still here"))
        talk.send_eof()
        await _until_said(
            stage,
            "heard",
            name,
            Frame(BINARY, b"Still here"),
            "What is said after the server's end",
            END_SECONDS,
        )
    return "The server may end its direction and still hears the client."


async def reconnects(stage: Stage) -> str:
    """Come, and go in one of four ways; nobody is left behind."""
    name = secrets.token_hex(8)
    talks: list[WsConnection] = []
    try:
        for number in range(VISITS):
            talk = await WsConnection.open(stage.reactor, stage.tunnel.at("visiting", f"name={name}"))
            talks.append(talk)
            said = Frame(TEXT, f"visit {number}".encode())
            talk.send(said)
            await _expect_frame(talk, said, f"the echo of visit {number + 1}")
            way = number % 4
            if way == 0:
                close = Frame(CLOSE, close_payload(1000))
                talk.send(close)
                await _expect_frame(talk, close, "the answer to a close frame")
                talk.close()
            elif way == 1:
                talk.send_eof()
            elif way == 2:
                talk.close()
            else:
                talk.abort()
        gone = Frame(TEXT, b"0")
        what = f"The end of {VISITS} connections"
        await _until_said(stage, "visits", name, gone, what, LEAVING_SECONDS)
    finally:
        for talk in talks:
            talk.abort()
    return f"{VISITS} connections came and went in four ways, and the local server saw each go."


async def is_idle_kept(stage: Stage, seconds: float) -> str:
    """A connection on which nobody says anything, and then somebody does."""
    async with stage.talk("") as talk:
        try:
            await talk.when_eof(seconds)
        except Gone:
            said = Frame(TEXT, b"still there?")
            talk.send(said)
            await _expect_frame(talk, said, f"the echo after {seconds:g} s of silence")
            return f"A connection that is silent for {seconds:g} s is kept, and works."
        raise Failed(f"A connection that was silent was ended within {seconds:g} s.")


TRIALS: tuple[tuple[str, str, Trial], ...] = (
    ("glued_to_the_answer", "first server frame", glued_to_the_answer),
    ("glued_to_the_request", "first client frame", glued_to_the_request),
    ("request", "path, subprotocol", request_line),
    ("text_and_binary", "text and binary", text_and_binary),
    ("fragments", "fragments", fragments),
    ("pings", "ping and pong", pings),
    ("close_codes", "close codes", close_codes),
    ("big_message", "16 MiB message", big_message),
    ("client_ends", "client's half-close", client_ends),
    ("server_ends", "server's half-close", server_ends),
    ("reconnects", "reconnects", reconnects),
)
"""Name, words, and what to do, in order."""


async def _next(talk: WsConnection, what: str, timeout_seconds: float) -> Frame:
    """Wait for a frame.

    Raises:
        Failed: None came; ``what`` is the beginning of the sentence.
    """
    try:
        return await talk.receive(timeout_seconds)
    except SeanceError as error:
        raise Failed(f"{what}: {error.sentence}.") from error


async def _expect_frame(talk: WsConnection, wanted: Frame, what: str) -> None:
    heard = await _next(talk, f"{what[:1].upper()}{what[1:]} did not come", 20.0)
    expect(heard == wanted, f"{what[:1].upper()}{what[1:]} came as {_shown(heard)}, not {_shown(wanted)}.")


async def _expect_end(talk: WsConnection, what: str) -> None:
    try:
        await talk.when_eof(END_SECONDS)
    except Gone:
        raise Failed(f"The end of data {what} did not come within {END_SECONDS:g} s.") from None


async def _until_said(
    stage: Stage, place: str, name: str, wanted: Frame, what: str, timeout_seconds: float
) -> None:
    """Ask the local server until it says what is expected.

    Raises:
        Failed: It does not.
    """
    waited, heard = 0.0, wanted
    async with stage.talk(place, f"name={name}") as talk:
        while waited < timeout_seconds:
            talk.send(Frame(TEXT))
            heard = await talk.receive()
            if heard == wanted:
                return
            await deferLater(stage.reactor, 0.05)
            waited += 0.05
    raise Failed(
        f"{what} did not arrive within {timeout_seconds:g} s: {_shown(heard)}, not {_shown(wanted)}."
    )


def _noise(size: int, opcode: int) -> bytes:
    """Return bytes that repeat themselves late; letters of both cases for text."""
    if opcode == BINARY:
        block = b"".join(hashlib.sha256(bytes((number,))).digest() for number in range(251))
    else:
        block = "".join(
            chr(65 + number * 7 % 26) + chr(97 + number * 11 % 26) for number in range(997)
        ).encode()
    return (block * (size // len(block) + 1))[:size]


def _quoted(words: str) -> str:
    return "".join(f"%{byte:02X}" for byte in words.encode())


def _shown(frame: Frame) -> str:
    names = {
        TEXT: "text",
        BINARY: "binary",
        CONTINUATION: "continuation",
        CLOSE: "close",
        PING: "ping",
        PONG: "pong",
    }
    cut = "..." if len(frame.payload) > 24 else ""
    last = "" if frame.is_final else " (not the last)"
    name = names.get(frame.opcode, f"opcode {frame.opcode}")
    return f"{name}{last} of {len(frame.payload)} bytes {frame.payload[:24]!r}{cut}"
