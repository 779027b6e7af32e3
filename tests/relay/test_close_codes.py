"""Each close code has one meaning: the close frames that relay and agent send to a plain peer.

Each test plays the other side byte by byte, and so also counts the messages of an idle carrier.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any, cast

import pytest
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory, Protocol

from seance.agent.dial_result import DialResult
from seance.agent.relay_link import REFUSED_STREAMS, RelayLink
from seance.carrier import SUBPROTOCOL, CloseCode
from seance.core.interfaces import Grant, TokenRole
from seance.core.settings import AgentSettings, RelaySettings
from seance.relay.rooms.agent_link import AgentLink
from seance.resume import BYE
from seance.yamux import WindowBudget
from tests.carrier import peers
from tests.carrier.peers import BINARY, CLOSE, PONG, TEXT, Answered, Dialled
from tests.rigs import ROOM
from tests.test_layers import SOURCES
from tests.yamux.frame_bytes import (
    ACK,
    DATA,
    GO_AWAY,
    PING,
    SYN,
    WINDOW,
    WireFrame,
    data,
    frame,
    go_away,
    ping,
    read_frames,
    window,
)


class RelaySide(Answered):
    """A link of the relay; the test plays the agent."""

    def __init__(self, *, is_plain: bool = True) -> None:
        self.sentences: list[str] = []
        super().__init__(offers=() if is_plain else (SUBPROTOCOL.encode(),))
        self.link.watch_carrier()

    def make_protocol(self, subprotocol: str | None) -> IProtocol:
        self.link = AgentLink(
            self.clock, RelaySettings(), ROOM, lambda _, sentence: self.sentences.append(sentence)
        )
        self.link.expect(subprotocol)
        return self.link.make_protocol(subprotocol)

    @property
    def session(self) -> Any:
        return cast(Any, self.link)._mux

    def serve(self) -> int:
        """Open a stream to the agent; return its id."""
        return self.link.open_stream(Protocol()).stream_id


class AgentSide(Dialled):
    """A link of the agent; the test plays the relay."""

    def __init__(self, *, is_plain: bool = True) -> None:
        super().__init__(make_protocol=self._attach)
        chosen = () if is_plain else (b"Sec-WebSocket-Protocol: " + SUBPROTOCOL.encode(),)
        self.far.transport.write(self.switching(*chosen))
        self.run()
        self.relay_link = self.arrival.result()

    def _attach(self, subprotocol: str | None) -> IProtocol:
        def attach(subprotocol: str | None) -> RelayLink:
            settings = AgentSettings(room=ROOM, streams=300)
            return RelayLink(
                self.clock, settings, Factory.forProtocol(Protocol), subprotocol, ignore, WindowBudget()
            )

        self.arrival = DialResult(attach, None)
        return self.arrival.make_protocol(subprotocol)

    @property
    def session(self) -> Any:
        return self.relay_link.mux

    def serve(self) -> int:
        """Let the relay open a stream; return its id."""
        self.hear(peers.frame(window(2, SYN), is_masked=False))
        return 2


def ignore(*_: object) -> None:
    pass


Side = RelaySide | AgentSide

both_sides = pytest.mark.parametrize("make", [RelaySide, AgentSide])


def says(side: Side, *frames: bytes) -> None:
    """Let the peer write yamux frames."""
    side.hear(*(peers.frame(one, BINARY, is_masked=side.masks) for one in frames))


def yamux_of(side: Side) -> list[WireFrame]:
    """Return all yamux frames that the peer has received."""
    frames, rest = read_frames(b"".join(one.payload for one in side.far.frames if one.opcode == BINARY))
    assert rest == b""
    return frames


def let_pass(side: Side, seconds: int, *, answering: bool = True) -> None:
    """Advance the clock; the peer's WebSocket answers pings, its yamux does not."""
    answered = sum(one.opcode == peers.PING for one in side.far.frames)
    for _ in range(seconds):
        side.clock.advance(1)
        side.run()
        pings = [one for one in side.far.frames if one.opcode == peers.PING]
        for one in pings[answered:] if answering else ():
            side.hear(peers.frame(one.payload, PONG, is_masked=side.masks))
        answered = len(pings)


