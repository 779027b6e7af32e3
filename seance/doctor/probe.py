"""What goes on behind an open WebSocket: a Yjs server that answers, an echo, or at least pings.

The first message of the Yjs sync protocol is sent, sync step 1: "I know of nothing; what have you got?" A
server answers with step 2. Its own question, a step 1 as well, is left without an answer, so the document
stays as it is. Ours says that it has seen nothing of one made-up editor, which means the same as to say
nothing, and tells an echo from a server whose own step 1 would look just like ours.
"""

from __future__ import annotations

import enum
import os
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from seance.errors import Gone, RemoteProtocolError
from seance.wsclient import WsConnection
from seance.wsclient.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame
from seance.yserver.messages import SyncStep1, SyncStep2, decode, encode

__all__ = ["Speech", "Spoken", "converse"]

PINGS = 5

GRACE_SECONDS = 2.0
"""A server that has answered a ping has so long to answer the sync, too: it may read from a disk."""

MOST_FRAMES = 1000
"""A server that says more than that before it answers is not listened to any further."""


CLOSE_SECONDS = 1.0
"""How long the server may take to answer a close."""

LONGEST_CLOSE = 125
"""Bytes that a control frame may have (RFC 6455, 5.5); of one that has more, the rest is not shown."""

GOOD_BYE = (1000).to_bytes(2, "big")


class Speech(enum.Enum):
    """What the server speaks."""

    YJS = "yjs"
    ECHO = "echo"
    WEBSOCKET = "websocket"


@dataclass(frozen=True, slots=True)
class Spoken:
    """What came of it.

    Attributes:
        speech: What the server speaks; ``WEBSOCKET``: it answers pings and understands no Yjs.
        seconds: From the question to its answer.
        round_trip_seconds: The median of some pings; None if they are not answered.
        update_bytes: How much the document is, for ``YJS``.
    """

    speech: Speech
    seconds: float
    round_trip_seconds: float | None
    update_bytes: int = 0


async def converse(reactor: Any, talk: WsConnection, timeout_seconds: float) -> Spoken:  # noqa: ANN401  # no common type
    """Ask, ping, and listen; then close. The connection is cut in any case.

    Raises:
        Gone: The server closed it (``closed``), it was cut, or nothing came in time; half a sentence.
    """
    try:
        spoken = await _Listener(reactor, talk, timeout_seconds).asked()
        talk.send(Frame(CLOSE, GOOD_BYE))
        with suppress(Gone):
            await talk.when_eof(CLOSE_SECONDS)
    finally:
        talk.abort()
    return spoken


class _Listener:
    """One conversation."""

    def __init__(self, reactor: Any, talk: WsConnection, timeout_seconds: float) -> None:  # noqa: ANN401  # as above
        self._reactor = reactor
        self._talk = talk
        self._give_up_at = reactor.seconds() + timeout_seconds
        self._timeout_seconds = timeout_seconds
        self._question = encode(SyncStep1(_nothing_of(secrets.randbits(31))))
        self._began = 0.0
        self._answered: Spoken | None = None
        self._trips: list[float] = []
        self._ping = (b"", 0.0)
        self._heard = 0

    async def asked(self) -> Spoken:
        """Ask, and wait for all there is."""
        self._began = time.perf_counter()
        self._talk.send(Frame(BINARY, self._question))
        self._send_ping()
        while self._answered is None or len(self._trips) < PINGS:
            left = self._give_up_at - self._reactor.seconds()
            try:
                self._take(await self._talk.receive(max(left, 0)))
            except Gone as error:
                if error.code != "timeout":
                    raise
                break
        if self._answered is None and not self._trips:
            sentence = f"the WebSocket is open, and nothing is answered within {self._timeout_seconds:g} s"
            raise Gone(sentence, code="timeout")
        trip = sorted(self._trips)[len(self._trips) // 2] if self._trips else None
        return Spoken(
            self._answered.speech if self._answered else Speech.WEBSOCKET,
            self._answered.seconds if self._answered else self._trips[0],
            trip,
            self._answered.update_bytes if self._answered else 0,
        )

    def _take(self, frame: Frame) -> None:
        self._heard += 1
        if self._heard > MOST_FRAMES:
            raise Gone("it talks without end and answers nothing", code="talks")
        if frame.opcode == CLOSE:
            raise Gone(_closing(frame.payload), code="closed")
        if frame.opcode == PING:
            self._talk.send(Frame(PONG, frame.payload))
        elif frame.opcode == PONG:
            self._note_pong(frame.payload)
        elif frame.opcode in (BINARY, TEXT, CONTINUATION) and self._answered is None:
            self._note_message(frame)

    def _note_pong(self, payload: bytes) -> None:
        wanted, began = self._ping
        if payload != wanted:
            return
        self._hurry()
        self._trips.append(time.perf_counter() - began)
        if len(self._trips) < PINGS:
            self._send_ping()

    def _note_message(self, frame: Frame) -> None:
        seconds = time.perf_counter() - self._began
        if frame.payload == self._question:
            self._answered = Spoken(Speech.ECHO, seconds, None)
            self._hurry()
            return
        if frame.opcode != BINARY:
            return
        try:
            message = decode(frame.payload)
        except RemoteProtocolError:
            # Not Yjs, or but the beginning of a long one: a step 2 in fragments.
            message = None
        if isinstance(message, SyncStep2) or (not frame.is_final and frame.payload.startswith(STEP_2)):
            self._answered = Spoken(Speech.YJS, seconds, None, len(frame.payload))
            self._hurry()

    def _hurry(self) -> None:
        """It lives: what else it has to say it says soon, or never."""
        if not self._trips:
            self._give_up_at = min(self._give_up_at, self._reactor.seconds() + GRACE_SECONDS)

    def _send_ping(self) -> None:
        self._ping = (os.urandom(8), time.perf_counter())
        self._talk.send(Frame(PING, self._ping[0]))


STEP_2 = b"\x00\x01"


def _nothing_of(client_id: int) -> bytes:
    """Return a state vector: of one editor, with this id, nothing was seen; of others it says nothing."""
    # lib0's integers, seven bits at a time: one entry, the id, its clock.
    encoded = bytearray((1,))
    while client_id > 0x7F:
        encoded.append(0x80 | client_id & 0x7F)
        client_id >>= 7
    return bytes(encoded) + bytes((client_id, 0))


def _closing(payload: bytes) -> str:
    if len(payload) < 2:
        return "it closes the WebSocket at once, and says no code"
    reason = "".join(
        one if one.isprintable() else " " for one in payload[2:LONGEST_CLOSE].decode("utf-8", "replace")
    )
    said = f" and {reason.strip()!r}" if reason.strip() else ""
    return f"it closes the WebSocket at once, with code {int.from_bytes(payload[:2], 'big')}{said}"
