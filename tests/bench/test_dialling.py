"""From a URL to a connection, or to one clear error."""

from __future__ import annotations

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol

from seance.bench.dialling import Target, dial
from seance.bench.frames import TEXT, Frame
from seance.bench.talk import Talk
from seance.errors import ConfigError, Gone, LocalProtocolError, Refusal, SeanceError
from seance.heads.fields import field_values
from tests.bench.rig import Saying, listening, reactor, serving


@pytest.mark.parametrize(
    ("url", "place", "request_target"),
    [
        ("ws://h:1", "", "/"),
        ("ws://h:1/", "fan", "/fan"),
        ("ws://h:1/c/room/", "fan", "/c/room/fan"),
        ("ws://h:1/client?room=a%20b", "fan", "/client/fan?room=a%20b"),
        ("http://h:1/c/ä".replace("ä", "%C3%A4"), "x", "/c/%C3%A4/x"),
    ],
)
def test_a_place_is_one_step_further_down_the_path(url: str, place: str, request_target: str) -> None:
    assert Target.from_url(url).at(place).request_target == request_target


@pytest.mark.parametrize("url", ["", "h:1", "ftp://h/", "ws://", "ws://h:x/", "ws://h:99999/", "ws://ä/"])
def test_what_is_no_address_is_one_sentence(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Target.from_url(url)
    assert "use ws://HOST:PORT/PATH" in raised.value.sentence


def test_a_target_is_shown_without_query_and_token() -> None:
    target = Target.from_url("wss://h/c/r?access_token=secret", token="hidden")
    assert str(target) == "wss://h:443/c/r"
    assert "hidden" not in repr(target)


@pytest_twisted.ensureDeferred
async def test_the_fields_of_the_answer_are_given_and_the_connection_is_the_protocols() -> None:
    async with serving() as target:
        talk = await Talk.open(reactor, target, subprotocols=["Chat", "other"])
        assert field_values(talk.fields, b"sec-websocket-protocol") == [b"Chat"]
        talk.send(Frame(TEXT, b"hello"))
        assert await talk.receive() == Frame(TEXT, b"hello")
        talk.cut()


@pytest_twisted.ensureDeferred
async def test_a_token_is_shown_to_whom_it_is_for() -> None:
    heard: list[bytes] = []

    class Noting(Saying):
        def buildProtocol(self, addr: object) -> Protocol:
            protocol = super().buildProtocol(addr)
            usual = protocol.dataReceived
            protocol.dataReceived = lambda data: (heard.append(data), usual(data))[1]  # type: ignore[method-assign]
            return protocol

    async with listening(Noting(b"HTTP/1.1 403 No\r\n\r\n")) as target:
        shown = Target(False, target.host, target.port, token="abc")
        with pytest.raises(Refusal):
            await dial(reactor, shown, Protocol())
    assert b"Authorization: Bearer abc\r\n" in heard[0]


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\nRoom not found", "refused", "Room not found"),
        (b"HTTP/1.1 503 Away\r\n\r\n", "refused", "HTTP status 503."),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not_http", "does not answer in HTTP"),
        (b"HTTP/1.1 101 Sure\r\nSec-WebSocket-Accept: x\r\n\r\n", "not_http", "does not answer this request"),
        (b"HTTP/1.1 1", "hung_up", "hung up"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_that_will_not_do_is_one_sentence(answer: bytes, code: str, words: str) -> None:
    async with listening(Saying(answer)) as target:
        with pytest.raises(SeanceError) as raised:
            await dial(reactor, target, Protocol())
    assert raised.value.code == code
    assert words in raised.value.sentence


@pytest_twisted.ensureDeferred
async def test_a_port_where_nobody_listens_is_one_sentence() -> None:
    async with serving() as target:
        pass
    with pytest.raises(Gone) as raised:
        await dial(reactor, target, Protocol())
    assert raised.value.code == "unreachable"


@pytest_twisted.ensureDeferred
async def test_what_cannot_stand_in_a_request_is_not_sent() -> None:
    async with serving() as target:
        with pytest.raises(LocalProtocolError):
            await dial(reactor, target.at("a\nb"), Protocol())


@pytest_twisted.ensureDeferred
async def test_a_server_that_never_answers_is_given_up() -> None:
    async with listening(Saying(b"", hangs_up=False)) as target:
        with pytest.raises(Gone) as raised:
            await dial(reactor, target, Protocol(), deadline_seconds=0.05)
    assert raised.value.code == "timeout"


@pytest_twisted.ensureDeferred
async def test_a_wait_for_a_frame_ends_with_the_connection_or_the_time() -> None:
    async with serving() as target:
        talk = await Talk.open(reactor, target)
        with pytest.raises(Gone, match="no frame came within"):
            await talk.receive(0.01)
        waiting = Deferred.fromCoroutine(talk.receive())
        talk.cut()
        with pytest.raises(Gone, match="was cut"):
            await waiting
