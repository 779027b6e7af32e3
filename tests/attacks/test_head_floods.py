"""Strangers who never finish a head: fast ones, slow ones and many, against a real relay."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.attacks.parties import MIB, Innocent, dial_quietly, innocent_room, say, settles
from tests.processes import DEADLINE_SECONDS, running_relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes import RelayProcess

CONNECTIONS = 20
FLOOD_BYTES = 23 * MIB
START = b"GET /client?room=innocent HTTP/1.1\r\nHost: relay.example\r\n"


@contextlib.contextmanager
def many(relay: RelayProcess, count: int) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        strangers = []
        for number in range(count):
            strangers.append(stack.enter_context(dial_quietly(relay)))
            if number % 20 == 19:
                time.sleep(0.01)  # or the kernel's queue runs over, and tries again a second later
        yield strangers


def push(stranger: socket.socket, piece: bytes, count: int) -> int:
    """Sends ``piece`` again and again until the relay hangs up or all is sent; returns the bytes sent."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < count:
            sent += stranger.send(piece[: count - sent])
    return sent


FLOODS: dict[str, Callable[[int], bytes]] = {
    "fields": lambda number: b"X-%d: " % number + b"a" * 1000 + b"\r\n",
    "one line": lambda number: b"a" * 1024,
    "empty fields": lambda number: b"a:\r\n" * 256,
}


@pytest.mark.slow
@pytest.mark.parametrize("flood", FLOODS)
def test_endless_heads_cost_no_memory(flood: str) -> None:
    """A8: what the old relay was measured with, 20 connections with 23 MiB in all."""
    with running_relay() as relay, innocent_room(relay) as target:
        Innocent(relay, target, name="warm").visit()
        before = relay.resident_bytes()
        descriptors = len(relay.open_descriptors())
        with Innocent(relay, target, name=f"head flood: {flood}"):
            sent = grown = 0
            while sent < FLOOD_BYTES:
                # Those that are cut come again: the attacker sends all of it, whatever we do.
                with many(relay, CONNECTIONS) as strangers:
                    for number, stranger in enumerate(strangers):
                        stranger.sendall(START)
                        sent += push(stranger, FLOODS[flood](number), FLOOD_BYTES // CONNECTIONS)
                    grown = max(grown, relay.resident_bytes() - before)
        say(f"head flood: {flood}", sent_mib=round(sent / MIB, 1), grown_kib=grown // 1024)
        assert grown < 5 * MIB
        settles(relay, "head flood", descriptors)


@pytest.mark.slow
def test_slow_heads_are_cut_by_their_time_however_busy_they_look() -> None:
    """A7: 500 connections, one byte at a time; the seconds are scaled down."""
    count = 500
    options = ("--head-seconds", "3", "--unanswered-connections", "400")
    with running_relay(*options) as relay, innocent_room(relay) as target:
        descriptors = len(relay.open_descriptors())
        with Innocent(relay, target, name="slowloris"), many(relay, count) as strangers:
            began = time.monotonic()
            cut: dict[socket.socket, float] = {}
            watching = selectors.DefaultSelector()
            for stranger in strangers:
                stranger.setblocking(False)
                watching.register(stranger, selectors.EVENT_READ)
            most = 0
            position = 0
            while len(cut) < count:
                assert time.monotonic() - began < DEADLINE_SECONDS, f"only {len(cut)} were cut"
                for stranger in strangers:
                    if stranger not in cut:
                        with contextlib.suppress(OSError):
                            stranger.send(START[position : position + 1])
                position = min(position + 1, len(START) - 1)
                most = max(most, len(relay.open_descriptors()) - descriptors)
                for key, _ in watching.select(0.3):
                    stranger = key.fileobj
                    assert isinstance(stranger, socket.socket)
                    assert hung_up(stranger), "a head that never ended was answered"
                    watching.unregister(stranger)
                    cut[stranger] = time.monotonic() - began
            watching.close()
        seconds = sorted(cut.values())
        at_once = sum(second < 2 for second in seconds)
        say("slowloris", first_s=round(seconds[0], 2), last_s=round(seconds[-1], 2), over_the_bound=at_once)
        assert at_once >= count - 400
        # 400 of them, one innocent visitor in and out, and whatever is being closed at this moment.
        assert most <= 400 + 60
        settles(relay, "slowloris", descriptors)


def hung_up(stranger: socket.socket) -> bool:
    """Whether the relay has ended it: at once, to make room, or with 408 when its time was over."""
    try:
        said = stranger.recv(1024)
    except ConnectionError:
        return True
    return said == b"" or said.startswith(b"HTTP/1.1 408 ")


def test_the_next_silent_connection_closes_the_oldest() -> None:
    """Slow heads do not keep good ones out: each newcomer gets in.

    Each has said one letter, for the kernel keeps those who say nothing at all to itself for a second.
    """
    options = ("--unanswered-connections", "3", "--head-seconds", "60")
    with running_relay(*options) as relay, many(relay, 3) as strangers:
        for stranger in strangers:
            stranger.sendall(b"G")
        for number in range(5):
            with dial_quietly(relay) as newcomer:
                newcomer.sendall(b"GET /health HTTP/1.1\r\nHost: relay.example\r\n\r\n")
                assert newcomer.recv(1024).startswith(b"HTTP/1.1 200 ")
                if number < 3:
                    strangers[number].settimeout(DEADLINE_SECONDS)
                    assert hung_up(strangers[number])
                    strangers.append(dial_quietly(relay))
                    strangers[-1].sendall(b"G")
        for stranger in strangers[3:]:
            stranger.close()
