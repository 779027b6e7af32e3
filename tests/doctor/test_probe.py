"""The probe of an open WebSocket, against servers with different answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory

from seance.doctor import probe
from seance.doctor.probe import CLOSE_PAYLOAD, ProbeResult, ServerProtocol, probe_server
from seance.errors import Gone
from seance.wsclient import WsConnection
from seance.wsclient.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, FrameReader, encode
from seance.yserver.messages import SyncStep1, SyncStep2, decode
from seance.yserver.messages import encode as written
from tests.relay.rig import Player, reactor, until

Respond = Callable[[Frame], list[Frame]]


class Server(Player):
    """The server's side of a connection; answers each frame with the frames that ``respond`` returns."""

    def __init__(self, respond: Respond) -> None:
        super().__init__()
        self._respond = respond
        self._reader = FrameReader()
        self.received_frames: list[Frame] = []

    def dataReceived(self, data: bytes) -> None:
        for frame in self._reader.receive(data):
            self.received_frames.append(frame)
            self.send(b"".join(encode(one) for one in self._respond(frame)))


def pongs(frame: Frame) -> list[Frame]:
    return [Frame(PONG, frame.payload)] if frame.opcode == PING else []


def answer_close(frame: Frame) -> list[Frame]:
    return [Frame(CLOSE, frame.payload)] if frame.opcode == CLOSE else []


async def probe_stub(respond: Respond, timeout_seconds: float = 5.0) -> tuple[ProbeResult, Server]:
    """Probe a server that answers as ``respond`` does."""
    factory = Factory.forProtocol(lambda: Server(respond))
    factory.noisy = False
    made: list[Server] = []
    build = factory.buildProtocol

    def note(address: Any) -> Any:
        made.append(build(address))
        return made[-1]

    factory.buildProtocol = note  # type: ignore[method-assign]
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    connection = WsConnection(reactor)
    client = Factory.forProtocol(lambda: connection)
    client.noisy = False
    try:
        await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(client)
        return await probe_server(reactor, connection, timeout_seconds), made[0]
    finally:
        await port.stopListening()
        assert connection.transport is not None
        await until(lambda: connection.is_lost)
        await until(lambda: all(server.lost for server in made))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits."""
    monkeypatch.setattr(probe, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(probe, "CLOSE_SECONDS", 0.05)


@ensureDeferred
async def test_yjs_server_is_recognised_and_its_step_1_is_not_answered() -> None:
    def yjs(frame: Frame) -> list[Frame]:
        if frame.opcode == BINARY:
            step_1, step_2 = written(SyncStep1(b"\x00")), written(SyncStep2(b"\x00\x00"))
            return [Frame(BINARY, step_1), Frame(BINARY, step_2)]
        return pongs(frame) + answer_close(frame)

    result, server = await probe_stub(yjs)
    assert result.protocol is ServerProtocol.YJS
    assert result.round_trip_seconds is not None
    messages = [frame.payload for frame in server.received_frames if frame.opcode == BINARY]
    assert len(messages) == 1
    assert isinstance(decode(messages[0]), SyncStep1), "anything else could change the document"
    assert [frame.payload for frame in server.received_frames if frame.opcode == CLOSE] == [CLOSE_PAYLOAD]


@ensureDeferred
async def test_server_that_only_sends_step_1_is_not_an_echo() -> None:
    def only_asks(frame: Frame) -> list[Frame]:
        return [Frame(BINARY, written(SyncStep1(b"\x00")))] if frame.opcode == BINARY else pongs(frame)

    result, _ = await probe_stub(only_asks)
    assert result.protocol is ServerProtocol.WEBSOCKET


@pytest.mark.parametrize("opcode", [BINARY, TEXT])
@ensureDeferred
async def test_echo_is_recognised(opcode: int) -> None:
    def echo(frame: Frame) -> list[Frame]:
        return [Frame(opcode, frame.payload)] if frame.opcode == BINARY else pongs(frame)

    result, _ = await probe_stub(echo)
    assert result.protocol is ServerProtocol.ECHO


@ensureDeferred
async def test_fragmented_step_2_is_recognised() -> None:
    def fragments(frame: Frame) -> list[Frame]:
        if frame.opcode != BINARY:
            return pongs(frame)
        whole = written(SyncStep2(b"\x00" * 5000))
        return [Frame(BINARY, whole[:1000], is_final=False), Frame(CONTINUATION, whole[1000:])]

    result, _ = await probe_stub(fragments)
    assert result.protocol is ServerProtocol.YJS


@ensureDeferred
async def test_server_that_only_answers_pings_passes() -> None:
    result, _ = await probe_stub(pongs)
    assert (result.protocol, result.update_bytes) == (ServerProtocol.WEBSOCKET, 0)
    assert result.round_trip_seconds is not None


@ensureDeferred
async def test_yjs_server_that_does_not_answer_pings_passes() -> None:
    def no_pongs(frame: Frame) -> list[Frame]:
        return [Frame(BINARY, written(SyncStep2(b"\x00\x00")))] if frame.opcode == BINARY else []

    result, _ = await probe_stub(no_pongs)
    assert (result.protocol, result.round_trip_seconds) == (ServerProtocol.YJS, None)


@ensureDeferred
async def test_pings_of_the_server_are_answered() -> None:
    def pings(frame: Frame) -> list[Frame]:
        return [Frame(PING, b"are you there?")] if frame.opcode == BINARY else pongs(frame)

    _, server = await probe_stub(pings)
    assert Frame(PONG, b"are you there?") in server.received_frames


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "without a code"),
        ((1011).to_bytes(2, "big"), "with code 1011"),
        ((4001).to_bytes(2, "big") + b"\x1b[2Jbye", "with code 4001 and '[2Jbye'"),
    ],
)
@ensureDeferred
async def test_close_is_reported_with_code_and_printable_reason(payload: bytes, words: str) -> None:
    with pytest.raises(Gone) as caught:
        await probe_stub(lambda _: [Frame(CLOSE, payload)])
    assert words in str(caught.value)


@ensureDeferred
async def test_number_of_frames_is_limited() -> None:
    with pytest.raises(Gone, match="sends 1000 frames without an answer"):
        await probe_stub(lambda _: [Frame(TEXT, b"bla")] * (probe.MAX_FRAMES + 1))


@ensureDeferred
async def test_invalid_frame_is_reported() -> None:
    with pytest.raises(Gone, match="reserved bit"):
        await probe_stub(lambda _: [Frame(0x72, b"?")])
