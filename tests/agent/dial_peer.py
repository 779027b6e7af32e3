"""A stub relay: answers 101 with any header fields and subprotocol, and records the carrier's data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seance.carrier import RESUMABLE, CarrierAnswerer
from seance.heads import RequestReader
from seance.net import ProtocolSwitch
from tests.ears import Ear

__all__ = ["StubRelay"]


class StubRelay(ProtocolSwitch):
    """Answers the first request with a 101."""

    def __init__(
        self, answerer: CarrierAnswerer, ear: Ear, headers: Mapping[str, str], subprotocol: str | None
    ) -> None:
        self._answerer = answerer
        self._ear = ear
        self._headers = headers
        self._subprotocol = subprotocol
        self._reader = RequestReader()

    def dataReceived(self, data: bytes) -> None:
        if self._subprotocol is None:
            # Remove the offered subprotocols, as if a plain relay ignored them.
            lines = [
                line for line in data.split(b"\r\n") if not line.lower().startswith(b"sec-websocket-protocol")
            ]
            data = b"\r\n".join(lines)
        request: Any = self._reader.receive(data)
        if request is not None:
            self._answerer.answer(
                request,
                self._reader.trailing,
                self.hand_over,
                lambda _: self._ear,
                may_resume=self._subprotocol == RESUMABLE,
                headers=self._headers,
            )
