"""What the local server answers, read on the relay and rebuilt for the client.

A `LocalAnswer` stands between stream and client until the answer is clear. A 101 whose
Sec-WebSocket-Accept fits the client's key opens the way: its head is rebuilt, what was glued to it
follows, and from there on the caller splices raw bytes without us. Any other final answer passes
through with its body, framed anew by h11 and with ``Connection: close``; what comes after it is
dropped, for nothing may follow on this connection.

Not one byte that the client sends after its head may reach the local server before `is_switched`:
a server that refused the upgrade would take it for the next request (CVE-2018-1002105). Holding
those bytes back, within a bound, is the caller's part.

The agent is not trusted: what it sends is bounded here and parsed as strictly as a client's head.
"""

from __future__ import annotations

import enum
from typing import cast

import h11

from seance.errors import LocalProtocolError, Refusal, RemoteProtocolError
from seance.heads.answer_fields import limited_to_room
from seance.heads.boundary import DEFAULT_HEAD_BYTES, HeadBuffer
from seance.heads.fields import Fields, field_values, written_head
from seance.heads.public_form import PublicForm
from seance.heads.rebuild import SWITCHING, end_to_end, replaced
from seance.heads.upgrade import accept_for_key, is_upgrade

__all__ = ["LocalAnswer"]

