"""The far end of a carrier, driven by the test: heads and frames as bytes, without a WebSocket library."""

from __future__ import annotations

import base64
import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.internet.task import Clock

from seance.carrier import SUBPROTOCOL, Carrier, CarrierAnswerer, RelayAddress, dial
from seance.wsclient.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    apply_mask,
    encode_header,
)
from tests.ears import Ear
from tests.rigs import ROOM, AgentFrontend, OneByOne
from tests.wire import Wire, WireEndpoint, run

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "Answered",
    "Dialled",
    "Frame",
    "close",
    "frame",
]

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x11\x22\x33\x44"


@dataclass(frozen=True)
class Frame:
    opcode: int
    payload: bytes
    is_final: bool = True
    is_masked: bool = False

    @property
    def close_code(self) -> int:
        return int.from_bytes(self.payload[:2], "big")


def frame(
    payload: bytes = b"",
    opcode: int = BINARY,
    *,
    is_final: bool = True,
    is_masked: bool = True,
    announced: int | None = None,
    reserved: int = 0,
) -> bytes:
    """Return a frame; ``announced`` is the length in its header, which may be wrong."""
    length = len(payload) if announced is None else announced
    mask = MASK if is_masked else None
    header = encode_header(opcode, length, is_final=is_final, reserved=reserved, mask=mask)
    return header + (apply_mask(payload, mask) if mask else payload)


def close(code: int, reason: bytes = b"", *, is_masked: bool = True) -> bytes:
    return frame(struct.pack("!H", code) + reason, CLOSE, is_masked=is_masked)


def read_frames(data: bytes) -> list[Frame]:
    frames = []
    while len(data) >= 2:
        length, start = data[1] & 127, 2
        if length == 126:
            length, start = struct.unpack("!H", data[2:4])[0], 4
        elif length == 127:
            length, start = struct.unpack("!Q", data[2:10])[0], 10
        is_masked = bool(data[1] & 128)
        mask = data[start : start + 4] if is_masked else b"\0\0\0\0"
        start += 4 * is_masked
        if len(data) < start + length:
            break
        payload = data[start : start + length]
        if is_masked:
            payload = apply_mask(payload, mask)
        frames.append(Frame(data[0] & 15, payload, bool(data[0] & 128), is_masked))
        data = data[start + length :]
    return frames


class _Far(Ear):
    """Splits received data into a head and frames."""

    @property
    def head(self) -> bytes:
        return bytes(self.data).partition(b"\r\n\r\n")[0]

    @property
    def frames(self) -> list[Frame]:
        return read_frames(bytes(self.data).partition(b"\r\n\r\n")[2])


class _Both:
    """The common part of the two classes below.

    Attributes:
        ear: The protocol at our end of the carrier.
        far: The end that the test drives.
        offered: The arguments of the calls of ``make_protocol``.
    """

    masks = True

    def __init__(self, ear: Ear | None) -> None:
        self.clock = Clock()
        self.ear = ear or Ear()
        self.far = _Far()
        self.offered: list[str | None] = []
        self.wire: Wire

    def make_protocol(self, subprotocol: str | None) -> IProtocol:
        self.offered.append(subprotocol)
        return self.ear

    @property
    def carrier(self) -> Carrier:
        carrier: Carrier = self.ear.transport
        return carrier

    def run(self) -> None:
        run(self.clock)

    def hear(self, *pieces: bytes) -> list[Frame]:
        """Send from the far end; return the frames that it receives then."""
        before = len(self.far.frames)
        for piece in pieces:
            self.far.transport.write(piece)
        self.run()
        return self.far.frames[before:]

    def end(self) -> None:
        """Cut the connection and check that nothing is left."""
        self.wire.near.abortConnection()
        self.wire.far.abortConnection()
        self.run()
        assert self.clock.getDelayedCalls() == []


class Answered(_Both):
    """A carrier on the relay's side; the test plays the agent.

    Args:
        offers: The values of ``Sec-WebSocket-Protocol``.
        glued: Data behind the request's head in the same piece.
        fields: Further header fields of the request.
    """

    def __init__(
        self,
        ear: Ear | None = None,
        *,
        offers: tuple[bytes, ...] = (SUBPROTOCOL.encode(),),
        glued: bytes = b"",
        fields: tuple[bytes, ...] = (),
        **shape: int,
    ) -> None:
        super().__init__(ear)
        self.wire = Wire(self.clock, **shape)
        self.frontend = AgentFrontend(CarrierAnswerer(self.clock), self.make_protocol)
        self.wire.join(self.frontend, self.far)
        lines = [
            b"GET /agent?room=room-1&token=SECRET HTTP/1.1",
            b"Host: relay.example",
            b"Connection: Upgrade",
            b"Upgrade: websocket",
            b"Sec-WebSocket-Version: 13",
            b"Sec-WebSocket-Key: " + KEY,
            *(b"Sec-WebSocket-Protocol: " + offer for offer in offers),
            *fields,
        ]
        self.far.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + glued)
        self.run()


class Dialled(_Both):
    """A carrier on the agent's side; the test plays the relay.

    Attributes:
        results: The results of ``dial``.
    """

    masks = False

    def __init__(
        self,
        ear: Ear | None = None,
        *,
        url: str = "ws://relay.example:8080",
        make_protocol: Callable[[str | None], IProtocol] | None = None,
        **shape: int,
    ) -> None:
        super().__init__(ear)
        factory = OneByOne()
        factory.coming.append(self.far)
        endpoint = WireEndpoint(self.clock, factory, **shape)
        self.results: list[Any] = []
        self.dialling: Deferred[Any] = dial(
            self.clock,
            RelayAddress.from_url(url),
            ROOM,
            make_protocol or self.make_protocol,
            deadline_seconds=15,
            endpoint=endpoint,
        ).addBoth(self.results.append)
        (self.wire,) = endpoint.wires
        self.run()

    @property
    def accept(self) -> bytes:
        """The correct value of ``Sec-WebSocket-Accept``."""
        (key,) = [
            line[19:] for line in self.far.head.split(b"\r\n") if line.startswith(b"Sec-WebSocket-Key: ")
        ]
        return base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())

    def switching(self, *fields: bytes, accept: bytes | None = None) -> bytes:
        """A 101 with additional fields."""
        lines = [
            b"HTTP/1.1 101 Switching Protocols",
            b"Upgrade: websocket",
            b"Connection: Upgrade",
            b"Sec-WebSocket-Accept: " + (self.accept if accept is None else accept),
            *fields,
        ]
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def open(self, subprotocol: str | None = SUBPROTOCOL) -> Dialled:
        """Accept the upgrade."""
        chosen = () if subprotocol is None else (b"Sec-WebSocket-Protocol: " + subprotocol.encode(),)
        self.far.transport.write(self.switching(*chosen))
        self.run()
        assert self.results == [self.ear]
        return self
