"""Logs on the agent why the local server refused a client's upgrade request.

The relay checks the local server's response and refuses the client, but the cause of a 403 of the local
server has to be fixed on the agent's machine. The agent therefore inspects the head of each response as it
passes. A usual 101 costs one search for the end of the head. Other responses are parsed with the same
``LocalResponse`` as on the relay, so both reach the same result.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from seance.errors import Refusal
from seance.heads import LocalResponse, accept_for_key, redact

if TYPE_CHECKING:
    from seance.core.splice import SpliceSide

__all__ = ["AnswerWatch"]

SLOW_SECONDS = 5.0
"""A client that disconnects sooner may have another reason than a slow local server."""

MAX_REASON = 60

_SWITCHING = re.compile(rb"HTTP/1\.[01] 101[ \r]")
_USUAL = (b"\r\nupgrade: websocket\r\n", b"\r\nconnection: upgrade\r\n")
_STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ?([^\r]*)\r")


class AnswerWatch:
    """Inspects the local server's response to one upgrade request, then removes itself from its side.

    Args:
        side: The local server's side of the splice.
        key: The client's ``Sec-WebSocket-Key``; empty if there is none.
        limit_bytes: Maximum length of the response head.
        on_fault: Called at most once, with the status that the client gets and a message for the log.
        on_switched: Called once, when the local server has answered with a valid 101.
    """

    __slots__ = ("_accept", "_answer", "_head", "_key", "_limit_bytes", "_on_fault", "_on_switched", "_side")

    def __init__(
        self,
        side: SpliceSide,
        key: bytes,
        limit_bytes: int,
        on_fault: Callable[[int, str], None],
        on_switched: Callable[[], None] = lambda: None,
    ) -> None:
        self._side = side
        self._key = key
        self._accept = accept_for_key(key)
        self._limit_bytes = limit_bytes
        self._on_fault = on_fault
        self._on_switched = on_switched
        self._head = b""
        self._answer: LocalResponse | None = None

    def receive(self, data: bytes | memoryview) -> None:
        """Process the next bytes of the response."""
        if self._answer is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0 and len(self._head) < self._limit_bytes:
                return
            if end >= 0 and self._is_usual_101(self._head[: end + 2]):
                self._side.watch = None
                self._on_switched()
                return
            self._answer = LocalResponse(self._key, self._limit_bytes)
            data, self._head = self._head, b""
        self._check(self._answer, bytes(data))

    def note_end(self, reason: str, seconds: float) -> None:
        """The connection ended before the response head was complete: report the fault.

        Args:
            reason: As for ``SpliceOwner.splice_ended``.
            seconds: Time since the client's stream was opened.
        """
        self._side.watch = None
        if self._side.has_ended or reason != "near_gone":
            self._on_fault(502, "The local server closed a connection before it answered the client.")
        elif seconds >= SLOW_SECONDS:
            self._on_fault(
                502,
                f"The local server had not answered a client after {seconds:.1f} s, when the relay or the "
                "client gave up; --upgrade-seconds asks the relay for more time.",
            )

    def _is_usual_101(self, head: bytes) -> bool:
        if _SWITCHING.match(head) is None or self._accept not in head:
            return False
        lowered = head.lower()
        return all(field in lowered for field in _USUAL)

    def _check(self, answer: LocalResponse, data: bytes) -> None:
        try:
            passed_on = answer.receive(data)
        except Refusal as refusal:
            self._side.watch = None
            self._on_fault(refusal.status, refusal.message)
            return
        if not answer.has_begun:
            return
        self._side.watch = None
        if answer.is_switched:
            self._on_switched()
        match = None if answer.is_switched else _STATUS.match(passed_on)
        if match is not None:
            reason = redact("".join(char for char in match[2].decode("latin-1") if char.isprintable()))
            status = f"{match[1].decode()} {reason[:MAX_REASON]}".strip()
            self._on_fault(
                int(match[1]), f"The local server answered a client's WebSocket request with {status}."
            )