def closing(side: Side) -> tuple[int, str]:
    """Return the close frame that the peer received, after which nothing came."""
    last = side.far.frames[-1]
    assert last.opcode == CLOSE, side.far.frames
    assert sum(one.opcode == CLOSE for one in side.far.frames) == 1
    return last.close_code, last.payload[2:].decode()


def finish(side: Side) -> None:
    side.wire.near.abortConnection()
    side.end()


# Keepalive


@both_sides
def test_an_idle_plain_peer_gets_pings_of_one_layer_only(make: type[Side]) -> None:
    """Both layers sent pings before: 24 messages a minute in each direction instead of 12."""
    side = make()
    let_pass(side, 120)
    assert [one for one in yamux_of(side) if one.kind == PING] == []
    assert 23 <= sum(one.opcode == peers.PING for one in side.far.frames) <= 25
    assert not any(one.opcode == CLOSE for one in side.far.frames)
    finish(side)


@both_sides
@pytest.mark.parametrize("late_seconds", [8, 30, 55])
def test_a_peer_with_a_late_yamux_pong_stays_connected(make: type[Side], late_seconds: int) -> None:
    side = make()
    side.session.ping()
    side.run()
    [asked] = [one for one in yamux_of(side) if one.kind == PING]
    let_pass(side, late_seconds)
    says(side, ping(ACK, asked.length))
    let_pass(side, 100)
    assert not any(one.opcode == CLOSE for one in side.far.frames)
    finish(side)


@both_sides
def test_any_yamux_byte_counts_as_the_pong(make: type[Side]) -> None:
    side = make()
    stream_id = side.serve()
    side.session.ping()
    side.run()
    for _ in range(3):
        let_pass(side, 50)
        says(side, window(stream_id, ACK))
    assert not any(one.opcode == CLOSE for one in side.far.frames)
    finish(side)


@both_sides
def test_a_peer_without_any_yamux_answer_gets_the_reason(make: type[Side]) -> None:
    """Before, it was closed with 1000 and no reason after ten seconds."""
    side = make()
    side.session.ping()
    side.run()
    let_pass(side, 61)
    assert closing(side) == (CloseCode.PING_TIMEOUT, "no answer to a yamux ping within 60 s")
    last = yamux_of(side)[-1]
    assert (last.kind, last.length) == (GO_AWAY, 1)
    finish(side)


@both_sides
def test_a_peer_with_a_silent_websocket_is_cut_without_a_close_frame(make: type[Side]) -> None:
    side = make()
    let_pass(side, 11, answering=False)
    assert side.far.is_lost
    assert not any(one.opcode == CLOSE for one in side.far.frames)
    finish(side)


# Errors of the peer


@both_sides
@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda stream_id: b"\x01" + b"\0" * 11, "bad_version"),
        (lambda stream_id: data(0, b"x"), "data_on_session"),
        (lambda stream_id: window(stream_id, 0, 0xFFFFFFFF), "window_overflow"),
        (lambda stream_id: frame(DATA, 0, stream_id, 1 << 30), "window_exceeded"),
    ],
)
def test_a_peer_that_violates_yamux_gets_the_rule(
    make: type[Side], wrong: Callable[[int], bytes], code: str
) -> None:
    side = make()
    stream_id = side.serve()
    side.run()
    says(side, wrong(stream_id))
    close_code, reason = closing(side)
    assert close_code == CloseCode.YAMUX_ERROR
    assert reason.startswith(f"{code}: ")
    last = yamux_of(side)[-1]
    assert (last.kind, last.length) == (GO_AWAY, 1)
    finish(side)


@both_sides
@pytest.mark.parametrize("goaway", [1, 2, 77])
def test_a_peer_that_ends_the_session_with_an_error_gets_that_reason(make: type[Side], goaway: int) -> None:
    side = make()
    says(side, go_away(goaway))
    assert closing(side) == (CloseCode.PEER_ENDED, f"your GoAway {goaway} has ended the session")
    finish(side)


