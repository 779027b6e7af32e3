from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seance.yamux import KIB, Bytes, Role
from seance.yamux.streams import PeerIds, Stream, StreamTable


def claim_all(ids: PeerIds, wanted: list[int]) -> list[bool]:
    return [ids.use(one) for one in wanted]


class TestPeerIds:
    def test_only_ids_of_the_peers_parity_are_valid(self) -> None:
        of_client, of_server = PeerIds(Role.CLIENT, 4), PeerIds(Role.SERVER, 4)
        assert [one for one in range(6) if of_client.is_valid(one)] == [1, 3, 5]
        assert [one for one in range(6) if of_server.is_valid(one)] == [2, 4]

    def test_an_id_can_be_used_once(self) -> None:
        assert claim_all(PeerIds(Role.CLIENT, 4), [1, 3, 3, 1, 5]) == [True, True, False, False, True]

    def test_skipped_ids_can_be_used_once_in_any_order(self) -> None:
        ids = PeerIds(Role.SERVER, 4)
        assert claim_all(ids, [12, 6, 2, 10, 4, 8]) == [True] * 6
        assert claim_all(ids, [2, 4, 6, 8, 10, 12]) == [False] * 6

    def test_large_jump_costs_one_gap(self) -> None:
        ids = PeerIds(Role.CLIENT, 1)
        assert claim_all(ids, [2**32 - 1, 2**31 + 1]) == [True, True]

    def test_oldest_gap_is_dropped_first(self) -> None:
        """Reaches the limit of id gaps: an id of a dropped gap counts as used."""
        ids = PeerIds(Role.CLIENT, 2)
        assert claim_all(ids, [3, 7, 11]) == [True] * 3
        assert claim_all(ids, [1, 5, 9]) == [False, True, True]

    def test_gaps_that_are_split_count_too(self) -> None:
        ids = PeerIds(Role.CLIENT, 2)
        assert claim_all(ids, [21, 9, 15]) == [True] * 3
        assert claim_all(ids, [1, 11, 17]) == [False, True, True]

    @given(st.lists(st.integers(0, 40).map(lambda n: 2 * n + 1)), st.integers(50, 60))
    def test_result_equals_a_set_while_the_gaps_fit(self, wanted: list[int], limit: int) -> None:
        seen: set[int] = set()
        ids = PeerIds(Role.CLIENT, limit)
        for one in wanted:
            assert ids.use(one) == (one not in seen)
            seen.add(one)

    @given(st.lists(st.integers(0, 500).map(lambda n: 2 * n + 1)))
    def test_no_id_is_ever_used_twice_and_memory_is_bounded(self, wanted: list[int]) -> None:
        used: set[int] = set()
        ids = PeerIds(Role.CLIENT, 3)
        for one in wanted:
            if ids.use(one):
                assert one not in used
                used.add(one)
            assert len(ids._gaps) <= 3


class TestStream:
    def frame(self, stream: Stream, count: int) -> bytes:
        pieces: list[Bytes] = []
        stream.write(count, pieces)
        stream.check()
        return b"".join(pieces)

    def test_chunks_are_sent_in_order_across_frames(self) -> None:
        stream = Stream(2, is_outbound=True)
        assert [stream.queue(chunk) for chunk in (b"abc", b"defgh", b"ij")] == [3, 8, 10]
        assert [self.frame(stream, count) for count in (1, 3, 5, 1)] == [b"a", b"bcd", b"efghi", b"j"]
        assert stream.queued_bytes == 0

    def test_small_chunks_share_a_frame_without_being_copied(self) -> None:
        stream = Stream(2, is_outbound=True)
        chunks = [b"one", b"two", b"three"]
        for chunk in chunks:
            stream.queue(chunk)
        pieces: list[Bytes] = []
        stream.write(11, pieces)
        assert [id(piece) for piece in pieces] == [id(chunk) for chunk in chunks]

    def test_sending_a_frame_reduces_the_window(self) -> None:
        stream = Stream(2, is_outbound=True)
        stream.queue(bytes(100))
        self.frame(stream, 60)
        assert stream.send_window.available_bytes == 256 * KIB - 60

    @given(st.lists(st.binary(min_size=1, max_size=20)), st.lists(st.integers(1, 30)))
    def test_sent_bytes_equal_queued_bytes(self, chunks: list[bytes], counts: list[int]) -> None:
        stream = Stream(2, is_outbound=True)
        for chunk in chunks:
            stream.queue(chunk)
        left = b""
        for count in counts:
            if stream.queued_bytes:
                left += self.frame(stream, min(count, stream.queued_bytes))
        everything = b"".join(chunks)
        assert left == everything[: len(left)]
        assert stream.queued_bytes == len(everything) - len(left)

    def test_repr_describes_the_stream(self) -> None:
        outbound, inbound = Stream(2, is_outbound=True), Stream(1, is_outbound=False)
        inbound.is_acknowledged = True
        assert repr(outbound).startswith(
            "<Stream 2 outbound unacknowledged sending=open receiving=open queued=0 "
        )
        assert repr(inbound).startswith("<Stream 1 inbound sending=open")


class TestStreamTable:
    def test_own_ids_have_the_roles_parity_and_grow(self) -> None:
        table = StreamTable(Role.SERVER, 4)
        opened = [table.open(1.0), table.open(2.0)]
        assert [stream and stream.stream_id for stream in opened] == [2, 4]

    @pytest.mark.parametrize("is_answered", [False, True])
    def test_forgotten_stream_is_in_no_table(self, is_answered: bool) -> None:
        table = StreamTable(Role.SERVER, 4)
        ours, theirs = table.open(1.0), table.admit(1)
        assert ours is not None
        for stream in (ours, theirs):
            if is_answered:
                table.acknowledge(stream)
            table.check()
            table.forget(stream)
        table.check()
        assert (table.live, table.deadlines, table.unaccepted_count) == ({}, {}, 0)

    def test_the_oldest_unanswered_open_sets_the_deadline(self) -> None:
        table = StreamTable(Role.SERVER, 4)
        first, second = table.open(1.0), table.open(2.0)
        assert first is not None
        assert second is not None
        assert table.next_deadline() == 1.0
        assert table.overdue(0.5) == []
        assert table.overdue(1.0) == [first]
        table.acknowledge(first)
        assert table.next_deadline() == 2.0
        assert table.overdue(9.0) == [second]
