"""Agents that violate the protocol or read nothing lose their link, and do not affect other rooms.

The agents are raw, the relay is a real process. ``tests/yamux`` has the effect of each wrong frame on a
session. These tests cover the process: its memory, its rooms, its other clients.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.attacks.parties import MIB, Innocent, RawAgent, dial_quietly, innocent_room, say, settles
from tests.e2e.wire import KEY, Wire, frame, switching, upgrade
from tests.processes import running_relay, until
from tests.yamux.frame_bytes import ACK, DATA, GO_AWAY, SYN, data, window
from tests.yamux.frame_bytes import frame as yamux

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.processes import RelayProcess

KIB = 1024
CREDIT = 256 * KIB
MAX_UINT32 = 0xFFFFFFFF


@pytest.fixture(scope="module")
def relay() -> Iterator[RelayProcess]:
    options = ("--upgrade-seconds", "1", "--room-grace-seconds", "1", "--park-seconds", "0.1")
    with running_relay(*options) as relay:
        yield relay


@pytest.fixture(scope="module")
def target(relay: RelayProcess) -> Iterator[str]:
    with innocent_room(relay) as target:
        yield target


BREACHES: dict[str, Callable[[int], bytes]] = {
    "SYN with more data than credit": lambda _: yamux(DATA, SYN, 1, CREDIT + 1, b"x" * (CREDIT + 1)),
    "SYN that announces 4 GiB": lambda _: yamux(DATA, SYN, 1, MAX_UINT32),
    "data that announces 4 GiB": lambda stream: yamux(DATA, 0, stream, MAX_UINT32),
    "data beyond the window": lambda stream: yamux(DATA, 0, stream, CREDIT + 1, b"x" * (CREDIT + 1)),
    "window updates past 2^32": lambda stream: window(stream, 0, MAX_UINT32) * 2,
    "a window a little past 2^32": lambda stream: window(stream, 0, MAX_UINT32 - CREDIT + KIB),
    "a stream of the relay's numbers": lambda _: window(1000, SYN),
    "unknown version": lambda stream: yamux(DATA, 0, stream, 0, version=1),
    "unknown type": lambda stream: yamux(9, 0, stream, 0),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_an_agent_that_violates_yamux_is_disconnected_and_its_room_is_free(
    breach: str, relay: RelayProcess, target: str
) -> None:
    before = relay.resident_bytes()
    with Innocent(relay, target, name=breach), RawAgent(relay, "hostile") as agent:
        assert agent.head.status == 101
        with Wire.dial(("127.0.0.1", relay.port)) as client:
            client.send(upgrade("/c/hostile"))
            stream = agent.take_stream()
            agent.say(BREACHES[breach](stream))
            said = agent.lingering_close()
            assert [(one.kind, one.length) for one in said][-1:] == [(GO_AWAY, 1)]
            assert client.read_head().status in (502, 503)
            client.read_to_end()
        with RawAgent(relay, "hostile") as successor:
            assert successor.head.status == 101
    assert relay.resident_bytes() - before < 4 * MIB
    until("the room is free again", lambda: is_free(relay, "hostile"))


def is_free(relay: RelayProcess, room: str) -> bool:
    """Return whether no agent has the room: a client gets 404, or 503 if the room had an agent before."""
    with Wire.dial(("127.0.0.1", relay.port)) as client:
        client.send(upgrade(f"/c/{room}"))
        return client.read_head().status in (404, 503)


@pytest.mark.slow
def test_an_agent_that_reads_nothing_costs_no_memory_and_is_cut(relay: RelayProcess, target: str) -> None:
    """It completes the upgrade and then stops. Its clients are refused, and their bytes are freed."""
    count = 300
    before, descriptors = relay.resident_bytes(), len(relay.open_descriptors())
    with Innocent(relay, target, name="deaf agent"), RawAgent(relay, "deaf") as agent:
        assert agent.head.status == 101
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Wire.dial(("127.0.0.1", relay.port))) for _ in range(count)]
            for client in clients:
                client.send(upgrade("/c/deaf") + b"early" * 10_000)
            statuses = [client.read_head().status for client in clients]
            grown = relay.resident_bytes() - before
            for client in clients:
                client.read_to_end()
        counts = {status: statuses.count(status) for status in sorted(set(statuses))}
        say(
            "deaf agent", **{f"refused_{status}": count for status, count in counts.items()}, kib=grown // KIB
        )
        # 502 for clients with an open stream when the agent was cut for its silence, 503 for clients that
        # waited for it afterwards, 429 for more clients than may wait in one room (--parked-per-room).
        assert set(counts) <= {502, 503, 429}
        assert counts[502] >= 2
        assert grown < 256 * 2 * 64 * KIB
    until("its room is free", lambda: is_free(relay, "deaf"))
    settles(relay, "deaf agent", descriptors)


@pytest.mark.slow
def test_an_agent_that_answers_but_reads_nothing_pauses_its_clients() -> None:
    """It answers 101 without reading, so clients may send; their bytes stay in their own kernels."""
    count, each_bytes = 40, 4 * MIB
    with (
        running_relay() as relay,  # a new process: memory freed by other tests would hide the growth
        innocent_room(relay) as target,
        Innocent(relay, target, name="agent that takes nothing"),
        RawAgent(relay, "mute") as agent,
        contextlib.ExitStack() as stack,
    ):
        before = relay.resident_bytes()
        clients = [stack.enter_context(dial_quietly(relay)) for _ in range(count)]
        for number, client in enumerate(clients, 1):
            client.sendall(upgrade("/c/mute"))
            stream = 2 * number
            assert agent.take_stream() == stream
            agent.say(window(stream, 0, 64 * MIB), data(stream, switching(KEY)))
            assert client.recv(4 * KIB).startswith(b"HTTP/1.1 101 ")
            client.setblocking(False)
        sent, grown = 0, 0
        for _ in range(60):
            for client in clients:
                with contextlib.suppress(BlockingIOError):
                    sent += client.send(b"x" * min(each_bytes, MIB))
            agent.say(window(2, 0, 1))  # a frame now and then, so the link counts as alive
            Innocent(relay, target, name="between").visit()
            grown = max(grown, relay.resident_bytes() - before)
        say("agent that takes nothing", sent_mib=round(sent / MIB, 1), grown_kib=grown // KIB)
        # The high-water mark (64 KiB) and one read of at most 64 KiB for each client, and the carrier's
        # buffer.
        assert grown < count * 2 * 64 * KIB + 4 * MIB


def test_an_endless_link_control_message_ends_the_link(relay: RelayProcess, target: str) -> None:
    """A text message that never ends, in fragments: the relay reads 16 KiB, then ends the link."""
    before = relay.resident_bytes()
    control = b"Sec-WebSocket-Protocol: seance.link.v1\r\n"
    with Innocent(relay, target, name="endless text"), RawAgent(relay, "talker", control) as agent:
        agent.wire.send(frame(1, b'{"t":', final=False, masked=True))
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                agent.wire.send(frame(0, b" " * 8 * KIB, final=False, masked=True))
        with contextlib.suppress(ConnectionError):
            agent.lingering_close()
    assert relay.resident_bytes() - before < 2 * MIB
    until("its room is free", lambda: is_free(relay, "talker"))


def test_frames_for_unknown_streams_end_the_link(relay: RelayProcess, target: str) -> None:
    """Acknowledgements and data for streams that never existed are counted, and then the link ends."""
    with Innocent(relay, target, name="stray frames"), RawAgent(relay, "stray") as agent:
        with contextlib.suppress(ConnectionError):
            for _ in range(40):
                agent.say(window(4, ACK), data(4, b"x" * 32 * KIB))
        with contextlib.suppress(ConnectionError):
            assert agent.lingering_close()[-1].kind == GO_AWAY
    until("its room is free", lambda: is_free(relay, "stray"))
