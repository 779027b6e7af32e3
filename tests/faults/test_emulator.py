"""The bottleneck of the emulated line: its rate, and the real size of its queue. Times are given."""

from __future__ import annotations

from tests.faults.emulator import Bottleneck

PACKET = bytes(1000)


def filled(queue_bytes: int, packets: int) -> tuple[Bottleneck, int]:
    """Return a bottleneck of 1,000 bytes a second that got packets at the same time, and how many it took."""
    bottleneck = Bottleneck(1000.0, queue_bytes)
    taken = 0
    for _ in range(packets):
        bottleneck.take(0.0)
        taken += bottleneck.put(PACKET, 0.0)
    return bottleneck, taken


def test_packets_leave_in_order_at_the_rate() -> None:
    bottleneck = Bottleneck(1000.0, 10_000)
    for number in range(3):
        assert bottleneck.put(bytes([number]) * 500, 5.0)
    assert bottleneck.take(5.0) == [(5.5, bytes(500))]
    assert bottleneck.next_at == 5.5
    assert bottleneck.take(5.4) == []
    assert bottleneck.take(6.0) == [(6.0, b"\1" * 500), (6.5, b"\2" * 500)]
    assert bottleneck.next_at is None


def test_the_queue_holds_its_bytes_and_the_packet_on_the_wire() -> None:
    _, taken = filled(queue_bytes=3000, packets=10)
    assert taken == 4


def test_a_packet_after_a_pause_starts_when_it_arrives() -> None:
    bottleneck, _ = filled(queue_bytes=3000, packets=1)
    assert bottleneck.take(100.0) == [(1.0, PACKET)]
    assert bottleneck.put(PACKET, 100.0)
    assert bottleneck.take(100.0) == [(101.0, PACKET)]


def test_a_new_rate_applies_to_packets_that_wait() -> None:
    bottleneck, taken = filled(queue_bytes=3000, packets=4)
    assert taken == 4
    bottleneck.bytes_per_second = 500.0
    assert bottleneck.take(1.0) == [(3.0, PACKET)]
    assert bottleneck.take(2.9) == []
    assert [at for at, _ in bottleneck.take(10.0)] == [5.0, 7.0]


def test_without_a_rate_nothing_waits_or_is_lost() -> None:
    bottleneck = Bottleneck(0.0, 0)
    for _ in range(100):
        assert bottleneck.put(PACKET, 7.0)
    assert bottleneck.take(7.0) == [(7.0, PACKET)] * 100
