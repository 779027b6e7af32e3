"""The words of resumption: two header fields of the handshake, and link control messages.

::

    agent -> relay    Seance-Resume: sid=...; token=...; recv=1234; crc=0a1b2c3d
    relay -> agent    Seance-Session: sid=...; token=...; epoch=2; recv=987; crc=...; window=20; resumed=1
    both, as text     {"t": "ack", "n": 1234, "c": "0a1b2c3d"}
    relay -> agent    {"t": "drain", "in": 2.5, "try": 20}
    both, as text     {"t": "bye"}

Unknown parameters and unknown words are ignored, so that either side may learn first. A field
that cannot be read counts as absent: whoever sent it begins a new session. Numbers are decimal and below
2^64, checksums eight hexadecimal digits. Wire format: docs/protocol.md, "Resumption".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

__all__ = ["BYE", "RESUME_FIELD", "SESSION_FIELD", "Ack", "Drain", "ResumeRequest", "SessionInfo"]

RESUME_FIELD = "Seance-Resume"
SESSION_FIELD = "Seance-Session"

BYE = b'{"t":"bye"}'
"""The session is over: no resumption is wanted."""

LONGEST_FIELD = 512
LONGEST_WAIT_SECONDS = 86_400.0

_SECRET = re.compile(r"[\w-]{16,128}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,20}", re.ASCII)
_CRC = re.compile(r"[0-9a-f]{8}", re.ASCII)
_WHY = re.compile(r"[a-z_]{1,32}", re.ASCII)

MOST = 2**64


@dataclass(frozen=True, slots=True)
class ResumeRequest:
    """``Seance-Resume``: an agent wants its session back.

    Attributes:
        sid: Which session.
        token: The secret that goes with it.
        received: Bytes that the agent has of it.
        crc: Their checksum.
    """

    sid: str
    token: str
    received: int
    crc: int

    def written(self) -> str:
        """The field's value."""
        return f"sid={self.sid}; token={self.token}; recv={self.received}; crc={self.crc:08x}"

    @classmethod
    def read(cls, text: str) -> ResumeRequest | None:
        """Read a field's value; None if it makes no sense."""
        fields = _parameters(text)
        received, crc = _number(fields.get("recv")), _checksum(fields.get("crc"))
        if received is None or crc is None or not _are_secrets(fields):
            return None
        return cls(fields["sid"], fields["token"], received, crc)


@dataclass(frozen=True, slots=True)
class SessionInfo:
    """``Seance-Session``: the session that this carrier belongs to.

    Attributes:
        sid: Which session.
        token: The secret for coming back to it.
        epoch: Which carrier of it this is.
        received: Bytes that the relay has of it.
        crc: Their checksum.
        window_seconds: How long the relay keeps it without a carrier.
        is_resumed: Whether it is the one that was asked for; if not, that one is over.
        why: Why not: ``expired``, ``unknown``, ``gap``; empty if nothing was asked for.
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
        """The field's value."""
        window_seconds = round(min(self.window_seconds, LONGEST_WAIT_SECONDS), 3)
        text = (
            f"sid={self.sid}; token={self.token}; epoch={self.epoch}; recv={self.received}; "
            f"crc={self.crc:08x}; window={window_seconds:g}; resumed={self.is_resumed:d}"
        )
        return f"{text}; why={self.why}" if self.why else text

    @classmethod
    def read(cls, text: str) -> SessionInfo | None:
        """Read a field's value; None if it makes no sense."""
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
    """``ack``: so much has arrived.

    Attributes:
        count: Bytes, since the link began.
        crc: Their checksum.
    """

    count: int
    crc: int

    def written(self) -> bytes:
        """The message."""
        return b'{"t":"ack","n":%d,"c":"%08x"}' % (self.count, self.crc)

    @classmethod
    def read(cls, message: dict[str, object]) -> Ack | None:
        """Read a message whose ``t`` is ``ack``; None if it makes no sense."""
        count, text = message.get("n"), message.get("c")
        crc = _checksum(text) if isinstance(text, str) else None
        if type(count) is not int or not 0 <= count < MOST or crc is None:
            return None
        return cls(count, crc)


@dataclass(frozen=True, slots=True)
class Drain:
    """``drain``: the relay is going to stop; be elsewhere by then.

    Attributes:
        in_seconds: When to begin to look for another relay.
        try_seconds: How long to try before it is of no use any more.
    """

    in_seconds: float
    try_seconds: float

    def written(self) -> bytes:
        """The message."""
        message = {"t": "drain", "in": round(self.in_seconds, 3), "try": round(self.try_seconds, 3)}
        return json.dumps(message, separators=(",", ":")).encode()

    @classmethod
    def read(cls, message: dict[str, object]) -> Drain | None:
        """Read a message whose ``t`` is ``drain``; None if it makes no sense."""
        seconds = []
        for value in (message.get("in"), message.get("try")):
            if type(value) not in (int, float) or not 0 <= value <= LONGEST_WAIT_SECONDS:  # type: ignore[operator]  # a number
                return None
            seconds.append(float(value))  # type: ignore[arg-type]  # as above
        return cls(*seconds)


def _parameters(text: str) -> dict[str, str]:
    if len(text) > LONGEST_FIELD:
        return {}
    parts = (part.strip().partition("=") for part in text.split(";"))
    return {name: value for name, _, value in parts}


def _are_secrets(fields: dict[str, str]) -> bool:
    return all(_SECRET.fullmatch(fields.get(name, "")) for name in ("sid", "token"))


def _number(text: str | None) -> int | None:
    if text is None or not _NUMBER.fullmatch(text):
        return None
    number = int(text)
    return number if number < MOST else None


def _checksum(text: str | None) -> int | None:
    return int(text, 16) if text is not None and _CRC.fullmatch(text) else None


def _seconds(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,6})?", text, re.ASCII):
        return None
    return float(text)
