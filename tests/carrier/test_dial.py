"""The agent's side of the opening handshake: an open carrier, or one clear error for each way to fail."""

from __future__ import annotations

from typing import Any

import pytest
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectionRefusedError, DNSLookupError, TimeoutError
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from seance import __version__
from seance.carrier import SUBPROTOCOL, RelayAddress, dial
from seance.errors import CarrierLost, Refusal
from tests.carrier.peers import Dialled, frame
from tests.conftest import Watch
from tests.ears import Ear
from tests.wire import run_until


def answer(
    status: bytes, body: bytes = b"", *fields: bytes, content_type: bytes = b"text/plain; charset=utf-8"
) -> bytes:
    lines = [
        b"HTTP/1.1 " + status,
        b"Content-Type: " + content_type,
        b"Content-Length: %d" % len(body),
        *fields,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def error_of(ends: Dialled) -> Any:
    """Return the error of a failed attempt, which is reported once."""
    (failure,) = ends.results
    assert isinstance(failure, Failure)
    return failure.value


# The request


def test_the_request_is_what_a_relay_expects() -> None:
    ends = Dialled()
    lines = ends.far.head.split(b"\r\n")
    assert lines[0] == b"GET /agent?room=room-1 HTTP/1.1"
    assert b"Host: relay.example:8080" in lines
    assert b"User-Agent: seance-agent/" + __version__.encode() in lines
    assert b"Sec-WebSocket-Protocol: " + SUBPROTOCOL.encode() in lines
    assert b"Sec-WebSocket-Version: 13" in lines
    assert b"extensions" not in ends.far.head.lower()
    assert ends.far.reasons == []
    ends.end()


@pytest.mark.parametrize(
    ("url", "line", "host"),
    [
        ("ws://[::1]:8080", b"GET /agent?room=room-1 HTTP/1.1", b"[::1]:8080"),
        ("ws://h/base%20x", b"GET /base%20x/agent?room=room-1 HTTP/1.1", b"h:80"),
        ("ws://unix/b", b"GET /b/agent?room=room-1 HTTP/1.1", b"unix:80"),
    ],
)
def test_the_request_follows_the_address(url: str, line: bytes, host: bytes) -> None:
    ends = Dialled(url=url)
    assert ends.far.head.startswith(line + b"\r\n")
    assert b"\r\nHost: " + host + b"\r\n" in ends.far.head
    ends.end()


# An open carrier


@pytest.mark.parametrize("subprotocol", [SUBPROTOCOL, None])
def test_a_101_opens_the_carrier(subprotocol: str | None) -> None:
    ends = Dialled().open(subprotocol)
    assert ends.offered == [subprotocol]
    assert ends.carrier.subprotocol == subprotocol
    assert ends.ear.told == ["made"]
    ends.end()


def test_frames_glued_to_the_101_are_not_lost() -> None:
    ends = Dialled()
    ends.far.transport.write(
        ends.switching() + frame(b"early ", is_masked=False) + frame(b"bird", is_masked=False)
    )
    ends.run()
    assert ends.ear.data == b"early bird"
    assert ends.results == [ends.ear]
    ends.end()


def test_the_deferred_fires_before_data_is_delivered() -> None:
    ends = Dialled()
    order: list[str] = []
    ends.ear.on_data = lambda _: order.append("data")
    ends.dialling.addCallback(lambda _: order.append("open"))
    ends.far.transport.write(ends.switching() + frame(b"early", is_masked=False))
    ends.run()
    assert order == ["open", "data"]
    ends.end()


@pytest.mark.parametrize("chop_bytes", [1, 7, 200])
def test_a_101_may_arrive_in_pieces_and_after_other_1xx_responses(chop_bytes: int) -> None:
    ends = Dialled(chop_bytes=chop_bytes, seed=chop_bytes)
    run_until(ends.clock, lambda: ends.far.head.endswith(b"Sec-WebSocket-Version: 13"))
    ends.far.transport.write(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ends.switching(b"X-Any: thing"))
    ends.far.transport.write(frame(b"glued", is_masked=False))
    run_until(ends.clock, lambda: ends.ear.data == b"glued")
    assert ends.results == [ends.ear]
    ends.end()


def test_a_relay_may_end_lines_with_lf_only() -> None:
    ends = Dialled()
    ends.far.transport.write(ends.switching().replace(b"\r\n", b"\n") + frame(b"glued", is_masked=False))
    ends.run()
    assert ends.ear.data == b"glued"
    ends.end()


def test_the_loss_of_an_open_carrier_does_not_fail_dial() -> None:
    ends = Dialled().open()
    ends.far.transport.abortConnection()
    ends.run()
    assert ends.results == [ends.ear]
    assert ends.ear.is_lost
    ends.end()


def test_the_deadline_timer_is_cancelled_once_open() -> None:
    ends = Dialled().open()
    assert ends.clock.getDelayedCalls() == []
    ends.clock.advance(100)
    assert ends.results == [ends.ear]
    ends.end()


# A refusal


@pytest.mark.parametrize(
    ("status", "code"), [(b"404 Not Found", 404), (b"409 Conflict", 409), (b"503 Service Unavailable", 503)]
)
def test_a_refusal_has_the_message_of_the_relay(status: bytes, code: int) -> None:
    ends = Dialled()
    ends.far.transport.write(answer(status, b"This room has an agent already.\n", b"Retry-After: 2"))
    ends.run()
    error = error_of(ends)
    assert isinstance(error, Refusal)
    assert (error.status, error.message, error.code) == (
        code,
        "This room has an agent already.",
        f"http_{code}",
    )
    assert (b"retry-after", b"2") in error.headers
    assert ends.far.is_lost
    assert ends.offered == []
    ends.end()


@pytest.mark.parametrize(
    ("response", "sentence"),
    [
        (answer(b"502 Bad Gateway"), "The relay answered 502 Bad Gateway."),
        (
            answer(b"407 Proxy Authentication Required", b"Access denied."),
            "A proxy between this agent and the relay answered 407: it wants a user name and a password. "
            "Let this machine reach the relay without that proxy.",
        ),
        (
            answer(b"511 Network Authentication Required", content_type=b"text/html", body=b"<h1>Hotel</h1>"),
            "A proxy between this agent and the relay answered 511: this network wants a log-in first. "
            "Open a web page in a browser on this machine.",
        ),
        (answer(b"502", content_type=b"text/html", body=b"<h1>Oops</h1>"), "The relay answered 502."),
        (answer(b"400 Bad", b"\xff \x1b[31mred\r\n\r\n  lines"), "\ufffd [31mred lines"),
        (answer(b"429 Too Many", b"x" * 5000), "x" * 1024),
        (
            b"HTTP/1.1 403 No\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nGo \r\n5\r\naway.\r\n0\r\n\r\n",
            "Go away.",
        ),
    ],
)
def test_the_message_of_a_refusal_is_readable(response: bytes, sentence: str) -> None:
    ends = Dialled()
    ends.far.transport.write(response)
    ends.run()
    error = error_of(ends)
    assert isinstance(error, Refusal)
    assert error.message == sentence
    ends.end()


def test_a_refusal_may_end_with_the_connection() -> None:
    ends = Dialled()
    ends.far.transport.write(b"HTTP/1.0 503 Away\r\nContent-Type: text/plain\r\n\r\nCome back later.")
    ends.run()
    assert ends.results == []
    ends.far.transport.loseConnection()
    ends.run()
    assert error_of(ends).message == "Come back later."
    ends.end()


def test_an_endless_refusal_is_read_up_to_a_limit() -> None:
    ends = Dialled()
    ends.far.transport.write(b"HTTP/1.1 503 Away\r\nContent-Type: text/plain\r\n\r\n")
    for _ in range(5):
        ends.far.transport.write(b"and on " * 50)
        ends.run()
    assert error_of(ends).message.startswith("and on and on")
    assert ends.far.is_lost
    ends.end()


# Other servers


@pytest.mark.parametrize(
    ("response", "sentence"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "does not speak HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "does not speak HTTP"),
        (b"HTTP/1.1 101 " + b"x" * 20_000, "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "it answered 200 to a WebSocket upgrade"),
        (b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", "it answered 302"),
    ],
)
def test_another_server_is_reported_as_not_a_relay(response: bytes, sentence: str) -> None:
    ends = Dialled()
    ends.far.transport.write(response)
    ends.run()
    error = error_of(ends)
    assert isinstance(error, CarrierLost)
    assert error.code == "not_a_relay"
    assert sentence in error.message
    assert ends.far.is_lost
    ends.end()


def test_a_101_with_a_wrong_accept_is_rejected() -> None:
    ends = Dialled()
    ends.far.transport.write(ends.switching(accept=b"x" * 28))
    ends.run()
    error = error_of(ends)
    assert isinstance(error, CarrierLost)
    assert "does not accept a WebSocket" in error.message
    assert "Accept" in error.message
    assert ends.far.is_lost
    assert ends.offered == []
    ends.end()


@pytest.mark.parametrize(
    "field",
    [
        b"Sec-WebSocket-Protocol: another",
        b"Sec-WebSocket-Extensions: permessage-deflate",
        b"Sec-WebSocket-Extensions: x",
        b"Sec-WebSocket-Protocol: \xe9",
        b"Sec-WebSocket-Accept: twice",
    ],
)
def test_a_101_with_unrequested_extensions_is_rejected(field: bytes) -> None:
    ends = Dialled()
    ends.far.transport.write(ends.switching(field))
    ends.run()
    error = error_of(ends)
    assert isinstance(error, CarrierLost)
    assert "does not accept a WebSocket" in error.message
    assert ends.far.is_lost
    ends.end()


def test_a_101_is_parsed_strictly() -> None:
    ends = Dialled()
    accept = ends.switching(b"X: a\x85Sec-WebSocket-Protocol: another", b"Y: \xff\xfe")
    ends.far.transport.write(accept)
    ends.run()
    assert ends.offered == [None]
    ends.end()


# Closing early


@pytest.mark.parametrize("before", [b"", b"HTTP/1.1 101 Swit", b"HTTP/1.1 100 Continue\r\n\r\n"])
@pytest.mark.parametrize(
    ("end", "sentence"),
    [
        ("loseConnection", "The relay at relay.example:8080 closed the connection before it answered"),
        ("abortConnection", "The relay at relay.example:8080 cut the connection: "),
    ],
)
def test_a_relay_that_closes_before_the_101_is_an_error(before: bytes, end: str, sentence: str) -> None:
    ends = Dialled()
    ends.far.transport.write(before)
    ends.run()
    getattr(ends.far.transport, end)()
    ends.run()
    error = error_of(ends)
    assert isinstance(error, CarrierLost)
    assert error.message.startswith(sentence)
    assert error.code == "unreachable"
    ends.end()


def test_a_failing_protocol_factory_is_an_error(watch: Watch) -> None:
    def fail(subprotocol: str | None) -> IProtocol:
        raise ZeroDivisionError

    ends = Dialled(make_protocol=fail)
    ends.far.transport.write(ends.switching())
    ends.run()
    error = error_of(ends)
    assert isinstance(error, CarrierLost)
    assert "was cut while it opened" in error.message
    assert len(watch.take(ZeroDivisionError)) == 1
    ends.end()


def test_a_protocol_that_closes_as_soon_as_it_is_connected_was_open() -> None:
    ear = Ear(on_made=lambda ear: ear.transport.abortConnection())
    ends = Dialled(ear).open()
    assert ear.is_lost
    ends.end()


# Timeouts


def test_a_relay_that_does_not_answer_in_time_is_an_error() -> None:
    ends = Dialled()
    ends.clock.advance(14.9)
    ends.run()
    assert ends.results == []
    ends.clock.advance(0.2)
    ends.run()
    error = error_of(ends)
    assert isinstance(error, CarrierLost)
    assert error.message == "The relay at relay.example:8080 did not answer within 15 s"
    assert ends.far.is_lost
    ends.end()


def test_cancelling_drops_the_attempt() -> None:
    ends = Dialled()
    ends.dialling.cancel()
    ends.run()
    assert isinstance(error_of(ends), CancelledError)
    assert ends.far.is_lost
    ends.end()


def test_a_101_after_a_cancel_opens_nothing() -> None:
    ends = Dialled()
    ends.far.transport.write(ends.switching() + frame(b"late", is_masked=False))
    ends.dialling.cancel()
    ends.run()
    assert isinstance(error_of(ends), CancelledError)
    assert ends.offered == []
    ends.end()


# Connecting


@implementer(IStreamClientEndpoint)
class Unreachable:
    """An endpoint that fails to connect, or never does."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error
        self.was_cancelled = False

    def connect(self, protocolFactory: object) -> Deferred[IProtocol]:
        waiting: Deferred[IProtocol] = Deferred(self._cancel)
        if self._error is not None:
            waiting.errback(self._error)
        return waiting

    def _cancel(self, waiting: object) -> None:
        self.was_cancelled = True


def attempt(endpoint: Unreachable) -> tuple[Clock, Deferred[Any], list[Any]]:
    clock, results = Clock(), []
    address = RelayAddress.from_url("wss://relay.example")
    dialling = dial(clock, address, "r", lambda _: Ear(), deadline_seconds=10, endpoint=endpoint)
    return clock, dialling.addBoth(results.append), results


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (DNSLookupError("no results"), "The relay's name relay.example cannot be resolved"),
        (ConnectionRefusedError(), "Nothing listens at the relay's address relay.example"),
        (TimeoutError(), "The relay at relay.example cannot be reached: no answer"),
        (ConnectError(string="no route"), "The relay at relay.example cannot be reached: An error occurred"),
        (
            SSL.Error([("SSL routines", "", "certificate verify failed"), ("", "", "so there")]),
            "The TLS handshake with the relay at relay.example failed: certificate verify failed, so there",
        ),
        (
            SSL.SysCallError(-1, "Unexpected EOF"),
            "The TLS handshake with the relay at relay.example failed: Unexpected EOF",
        ),
        (SSL.Error([]), "The TLS handshake with the relay at relay.example failed: no reason is known"),
        (
            SSL.ZeroReturnError(),
            "The TLS handshake with the relay at relay.example failed: no reason is known",
        ),
        (VerificationError(errors=[]), "The certificate of the relay at relay.example is for another name"),
        (ValueError("unforeseen"), "The carrier to relay.example could not be opened: unforeseen"),
    ],
)
def test_a_relay_that_cannot_be_reached_is_one_clear_error(error: Exception, sentence: str) -> None:
    clock, _, (failure,) = attempt(Unreachable(error))
    assert isinstance(failure.value, CarrierLost)
    assert failure.value.message.startswith(sentence)
    assert failure.value.code == "unreachable"
    assert clock.getDelayedCalls() == []


def test_cancelling_cancels_the_connection_attempt() -> None:
    endpoint = Unreachable()
    clock, dialling, results = attempt(endpoint)
    dialling.cancel()
    assert endpoint.was_cancelled
    assert results[0].check(CancelledError)
    assert clock.getDelayedCalls() == []


def test_no_timer_of_the_attempt_is_on_the_global_reactor() -> None:
    from twisted.internet import reactor

    before = reactor.getDelayedCalls()  # type: ignore[attr-defined]
    ends = Dialled()
    assert reactor.getDelayedCalls() == before  # type: ignore[attr-defined]
    assert [call.getTime() for call in ends.clock.getDelayedCalls()] == [15]
    ends.open()
    ends.end()


def test_connecting_counts_against_the_deadline() -> None:
    endpoint = Unreachable()
    clock, _, results = attempt(endpoint)
    clock.advance(10)
    assert endpoint.was_cancelled
    assert results[0].value.message == "The relay at relay.example did not answer within 10 s"
