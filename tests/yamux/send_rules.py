"""Checks the bytes that one session sends: every known peer has to understand them.

It gets each message that the session sends and each chunk that it receives, in order, and fails at the first
byte that breaks a rule. Every ``Pair`` has two.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from seance.yamux import KIB, Role
from tests.yamux.frame_bytes import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, WINDOW, WireFrame, read_frames

__all__ = ["SendRules"]


@dataclass
class StreamLog:
    is_ours: bool
    has_syn: bool = False
    has_ack: bool = False
    has_fin: bool = False
    has_rst: bool = False
    got_fin: bool = False
    got_rst: bool = False
    window: int = 256 * KIB


@dataclass
class SendRules:
    role: Role
    streams: dict[int, StreamLog] = field(default_factory=dict)
    pings_received: list[int] = field(default_factory=list)
    highest_syn: int = 0
    said_go_away: bool = False
    unread: bytes = b""

    def sent(self, message: bytes, limit: int) -> None:
        """Check one message of ours."""
        assert len(message) <= limit, "a message is within its limit"
        frames, rest = read_frames(message)
        assert not rest, "a message holds whole frames"
        ranks = [_rank(frame) for frame in frames]
        if 3 in ranks:  # A FIN may also follow the data that it ends.
            first = ranks.index(3)
            ranks[first:] = [4 if frame.flags == FIN else _rank(frame) for frame in frames[first:]]
        assert ranks == sorted(ranks), f"order is pongs, control, credit, data, ends, GoAway: {frames}"
        for frame in frames:
            self._check(frame)

    def received(self, chunk: bytes) -> None:
        """Record a chunk that the session received."""
        frames, self.unread = read_frames(self.unread + chunk)
        for frame in frames:
            self._note(frame)

    def _check(self, frame: WireFrame) -> None:
        assert not self.said_go_away or frame.kind != GO_AWAY, "one GoAway"
        if frame.kind == PING:
            assert frame.stream_id == 0
            assert frame.flags in (SYN, ACK), "exactly one of the two"
            if frame.flags == ACK:
                self.pings_received.remove(frame.length)
        elif frame.kind == GO_AWAY:
            assert (frame.stream_id, frame.flags) == (0, 0)
            self.said_go_away = True
        elif frame.kind == DATA:
            self._check_data(frame)
        else:
            self._check_window(frame)

    def _check_data(self, frame: WireFrame) -> None:
        stream = self.streams[frame.stream_id]
        assert frame.flags == 0, "no flags on data frames"
        assert 0 < frame.length <= 64 * KIB
        assert stream.has_syn if stream.is_ours else stream.has_ack, "SYN or ACK precedes data"
        assert not stream.has_fin, "no data after our FIN"
        assert not stream.has_rst, "nothing after our RST"
        assert not stream.got_rst, "nothing on a stream that the peer has reset"
        stream.window -= frame.length
        assert stream.window >= 0, "never beyond the peer's window"

    def _check_window(self, frame: WireFrame) -> None:
        assert frame.flags in (0, SYN, ACK, FIN, RST), "flags are never combined"
        if frame.flags == SYN:
            assert frame.stream_id % 2 == self.role.value % 2, "our own ids"
            assert frame.stream_id > self.highest_syn, "ids grow"
            self.highest_syn = frame.stream_id
            self.streams[frame.stream_id] = StreamLog(is_ours=True, has_syn=True)
            return
        stream = self.streams[frame.stream_id]
        assert not stream.has_rst, "nothing after our RST"
        if frame.flags == ACK:
            assert not stream.is_ours, "the acceptor acknowledges"
            assert not stream.has_ack, "ACK once"
            stream.has_ack = True
        elif frame.flags == FIN:
            assert frame.length == 0
            assert stream.has_syn or stream.has_ack, "SYN or ACK precedes FIN"
            assert not stream.has_fin, "FIN once"
            stream.has_fin = True
        elif frame.flags == RST:
            assert frame.length == 0
            stream.has_rst = True
        else:
            assert frame.length > 0, "an update has a delta or a flag"
            assert stream.has_syn or stream.has_ack, "SYN or ACK precedes credit"
            assert not stream.got_fin, "no credit after the peer's FIN"
            assert not stream.got_rst, "no credit on a stream that the peer has reset"

    def _note(self, frame: WireFrame) -> None:
        if frame.kind == PING:
            if frame.flags & SYN:
                self.pings_received.append(frame.length)
            return
        if frame.kind == GO_AWAY:
            return
        if frame.flags & SYN:
            self.streams[frame.stream_id] = StreamLog(is_ours=False)
        stream = self.streams.get(frame.stream_id)
        if stream is None:
            return
        stream.got_fin |= bool(frame.flags & FIN)
        stream.got_rst |= bool(frame.flags & RST)
        if frame.kind == WINDOW:
            stream.window += frame.length


def _rank(frame: WireFrame) -> int:
    """Return the position of a kind of frame within a message."""
    if frame.kind == PING:
        return 0 if frame.flags == ACK else 1
    if frame.kind == WINDOW:
        return 1 if frame.flags else 2
    return 3 if frame.kind == DATA else 5
