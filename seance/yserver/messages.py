"""The messages of y-protocols, from bytes to values and back.

Pure: no document, no socket, no clock. ``seance.yserver.document`` is the only caller. What a
message *means* is decided there; here it is only read with every bound checked, because the bytes
come from whoever has the link. Two counts are checked before pycrdt sees them: it reserves a hash
map for as many clients as an update or a state vector claims to hold, so that five bytes could
make it allocate a gigabyte (measured with pycrdt 0.14.13).

The format is that of y-protocols 1.0 (``PROTOCOL.md``, ``sync.js``, ``awareness.js``) with lib0's
encoding: unsigned integers in groups of seven bits, lowest first; bytes and text with their length
before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seance.errors import RemoteProtocolError

__all__ = [
    "AwarenessQuery",
    "AwarenessUpdate",
    "ClientState",
    "Message",
    "SyncStep1",
    "SyncStep2",
    "SyncUpdate",
    "decode",
    "encode",
]

SYNC, AWARENESS, AWARENESS_QUERY = 0, 1, 3
STEP_1, STEP_2, UPDATE = 0, 1, 2

BIGGEST_INTEGER = 2**53 - 1
"""The biggest integer that a JavaScript client can count to."""

MAX_STATES = 4096
"""Client states in one awareness message; a room of four thousand people does not edit one text."""

SMALLEST_CLIENT_BYTES = {"state vector": 2, "update": 3}
"""What one client takes at least: id and clock; in an update also the number of its structs."""


@dataclass(frozen=True, slots=True)
class SyncStep1:
    """The sender has what ``state_vector`` says; the receiver answers with the rest."""

    state_vector: bytes


@dataclass(frozen=True, slots=True)
class SyncStep2:
    """The answer to ``SyncStep1``."""

    update: bytes


@dataclass(frozen=True, slots=True)
class SyncUpdate:
    """A change to the document."""

    update: bytes


@dataclass(frozen=True, slots=True)
class ClientState:
    """What one editor tells the others about itself.

    Attributes:
        client_id: The id that Yjs gave the editor's document.
        clock: Grows with each change of the state.
        state: JSON; ``null`` when the editor is gone.
    """

    client_id: int
    clock: int
    state: str


@dataclass(frozen=True, slots=True)
class AwarenessUpdate:
    """Some editors' states."""

    states: tuple[ClientState, ...]


@dataclass(frozen=True, slots=True)
class AwarenessQuery:
    """The sender wants to know all states."""


Message = SyncStep1 | SyncStep2 | SyncUpdate | AwarenessUpdate | AwarenessQuery


def decode(payload: bytes) -> Message | None:
    """Read one message.

    Returns:
        The message, or None if it is of a kind that this server has no use for (``auth``, or
        something newer). Bytes after the message are ignored, as y-protocols does.

    Raises:
        RemoteProtocolError: It is not a whole message.
    """
    reader = _Reader(payload)
    kind = reader.integer()
    if kind == SYNC:
        return _decode_sync(reader)
    if kind == AWARENESS:
        return _decode_awareness(_Reader(reader.bytes()))
    if kind == AWARENESS_QUERY:
        return AwarenessQuery()
    return None


def encode(message: Message) -> bytes:
    """Write one message."""
    match message:
        case SyncStep1(state_vector):
            return _integers(SYNC, STEP_1) + _with_length(state_vector)
        case SyncStep2(update):
            return _integers(SYNC, STEP_2) + _with_length(update)
        case SyncUpdate(update):
            return _integers(SYNC, UPDATE) + _with_length(update)
        case AwarenessUpdate(states):
            return _integers(AWARENESS) + _with_length(_encode_states(states))
        case AwarenessQuery():
            return _integers(AWARENESS_QUERY)


def _decode_sync(reader: _Reader) -> Message | None:
    step = reader.integer()
    if step == STEP_1:
        return SyncStep1(_with_checked_count(reader.bytes(), "state vector"))
    if step == STEP_2:
        return SyncStep2(_with_checked_count(reader.bytes(), "update"))
    if step == UPDATE:
        return SyncUpdate(_with_checked_count(reader.bytes(), "update"))
    return None


def _decode_awareness(reader: _Reader) -> AwarenessUpdate:
    count = reader.integer()
    if count > MAX_STATES:
        sentence = f"An awareness message has {count} states; at most {MAX_STATES} are taken."
        raise RemoteProtocolError(sentence, code="too_many_states")
    states = [ClientState(reader.integer(), reader.integer(), reader.text()) for _ in range(count)]
    return AwarenessUpdate(tuple(states))


def _with_checked_count(payload: bytes, what: str) -> bytes:
    count = _Reader(payload).integer()
    if count * SMALLEST_CLIENT_BYTES[what] > len(payload):
        sentence = f"A {what} of {len(payload)} bytes claims to hold {count} clients."
        raise RemoteProtocolError(sentence, code="bad_message")
    return payload


def _encode_states(states: Sequence[ClientState]) -> bytes:
    parts = [_integers(len(states))]
    for state in states:
        parts += [_integers(state.client_id, state.clock), _with_length(state.state.encode())]
    return b"".join(parts)


def _integers(*numbers: int) -> bytes:
    encoded = bytearray()
    for number in numbers:
        rest = number
        while rest > 0x7F:
            encoded.append(0x80 | rest & 0x7F)
            rest >>= 7
        encoded.append(rest)
    return bytes(encoded)


def _with_length(payload: bytes) -> bytes:
    return _integers(len(payload)) + payload


class _Reader:
    """Reads lib0's encoding off some bytes."""

    __slots__ = ("_payload", "_position")

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._position = 0

    def integer(self) -> int:
        number = shift = 0
        while True:
            if self._position == len(self._payload):
                raise RemoteProtocolError("A message ends in the middle.", code="bad_message")
            byte = self._payload[self._position]
            self._position += 1
            number |= (byte & 0x7F) << shift
            if number > BIGGEST_INTEGER or shift > 49:
                raise RemoteProtocolError("A message has an integer beyond 2^53.", code="bad_message")
            if byte < 0x80:
                return number
            shift += 7

    def bytes(self) -> bytes:
        end = self.integer() + self._position
        if end > len(self._payload):
            raise RemoteProtocolError("A message ends in the middle.", code="bad_message")
        taken = self._payload[self._position : end]
        self._position = end
        return taken

    def text(self) -> str:
        try:
            return self.bytes().decode()
        except UnicodeDecodeError as error:
            raise RemoteProtocolError("A message has text that is not UTF-8.", code="bad_message") from error
