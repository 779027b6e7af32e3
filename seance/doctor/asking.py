"""One HTTP request, and what became of it: an answer, or an open WebSocket in the hands of a ``Talk``.

h11 writes and reads, so whatever a proxy or a page of a hotel's Wi-Fi answers is read as a browser would
read it. What comes is bounded; nothing of it is trusted, and only ``Answer.words`` shows some.
"""

from __future__ import annotations

import base64
import os
import time
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, cast

import h11
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.python.failure import Failure

from seance import __version__
from seance.bench.talk import Talk
from seance.doctor.reach import as_cancelled, words_of
from seance.errors import Gone, SeanceError
from seance.heads import accept_for_key, redact
from seance.net import HandOver, tune

__all__ = ["Answer", "Way", "ask", "open_websocket"]

HEAD_BYTES = 16 * 1024
BODY_BYTES = 4096
WORDS = 200

USER_AGENT = f"seance-doctor/{__version__}"


@dataclass(frozen=True, slots=True)
class Way:
    """How to get to whom.

    Attributes:
        endpoint: Connects, TLS included.
        host: What stands in ``Host``.
        name: What to call it in sentences.
    """

    endpoint: IStreamClientEndpoint
    host: str
    name: str


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer.

    Attributes:
        status: 100 to 599.
        body: Its beginning.
        seconds: From the first packet of the connection to the end of the answer.
        fields: The header fields, names in small letters.
    """

    status: int
    body: bytes
    seconds: float
    fields: dict[str, str] = field(default_factory=dict)

    @property
    def is_plain_text(self) -> bool:
        """Whether it says so of itself, as whatever a relay or an agent of ours says does."""
        return self.fields.get("content-type", "").startswith("text/plain")

    @property
    def words(self) -> str:
        """The status, and what the body says if that is text: printable, one line, not long."""
        text = self.body.decode("utf-8", "replace") if self.is_plain_text else ""
        line = redact(" ".join("".join(one if one.isprintable() else " " for one in text).split()))
        return f'{self.status}, "{line[:WORDS]}"' if line else f"{self.status} ({self._kind})"

    @property
    def date(self) -> float | None:
        """When it was made, by the clock of whoever made it (RFC 9110, 6.6.1)."""
        try:
            return parsedate_to_datetime(self.fields["date"]).timestamp()
        except (KeyError, ValueError, OverflowError, OSError):
            return None

    @property
    def proxy(self) -> str:
        """Who else has had it in hand, if that shows: a relay names no server."""
        shown = self.fields.get("server") or self.fields.get("via") or ""
        return shown[:60] if shown.isprintable() else ""

    @property
    def _kind(self) -> str:
        kind = self.fields.get("content-type", "").partition(";")[0][:40]
        return kind if kind and kind.isprintable() else "nothing else"


async def ask(
    reactor: Any,  # noqa: ANN401  # Twisted's reactors have no common type
    way: Way,
    target: str,
    headers: dict[str, str],
    timeout_seconds: float,
) -> Answer:
    """Send one GET, and read the answer.

    Raises:
        Gone: There is none: ``timeout``, ``unreachable``, ``hung_up`` or ``not_http``.
    """
    fields = {"Connection": "close", **headers}
    result = await _exchange(reactor, way, target, fields, None, timeout_seconds)
    assert isinstance(result, Answer), "a WebSocket was not asked for"
    return result


async def open_websocket(
    reactor: Any,  # noqa: ANN401  # as above
    way: Way,
    target: str,
    headers: dict[str, str],
    timeout_seconds: float,
    *,
    key: str | None = None,
) -> Talk | Answer:
    """Ask for a WebSocket.

    Args:
        reactor: Twisted's reactor.
        way: To whom.
        target: The request target.
        headers: Further fields.
        timeout_seconds: From the first packet to the 101.
        key: A Sec-WebSocket-Key other than a good one, for an upgrade that is to be refused.

    Returns:
        A connection that is open, which the caller cuts; or the answer that was no 101.

    Raises:
        Gone: There is no answer: as for ``ask``; ``not_http`` also for a 101 that does not fit.
    """
    fields = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key or base64.b64encode(os.urandom(16)).decode(),
        **headers,
    }
    return await _exchange(reactor, way, target, fields, Talk(reactor), timeout_seconds)


async def _exchange(
    reactor: Any,  # noqa: ANN401  # as above
    way: Way,
    target: str,
    fields: dict[str, str],
    talk: Talk | None,
    timeout_seconds: float,
) -> Talk | Answer:
    exchange = _Exchange(way, target, fields, talk)
    factory = Factory.forProtocol(lambda: exchange)
    factory.noisy = False
    asking: Deferred[Any] = way.endpoint.connect(factory)
    asking.addErrback(as_cancelled).addCallback(lambda _: exchange.done)
    asking.addTimeout(timeout_seconds, reactor)
    try:
        return cast("Talk | Answer", await asking)
    except SeanceError:
        raise
    except DeferredTimeout as error:
        if exchange.has_heard:
            raise Gone("What answers is no HTTP, or never ends", code="not_http") from error
        where = "did not answer" if exchange.is_connected else "did not take the connection"
        raise Gone(f"{way.name} {where} within {timeout_seconds:g} s", code="timeout") from error
    except CancelledError:
        raise
    except Exception as error:  # whatever connecting fails with: Twisted has a dozen types
        why = words_of(error, timeout_seconds)
        raise Gone(f"{way.name} does not take connections: {why}", code="unreachable") from error
    finally:
        exchange.leave()


class _Exchange(HandOver):
    """Asks, reads the answer, and steps aside if it is a 101."""

    def __init__(self, way: Way, target: str, fields: dict[str, str], talk: Talk | None) -> None:
        self._way = way
        named = [("Host", way.host), ("User-Agent", USER_AGENT), *fields.items()]
        self._request = h11.Request(method="GET", target=target, headers=named)
        self._accept = accept_for_key(fields.get("Sec-WebSocket-Key", "").encode())
        self._talk = talk
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)
        self._response: h11.Response | None = None
        self._body = b""
        self._began = time.perf_counter()
        self._is_over = False
        self.is_connected = False
        self.has_heard = False
        self.done: Deferred[Talk | Answer] = Deferred()

    def connectionMade(self) -> None:
        self.is_connected = True
        tune(self.transport)
        content = (self._http.send(self._request) or b"") + (self._http.send(h11.EndOfMessage()) or b"")
        cast(Any, self.transport).write(content)

    def dataReceived(self, data: bytes) -> None:
        if not self._is_over:
            self._read(data)

    def readConnectionLost(self) -> None:
        if self._successor is not None:
            super().readConnectionLost()
        elif not self._is_over:
            self._read(b"")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._successor is not None:
            super().connectionLost(reason)
        elif not self._is_over:
            if isinstance(reason.value, SeanceError):
                # TLS 1.3: that the server does not like our certificate comes after the handshake.
                self._fail(reason.value)
            else:
                self._read(b"")

    def leave(self) -> None:
        """Drop the connection, unless it is somebody else's now."""
        self._is_over = True
        if self._successor is None and self.transport is not None:
            cast(Any, self.transport).abortConnection()

    def _read(self, data: bytes) -> None:
        self.has_heard = self.has_heard or bool(data)
        try:
            self._http.receive_data(data)
            while (event := self._http.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                    self._switch(event)
                    return
                if isinstance(event, h11.Response):
                    self._response = event
                elif isinstance(event, h11.Data):
                    self._body = (self._body + bytes(event.data))[:BODY_BYTES]
                elif isinstance(event, h11.ConnectionClosed):
                    self._fail(Gone(f"{self._way.name} hung up instead of answering", code="hung_up"))
                    return
                if isinstance(event, h11.EndOfMessage) or len(self._body) == BODY_BYTES:
                    self._end()
                    return
        except h11.RemoteProtocolError as error:
            if self._response is not None:
                self._end()
            elif self.has_heard:
                self._fail(Gone(f"What answers is no HTTP ({str(error)[:WORDS]})", code="not_http"))
            else:
                self._fail(Gone(f"{self._way.name} hung up instead of answering", code="hung_up"))

    def _end(self) -> None:
        response = cast(h11.Response, self._response)
        fields = {
            bytes(name).decode("latin-1"): bytes(one).decode("latin-1") for name, one in response.headers
        }
        seconds = time.perf_counter() - self._began
        self._is_over = True
        self.done.callback(Answer(response.status_code, self._body, seconds, fields))

    def _switch(self, event: h11.InformationalResponse) -> None:
        said = dict(event.headers).get(b"sec-websocket-accept")
        if self._talk is None or said != self._accept:
            self._fail(Gone("The 101 that came does not answer this request", code="not_http"))
            return
        self._is_over = True
        trailing = self._http.trailing_data[0]
        self.hand_over(self._talk)
        if trailing:
            self._talk.dataReceived(trailing)
        self.done.callback(self._talk)

    def _fail(self, error: SeanceError) -> None:
        if not self._is_over:
            self._is_over = True
            self.done.errback(Failure(error))