@both_sides
@pytest.mark.parametrize(
    ("opcode", "payload", "is_plain", "code"),
    [
        (TEXT, b"{}", True, CloseCode.UNSUPPORTED_DATA),
        (TEXT, b"{}", False, CloseCode.PROTOCOL_ERROR),
        (TEXT, b"\xff", False, CloseCode.INVALID_PAYLOAD),
        (TEXT, b"x" * 20_000, False, CloseCode.TOO_BIG),
        (3, b"", True, CloseCode.PROTOCOL_ERROR),
    ],
)
def test_a_peer_that_violates_websocket_gets_the_reason(
    make: type[Side], opcode: int, payload: bytes, is_plain: bool, code: CloseCode
) -> None:
    side = make(is_plain=is_plain)
    side.hear(peers.frame(payload, opcode, is_masked=side.masks))
    close_code, reason = closing(side)
    assert close_code == code
    assert reason
    finish(side)


# Ends by our side


class ActiveGrants:
    """Records how to end the connection of a grant."""

    def add(self, grant: Grant, end: Callable[[str], None]) -> Any:
        self.end = end

    def remove(self, handle: object) -> None:
        pass


def end_of_token(link: AgentLink) -> None:
    grants = ActiveGrants()
    link.bind_grant(Grant(TokenRole.AGENT, (ROOM,), 1e12), cast(Any, grants))
    grants.end("The token of this session has expired or was revoked.")


@pytest.mark.parametrize("is_plain", [True, False])
@pytest.mark.parametrize(
    ("act", "code", "reason"),
    [
        (end_of_token, CloseCode.TOKEN_ENDED, "The token of this session has expired or was revoked."),
        (lambda link: link.disconnect("closed by hand"), CloseCode.DISCONNECTED, "closed by hand"),
        (lambda link: link.leave("soon", CloseCode.SERVICE_RESTART), CloseCode.SERVICE_RESTART, "soon"),
        (
            lambda link: link.make_way(),
            CloseCode.REPLACED,
            "the same agent has taken the room with another connection",
        ),
    ],
)
def test_the_relay_sends_a_code_and_a_reason(
    act: Callable[[AgentLink], None], code: CloseCode, reason: str, is_plain: bool
) -> None:
    side = RelaySide(is_plain=is_plain)
    act(side.link)
    side.run()
    assert closing(side) == (code, reason)
    last = yamux_of(side)[-1]
    assert (last.kind, last.length) == (GO_AWAY, 0)
    finish(side)


@pytest.mark.parametrize("is_plain", [True, False])
def test_the_agent_sends_a_code_and_a_reason(is_plain: bool) -> None:
    side = AgentSide(is_plain=is_plain)
    side.relay_link.leave(CloseCode.GOING_AWAY, "the agent is stopping")
    side.run()
    assert closing(side) == (CloseCode.GOING_AWAY, "the agent is stopping")
    assert BYE not in [one.payload for one in side.far.frames], "it cannot resume"
    finish(side)


# An agent with a plain relay


def test_an_agent_accepts_streams_from_a_plain_relay_up_to_its_limit() -> None:
    """Before, the 257th was reset with every value of ``--streams``."""
    side = AgentSide()
    says(side, b"".join(window(2 * number, SYN) for number in range(1, 301)))
    answers = [(one.kind, one.flags) for one in yamux_of(side)]
    assert answers == [(WINDOW, ACK)] * 300
    says(side, b"".join(window(602 + 2 * number, SYN) for number in range(REFUSED_STREAMS)))
    assert {one.flags for one in yamux_of(side)} == {ACK}, "in these the agent tells its clients"
    says(side, window(602 + 2 * REFUSED_STREAMS, SYN))
    assert yamux_of(side)[-1].flags == 8, "further ones are reset"
    finish(side)


# The source code


def test_no_close_code_is_written_as_a_number() -> None:
    sending = {"close", "leave", "_fail", "_close_carrier", "send_close", "finish"}
    for name, path in SOURCES.items():
        if not name.startswith(("seance.carrier", "seance.tunnel", "seance.mux")):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in sending:
                numbers = [
                    one for one in node.args if isinstance(one, ast.Constant) and type(one.value) is int
                ]
                assert not numbers, f"{name}:{node.lineno}"
