"""Thousands of schedules of ``model.py``: the real code passes all, each broken version fails in one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast
from zlib import crc32

import pytest

from seance.errors import RemoteProtocolError
from seance.resume import Continuity, Incoming, Outgoing
from seance.resume import outgoing as outgoing_module
from tests.resume.model import Piece, Schedule

FEW, MANY = 300, 10_000

MAX_SCHEDULES = MANY
"""A mutant that passes this many schedules counts as not detected."""


@pytest.fixture(autouse=True)
def short_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data is sent again in several messages, although there is little of it."""
    monkeypatch.setattr(outgoing_module, "RESENT_MESSAGE_BYTES", 24)


def sound(limit_bytes: int, origin: int) -> Continuity:
    return Continuity(limit_bytes, origin=origin)


def play(seeds: range) -> tuple[int, int]:
    """Play schedules with the real code; return who detected a changed byte, and the number of carriers."""
    corrupted = carriers = 0
    for seed in seeds:
        schedule = Schedule(seed, sound)
        schedule.run()
        carriers += schedule.agent.continuity.epoch
        schedule = Schedule(seed, sound, corrupts=True)
        try:
            schedule.run()
            assert not schedule.has_corrupted or schedule.agent.received == schedule.relay.written
        except RemoteProtocolError as error:
            if not schedule.has_corrupted or error.code != "ack_mismatch":
                pytest.fail(f"schedule {seed}: {error}")
            corrupted += 1
    return corrupted, carriers


def test_nothing_is_lost_or_doubled_and_corruption_is_detected() -> None:
    corrupted, carriers = play(range(FEW))
    assert corrupted > FEW // 5
    assert carriers > FEW * 3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_or_doubled_in_ten_thousand_schedules() -> None:
    play(range(MANY))


# Mutants


class AcksOneMore(Incoming):
    def make_ack(self) -> tuple[int, int]:
        count, crc = super().make_ack()
        return count + 1, crc


class AcksOneLess(Incoming):
    def make_ack(self) -> tuple[int, int]:
        count, crc = super().make_ack()
        return count - 1, crc


class ChecksumsOnlyTheLastPiece(Incoming):
    def take(self, data: bytes) -> int:
        self.crc = 0
        return super().take(data)


class CountsWholeMessages(Incoming):
    """Counts a message as received when its first piece arrives."""

    def take(self, data: bytes) -> int:
        return super().take(cast(Piece, data).whole)


class CountsThirtyTwoBits(Incoming):
    def take(self, data: bytes) -> int:
        told = super().take(data)
        self.count %= 2**32
        return told


class ForgetsToCount(Incoming):
    """Counts only the first thousand bytes."""

    def take(self, data: bytes) -> int:
        return super().take(data) if self.count % 2**32 < 500 else self.unacked_bytes


class Evicts(Outgoing):
    """Drops the oldest data instead of pausing the writer."""

    @property
    def is_full(self) -> bool:
        return False

    def add(self, message: bytes) -> None:
        super().add(message)
        self._evict()

    def hold(self, message: bytes) -> None:
        super().hold(message)
        self._evict()

    def _evict(self) -> None:
        while self.kept_bytes > self._limit_bytes:
            gone = self._kept.popleft()
            self._base_crc = crc32(gone[self._skipped :], self._base_crc)
            self.base += len(gone) - self._skipped
            self._skipped = 0
            self._unsent_at = max(self._unsent_at - 1, 0)
            self.sent = max(self.sent, self.base)


class NeverPauses(Outgoing):
    @property
    def is_full(self) -> bool:
        return False


class StaysFull(Outgoing):
    """Stays full after it was full once."""

    __slots__ = ("was_full",)

    @property
    def is_full(self) -> bool:
        self.was_full = super().is_full or getattr(self, "was_full", False)
        return self.was_full


class ResendsNothing(Outgoing):
    def rewind(self, count: int, crc: int) -> None:
        sent, unsent_at = self.sent, self._unsent_at
        self.acknowledge(min(count, sent), crc)
        self._unsent_at = min(unsent_at, len(self._kept))


class ResendsFromLastAck(Outgoing):
    """Starts at the last acknowledgement, not at the bytes that the peer has now."""

    def rewind(self, count: int, crc: int) -> None:
        super().rewind(self.base, self._base_crc)


class ResendsWholeMessages(Outgoing):
    def rewind(self, count: int, crc: int) -> None:
        self.acknowledge(count, crc)
        self.sent, self._unsent_at = self.base, 0


