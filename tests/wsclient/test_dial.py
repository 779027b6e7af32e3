"""From a URL to a WebSocket connection, or to one clear error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol

from seance.bench.local_server import EchoConnection, LocalServerFactory
from seance.errors import ConfigError, Gone, LocalProtocolError, Refusal, SeanceError
from seance.heads.fields import field_values
from seance.wsclient import Target, WsConnection, dial
from seance.wsclient.frames import TEXT, Frame
from tests.bench.rig import FixedResponse, listening, reactor, serving


@pytest.mark.parametrize(
    ("url", "path", "request_target"),
    [
        ("ws://h:1", "", "/"),
        ("ws://h:1/", "fan", "/fan"),
        ("ws://h:1/c/room/", "fan", "/c/room/fan"),
        ("ws://h:1/client?room=a%20b", "fan", "/client/fan?room=a%20b"),
        ("http://h:1/c/%C3%A4", "x", "/c/%C3%A4/x"),
    ],
)
def test_at_appends_to_the_path(url: str, path: str, request_target: str) -> None:
    assert Target.from_url(url).at(path).request_target == request_target


@pytest.mark.parametrize("url", ["", "h:1", "ftp://h/", "ws://", "ws://h:x/", "ws://h:99999/", "ws://ä/"])
def test_an_invalid_url_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Target.from_url(url)
    assert "use ws://HOST:PORT/PATH" in raised.value.message


def test_str_of_a_target_has_no_query_and_no_token() -> None:
    target = Target.from_url("wss://h/c/r?access_token=secret", token="hidden")
    assert str(target) == "wss://h:443/c/r"
    assert "hidden" not in repr(target)


def test_only_connections_to_one_server_share_a_tls_session(tmp_path: Path) -> None:
    def settings(target: Target) -> object:
        return target.endpoint(reactor)._tls  # type: ignore[attr-defined]  # to compare

    target = Target.from_url("wss://h/a")
    assert settings(target) is settings(target.at("b", "c=d"))
    others = [replace(target, host="i"), replace(target, port=444), replace(target, ca_file=tmp_path / "ca")]
    assert all(settings(other) is not settings(target) for other in others)


@pytest_twisted.ensureDeferred
async def test_dial_returns_the_fields_of_the_101_and_the_protocol_gets_the_connection() -> None:
    async with serving() as target:
        connection = await WsConnection.open(reactor, target, subprotocols=["Chat", "other"])
        assert field_values(connection.fields, b"sec-websocket-protocol") == [b"Chat"]
        connection.send(Frame(TEXT, b"hello"))
        assert await connection.receive() == Frame(TEXT, b"hello")
        connection.abort()


@pytest_twisted.ensureDeferred
async def test_the_token_is_sent_in_the_authorization_header() -> None:
    server = FixedResponse(b"HTTP/1.1 403 No\r\n\r\n")
    async with listening(server) as target:
        with pytest.raises(Refusal):
            await dial(reactor, Target(False, target.host, target.port, token="abc"), Protocol())
    assert b"Authorization: Bearer abc\r\n" in server.received


@pytest.mark.parametrize(
    ("response", "code", "message"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\nRoom not found", "refused", "Room not found"),
        (b"HTTP/1.1 503 Away\r\n\r\n", "refused", "HTTP status 503."),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not_http", "does not speak HTTP"),
        (b"HTTP/1.1 101 Sure\r\nSec-WebSocket-Accept: x\r\n\r\n", "not_http", "does not match"),
        (b"HTTP/1.1 1", "not_http", "does not speak HTTP"),
        (b"", "hung_up", "closed the connection instead of answering"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_any_response_but_a_valid_101_is_one_error(response: bytes, code: str, message: str) -> None:
    async with listening(FixedResponse(response)) as target:
        with pytest.raises(SeanceError) as raised:
            await dial(reactor, target, Protocol())
    assert raised.value.code == code
    assert message in raised.value.message


@pytest_twisted.ensureDeferred
async def test_a_closed_port_is_unreachable() -> None:
    async with serving() as target:
        pass
    with pytest.raises(Gone) as raised:
        await dial(reactor, target, Protocol())
    assert raised.value.code == "unreachable"


@pytest_twisted.ensureDeferred
async def test_an_illegal_request_target_is_not_sent() -> None:
    async with serving() as target:
        with pytest.raises(LocalProtocolError):
            await dial(reactor, target.at("a\nb"), Protocol())


@pytest.mark.parametrize(
    ("response", "code"), [(b"", "timeout"), (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "not_http")]
)
@pytest_twisted.ensureDeferred
async def test_a_response_that_does_not_end_in_time_is_an_error(response: bytes, code: str) -> None:
    async with listening(FixedResponse(response, closes=False)) as target:
        with pytest.raises(Gone) as raised:
            await dial(reactor, target, Protocol(), deadline_seconds=0.05)
    assert raised.value.code == code


@pytest_twisted.ensureDeferred
async def test_a_refusal_is_cut_at_four_kib_and_needs_no_end() -> None:
    async with listening(FixedResponse(b"HTTP/1.1 404 No\r\n\r\n" + b"x" * 9000, closes=False)) as target:
        with pytest.raises(Refusal) as raised:
            await dial(reactor, target, Protocol())
    assert raised.value.message == "x" * 4096


@pytest_twisted.ensureDeferred
async def test_dial_can_be_cancelled() -> None:
    async with listening(FixedResponse(b"", closes=False)) as target:
        dialling = Deferred.fromCoroutine(dial(reactor, target, Protocol()))
        dialling.cancel()
        with pytest.raises(CancelledError):
            await dialling


@pytest_twisted.ensureDeferred
async def test_receive_ends_with_the_connection_or_at_its_timeout() -> None:
    async with serving() as target:
        connection = await WsConnection.open(reactor, target)
        with pytest.raises(Gone, match="no frame came within"):
            await connection.receive(0.01)
        waiting = Deferred.fromCoroutine(connection.receive())
        connection.abort()
        with pytest.raises(Gone, match="was reset or closed"):
            await waiting


class InvalidFrames(EchoConnection):
    """Answers with a frame that has a reserved bit set."""

    def reply(self, frame: Frame) -> tuple[Frame, ...]:
        return (Frame(0x72, frame.payload),)


@pytest_twisted.ensureDeferred
async def test_invalid_frames_abort_the_connection() -> None:
    async with listening(LocalServerFactory(reactor, {"": InvalidFrames})) as target:
        connection = await WsConnection.open(reactor, target)
        connection.send(Frame(TEXT))
        with pytest.raises(Gone, match="reserved bit"):
            await connection.receive()
