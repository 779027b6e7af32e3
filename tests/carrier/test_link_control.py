"""Link control: text messages, only for peers that negotiated them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from seance.carrier.link_control import MAX_TEXT_BYTES, SUBPROTOCOL, parse_control
from seance.errors import RemoteProtocolError
from tests.carrier.peers import BINARY, CLOSE, CONTINUATION, TEXT, Answered, Dialled, close, frame
from tests.conftest import Watch
from tests.ears import Ear

Side = Callable[[], Answered | Dialled]

with_subprotocol = pytest.mark.parametrize(
    "side", [Answered, lambda: Dialled().open()], ids=["relay", "agent"]
)
without_subprotocol = pytest.mark.parametrize(
    "side", [lambda: Answered(offers=()), lambda: Dialled().open(None)], ids=["relay", "agent"]
)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b'"t"',
        b"{}",
        b'{"t": 1}',
        b'{"t": null}',
        b"{'t': 'x'}",
        b'{"t": "x"',
        b"\xff\xfe",
        b"[" * 5000,
    ],
)
def test_a_message_that_is_not_link_control_is_refused(payload: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_control(payload)
    assert caught.value.code == "link_control_malformed"


def test_a_message_is_an_object_with_a_type() -> None:
    assert parse_control(b'{"t": "ack", "n": 5}') == {"t": "ack", "n": 5}
    assert parse_control('{"t": "ä", "t": "b"}'.encode()) == {"t": "b"}


@with_subprotocol
def test_messages_reach_on_control(side: Side) -> None:
    ends = side()
    ends.hear(frame(b'{"t": "nobody listens yet"}', TEXT, is_masked=ends.masks))
    heard: list[dict[str, object]] = []
    ends.carrier.on_control = heard.append
    ends.hear(
        frame(b'{"t": "one", ', TEXT, is_final=False, is_masked=ends.masks),
        frame(b"", CONTINUATION, is_final=False, is_masked=ends.masks),
        frame(b'"n": 1}', CONTINUATION, is_masked=ends.masks),
        frame(b"bytes", is_masked=ends.masks),
        frame(b'{"t": "unheard of"}', TEXT, is_masked=ends.masks),
    )
    assert heard == [{"t": "one", "n": 1}, {"t": "unheard of"}]
    assert ends.ear.data == b"bytes"
    assert ends.ear.told == ["made", "data"]
    ends.end()


@with_subprotocol
def test_messages_can_be_sent(side: Side) -> None:
    ends = side()
    ends.carrier.send_control(b'{"t": "hello"}')
    (heard,) = ends.hear()
    assert (heard.opcode, heard.payload, heard.is_masked) == (TEXT, b'{"t": "hello"}', not ends.masks)
    ends.carrier.loseConnection()
    ends.carrier.send_control(b'{"t": "too late"}')
    assert [heard.opcode for heard in ends.hear()] == [CLOSE]
    ends.end()


@without_subprotocol
def test_a_plain_peer_is_never_sent_text(side: Side) -> None:
    ends = side()
    assert ends.offered == [None]
    ends.carrier.send_control(b'{"t": "hello"}')
    ends.carrier.write(b"bytes")
    assert [heard.opcode for heard in ends.hear()] == [BINARY]
    ends.end()


@without_subprotocol
def test_text_from_a_plain_peer_ends_the_carrier_with_1003(side: Side) -> None:
    ends = side()
    heard = ends.hear(frame(b'{"t": "x"}', TEXT, is_masked=ends.masks), frame(b"bytes", is_masked=ends.masks))
    assert [(one.opcode, one.close_code) for one in heard] == [(CLOSE, 1003)]
    ends.hear(close(1003, is_masked=ends.masks))
    ends.far.transport.loseConnection()
    ends.run()
    assert ends.ear.data == b""
    assert "binary messages" in str(ends.ear.reasons[0].value)
    ends.end()


@with_subprotocol
def test_a_malformed_message_ends_the_carrier_with_1002(side: Side) -> None:
    ends = side()
    heard = ends.hear(frame(b"[1]", TEXT, is_masked=ends.masks), frame(b"[2]", TEXT, is_masked=ends.masks))
    assert [(one.opcode, one.close_code) for one in heard] == [(CLOSE, 1002)]
    ends.end()
    assert "JSON object" in str(ends.ear.reasons[0].value)


@with_subprotocol
def test_text_that_is_not_utf8_ends_the_carrier_with_1007(side: Side) -> None:
    ends = side()
    heard = ends.hear(frame(b'{"t": "\xff"}', TEXT, is_masked=ends.masks))
    assert [(one.opcode, one.close_code) for one in heard] == [(CLOSE, 1007)]
    ends.end()


@with_subprotocol
def test_the_longest_message_is_read(side: Side) -> None:
    ends = side()
    heard: list[dict[str, object]] = []
    ends.carrier.on_control = heard.append
    message = b'{"t": "%s"}' % (b"x" * (MAX_TEXT_BYTES - 9))
    assert len(message) == MAX_TEXT_BYTES
    assert ends.hear(frame(message, TEXT, is_masked=ends.masks)) == []
    assert len(heard) == 1
    ends.end()


@with_subprotocol
@pytest.mark.parametrize("is_fragmented", [False, True])
def test_a_longer_message_ends_the_carrier_with_1009(side: Side, is_fragmented: bool) -> None:
    ends = side()
    if is_fragmented:
        pieces = [frame(b"x" * (MAX_TEXT_BYTES // 2), TEXT, is_final=False, is_masked=ends.masks)]
        pieces += [frame(b"x" * (MAX_TEXT_BYTES // 2 + 1), CONTINUATION, is_masked=ends.masks)]
    else:
        pieces = [frame(b"", TEXT, announced=MAX_TEXT_BYTES + 1, is_masked=ends.masks)]
    heard = ends.hear(*pieces)
    assert [(one.opcode, one.close_code) for one in heard] == [(CLOSE, 1009)]
    ends.end()


@with_subprotocol
def test_a_failing_on_control_ends_the_carrier(side: Side, watch: Watch) -> None:
    def fail(message: dict[str, object]) -> None:
        raise ZeroDivisionError

    ends = side()
    ends.carrier.on_control = fail
    ends.hear(frame(b'{"t": "x"}', TEXT, is_masked=ends.masks))
    assert ends.ear.is_lost
    assert ends.far.is_lost
    assert len(watch.take(ZeroDivisionError)) == 1
    ends.end()


def test_the_name_of_the_subprotocol_is_part_of_the_protocol() -> None:
    assert SUBPROTOCOL == "seance.link.v1"
    assert Answered(Ear()).offered == [SUBPROTOCOL]
