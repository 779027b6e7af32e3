"""The messages of y-protocols, from bytes to values and back.

This module does no I/O and does not import pycrdt, because ``seance doctor`` reads messages without the
extra ``demo``. pycrdt's decoder is not safe for bytes from outside: it reads beyond the
end of a message, and an integer that never ends takes it time that grows with the square of its length. So
every length, count and JSON text is checked here before pycrdt sees the message.

The format is that of y-protocols 1.0 (``PROTOCOL.md``, ``sync.js``, ``awareness.js``) in lib0's encoding:
unsigned integers in groups of seven bits, lowest first; bytes and text with their length in front.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from seance.errors import RemoteProtocolError

__all__ = [
    "MAX_STATES",
    "AwarenessUpdate",
    "Message",
    "SyncStep1",
    "SyncStep2",
    "SyncUpdate",
    "decode",
    "encode",
]

MAX_STATES = 1024
"""Awareness states in one message, and in one document."""

MAX_STATE_BYTES = 16 * 1024
"""Bytes of one awareness state as JSON. A cursor and a name are 300 bytes; some apps add a small picture."""

MAX_INTEGER = 2**53 - 1
"""The largest integer that a JavaScript client can read."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message: the bytes that tell its type, then ``body`` with its length in front."""

    body: bytes
    type_bytes: ClassVar[bytes]


class SyncStep1(Message):
    """Asks for everything that is missing in the state vector ``body``."""

    __slots__ = ()
    type_bytes = b"\x00\x00"


class SyncStep2(Message):
    """Answers a ``SyncStep1`` with the update ``body``."""

    __slots__ = ()
    type_bytes = b"\x00\x01"


class SyncUpdate(Message):
    """Changes the document by the update ``body``."""

    __slots__ = ()
    type_bytes = b"\x00\x02"


class AwarenessUpdate(Message):
    """The awareness states ``body``: what editors tell about themselves."""

    __slots__ = ()
    type_bytes = b"\x01"


def decode(payload: bytes) -> Message | None:
    """Return the message in ``payload``, or None if this server has no use for its type (such as ``auth``).

    Bytes after the message are ignored, as in y-protocols.

    Raises:
        RemoteProtocolError: ``payload`` is not a whole message, or the message exceeds a limit.
    """
    for message_type, check in _CHECKS.items():
        if payload.startswith(message_type.type_bytes):
            body = _Reader(payload[len(message_type.type_bytes) :]).block()
            check(body)
            return message_type(body)
    if payload in (b"", b"\x00"):
        raise RemoteProtocolError("The message is truncated.", code="bad_message")
    return None


def encode(message: Message) -> bytes:
    """Return ``message`` as bytes."""
    length = bytearray()
    rest = len(message.body)
    while rest > 0x7F:
        length.append(0x80 | rest & 0x7F)
        rest >>= 7
    length.append(rest)
    return message.type_bytes + length + message.body


def _check_vector(vector: bytes) -> None:
    _check_clients(vector, smallest_client_bytes=2)  # id and clock


def _check_update(update: bytes) -> None:
    _check_clients(update, smallest_client_bytes=3)  # number of structs, id and clock


def _check_clients(body: bytes, *, smallest_client_bytes: int) -> None:
    """Refuse a count of clients that ``body`` is too short for.

    pycrdt 0.14.13 reserves memory by this count: up to 5 GiB of address space for five bytes (measured).
    """
    count = _Reader(body).integer()
    if count * smallest_client_bytes > len(body):
        message = f"A message of {len(body)} bytes claims to hold {count} clients."
        raise RemoteProtocolError(message, code="bad_message")


def _check_awareness(body: bytes) -> None:
    reader = _Reader(body)
    count = reader.integer()
    if count > MAX_STATES:
        message = f"An awareness message has {count} states; the limit is {MAX_STATES}."
        raise RemoteProtocolError(message, code="too_many_states")
    for _ in range(count):
        reader.integer()
        reader.integer()
        _check_state(reader.block())


def _check_state(state: bytes) -> None:
    """Refuse what would make ``JSON.parse`` fail in the other clients."""
    if len(state) > MAX_STATE_BYTES:
        message = f"An awareness state has {len(state)} bytes; the limit is {MAX_STATE_BYTES}."
        raise RemoteProtocolError(message, code="state_too_big")
    try:
        # Written once more, because Python's parser also takes NaN and numbers beyond a float.
        json.dumps(json.loads(state.decode()), allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError("An awareness state is not JSON.", code="bad_message") from error


_CHECKS: dict[type[Message], Callable[[bytes], None]] = {
    SyncStep1: _check_vector,
    SyncStep2: _check_update,
    SyncUpdate: _check_update,
    AwarenessUpdate: _check_awareness,
}


class _Reader:
    """Reads values in lib0's encoding from ``payload``."""

    __slots__ = ("_payload", "_position")

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._position = 0

    def integer(self) -> int:
        number = shift = 0
        while number <= MAX_INTEGER and shift < MAX_INTEGER.bit_length():
            byte = self._take(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80 and number <= MAX_INTEGER:
                return number
        raise RemoteProtocolError("A message has an integer beyond 2^53.", code="bad_message")

    def block(self) -> bytes:
        return self._take(self.integer())

    def _take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._payload):
            raise RemoteProtocolError("The message is truncated.", code="bad_message")
        taken = self._payload[self._position : end]
        self._position = end
        return taken
