"""Small parts: addresses, waits, the table of rooms, the lingering close, one-shot events."""

from __future__ import annotations

import pytest
from twisted.internet.interfaces import IHalfCloseableDescriptor
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from seance.agent.backoff import SOON_SECONDS, Backoff, RedialWaits
from seance.core.lingering_close import LINGER_BYTES, LINGER_SECONDS, LingeringClose
from seance.core.local_address import LocalAddress
from seance.core.settings import RelaySettings, check_room
from seance.errors import ConfigError, Refusal
from seance.net import OneShotEvent
from seance.relay.rooms.agent_link import AgentLink
from seance.relay.rooms.room_table import RoomTable


@pytest.mark.parametrize(
    ("text", "kind", "host", "port", "header"),
    [
        ("localhost:1234", "tcp", "localhost", 1234, b"localhost:1234"),
        ("127.0.0.1:80", "tcp", "127.0.0.1", 80, b"127.0.0.1"),
        ("[::1]:1234", "tcp", "::1", 1234, b"[::1]:1234"),
        ("unix:/run/y.sock", "unix", "/run/y.sock", 0, b"localhost"),
        ("tls://box.local:443", "tls", "box.local", 443, b"box.local"),
        ("tls://box.local:8443", "tls", "box.local", 8443, b"box.local:8443"),
    ],
)
def test_local_address_is_parsed_and_written_alike(
    text: str, kind: str, host: str, port: int, header: bytes
) -> None:
    local = LocalAddress.from_text(text)
    assert (local.kind, local.host, local.port, local.host_header) == (kind, host, port, header)
    assert str(local) == text


@pytest.mark.parametrize(
    "text", ["", "localhost", "localhost:", ":1234", "localhost:0", "h:65536", "unix:", "http://h:1", "a b:1"]
)
def test_bad_local_address_raises_with_the_valid_forms(text: str) -> None:
    with pytest.raises(ConfigError, match=r"use HOST:PORT, unix:PATH or tls://HOST:PORT"):
        LocalAddress.from_text(text)


@pytest.mark.parametrize("kind", ["h:1", "unix:/x", "tls://h:1"])
def test_every_kind_has_an_endpoint(kind: str) -> None:
    from twisted.internet import reactor
    from twisted.internet.interfaces import IStreamClientEndpoint

    assert IStreamClientEndpoint.providedBy(LocalAddress.from_text(kind).endpoint(reactor, 1.0))


def test_jitter_is_full_and_reset_starts_the_bound_again() -> None:
    rolls = iter([0.0, 0.5, 1.0, 1.0])
    backoff = Backoff(1.0, 3.0, lambda: next(rolls))
    assert [backoff.next_seconds() for _ in range(3)] == [0.0, 1.0, 3.0]
    backoff.reset()
    assert backoff.next_seconds() == 1.0


def test_slowed_down_waits_use_the_largest_bound_until_reset() -> None:
    backoff = Backoff(1.0, 30.0, lambda: 1.0)
    backoff.slow_down()
    assert [backoff.next_seconds() for _ in range(2)] == [30.0, 30.0]
    backoff.reset()
    assert backoff.next_seconds() == 1.0


def test_room_belongs_to_the_first_claim_until_its_release() -> None:
    rooms: RoomTable[str] = RoomTable()
    rooms.claim("r", "first")
    with pytest.raises(Refusal) as taken:
        rooms.claim("r", "second")
    assert taken.value.status == 409
    rooms.release("r", "second")
    assert rooms.find("r") == "first"
    rooms.release("r", "first")
    with pytest.raises(Refusal) as unknown:
        rooms.find("r")
    assert unknown.value.status == 404
    assert len(rooms) == 0


@pytest.mark.parametrize("room", ["a", "A-Z_0.9~", "x" * 128])
def test_good_room_names(room: str) -> None:
    assert check_room(room) == room


@pytest.mark.parametrize("room", ["", ".", "..", "a/b", "a b", "x" * 129, "ü", "a\n"])
def test_bad_room_names(room: str) -> None:
    with pytest.raises(ConfigError, match="is not usable"):
        check_room(room)


def test_link_without_a_carrier_refuses_streams() -> None:
    link = AgentLink(Clock(), RelaySettings(), "r", lambda *args: None)
    assert not link.is_attached
    assert link.stream_count == 0
    link.leave("there is no carrier")
    link.cut()
    with pytest.raises(Refusal) as away:
        link.open_stream(None)  # type: ignore[arg-type]
    assert away.value.status == 503


@implementer(IHalfCloseableDescriptor)
class Transport(StringTransport):
    def loseWriteConnection(self) -> None:
        self.has_ended = True

    def unregisterProducer(self) -> None:
        """Accept a call without a producer, as real transports do and StringTransport does not."""


def test_lingering_close_drops_data_up_to_a_limit() -> None:
    clock, transport = Clock(), Transport()
    lingering_close = LingeringClose(clock, b"no")
    lingering_close.makeConnection(transport)
    assert transport.value() == b"no"
    lingering_close.dataReceived(b"x" * LINGER_BYTES)
    assert not transport.disconnecting
    lingering_close.dataReceived(b"x")
    assert transport.disconnecting
    lingering_close.dataReceived(b"x")
    lingering_close.connectionLost()
    assert clock.getDelayedCalls() == []


def test_lingering_close_ends_in_time() -> None:
    clock, transport = Clock(), Transport()
    lingering_close = LingeringClose(clock, b"no")
    lingering_close.makeConnection(transport)
    lingering_close.writeConnectionLost()
    clock.advance(LINGER_SECONDS)
    assert transport.disconnecting
    lingering_close.connectionLost()


def test_one_shot_event_fires_once_for_all_waiters() -> None:
    event: OneShotEvent[int] = OneShotEvent()
    early, cancelled = event.when(), event.when()
    cancelled.addErrback(lambda _: None).cancel()
    event.fire(1)
    event.fire(2)
    seen: list[int] = []
    early.addCallback(seen.append)
    event.when().addCallback(seen.append)
    assert seen == [1, 1]


def waits() -> RedialWaits:
    return RedialWaits(Backoff(0.5, 10.0, lambda: 1.0), Backoff(0.5, 1.0, lambda: 1.0), 30.0)


def test_waits_are_short_for_some_seconds_after_a_loss() -> None:
    redial = waits()
    redial.note_attached()
    redial.note_lost(100.0, 40.0)
    now, seen = 100.0, []
    while now < 100.0 + SOON_SECONDS:
        seen.append(redial.next_seconds(now, is_kept=False))
        now += seen[-1]
    assert max(seen) == 1.0
    assert [redial.next_seconds(now, is_kept=False) for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]
    assert redial.next_seconds(now, is_kept=True) == 1.0, "the relay keeps a session for a short time"


def test_a_flapping_link_has_quick_waits_for_fifteen_seconds_in_thirty() -> None:
    redial = waits()
    redial.usual.slow_down()
    quick = []
    for now in range(100, 160):
        redial.note_attached()
        redial.note_lost(float(now), 0.5)
        quick.append(redial.next_seconds(float(now), is_kept=False) < 10.0)
    assert quick == ([True] * 15 + [False] * 15) * 2


def test_a_rejected_agent_uses_the_usual_waits() -> None:
    for method in ("note_rejected", "slow_down"):
        redial = waits()
        redial.note_lost(100.0, 40.0)
        getattr(redial, method)()
        redial.usual.slow_down()
        assert redial.next_seconds(101.0, is_kept=False) == 10.0
