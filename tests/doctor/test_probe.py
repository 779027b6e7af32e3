"""What is spoken behind an open WebSocket, with servers of which each says something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory

from seance.doctor import probe
from seance.doctor.probe import GOOD_BYE, Speech, Spoken, converse
from seance.errors import Gone
from seance.wsclient import WsConnection
from seance.wsclient.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, FrameReader, encode
from seance.yserver.messages import SyncStep1, SyncStep2, decode
from seance.yserver.messages import encode as written
from tests.relay.rig import Player, reactor, until

Say = Callable[[Frame], list[Frame]]


class Server(Player):
    """One side of a connection that answers frame by frame, as it is told."""

    def __init__(self, say: Say) -> None:
        super().__init__()
        self._say = say
        self._reader = FrameReader()
        self.heard: list[Frame] = []

    def dataReceived(self, data: bytes) -> None:
        for frame in self._reader.receive(data):
            self.heard.append(frame)
            self.send(b"".join(encode(one) for one in self._say(frame)))


def pongs(frame: Frame) -> list[Frame]:
    return [Frame(PONG, frame.payload)] if frame.opcode == PING else []


def closes_politely(frame: Frame) -> list[Frame]:
    return [Frame(CLOSE, frame.payload)] if frame.opcode == CLOSE else []


async def spoken_with(say: Say, timeout_seconds: float = 5.0) -> tuple[Spoken, Server]:
    """What the doctor finds about a server that speaks like this."""
    factory = Factory.forProtocol(lambda: Server(say))
    factory.noisy = False
    made: list[Server] = []
    build = factory.buildProtocol

    def note(address: Any) -> Any:
        made.append(build(address))
        return made[-1]

    factory.buildProtocol = note  # type: ignore[method-assign]
    port = reactor.listenTCP(0, factory, interface="127.0.0.1")
    talk = WsConnection(reactor)
    client = Factory.forProtocol(lambda: talk)
    client.noisy = False
    try:
        await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(client)
        return await converse(reactor, talk, timeout_seconds), made[0]
    finally:
        await port.stopListening()
        assert talk.transport is not None
        await until(lambda: talk.is_lost)
        await until(lambda: all(server.lost for server in made))


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that will not say more is not waited for as long as in earnest."""
    monkeypatch.setattr(probe, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(probe, "CLOSE_SECONDS", 0.05)


@ensureDeferred
async def test_a_yjs_server_is_known_by_its_step_2_and_gets_no_answer_to_its_own_question() -> None:
    def yjs(frame: Frame) -> list[Frame]:
        if frame.opcode == BINARY:
            step_1, step_2 = written(SyncStep1(b"\x00")), written(SyncStep2(b"\x00\x00"))
            return [Frame(BINARY, step_1), Frame(BINARY, step_2)]
        return pongs(frame) + closes_politely(frame)

    spoken, server = await spoken_with(yjs)
    assert spoken.speech is Speech.YJS
    assert spoken.round_trip_seconds is not None
    messages = [frame.payload for frame in server.heard if frame.opcode == BINARY]
    assert len(messages) == 1
    assert isinstance(decode(messages[0]), SyncStep1), "anything else could change the document"
    assert [frame.payload for frame in server.heard if frame.opcode == CLOSE] == [GOOD_BYE]


@ensureDeferred
async def test_a_server_whose_own_question_comes_first_is_no_echo() -> None:
    def only_asks(frame: Frame) -> list[Frame]:
        return [Frame(BINARY, written(SyncStep1(b"\x00")))] if frame.opcode == BINARY else pongs(frame)

    spoken, _ = await spoken_with(only_asks)
    assert spoken.speech is Speech.WEBSOCKET


@pytest.mark.parametrize("opcode", [BINARY, TEXT])
@ensureDeferred
async def test_an_echo_is_known_as_one(opcode: int) -> None:
    def echo(frame: Frame) -> list[Frame]:
        return [Frame(opcode, frame.payload)] if frame.opcode == BINARY else pongs(frame)

    spoken, _ = await spoken_with(echo)
    assert spoken.speech is Speech.ECHO


@ensureDeferred
async def test_a_long_document_in_fragments_is_known_by_its_beginning() -> None:
    def fragments(frame: Frame) -> list[Frame]:
        if frame.opcode != BINARY:
            return pongs(frame)
        whole = written(SyncStep2(b"\x00" * 5000))
        return [Frame(BINARY, whole[:1000], is_final=False), Frame(CONTINUATION, whole[1000:])]

    spoken, _ = await spoken_with(fragments)
    assert spoken.speech is Speech.YJS


@ensureDeferred
async def test_a_server_that_only_pongs_is_well_too() -> None:
    spoken, _ = await spoken_with(pongs)
    assert (spoken.speech, spoken.update_bytes) == (Speech.WEBSOCKET, 0)
    assert spoken.round_trip_seconds is not None


@ensureDeferred
async def test_a_server_that_syncs_and_does_not_pong_is_well_too() -> None:
    def no_pongs(frame: Frame) -> list[Frame]:
        return [Frame(BINARY, written(SyncStep2(b"\x00\x00")))] if frame.opcode == BINARY else []

    spoken, _ = await spoken_with(no_pongs)
    assert (spoken.speech, spoken.round_trip_seconds) == (Speech.YJS, None)


@ensureDeferred
async def test_pings_of_the_server_are_answered() -> None:
    def pings(frame: Frame) -> list[Frame]:
        return [Frame(PING, b"are you there?")] if frame.opcode == BINARY else pongs(frame)

    _, server = await spoken_with(pings)
    assert Frame(PONG, b"are you there?") in server.heard


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"", "says no code"),
        ((1011).to_bytes(2, "big"), "with code 1011"),
        ((4001).to_bytes(2, "big") + b"\x1b[2Jbye", "with code 4001 and '[2Jbye'"),
    ],
)
@ensureDeferred
async def test_a_close_is_told_with_its_code_and_what_can_be_printed_of_its_reason(
    payload: bytes, words: str
) -> None:
    with pytest.raises(Gone) as caught:
        await spoken_with(lambda _: [Frame(CLOSE, payload)])
    assert words in str(caught.value)


@ensureDeferred
async def test_a_server_that_talks_without_end_is_not_listened_to_without_end() -> None:
    with pytest.raises(Gone, match="talks without end"):
        await spoken_with(lambda _: [Frame(TEXT, b"bla")] * (probe.MOST_FRAMES + 1))


@ensureDeferred
async def test_what_is_no_frame_is_told() -> None:
    with pytest.raises(Gone, match="reserved bit"):
        await spoken_with(lambda _: [Frame(0x72, b"?")])
