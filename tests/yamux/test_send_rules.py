"""The checker of sent bytes detects every violation that it is meant to detect."""

from __future__ import annotations

import pytest

from seance.yamux import KIB, Role
from tests.yamux.frame_bytes import ACK, DATA, FIN, RST, SYN, data, frame, go_away, ping, window
from tests.yamux.send_rules import SendRules

OPEN = [window(1, SYN)]
"""We have opened stream 1."""
ACCEPTED = [*OPEN, (window(2, SYN),), window(2, ACK)]
"""We have opened stream 1 and accepted stream 2. A tuple is a received chunk."""

SOUND = [
    [*ACCEPTED, data(1, b"abc") + data(2, b"abc") + window(1, FIN)],
    [*ACCEPTED, window(1, RST) + window(2, FIN)],
    [*ACCEPTED, window(2, 0, 9), window(2, FIN), window(2, 0, 9)],
    [*OPEN, (ping(SYN, 5),), ping(ACK, 5) + ping(SYN, 1) + go_away(0)],
    [(window(2, SYN),), window(2, RST)],
]

BROKEN = [
    [data(1, b"abc")],
    [*OPEN, data(1, b"abc", FIN)],
    [*OPEN, data(1)],
    [*OPEN, data(1, bytes(64 * KIB + 1))],
    [*OPEN, *[data(1, bytes(16 * KIB))] * 17],
    [*OPEN, data(1, b"abc")[:-1]],
    [*OPEN, frame(DATA, 0, 1, 0, version=1)],
    [*OPEN, data(1, b"abc") + window(3, SYN)],
    [*OPEN, data(1, b"abc") + window(1, 0, 5)],
    [*OPEN, go_away(0) + data(1, b"abc")],
    [*OPEN, window(1, FIN), data(1, b"abc")],
    [*OPEN, window(1, FIN), window(1, FIN)],
    [*OPEN, window(1, FIN, 5)],
    [*OPEN, window(1, RST, 5)],
    [*OPEN, window(1, RST), window(1, RST)],
    [*OPEN, window(1, RST), window(1, 0, 5)],
    [*OPEN, window(1, RST), data(1, b"abc")],
    [*OPEN, window(1, FIN | RST)],
    [*OPEN, window(1, SYN)],
    [*OPEN, window(1, ACK)],
    [*OPEN, window(1)],
    [*OPEN, (window(1, FIN),), window(1, 0, 5)],
    [*OPEN, (window(1, RST),), window(1, 0, 5)],
    [*OPEN, (window(1, RST),), data(1, b"abc")],
    [window(2, SYN)],
    [window(5, SYN), window(3, SYN)],
    [*ACCEPTED, window(2, ACK)],
    [(window(2, SYN),), data(2, b"abc")],
    [(window(2, SYN),), window(2, FIN)],
    [(window(2, SYN),), window(2, 0, 5)],
    [ping(ACK, 5)],
    [ping(SYN | ACK, 5)],
    [frame(2, SYN, 1, 5)],
    [(ping(SYN, 5),), ping(SYN, 1) + ping(ACK, 5)],
    [go_away(0), go_away(0)],
    [frame(3, SYN, 0, 0)],
]

Log = list[bytes | tuple[bytes]]


def replay(log: Log) -> None:
    rules = SendRules(Role.CLIENT)
    for entry in log:
        if isinstance(entry, tuple):
            rules.received(entry[0])
        else:
            rules.sent(entry, 65536)


@pytest.mark.parametrize("log", SOUND)
def test_valid_log_passes(log: Log) -> None:
    replay(log)


@pytest.mark.parametrize("log", BROKEN)
def test_invalid_log_fails_at_its_last_entry(log: Log) -> None:
    replay(log[:-1])
    with pytest.raises((AssertionError, KeyError, ValueError)):
        replay(log)


def test_message_beyond_its_limit_fails() -> None:
    with pytest.raises(AssertionError, match="limit"):
        SendRules(Role.CLIENT).sent(window(1, SYN), 11)


def test_received_frames_may_be_cut_anywhere() -> None:
    rules = SendRules(Role.CLIENT)
    for octet in window(2, SYN) + window(2, 0, 7):
        rules.received(bytes([octet]))
    assert rules.streams[2].window == 256 * KIB + 7
