"""One end of a link: which carrier counts, and what arrives too late."""

from __future__ import annotations

from zlib import crc32

import pytest

from seance.errors import LocalProtocolError, RemoteProtocolError
from seance.resume import KEPT_BYTES, Continuity


def attached() -> Continuity:
    continuity = Continuity(100)
    continuity.attach(0, 0)
    return continuity


def test_link_starts_detached() -> None:
    continuity = Continuity()
    assert (continuity.epoch, continuity.is_attached, continuity.is_over) == (0, False, False)
    assert not continuity.is_current(0)
    assert not continuity.receive(0, b"abc")
    assert not continuity.detach(0)
    assert continuity.incoming.count == 0


def test_each_carrier_has_the_next_epoch() -> None:
    continuity = Continuity()
    assert [continuity.attach(0, 0) for _ in range(3)] == [1, 2, 3]
    assert continuity.epoch == 3
    assert [continuity.is_current(epoch) for epoch in range(5)] == [False, False, False, True, False]


def test_data_of_an_older_carrier_is_not_counted() -> None:
    continuity = attached()
    assert continuity.receive(1, b"abc")
    assert continuity.attach(0, 0) == 2
    assert not continuity.receive(1, b"late")
    assert (continuity.incoming.count, continuity.incoming.crc) == (3, crc32(b"abc"))
    assert continuity.receive(2, b"d")
    assert continuity.incoming.count == 4


def test_acknowledgement_of_an_older_carrier_is_ignored() -> None:
    continuity = attached()
    continuity.outgoing.add(b"abc")
    continuity.attach(0, 0)
    assert continuity.acknowledge(1, 3, crc32(b"abc")) == 0
    assert continuity.acknowledge(1, 2**64, 7) == 0
    assert continuity.outgoing.base == 0
    continuity.outgoing.next_unsent()
    assert continuity.acknowledge(2, 3, crc32(b"abc")) == 3


def test_end_of_an_older_carrier_does_not_detach() -> None:
    continuity = attached()
    continuity.attach(0, 0)
    assert not continuity.detach(1)
    assert continuity.is_attached
    assert continuity.detach(2)
    assert not continuity.detach(2), "once"
    assert not continuity.is_attached


def test_nothing_counts_while_detached() -> None:
    continuity = attached()
    continuity.outgoing.add(b"abc")
    continuity.detach(1)
    assert not continuity.receive(1, b"late")
    assert continuity.acknowledge(1, 3, crc32(b"abc")) == 0
    assert continuity.incoming.count == 0
    assert continuity.outgoing.kept_bytes == 3


def test_new_carrier_delivers_the_rest() -> None:
    continuity = attached()
    continuity.outgoing.add(b"abcdef")
    continuity.detach(1)
    continuity.outgoing.hold(b"ghi")
    assert continuity.attach(2, crc32(b"ab")) == 2
    assert continuity.outgoing.next_unsent() == b"cdefghi"


@pytest.mark.parametrize(
    ("count", "crc", "code"), [(1, 0, "ack_gap"), (9, 0, "ack_ahead"), (4, 0, "ack_mismatch")]
)
def test_carrier_with_wrong_counts_changes_nothing(count: int, crc: int, code: str) -> None:
    continuity = attached()
    continuity.outgoing.add(b"abcdef")
    continuity.acknowledge(1, 2, crc32(b"ab"))
    with pytest.raises(RemoteProtocolError) as caught:
        continuity.attach(count, crc)
    assert caught.value.code == code
    assert continuity.epoch == 1
    assert continuity.is_current(1)
    assert continuity.receive(1, b"the older carrier goes on")
    assert continuity.acknowledge(1, 6, crc32(b"abcdef")) == 4


def test_wrong_acknowledgements_of_the_current_carrier_are_rejected() -> None:
    continuity = attached()
    continuity.outgoing.add(b"abc")
    for count, crc, code in ((4, 0, "ack_ahead"), (2, 0, "ack_mismatch")):
        with pytest.raises(RemoteProtocolError) as caught:
            continuity.acknowledge(1, count, crc)
        assert caught.value.code == code


def test_ended_link_keeps_no_data_and_rejects_carriers() -> None:
    continuity = attached()
    continuity.outgoing.add(b"abc")
    continuity.end()
    continuity.end()
    assert (continuity.is_over, continuity.is_attached) == (True, False)
    assert continuity.outgoing.kept_bytes == 0
    assert not continuity.receive(1, b"late")
    assert not continuity.detach(1)
    with pytest.raises(LocalProtocolError) as caught:
        continuity.attach(0, 0)
    assert caught.value.code == "link_over"


def test_default_limit_is_four_mebibytes() -> None:
    assert KEPT_BYTES == 4 * 1024 * 1024
    continuity = Continuity()
    continuity.attach(0, 0)
    continuity.outgoing.add(bytes(KEPT_BYTES - 1))
    assert not continuity.outgoing.is_full
    continuity.outgoing.add(b"x")
    assert continuity.outgoing.is_full


@pytest.mark.parametrize("origin", [2**32 - 10, 2**64 - 10])
def test_counts_run_past_32_and_64_bits(origin: int) -> None:
    near, far = Continuity(origin=origin), Continuity(origin=origin)
    far.attach(origin, 0)
    text = b""
    for number in range(40):
        epoch = near.attach(far.incoming.count, far.incoming.crc)
        piece = b"%02d" % number
        text += piece
        near.outgoing.hold(piece)
        while (message := near.outgoing.next_unsent()) is not None:
            if number < 39:
                far.receive(1, message[: len(message) // 2])  # the rest is lost with the carrier
                break
            far.receive(1, message)
        near.detach(epoch)
    assert (far.incoming.count, far.incoming.crc) == (origin + 80, crc32(text))
    assert near.outgoing.end == origin + 80
