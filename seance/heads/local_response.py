"""Reads the local server's response on the relay and rebuilds it for the client.

If the response is a 101 with a Sec-WebSocket-Accept that matches the client's key, its head is rebuilt
and bytes received with it are passed on. After that the caller splices raw bytes. Any other final
response passes through with its body, framed anew by h11 and with ``Connection: close``. Bytes after
it are dropped, because the connection ends. `split_fields` reads the head of a usual 101; h11 is only
created for other heads.

Bytes that the client sends after its head must not reach the local server before `is_switched`. A
server that rejected the upgrade would read them as the next request (CVE-2018-1002105). The caller
buffers these bytes, within a limit.

The agent is not trusted: its bytes are limited and parsed as strictly as the head of a client.
"""

from __future__ import annotations

import enum
import re
from functools import cached_property
from typing import cast

import h11

from seance.errors import LocalProtocolError, Refusal, RemoteProtocolError
from seance.heads.boundary import DEFAULT_HEAD_BYTES, HeadBuffer
from seance.heads.fields import SWITCHING, Fields, field_values, format_head, split_fields
from seance.heads.public_form import PublicForm
from seance.heads.rebuild import end_to_end_fields, replace_fields
from seance.heads.refusals import refusal
from seance.heads.response_fields import limit_to_room
from seance.heads.upgrade import accept_for_key, is_upgrade

__all__ = ["LocalResponse"]

_UPGRADE_REQUEST = h11.Request(
    method=b"GET",
    target=b"/",
    headers=[(b"Host", b"localhost"), *SWITCHING],
)
"""h11 accepts a 101 only as the response to such a request."""

_LAST_REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
"""h11 frames a response only after a request; this one makes it write HTTP/1.1 and ``Connection: close``."""


_USUAL = re.compile(rb"HTTP/1\.[01] 101(?: ([^\r]*))?(?=\r)")
"""The first line of a 101, in a head that `HeadBuffer` has accepted."""


class _Phase(enum.Enum):
    HEAD = enum.auto()
    BODY = enum.auto()
    SWITCHED = enum.auto()
    FINISHED = enum.auto()
    BROKEN = enum.auto()
    REFUSED = enum.auto()


