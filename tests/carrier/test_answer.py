"""The relay's side of the opening handshake."""

from __future__ import annotations

import pytest
from twisted.internet.error import ConnectionAborted

from seance.carrier import SUBPROTOCOL
from tests.carrier.peers import CLOSE, TEXT, Answered, close, frame
from tests.conftest import Watch
from tests.ears import Ear

OURS = SUBPROTOCOL.encode()


def fields(ends: Answered) -> dict[bytes, bytes]:
    lines = ends.far.head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 101 Switching Protocols"
    return {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines[1:])}


def test_the_answer_is_what_the_request_needs_and_no_more() -> None:
    ends = Answered()
    assert fields(ends) == {
        b"server": b"seance-relay",
        b"upgrade": b"WebSocket",
        b"connection": b"Upgrade",
        b"sec-websocket-protocol": OURS,
        b"sec-websocket-accept": b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    }
    assert ends.ear.told == ["made"]
    ends.end()


@pytest.mark.parametrize(
    ("offers", "chosen"),
    [
        ((OURS,), SUBPROTOCOL),
        ((b"yamux, " + OURS,), SUBPROTOCOL),
        ((b"yamux", OURS + b" ,,x"), SUBPROTOCOL),
        ((OURS + b"," + OURS, OURS), SUBPROTOCOL),
        ((), None),
        ((b"",), None),
        ((b"yamux",), None),
        ((b"yamux, yamux",), None),
        ((OURS.upper(),), None),
        ((OURS + b"0",), None),
        ((b"\xff\xfe, a b; c=d",), None),
    ],
)
def test_our_subprotocol_is_selected_if_it_is_offered(offers: tuple[bytes, ...], chosen: str | None) -> None:
    ends = Answered(offers=offers)
    assert ends.offered == [chosen]
    assert ends.carrier.subprotocol == chosen
    assert fields(ends).get(b"sec-websocket-protocol") == (chosen.encode() if chosen else None)
    ends.end()


@pytest.mark.parametrize(
    "offer",
    [
        b"permessage-deflate",
        b"permessage-deflate; client_max_window_bits",
        b"permessage-deflate; nonsense=1",
        b"x",
    ],
)
def test_no_extension_is_accepted(offer: bytes) -> None:
    ends = Answered(fields=(b"Sec-WebSocket-Extensions: " + offer,))
    assert b"sec-websocket-extensions" not in fields(ends)
    (heard,) = ends.hear(frame(b"compressed?", reserved=4))
    assert (heard.opcode, heard.close_code) == (CLOSE, 1002)
    ends.end()


def test_other_header_fields_do_not_reach_autobahn() -> None:
    ends = Answered(
        fields=(
            b"Origin: https://elsewhere.example",
            b"X-Forwarded-For: 6.6.6.6",
            b"Authorization: Bearer SECRET",
            b"Cookie: \xe9=1",
        )
    )
    assert fields(ends)[b"sec-websocket-accept"] == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    socket = ends.carrier._socket
    assert set(socket.http_headers) == {  # type: ignore[attr-defined]
        "host",
        "upgrade",
        "connection",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-protocol",
    }
    assert "SECRET" not in repr(vars(socket))
    ends.end()


def test_frames_behind_the_request_are_not_lost() -> None:
    ends = Answered(glued=frame(b"early ") + frame(b"bird"))
    assert ends.ear.data == b"early bird"
    ends.end()


def test_a_failing_protocol_factory_ends_the_carrier(watch: Watch) -> None:
    class Failing(Answered):
        def make_protocol(self, subprotocol: str | None) -> Ear:
            raise ZeroDivisionError

    ends = Failing()
    assert ends.far.is_lost
    assert len(watch.take(ZeroDivisionError)) == 1
    ends.end()


def test_a_failing_connection_made_ends_the_carrier(watch: Watch) -> None:
    def fail(ear: Ear) -> None:
        raise ZeroDivisionError

    ends = Answered(Ear(on_made=fail))
    assert ends.far.is_lost
    assert ends.ear.was_lost_with(ConnectionAborted)
    assert len(watch.take(ZeroDivisionError)) == 1
    ends.end()


def test_a_protocol_that_fails_over_frames_behind_the_request_ends_the_carrier(watch: Watch) -> None:
    def fail(data: bytes) -> None:
        raise ZeroDivisionError

    ends = Answered(Ear(on_data=fail), glued=frame(b"early"))
    assert ends.far.is_lost
    assert ends.ear.was_lost_with(ConnectionAborted)
    assert len(watch.take(ZeroDivisionError)) == 1
    ends.end()


def test_text_behind_a_plain_request_is_rejected() -> None:
    ends = Answered(offers=(), glued=frame(b"{}", TEXT))
    assert [(heard.opcode, heard.close_code) for heard in ends.far.frames] == [(CLOSE, 1003)]
    assert ends.hear(close(1003)) == []
    assert ends.far.is_lost
    assert ends.ear.is_lost
    ends.end()