class LetsNewOvertakeOld(Outgoing):
    """Sends new data immediately, although the peer still lacks earlier data."""

    def hold(self, message: bytes) -> None:
        self._kept.appendleft(message) if self._unsent_at == 0 else self._kept.append(message)
        self.end += len(message)


class RejectsAcksOfEarlierCarriers(Outgoing):
    """Rejects a peer that has more than the previous carrier sent, although an earlier carrier sent it."""

    def rewind(self, count: int, crc: int) -> None:
        self.acknowledge(count, crc)
        super().rewind(count, crc)


class DropsOneTooMany(Outgoing):
    def acknowledge(self, count: int, crc: int) -> int:
        freed = super().acknowledge(count, crc)
        if freed and self.base < self.sent:
            self._base_crc = crc32(self._kept[0][self._skipped : self._skipped + 1], self._base_crc)
            self._skipped, self.base = self._skipped + 1, self.base + 1
        return freed


class DropsTheCutPosition(Outgoing):
    def acknowledge(self, count: int, crc: int) -> int:
        freed = super().acknowledge(count, crc)
        self._skipped = 0
        return freed


class SkipsChecksum(Outgoing):
    def _forget(self, count: int, crc: int) -> int:
        kept = b"".join(self._kept)[self._skipped :]
        return super()._forget(count, crc32(kept[: count - self.base], self._base_crc))


class AcceptsDataOfAnyCarrier(Continuity):
    def receive(self, epoch: int, data: bytes) -> bool:
        return super().receive(self.epoch, data)


class AcceptsAcksOfAnyCarrier(Continuity):
    def acknowledge(self, epoch: int, count: int, crc: int) -> int:
        return super().acknowledge(self.epoch, count, crc)


class DetachesWithAnyCarrier(Continuity):
    def detach(self, epoch: int) -> bool:
        return super().detach(self.epoch)


class ReceivesWhileDetached(Continuity):
    def receive(self, epoch: int, data: bytes) -> bool:
        self.incoming.take(data)
        return self.is_current(epoch)


class KeepsTheEpoch(Continuity):
    """A takeover keeps the epoch."""

    def attach(self, peer_count: int, peer_crc: int) -> int:
        was_attached = self.is_attached
        epoch = super().attach(peer_count, peer_crc)
        if was_attached:
            self.epoch = epoch - 1
        return self.epoch


class ForgetsWhenDetached(Continuity):
    def detach(self, epoch: int) -> bool:
        is_detached = super().detach(epoch)
        if is_detached:
            self.outgoing.clear()
        return is_detached


MUTANTS: list[tuple[type[Any], bool]] = [
    *((kind, False) for kind in (AcksOneMore, AcksOneLess, ChecksumsOnlyTheLastPiece, CountsWholeMessages)),
    *((kind, False) for kind in (CountsThirtyTwoBits, ForgetsToCount, Evicts, NeverPauses, StaysFull)),
    *((kind, False) for kind in (ResendsNothing, ResendsFromLastAck, ResendsWholeMessages)),
    *(
        (kind, False)
        for kind in (LetsNewOvertakeOld, RejectsAcksOfEarlierCarriers, DropsOneTooMany, DropsTheCutPosition)
    ),
    *((kind, False) for kind in (AcceptsDataOfAnyCarrier, AcceptsAcksOfAnyCarrier, DetachesWithAnyCarrier)),
    *((kind, False) for kind in (ReceivesWhileDetached, KeepsTheEpoch, ForgetsWhenDetached)),
    (SkipsChecksum, True),
]
"""Each mutant, and whether the network has to change bytes to expose it."""


def maker(mutant: type[Any]) -> Callable[[int, int], Continuity]:
    def make(limit_bytes: int, origin: int) -> Continuity:
        if issubclass(mutant, Continuity):
            return mutant(limit_bytes, origin=origin)
        continuity = Continuity(limit_bytes, origin=origin)
        if issubclass(mutant, Outgoing):
            continuity.outgoing = mutant(limit_bytes, origin=origin)
        else:
            continuity.incoming = mutant(origin=origin)
        return continuity

    return make


@pytest.mark.parametrize(("mutant", "corrupts"), MUTANTS, ids=[mutant.__name__ for mutant, _ in MUTANTS])
def test_mutant_is_caught(mutant: type[Any], corrupts: bool) -> None:
    for seed in range(MAX_SCHEDULES):
        try:
            Schedule(seed, maker(mutant), corrupts=corrupts).run()
        except Exception as error:  # any kind of failure
            print(f"{mutant.__name__}: caught by story {seed + 1}: {error}")
            return
    pytest.fail(f"{mutant.__name__} has passed {MAX_SCHEDULES} schedules")