class LocalResponse:
    """Reads the response to one upgrade request.

    Args:
        key: The Sec-WebSocket-Key that `check_upgrade` returned.
        limit_bytes: Limit for all heads of the response together, interim ones included, and for
            each line between the chunks of a body. Bodies are streamed and have no limit.
        select_protocol: The subprotocol of the 101 if the local server selects none; see
            `protocol_to_select`. The local server has not seen that offer, and a browser closes a
            connection for which it offered subprotocols and the 101 selects none. A selection by
            the local server is not changed; the browser checks it.
        form: How the client addressed the room. Addresses and cookies in the response are limited to
            it; None leaves them unchanged.
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
        self._writer: h11.Connection  # for responses other than 101

    @cached_property
    def _reader(self) -> h11.Connection:
        reader = h11.Connection(h11.CLIENT, max_incomplete_event_size=self._limit_bytes)
        reader.send(_UPGRADE_REQUEST)
        reader.send(h11.EndOfMessage())
        return reader

    @property
    def is_switched(self) -> bool:
        """Whether a verified 101 was passed on. Splice raw bytes then; further calls are errors."""
        return self._phase is _Phase.SWITCHED

    @property
    def is_finished(self) -> bool:
        """Whether a whole response other than 101 was passed on. Close both sides then."""
        return self._phase is _Phase.FINISHED

    @property
    def is_broken(self) -> bool:
        """Whether the body ended early or is malformed after its head was sent. Abort both sides then."""
        return self._phase is _Phase.BROKEN

    @property
    def has_begun(self) -> bool:
        """Whether any byte was passed on, so that a refusal is no longer possible."""
        return self._phase not in (_Phase.HEAD, _Phase.REFUSED)

    def receive(self, data: bytes) -> bytes:
        """Process bytes from the local server; check the four properties afterwards.

        Args:
            data: Received bytes; the boundaries of the chunks do not matter.

        Returns:
            Bytes for the client, possibly none.

        Raises:
            Refusal: 502 ``"local_server_malformed"`` or ``"accept_mismatch"``, only before any byte was
                passed on. Send it to the client and reset the stream.
            LocalProtocolError: ``"answer_over"``: the response has switched or was refused.
        """
        self._check_open()
        if self._phase is _Phase.HEAD:
            return self._receive_head(data)
        return self._receive_body(data)

    def receive_end(self) -> bytes:
        """Process the end of the local server's bytes.

        Returns:
            Bytes for the client: the end of a body without an announced length.

        Raises:
            Refusal: 502 ``"local_server_gone"``: the head is incomplete.
            LocalProtocolError: ``"answer_over"``: the response has switched or was refused.
        """
        self._check_open()
        if self._phase is _Phase.HEAD:
            raise self._refusal("local_server_gone.head")
        if self._phase is _Phase.BODY:
            self._reader.receive_data(b"")
            return self._passed_on()
        return b""

    def _check_open(self) -> None:
        if self._phase in (_Phase.SWITCHED, _Phase.REFUSED):
            raise LocalProtocolError("This response has already switched or was refused.", code="answer_over")

    def _refusal(self, kind: str) -> Refusal:
        self._phase = _Phase.REFUSED
        return refusal(kind)

    def _receive_head(self, data: bytes) -> bytes:
        while True:
            try:
                head = self._head.receive(data)
                if head is None:
                    return b""
                match = _USUAL.match(head)
                fields = None if match is None else split_fields(head)
                if match is not None and fields is not None:
                    return self._switch(match[1], fields) + self._head.trailing
                self._reader.receive_data(head)
                # A complete head is one event or an error, never NEED_DATA.
                event = cast(h11.InformationalResponse | h11.Response, self._reader.next_event())
            except (RemoteProtocolError, h11.RemoteProtocolError) as error:
                raise self._refusal("local_server_malformed") from error
            data, self._head.trailing = self._head.trailing, b""
            if isinstance(event, h11.Response):
                return self._begin(event) + self._receive_body(data)
            if event.status_code == 101:
                return self._switch(event.reason, tuple(event.headers.raw_items()), event.http_version) + data
            self._limit_bytes -= len(head)
            self._head = HeadBuffer(self._limit_bytes)

    def _switch(self, reason: bytes | None, fields: Fields, version: bytes = b"1.1") -> bytes:
        # Some servers send HTTP/1.0 with a 101, and clients accept it. The head is written anew as 1.1.
        if not version.startswith(b"1.") or not is_upgrade(fields):
            raise self._refusal("local_server_malformed")
        if field_values(fields, b"sec-websocket-accept") != [self._accept]:
            raise self._refusal("accept_mismatch")
        self._phase = _Phase.SWITCHED
        start_line = b"HTTP/1.1 101 " + (reason or b"Switching Protocols")
        ours = SWITCHING
        if self._select_protocol is not None and not any(field_values(fields, b"sec-websocket-protocol")):
            ours = ((b"Sec-WebSocket-Protocol", self._select_protocol), *SWITCHING)
        return format_head(start_line, replace_fields(_without_length(self._kept(fields)), ours))

    def _begin(self, event: h11.Response) -> bytes:
        fields = tuple(event.headers.raw_items())
        if not event.http_version.startswith(b"1."):
            raise self._refusal("local_server_malformed")
        kept = self._kept(fields)
        if field_values(fields, b"transfer-encoding"):
            # Transfer-Encoding overrides Content-Length (RFC 9112, 6.3), and so does h11's reader.
            kept = _without_length(kept)
        if event.status_code == 426:
            kept = replace_fields(kept, SWITCHING)
        self._phase = _Phase.BODY
        self._writer = h11.Connection(h11.SERVER)
        self._writer.receive_data(_LAST_REQUEST)
        self._writer.next_event()
        return self._writer.send(
            h11.Response(status_code=event.status_code, reason=event.reason, headers=list(kept))
        )

    def _kept(self, fields: Fields) -> Fields:
        kept = end_to_end_fields(fields)
        return kept if self._form is None else limit_to_room(kept, self._form)

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
                # Trailers are dropped: they could contain fields that the head is checked for.
                pieces.append(self._writer.send(h11.EndOfMessage()))
                self._phase = _Phase.FINISHED
        return b"".join(pieces)


def _without_length(fields: Fields) -> Fields:
    return tuple((name, value) for name, value in fields if name.lower() != b"content-length")
