"""The agent's side of a carrier: connect to a relay and open a carrier, or fail with one clear error.

Every failure is reported by the same Deferred: an unresolvable name, a refused connection, a certificate for
another name, an HTTP error status, or no answer. Autobahn's own client API does not report some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import h11
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet import error as net_errors
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.python.failure import Failure

from seance import __version__
from seance.carrier.fast_frames import Bytes
from seance.carrier.link_control import SUBPROTOCOL, SUBPROTOCOLS
from seance.carrier.websocket import ClientSocket, make_client_factory
from seance.errors import CarrierLost, LocalProtocolError, NegotiationFailed, Refusal, SeanceError
from seance.heads import redact
from seance.heads.boundary import DEFAULT_HEAD_BYTES

if TYPE_CHECKING:
    from autobahn.twisted.websocket import WebSocketClientFactory

    from seance.carrier.address import RelayAddress

__all__ = ["dial"]

REFUSAL_BYTES = 1024
USER_AGENT = f"seance-agent/{__version__}"

SHOWN_CHARACTERS = 80
"""Maximum length of a foreign subprotocol in an error message."""

SUBPROTOCOL_FIELD = b"sec-websocket-protocol"

HANDSHAKE = (
    b"upgrade",
    b"connection",
    b"sec-websocket-accept",
    SUBPROTOCOL_FIELD,
    b"sec-websocket-extensions",
)
"""The header fields of a 101 that Autobahn gets."""


def dial(
    reactor: Any,  # noqa: ANN401  # IReactorTime and the interfaces of HostnameEndpoint: no common type
    address: RelayAddress,
    room: str,
    make_protocol: Callable[[str | None], IProtocol],
    *,
    deadline_seconds: float,
    endpoint: IStreamClientEndpoint | None = None,
    headers: Mapping[str, str] | None = None,
    may_resume: bool = False,
    is_plain: bool = False,
) -> Deferred[IProtocol]:
    """Open a carrier to a relay.

    Args:
        reactor: Twisted's reactor.
        address: The relay.
        room: The room to serve.
        make_protocol: Called with the negotiated subprotocol (None: a plain relay) when the
            carrier is open; the returned protocol gets a ``Carrier`` as transport.
        deadline_seconds: Time for everything from name look-up to 101.
        endpoint: Connects instead of a ``HostnameEndpoint`` for ``address``; for TLS options, proxies and
            tests.
        headers: Additional header fields of the request, other than those of the handshake. The fields of
            the response are in ``Carrier.headers`` or ``Refusal.headers``.
        may_resume: Whether to offer resumption.
        is_plain: Whether to offer no subprotocol, for relays that are not Seance.

    Returns:
        Fires with the protocol. Fails with ``Refusal`` if the status is not 101, with ``NegotiationFailed``
        if the 101 selects a subprotocol that was not offered, with ``LocalProtocolError`` if one of
        ``headers`` is not legal, and with ``CarrierLost`` for everything else. Cancelling aborts the attempt.
    """
    offers = () if is_plain else SUBPROTOCOLS if may_resume else (SUBPROTOCOL,)
    attempt = _Attempt(reactor, address, room, make_protocol, headers or {}, offers)
    done = Deferred.fromCoroutine(attempt.run(endpoint))
    return done.addTimeout(deadline_seconds, reactor).addErrback(attempt.explain, deadline_seconds)


class _Attempt:
    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # as above
        address: RelayAddress,
        room: str,
        make_protocol: Callable[[str | None], IProtocol],
        headers: Mapping[str, str],
        offers: Sequence[str],
    ) -> None:
        self._reactor = reactor
        self._address = address
        self._offers = offers
        self._make_protocol = make_protocol
        self._headers = headers
        self._target = address.agent_target(room)

    async def run(self, endpoint: IStreamClientEndpoint | None) -> IProtocol:
        address = self._address
        autobahn = make_client_factory(
            self._reactor,
            address.host,
            address.port,
            self._target,
            USER_AGENT,
            self._headers,
            self._offers,
        )
        factory = _DialFactory(self._reactor, autobahn, self._make_protocol)
        socket = cast(_DialSocket, await (endpoint or self._endpoint()).connect(factory))
        try:
            return await socket.when_open
        except CancelledError:
            socket.transport.abortConnection()
            raise

    def _endpoint(self) -> IStreamClientEndpoint:
        address = self._address
        endpoint: IStreamClientEndpoint = HostnameEndpoint(self._reactor, address.host, address.port)
        if address.is_secure:
            endpoint = wrapClientTLS(optionsForClientTLS(address.host), endpoint)
        return endpoint

    def explain(self, failure: Failure, deadline_seconds: float) -> Failure:
        """Convert an error of the network or of TLS to ``CarrierLost``."""
        if failure.check(Refusal, CarrierLost, LocalProtocolError, CancelledError) is not None:
            return failure
        if isinstance(failure.value, SeanceError):
            # From an endpoint of this project, which knows more, for example the fault of a certificate.
            return Failure(CarrierLost(failure.value.message, code=failure.value.code))
        where = self._address.host_header
        why = _tls_reason(failure.value) if failure.check(SSL.Error) else failure.getErrorMessage()
        for kind, message in (
            (net_errors.DNSLookupError, f"The relay's name {self._address.host} cannot be resolved"),
            (net_errors.ConnectionRefusedError, f"Nothing listens at the relay's address {where}"),
            (net_errors.TimeoutError, f"The relay at {where} cannot be reached: no answer"),
            (DeferredTimeout, f"The relay at {where} did not answer within {deadline_seconds:g} s"),
            (net_errors.ConnectError, f"The relay at {where} cannot be reached: {why}"),
            (net_errors.ConnectionAborted, f"The carrier to {where} was cut while it opened"),
            (net_errors.ConnectionLost, f"The relay at {where} cut the connection: {why}"),
            (net_errors.ConnectionDone, f"The relay at {where} closed the connection before it answered"),
            (SSL.Error, f"The TLS handshake with the relay at {where} failed: {why}"),
            (VerificationError, f"The certificate of the relay at {where} is for another name"),
        ):
            if failure.check(kind) is not None:
                is_refused = kind is net_errors.ConnectionRefusedError
                return Failure(CarrierLost(message, code="unreachable", is_refused=is_refused))
        return Failure(CarrierLost(f"The carrier to {where} could not be opened: {why}", code="unreachable"))


def _tls_reason(error: BaseException | None) -> str:
    # OpenSSL's own errors are a list of triples that end in a text such as "certificate verify failed";
    # pyOpenSSL's are a number and a text.
    last = error.args[-1] if error is not None and error.args else ""
    texts = [str(triple[-1]) for triple in last] if isinstance(last, list) else [str(last)]
    return ", ".join(texts) or "no reason is known"


class _DialFactory(Factory):
    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        autobahn: WebSocketClientFactory,
        make_protocol: Callable[[str | None], IProtocol],
    ) -> None:
        self._reactor = reactor
        self._make_protocol = make_protocol
        self._autobahn = autobahn

    def buildProtocol(self, addr: object) -> _DialSocket:
        socket = _DialSocket(self._reactor, self._make_protocol, self._autobahn.protocols)
        socket.factory = self._autobahn
        return socket


class _DialSocket(ClientSocket):
    """A client socket that checks the head of the response before Autobahn gets it."""

    def __init__(
        self,
        reactor: IReactorTime,
        make_protocol: Callable[[str | None], IProtocol],
        offers: Sequence[str],
    ) -> None:
        super().__init__(reactor, self._note_protocol)
        self._make = make_protocol
        self._response_reader: _ResponseReader | None = _ResponseReader(offers)
        self._opened: IProtocol | None = None
        self.when_open: Deferred[IProtocol] = Deferred()

    def _note_protocol(self, subprotocol: str | None) -> IProtocol:
        self._opened = self._make(subprotocol)
        return self._opened

    def onOpen(self) -> None:
        super().onOpen()
        if self._opened is not None:
            self.when_open.callback(self._opened)

    def dataReceived(self, data: Bytes) -> None:
        if self._response_reader is not None:
            try:
                switched = self._response_reader.receive(bytes(data))
            except (Refusal, CarrierLost) as error:
                self._fail_open(error)
                self.transport.abortConnection()
                return
            if switched is None:
                return
            self.answer_headers = self._response_reader.headers
            data, self._response_reader = switched, None
        super().dataReceived(data)

    def failHandshake(self, reason: str) -> None:
        self._fail_open(_not_a_relay(f"does not accept a WebSocket: {reason}"))
        super().failHandshake(reason)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        reader, self._response_reader = self._response_reader, None
        super().connectionLost(reason)
        error = None if reader is None else reader.end()
        self._fail_open(reason if error is None else error)

    def _fail_open(self, error: Failure | Exception) -> None:
        if not self.when_open.called:
            self.when_open.errback(error)


PROXY_STATUSES = {
    407: "it wants a user name and a password. Let this machine reach the relay without that proxy.",
    511: "this network wants a log-in first. Open a web page in a browser on this machine.",
}
"""Statuses of proxies and captive portals (RFC 9110, 15.5.8, and RFC 6585, 6); a relay sends none of them."""


class _ResponseReader:
    """Parses the response of a relay: a 101, or an error status with a message.

    Args:
        offers: The subprotocols that were offered.
    """

    def __init__(self, offers: Sequence[str]) -> None:
        self._offers = offers
        self.headers: dict[str, str] = {}
        self._error_response: h11.Response | None = None
        self._body = b""
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=DEFAULT_HEAD_BYTES)
        upgrade = [("Host", "relay"), ("Connection", "Upgrade"), ("Upgrade", "websocket")]
        self._http.send(h11.Request(method="GET", target="/agent", headers=upgrade))
        self._http.send(h11.EndOfMessage())

    def receive(self, data: bytes) -> bytes | None:
        """Parse the next bytes.

        Returns:
            For a 101, the bytes for Autobahn: a rebuilt head with the handshake's fields only, which its
            lenient parser cannot misread, and the bytes that followed the head. None until the head is
            complete.

        Raises:
            Refusal: The status is an error, and its body was read.
            NegotiationFailed: The 101 selects a subprotocol that was not offered.
            CarrierLost: The response is not HTTP, or not one of a relay.
        """
        try:
            self._http.receive_data(data)
            while (event := self._http.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                    self.headers = {_text(name): _text(value) for name, value in event.headers}
                    self._check_subprotocol(event)
                    return _handshake(event) + self._http.trailing_data[0]
                if isinstance(event, h11.Response):
                    self._error_response = event
                elif isinstance(event, h11.Data):
                    self._body += bytes(event.data)
                if isinstance(event, h11.EndOfMessage) or len(self._body) > REFUSAL_BYTES:
                    raise cast(Exception, self.end())
        except h11.RemoteProtocolError as error:
            raise _not_a_relay(f"does not speak HTTP: {error}") from error
        return None

    def _check_subprotocol(self, event: h11.InformationalResponse) -> None:
        selected = _selected(event)
        if not selected or (len(selected) == 1 and selected[0] in self._offers):
            return
        said = redact(", ".join(selected))[:SHOWN_CHARACTERS]
        offered = "which the agent did not offer" if self._offers else "and the agent offered none"
        message = f"does not accept a WebSocket: it selects the subprotocol {said!r}, {offered}"
        server = self.headers.get("server", "")
        raise NegotiationFailed(_not_a_relay(message).message, code="subprotocol", server=server)

    def end(self) -> Refusal | CarrierLost | None:
        """Return the error that the response so far amounts to; None if there is no response yet."""
        response = self._error_response
        if response is None:
            return None
        status = response.status_code
        if status < 400:
            return _not_a_relay(f"is not a relay: it answered {status} to a WebSocket upgrade")
        headers = tuple((bytes(name), bytes(value)) for name, value in response.headers)
        text = ""
        if dict(headers).get(b"content-type", b"").startswith(b"text/plain"):
            text = self._body[:REFUSAL_BYTES].decode("utf-8", "replace")
        words = "".join(character if character.isprintable() else " " for character in text).split()
        reason = _text(response.reason)
        if status in PROXY_STATUSES:
            # A relay never sends these, so the response, its body included, is a proxy's.
            message = f"A proxy between this agent and the relay answered {status}: {PROXY_STATUSES[status]}"
        else:
            message = " ".join(words) or f"The relay answered {status} {reason}".rstrip() + "."
        # Redacted, because some servers, such as debugging proxies, return the request with its token.
        return Refusal(status, redact(message), code=f"http_{status}", headers=headers)


def _handshake(event: h11.InformationalResponse) -> bytes:
    # An empty Sec-WebSocket-Protocol selects nothing, and Autobahn rejects two of these fields.
    names = HANDSHAKE if _selected(event) else [name for name in HANDSHAKE if name != SUBPROTOCOL_FIELD]
    fields = [b": ".join(field) for field in event.headers if field[0] in names]
    head = b"\r\n".join([b"HTTP/1.1 101 Switching Protocols", *fields, b"", b""])
    if not head.isascii():
        raise _not_a_relay("does not accept a WebSocket: its answer is not plain text")
    return head


def _selected(event: h11.InformationalResponse) -> list[str]:
    """Return the values of ``Sec-WebSocket-Protocol`` that are not empty."""
    return [_text(value) for name, value in event.headers if name == SUBPROTOCOL_FIELD and value]


def _text(content: bytes) -> str:
    return bytes(content).decode("latin-1")


def _not_a_relay(what: str) -> CarrierLost:
    return CarrierLost(f"The server at the relay's address {redact(what)}", code="not_a_relay")
