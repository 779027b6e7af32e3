"""Finds out what answers on an open WebSocket: a Yjs server, an echo server, or a server that answers pings.

The probe sends sync step 1 of the Yjs protocol; a Yjs server answers with step 2. The probe does not answer
the server's own step 1, so the document does not change. The state vector sent has one entry: clock 0 of a
random client ID. It means the same as an empty one, but a server's step 1 never equals it, so an echo can be
recognised.
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
from seance.wsclient.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, close_payload
from seance.yserver.messages import SyncStep1, SyncStep2, decode, encode

__all__ = ["ProbeResult", "ServerProtocol", "probe_server"]

PINGS = 5

GRACE_SECONDS = 2.0
"""Time limit for the Yjs answer once a ping is answered: the server may read the document from a disk."""

MAX_FRAMES = 1000
"""Limit of received frames without an answer."""

CLOSE_SECONDS = 1.0
"""Time limit for the server's answer to a close frame."""

MAX_CLOSE_BYTES = 125
"""Largest payload of a control frame (RFC 6455, 5.5); a longer close reason is cut."""

CLOSE_PAYLOAD = close_payload(1000)

STEP_2 = b"\x00\x01"
"""The beginning of a message with sync step 2."""


class ServerProtocol(enum.Enum):
    """The protocol of a server. ``WEBSOCKET``: it answers pings, but no Yjs sync."""

    YJS = "yjs"
    ECHO = "echo"
    WEBSOCKET = "websocket"


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The outcome of a probe.

    Attributes:
        protocol: The protocol of the server.
        seconds: Time from the first message to its answer.
        round_trip_seconds: Median of the answered pings; None if no ping was answered.
        update_bytes: Size of the sync step 2, for ``YJS``.
    """

    protocol: ServerProtocol
    seconds: float
    round_trip_seconds: float | None
    update_bytes: int = 0


async def probe_server(reactor: Any, connection: WsConnection, timeout_seconds: float) -> ProbeResult:  # noqa: ANN401  # no common type
    """Probe the server and close the connection, also if the probe fails.

    Raises:
        Gone: The server closed the WebSocket (``closed``), the connection ended, or the server did not answer
            in time (``timeout``). The message completes a sentence that begins "the WebSocket opens, but".
    """
    try:
        result = await _Probe(reactor, connection, timeout_seconds).run()
        connection.send(Frame(CLOSE, CLOSE_PAYLOAD))
        with suppress(Gone):
            await connection.when_eof(CLOSE_SECONDS)
    finally:
        connection.abort()
    return result


class _Probe:
    """The state of one probe."""

    def __init__(self, reactor: Any, connection: WsConnection, timeout_seconds: float) -> None:  # noqa: ANN401  # as above
        self._reactor = reactor
        self._connection = connection
        self._deadline = reactor.seconds() + timeout_seconds
        self._timeout_seconds = timeout_seconds
        self._step_1 = encode(SyncStep1(_state_vector(secrets.randbits(31))))
        self._began = 0.0
        self._result: ProbeResult | None = None
        self._trips: list[float] = []
        self._ping = (b"", 0.0)
        self._received = 0

    async def run(self) -> ProbeResult:
        """Send sync step 1 and pings, and wait until both are answered or the deadline has passed."""
        self._began = time.perf_counter()
        self._connection.send(Frame(BINARY, self._step_1))
        self._send_ping()
        while self._result is None or len(self._trips) < PINGS:
            left = self._deadline - self._reactor.seconds()
            try:
                self._receive_frame(await self._connection.receive(max(left, 0)))
            except Gone as error:
                if error.code != "timeout":
                    raise
                break
        trip = sorted(self._trips)[len(self._trips) // 2] if self._trips else None
        if self._result is not None:
            return ProbeResult(self._result.protocol, self._result.seconds, trip, self._result.update_bytes)
        if trip is None:
            raise Gone(f"the server does not answer within {self._timeout_seconds:g} s", code="timeout")
        return ProbeResult(ServerProtocol.WEBSOCKET, self._trips[0], trip)

    def _receive_frame(self, frame: Frame) -> None:
        self._received += 1
        if self._received > MAX_FRAMES:
            raise Gone(f"the server sends {MAX_FRAMES} frames without an answer", code="too_many_frames")
        if frame.opcode == CLOSE:
            raise Gone(_describe_close(frame.payload), code="closed")
        if frame.opcode == PING:
            self._connection.send(Frame(PONG, frame.payload))
        elif frame.opcode == PONG:
            self._receive_pong(frame.payload)
        elif frame.opcode in (BINARY, TEXT, CONTINUATION) and self._result is None:
            self._receive_message(frame)

    def _receive_pong(self, payload: bytes) -> None:
        expected, began = self._ping
        if payload != expected:
            return
        self._shorten_deadline()
        self._trips.append(time.perf_counter() - began)
        if len(self._trips) < PINGS:
            self._send_ping()

    def _receive_message(self, frame: Frame) -> None:
        seconds = time.perf_counter() - self._began
        if frame.payload == self._step_1:
            self._result = ProbeResult(ServerProtocol.ECHO, seconds, None)
            self._shorten_deadline()
            return
        if frame.opcode != BINARY:
            return
        try:
            message = decode(frame.payload)
        except RemoteProtocolError:
            # Not Yjs, or the first fragment of a long message.
            message = None
        if isinstance(message, SyncStep2) or (not frame.is_final and frame.payload.startswith(STEP_2)):
            self._result = ProbeResult(ServerProtocol.YJS, seconds, None, len(frame.payload))
            self._shorten_deadline()

    def _shorten_deadline(self) -> None:
        """The server has responded: shorten the deadline for the rest."""
        if not self._trips:
            self._deadline = min(self._deadline, self._reactor.seconds() + GRACE_SECONDS)

    def _send_ping(self) -> None:
        self._ping = (os.urandom(8), time.perf_counter())
        self._connection.send(Frame(PING, self._ping[0]))


def _state_vector(client_id: int) -> bytes:
    """Return a state vector with one entry, clock 0 of ``client_id``, in lib0's variable-length integers."""
    encoded = bytearray((1,))
    while client_id > 0x7F:
        encoded.append(0x80 | client_id & 0x7F)
        client_id >>= 7
    return bytes(encoded) + bytes((client_id, 0))


def _describe_close(payload: bytes) -> str:
    if len(payload) < 2:
        return "the server closes it immediately, without a code"
    text = payload[2:MAX_CLOSE_BYTES].decode("utf-8", "replace")
    reason = "".join(char if char.isprintable() else " " for char in text).strip()
    suffix = f" and {reason!r}" if reason else ""
    return f"the server closes it immediately, with code {int.from_bytes(payload[:2], 'big')}{suffix}"
