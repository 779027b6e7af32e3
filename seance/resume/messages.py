"""Messages of the resumption protocol: two header fields of the handshake, and the link control messages.

::

    agent -> relay    Seance-Resume: sid=...; token=...; recv=1234; crc=0a1b2c3d
    relay -> agent    Seance-Session: sid=...; token=...; epoch=2; recv=987; crc=...; window=20; resumed=1
    both, as text     {"t": "ack", "n": 1234, "c": "0a1b2c3d"}
    relay -> agent    {"t": "drain", "in": 2.5, "try": 20}
    both, as text     {"t": "bye"}

Unknown parameters and unknown message types are ignored, so either side may be updated first. A malformed
field counts as absent, and the agent starts a new session. Numbers are decimal and below 2^64; checksums are
eight hexadecimal digits. Wire format: docs/protocol.md, "Resumption".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

__all__ = ["BYE", "RESUME_FIELD", "SESSION_FIELD", "Ack", "DrainNotice", "ResumeRequest", "SessionInfo"]

RESUME_FIELD = "Seance-Resume"
SESSION_FIELD = "Seance-Session"

BYE = b'{"t":"bye"}'
"""The sender ends the session and will not resume it."""

MAX_FIELD_CHARS = 512
MAX_WAIT_SECONDS = 86_400.0

_SECRET = re.compile(r"[\w-]{16,128}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
_CRC = re.compile(r"[0-9a-f]{8}", re.ASCII)
_WHY = re.compile(r"[a-z_]{1,32}", re.ASCII)

COUNT_LIMIT = 2**64


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """``Seance-Resume``: an agent asks to resume its session.

    Attributes:
        sid: The session.
        token: The secret of the session.
        received: Bytes that the agent has received on it.
        crc: Their checksum.
    """

    sid: str
    token: str
    received: int
    crc: int

    def written(self) -> str:
        """Return the field's value."""
        return f"sid={self.sid}; token={self.token}; recv={self.received}; crc={self.crc:08x}"

    @classmethod
    def read(cls, text: str) -> ResumeRequest | None:
        """Parse a field's value. Return None if it is malformed."""
        fields = _parameters(text)
        received, crc = _number(fields.get("recv")), _checksum(fields.get("crc"))
        if received is None or crc is None or not _are_secrets(fields):
            return None
        return cls(fields["sid"], fields["token"], received, crc)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """``Seance-Session``: the session that this carrier belongs to.

    Attributes:
        sid: The session.
        token: The secret for resuming it.
        epoch: The number of this carrier.
        received: Bytes that the relay has received on it.
        crc: Their checksum.
        window_seconds: How long the relay keeps the session without a carrier.
        is_resumed: Whether this is the requested session. If not, the requested session is over.
        why: Why it is not: ``expired``, ``unknown`` or ``gap``. Empty if none was requested.
    """

    sid: str
    token: str
    epoch: int
    received: int
    crc: int
    window_seconds: float
    is_resumed: bool
    why: str = ""

    def written(self) -> str:
        """Return the field's value."""
        window_seconds = round(min(self.window_seconds, MAX_WAIT_SECONDS), 3)
        text = (
            f"sid={self.sid}; token={self.token}; epoch={self.epoch}; recv={self.received}; "
            f"crc={self.crc:08x}; window={window_seconds:g}; resumed={self.is_resumed:d}"
        )
        return f"{text}; why={self.why}" if self.why else text

    @classmethod
    def read(cls, text: str) -> SessionInfo | None:
        """Parse a field's value. Return None if it is malformed."""
        fields = _parameters(text)
        received, crc, epoch = (
            _number(fields.get("recv")),
            _checksum(fields.get("crc")),
            _number(fields.get("epoch")),
        )
        window = _seconds(fields.get("window"))
        if received is None or crc is None or epoch is None or window is None or not _are_secrets(fields):
            return None
        why = fields.get("why", "")
        return cls(
            sid=fields["sid"],
            token=fields["token"],
            epoch=epoch,
            received=received,
            crc=crc,
            window_seconds=window,
            is_resumed=fields.get("resumed") == "1",
            why=why if _WHY.fullmatch(why) else "",
        )


@dataclass(frozen=True, slots=True)
class Ack:
    """``ack``: acknowledges received data.

    Attributes:
        count: Bytes received since the link began.
        crc: Their checksum.
    """

    count: int
    crc: int

    def written(self) -> bytes:
        """Return the message."""
        return b'{"t":"ack","n":%d,"c":"%08x"}' % (self.count, self.crc)

    @classmethod
    def read(cls, message: dict[str, object]) -> Ack | None:
        """Parse an ``ack`` message. Return None if it is malformed."""
        count, text = message.get("n"), message.get("c")
        crc = _checksum(text) if isinstance(text, str) else None
        if type(count) is not int or not 0 <= count < COUNT_LIMIT or crc is None:
            return None
        return cls(count, crc)


@dataclass(frozen=True, slots=True)
class DrainNotice:
    """``drain``: the relay is about to stop, and the agent should connect elsewhere.

    Attributes:
        in_seconds: When to start looking for another relay.
        try_seconds: How long to keep trying; later it is useless.
    """

    in_seconds: float
    try_seconds: float

    def written(self) -> bytes:
        """Return the message."""
        message = {"t": "drain", "in": round(self.in_seconds, 3), "try": round(self.try_seconds, 3)}
        return json.dumps(message, separators=(",", ":")).encode()

    @classmethod
    def read(cls, message: dict[str, object]) -> DrainNotice | None:
        """Parse a ``drain`` message. Return None if it is malformed."""
        seconds = []
        for value in (message.get("in"), message.get("try")):
            if type(value) not in (int, float) or not 0 <= value <= MAX_WAIT_SECONDS:  # type: ignore[operator]  # a number
                return None
            seconds.append(float(value))  # type: ignore[arg-type]  # as above
        return cls(*seconds)


def _parameters(text: str) -> dict[str, str]:
    if len(text) > MAX_FIELD_CHARS:
        return {}
    parts = (part.strip().partition("=") for part in text.split(";"))
    return {name: value for name, _, value in parts}


def _are_secrets(fields: dict[str, str]) -> bool:
    return all(_SECRET.fullmatch(fields.get(name, "")) for name in ("sid", "token"))


def _number(text: str | None) -> int | None:
    if text is None or not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if number < COUNT_LIMIT else None


def _checksum(text: str | None) -> int | None:
    return int(text, 16) if text is not None and _CRC.fullmatch(text) else None


def _seconds(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,6})?", text, re.ASCII):
        return None
    return float(text)
