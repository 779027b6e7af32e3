"""The small rooms of the tunnel: addresses, waits, the table of rooms, the farewell."""

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
def test_local_server_is_read_and_written_alike(
    text: str, kind: str, host: str, port: int, header: bytes
) -> None:
    local = LocalAddress.from_text(text)
    assert (local.kind, local.host, local.port, local.host_header) == (kind, host, port, header)
    assert str(local) == text


@pytest.mark.parametrize(
    "text", ["", "localhost", "localhost:", ":1234", "localhost:0", "h:65536", "unix:", "http://h:1", "a b:1"]
)
def test_bad_local_server_is_a_sentence_with_the_forms(text: str) -> None:
    with pytest.raises(ConfigError, match=r"use HOST:PORT, unix:PATH or tls://HOST:PORT"):
        LocalAddress.from_text(text)


@pytest.mark.parametrize("kind", ["h:1", "unix:/x", "tls://h:1"])
def test_every_kind_has_an_endpoint(kind: str) -> None:
    from twisted.internet import reactor
    from twisted.internet.interfaces import IStreamClientEndpoint

    assert IStreamClientEndpoint.providedBy(LocalAddress.from_text(kind).endpoint(reactor, 1.0))


def test_jitter_is_full_and_the_bound_starts_over() -> None:
    rolls = iter([0.0, 0.5, 1.0, 1.0])
    backoff = Backoff(1.0, 3.0, lambda: next(rolls))
    assert [backoff.next_seconds() for _ in range(3)] == [0.0, 1.0, 3.0]
    backoff.reset()
    assert backoff.next_seconds() == 1.0


def test_wait_that_is_slowed_down_is_as_long_as_ever_until_the_next_reset() -> None:
    backoff = Backoff(1.0, 30.0, lambda: 1.0)
    backoff.slow_down()
    assert [backoff.next_seconds() for _ in range(2)] == [30.0, 30.0]
    backoff.reset()
    assert backoff.next_seconds() == 1.0


def test_room_belongs_to_the_first_and_is_free_after_it() -> None:
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


def test_link_without_a_carrier_takes_nobody() -> None:
    link = AgentLink(Clock(), RelaySettings(), "r", lambda *args: None)
    assert not link.is_attached
    assert link.stream_count == 0
    link.leave("nobody hears")
    link.cut()
    with pytest.raises(Refusal) as away:
        link.open_stream(None)  # type: ignore[arg-type]
    assert away.value.status == 503


@implementer(IHalfCloseableDescriptor)
class Transport(StringTransport):
    def loseWriteConnection(self) -> None:
        self.has_ended = True

    def unregisterProducer(self) -> None:
        """As real transports do, and StringTransport does not, say nothing if there is none."""


def test_farewell_throws_away_what_still_comes_up_to_a_bound() -> None:
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


def test_farewell_ends_in_time() -> None:
    clock, transport = Clock(), Transport()
    lingering_close = LingeringClose(clock, b"no")
    lingering_close.makeConnection(transport)
    lingering_close.writeConnectionLost()
    clock.advance(LINGER_SECONDS)
    assert transport.disconnecting
    lingering_close.connectionLost()


def test_occasion_comes_once_for_everybody() -> None:
    occasion: OneShotEvent[int] = OneShotEvent()
    early, cancelled = occasion.when(), occasion.when()
    cancelled.addErrback(lambda _: None).cancel()
    occasion.fire(1)
    occasion.fire(2)
    seen: list[int] = []
    early.addCallback(seen.append)
    occasion.when().addCallback(seen.append)
    assert seen == [1, 1]


def waits() -> RedialWaits:
    return RedialWaits(Backoff(0.5, 10.0, lambda: 1.0), Backoff(0.5, 1.0, lambda: 1.0), 30.0)


def test_dials_follow_each_other_quickly_for_some_seconds_after_a_loss_and_then_seldom() -> None:
    redial = waits()
    redial.note_attached()
    redial.note_lost(100.0, 40.0)
    now, seen = 100.0, []
    while now < 100.0 + SOON_SECONDS:
        seen.append(redial.next_seconds(now, is_kept=False))
        now += seen[-1]
    assert max(seen) == 1.0
    assert [redial.next_seconds(now, is_kept=False) for _ in range(6)] == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0]
    assert redial.next_seconds(now, is_kept=True) == 1.0, "a session that is kept has little time"


def test_a_link_that_flaps_is_dialled_quickly_for_fifteen_seconds_in_thirty() -> None:
    redial = waits()
    redial.usual.slow_down()
    quick = []
    for now in range(100, 160):
        redial.note_attached()
        redial.note_lost(float(now), 0.5)
        quick.append(redial.next_seconds(float(now), is_kept=False) < 10.0)
    assert quick == ([True] * 15 + [False] * 15) * 2


def test_an_agent_that_a_relay_has_rejected_takes_its_usual_waits() -> None:
    for told in ("note_rejected", "slow_down"):
        redial = waits()
        redial.note_lost(100.0, 40.0)
        getattr(redial, told)()
        redial.usual.slow_down()
        assert redial.next_seconds(101.0, is_kept=False) == 10.0