_ASKED = h11.Request(
    method=b"GET",
    target=b"/",
    headers=[(b"Host", b"localhost"), (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")],
)
"""What h11 has to have sent before it takes a 101 for an answer."""

_WAS_ASKED = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
"""What h11 has to have received before it frames an answer: HTTP/1.1, and the last of its connection."""


class _Phase(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    SWITCHED = enum.auto()
    FINISHED = enum.auto()
    BROKEN = enum.auto()
    REFUSED = enum.auto()


class LocalAnswer:
    """Reads the answer to one upgrade.

    Args:
        key: The Sec-WebSocket-Key that `check_upgrade` returned.
        limit_bytes: The bound for all heads of the answer together, interim ones included, and
            for a line between the chunks of a body. Bodies themselves are passed on as they come
            and have no bound.
        select_protocol: What a 101 selects if the local server's selects nothing:
            `protocol_to_select` says. The local server did not see that offer, and a browser
            fails a connection where it offered protocols and none came back. A choice of the
            local server's stands, whatever it is; the browser judges it.
        form: How the client addressed the room: addresses and cookies in the answer are limited to
            that. None leaves them as they are.
    """

    def __init__(
        self,
        key: bytes,
        limit_bytes: int = DEFAULT_HEAD_BYTES,
        select_protocol: bytes | None = None,
        form: PublicForm | None = None,
    ) -> None:
        self._accept = accept_for_key(key)
        self._limit_bytes = limit_bytes
        self._select_protocol = select_protocol
        self._form = form
        self._head = HeadBuffer(limit_bytes)
        self._phase = _Phase.HEAD
        self._reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=limit_bytes)
        self._reader.send(_ASKED)
        self._reader.send(h11.EndOfMessage())
        self._writer: h11.Connection  # of the answers that are none to an upgrade

    @property
    def is_switched(self) -> bool:
        """A verified 101 was passed on: splice raw bytes now, and do not call this again."""
        return self._phase is _Phase.SWITCHED

    @property
    def is_finished(self) -> bool:
        """An answer other than 101 was passed on completely: close both sides."""
        return self._phase is _Phase.FINISHED

    @property
    def is_broken(self) -> bool:
        """The body ended early or became nonsense after its head was passed on: abort both sides."""
        return self._phase is _Phase.BROKEN

    @property
    def has_begun(self) -> bool:
        """Something was passed on, so that no refusal of ours can follow."""
        return self._phase not in (_Phase.HEAD, _Phase.REFUSED)

    def receive(self, data: bytes) -> bytes:
        """Take the next bytes from the local server; then look at the four properties.

        Args:
            data: Bytes as they came, cut anywhere.

        Returns:
            What the client gets now, possibly nothing.

        Raises:
            Refusal: 502, always before anything was passed on: ``"local_server_malformed"`` or
                ``"accept_mismatch"``. Send it to the client and reset the stream.
            LocalProtocolError: ``"answer_over"``: it switched or was refused before.
        """
        self._check_open()
        if self._phase is _Phase.HEAD:
            return self._receive_head(data)
        return self._receive_body(data)

    def receive_end(self) -> bytes:
        """Take note that the local server sends no more.

        Returns:
            What the client gets now: the end of a body whose length was not told.

        Raises:
            Refusal: 502 ``"local_server_gone"``: there was no whole head yet.
            LocalProtocolError: ``"answer_over"``: it switched or was refused before.
        """
        self._check_open()
        if self._phase is _Phase.HEAD:
            raise self._refusal(
                "The local server closed the connection before it answered.", "local_server_gone"
            )
        if self._phase is _Phase.BODY:
            self._reader.receive_data(b"")
            return self._passed_on()
        return b""

    def _check_open(self) -> None:
        if self._phase in (_Phase.SWITCHED, _Phase.REFUSED):
            raise LocalProtocolError("The local server's answer is over.", code="answer_over")

    def _refusal(self, sentence: str, code: str) -> Refusal:
        self._phase = _Phase.REFUSED
        return Refusal(502, sentence, code=code)

    def _receive_head(self, data: bytes) -> bytes:
        while True:
            try:
                head = self._head.receive(data)
                if head is None:
                    return b""
                self._reader.receive_data(head)
                # A head that is whole is one event or an error, never a wish for more.
                event = cast(h11.InformationalResponse | h11.Response, self._reader.next_event())
            except (RemoteProtocolError, h11.RemoteProtocolError) as error:
                raise self._malformed() from error
            data, self._head.trailing = self._head.trailing, b""
            if isinstance(event, h11.Response):
                return self._begin(event) + self._receive_body(data)
            if event.status_code == 101:
                return self._switch(event) + data
            self._limit_bytes -= len(head)
            self._head = HeadBuffer(self._limit_bytes)

    def _malformed(self) -> Refusal:
        return self._refusal(
            "The local server answered something that is not well-formed HTTP.", "local_server_malformed"
        )

    def _switch(self, event: h11.InformationalResponse) -> bytes:
        fields = tuple(event.headers.raw_items())
        # Servers that say HTTP/1.0 here mean 1.1, and clients take it; the head is written anew as 1.1.
        if not event.http_version.startswith(b"1.") or not is_upgrade(fields):
            raise self._malformed()
        if field_values(fields, b"sec-websocket-accept") != [self._accept]:
            raise self._refusal(
                "The local server's WebSocket handshake does not answer this request.", "accept_mismatch"
            )
        self._phase = _Phase.SWITCHED
        start_line = b"HTTP/1.1 101 " + (event.reason or b"Switching Protocols")
        ours = SWITCHING
        if self._select_protocol is not None and not any(field_values(fields, b"sec-websocket-protocol")):
            ours = ((b"Sec-WebSocket-Protocol", self._select_protocol), *SWITCHING)
        return written_head(start_line, replaced(_without_length(self._kept(fields)), ours))

    def _begin(self, event: h11.Response) -> bytes:
        fields = tuple(event.headers.raw_items())
        if not event.http_version.startswith(b"1."):
            raise self._malformed()
        kept = self._kept(fields)
        if field_values(fields, b"transfer-encoding"):
            # The reader goes by the chunks (RFC 9112, 6.3), so a length beside them is a lie.
            kept = _without_length(kept)
        if event.status_code == 426:
            kept = replaced(kept, SWITCHING)
        self._phase = _Phase.BODY
        self._writer = h11.Connection(h11.SERVER)
        self._writer.receive_data(_WAS_ASKED)
        self._writer.next_event()
        return self._writer.send(
            h11.Response(status_code=event.status_code, reason=event.reason, headers=list(kept))
        )

    def _kept(self, fields: Fields) -> Fields:
        kept = end_to_end(fields)
        return kept if self._form is None else limited_to_room(kept, self._form)

    def _receive_body(self, data: bytes) -> bytes:
        if self._phase is not _Phase.BODY:
            return b""
        if data:
            self._reader.receive_data(data)
        return self._passed_on()

    def _passed_on(self) -> bytes:
        pieces = []
        try:
            while isinstance(event := self._reader.next_event(), h11.Data):
                pieces.append(self._writer.send(event))
        except h11.RemoteProtocolError:
            self._phase = _Phase.BROKEN
        else:
            if isinstance(event, h11.EndOfMessage):
                # Trailers end here: they may carry any field past the checks of the head.
                pieces.append(self._writer.send(h11.EndOfMessage()))
                self._phase = _Phase.FINISHED
        return b"".join(pieces)


def _without_length(fields: Fields) -> Fields:
    return tuple((name, value) for name, value in fields if name.lower() != b"content-length")
