"""Clients that never finish a head, against a real relay: fast ones, slow ones, and many of them."""

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
                time.sleep(
                    0.01
                )  # otherwise the kernel's accept queue overflows, and the SYN is repeated a second later
        yield strangers


def push(stranger: socket.socket, piece: bytes, count: int) -> int:
    """Send ``piece`` repeatedly until the relay closes or ``count`` bytes are sent; return the number
    sent.
    """
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
def test_endless_heads_do_not_use_memory(flood: str) -> None:
    """23 MiB over 20 connections, the load with which an earlier relay was measured."""
    with running_relay() as relay, innocent_room(relay) as target:
        Innocent(relay, target, name="warm").visit()
        before = relay.resident_bytes()
        descriptors = len(relay.open_descriptors())
        with Innocent(relay, target, name=f"head flood: {flood}"):
            sent = grown = 0
            while sent < FLOOD_BYTES:
                # The attacker replaces connections that are cut, until all bytes are sent.
                with many(relay, CONNECTIONS) as strangers:
                    for number, stranger in enumerate(strangers):
                        stranger.sendall(START)
                        sent += push(stranger, FLOODS[flood](number), FLOOD_BYTES // CONNECTIONS)
                    grown = max(grown, relay.resident_bytes() - before)
        say(f"head flood: {flood}", sent_mib=round(sent / MIB, 1), grown_kib=grown // 1024)
        assert grown < 5 * MIB
        settles(relay, "head flood", descriptors)


@pytest.mark.slow
def test_slow_heads_time_out_although_bytes_arrive() -> None:
    """500 connections send one byte at a time; the timeouts are scaled down."""
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
        evicted = sum(second < 2 for second in seconds)
        say("slowloris", first_s=round(seconds[0], 2), last_s=round(seconds[-1], 2), over_the_bound=evicted)
        assert evicted >= count - 400
        # 400 of them, one ordinary client, and the connections that are being closed.
        assert most <= 400 + 60
        settles(relay, "slowloris", descriptors)


def hung_up(stranger: socket.socket) -> bool:
    """Return whether the relay has closed it: immediately, to make room, or with 408 after the timeout."""
    try:
        said = stranger.recv(1024)
    except ConnectionError:
        return True
    return said == b"" or said.startswith(b"HTTP/1.1 408 ")


def test_the_next_silent_connection_closes_the_oldest() -> None:
    """Slow heads do not keep others out: each new connection is served.

    Each has sent one byte, because the kernel holds back connections without data for a second.
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
