"""Limits how many clients load their document at a time, on a link that is full.

A Yjs document is one WebSocket message, and a Yjs client that receives no whole message for 30 s reconnects.
When eight tabs that load 5 MB each share 8 Mbit/s, the last ones are too late in any order in which the
scheduler serves them, because their 30 s begin with the 101. Before the 101 a browser waits for 20 s
(Firefox) or more (docs/sources.md). So while two clients of a room load over a full link, further upgrades
wait here, in order of arrival and for at most fifteen seconds. Decision 19 has the figures.

A client *loads* if a WebSocket message for it has been incomplete for a quarter of a second and the client
reads its data: the frame header has announced bytes that the link has not delivered yet. The relay sees this
for every agent, also for one that does not use this package. A client that receives whole messages does not
load.

A client that has just joined may be about to load. It is a *newcomer* until a round trip has shown whether it
loads. The number of newcomers at a time is limited as TCP's slow start limits packets in flight: three at
first, three more for each newcomer that did not load, and no limit after fifteen. On an idle loopback link a
round takes 20 ms.

Each link has one limiter, which handles no bytes. ``Frontend`` waits for it through ``Upstream``;
``ClientConnection`` reports the 101 and the end of each client.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import TYPE_CHECKING, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from seance.core.settings import RelaySettings

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["InitialSyncLimiter", "Loading", "Sync"]

SAMPLE_SECONDS: Final = 0.25
"""Interval at which all recent clients are checked."""

TICK_SECONDS: Final = 0.02
"""Interval at which newcomers and loading clients are checked while a client waits."""

LOAD_SECONDS: Final = 0.25
"""Time for which a message has to be incomplete before its client counts as loading: 250 kB at 8 Mbit/s."""

MIN_SAMPLE_BYTES: Final = 2048
"""A sample with fewer bytes counts as idle: thirty moving cursors are 6 kB/s, 1.5 kB in a sample."""

IDLE_SAMPLES: Final = 2
"""After this number of idle samples of all clients the link is not full; one may be a Wi-Fi glitch."""

QUIET_SAMPLES: Final = 4
"""After this number of idle samples a client does not count as loading until it receives data again."""

BEHIND_SAMPLES: Final = 2
"""After this number of samples in which a client left data unread, its own line is slow and not the link."""

FORGET_SAMPLES: Final = 20
"""After this number of idle samples a client is not checked any more: 5 s."""

MAX_SYNC_SECONDS: Final = 30.0
"""A longer transfer is no initial sync: a Yjs client has disconnected by then."""

NEWCOMERS: Final = 3
"""Newcomers at a time on a link without measurements: a page that opens three documents does not wait. If
all three load, the last one needs half as long again as with two at a time."""

NEWCOMERS_PER_PROOF: Final = 3
"""Additional newcomers for each one that did not load: each round is four times as large as the last."""

PROOFS: Final = 15
"""After this number of newcomers in a row that did not load there is no limit."""

PROOF_SECONDS: Final = 10.0
"""Time after the last of these newcomers for which there is no limit."""

MIN_ROUND_SECONDS, MAX_ROUND_SECONDS = 0.02, 0.25
ROUND_TRIPS: Final = 4
"""After its 101 a newcomer is observed for four times the duration of the fastest upgrade on this link,
within these bounds, but at least for one and a half times that duration. Two round trips of the client's
connection are added, because the request and the first bytes of the document take one each."""

UPGRADE_SECONDS: Final = 0.5
"""A client without a 101 stays a newcomer for this time. Documents that a slower local server sends load at
the same time: a longer time would delay all clients of such a server."""

MAX_CLIENT_SECONDS: Final = 0.5
"""Bound of the round trips that are added for a client's connection."""

FAST_BYTES: Final = 1024 * 1024
"""A link that delivers this in one sample (32 Mbit/s) delays no client: eight 5 MB documents take 10 s."""

FAST_SECONDS: Final = 60.0
"""Time for which such a link delays no client."""

UNLIMITED: Final = 1 << 30


class Loading(Protocol):
    """The figures of a client that the limiter reads."""

    @property
    def sent_bytes(self) -> int:
        """Bytes written to it since the 101."""

    @property
    def is_behind(self) -> bool:
        """Whether data for it waits because it reads too slowly."""

    @property
    def is_in_message(self) -> bool:
        """Whether the local server has begun a message that has not arrived here in full."""

    @property
    def round_trip_seconds(self) -> float:
        """Round trip of the client's connection; 0 if unknown."""


class Sync:
    """One admitted client. Call ``joined`` with the 101 and ``left`` at the end."""

    __slots__ = (
        "_behind_samples",
        "_client",
        "_had_bytes",
        "_message_since",
        "_quiet_samples",
        "_since_seconds",
        "_syncs",
        "observed_until",
    )

    def __init__(self, syncs: InitialSyncLimiter, now: float) -> None:
        self._syncs: InitialSyncLimiter | None = syncs
        self._client: Loading | None = None
        self._since_seconds = now
        self._had_bytes = 0
        self._quiet_samples = 0
        self._behind_samples = 0
        self._message_since: float | None = None
        self.observed_until = now

    def joined(self, client: Loading) -> None:
        """The local server has accepted the upgrade."""
        if self._syncs is not None:
            now = self._syncs.seconds()
            upgrade_seconds, self._since_seconds, self._client = now - self._since_seconds, now, client
            self._syncs.observe(self, upgrade_seconds, client.round_trip_seconds)

    def left(self) -> None:
        """The client is gone. Idempotent."""
        if self._syncs is not None:
            syncs, self._syncs, self._client = self._syncs, None, None
            syncs.forget(self)

    def is_new(self, now: float) -> bool:
        """Whether the client may still begin to load."""
        return now < (self.observed_until if self._client else self._since_seconds + UPGRADE_SECONDS)

    def message_seconds(self, now: float) -> float | None:
        """Return for how long a message has been incomplete; None if there is none."""
        if self._client is None or not self._client.is_in_message:
            self._message_since = None
            return None
        if self._message_since is None:
            self._message_since = now
        return now - self._message_since

    def is_loading(self, now: float) -> bool:
        """Whether a message has been incomplete for ``LOAD_SECONDS`` and the client reads its data."""
        seconds = self.message_seconds(now)
        if seconds is None or seconds < LOAD_SECONDS:
            return False
        return self._quiet_samples < QUIET_SAMPLES and self._behind_samples < BEHIND_SAMPLES

    def take_sample(self, now: float) -> int | None:
        """Return the bytes sent to it since the last sample; None if it needs no further samples."""
        client = self._client
        if now - self._since_seconds >= MAX_SYNC_SECONDS:
            return None
        if client is None:
            return 0
        count = client.sent_bytes - self._had_bytes
        self._had_bytes += count
        self._quiet_samples = 0 if count >= MIN_SAMPLE_BYTES else self._quiet_samples + 1
        self._behind_samples = self._behind_samples + 1 if client.is_behind else 0
        return None if self._quiet_samples >= FORGET_SAMPLES else count


class InitialSyncLimiter:
    """The clients of one link that load, and those that wait until they may.

    Args:
        reactor: Twisted's reactor or a test's ``Clock``.
        settings: The settings of the relay: ``initial_syncs`` clients load at a time; at most
            ``parked_per_room`` clients wait, for at most ``hold_seconds``.
    """

    def __init__(self, reactor: IReactorTime, settings: RelaySettings) -> None:
        self.seconds = reactor.seconds
        self._reactor = reactor
        self._max_loading = settings.initial_syncs if settings.hold_seconds else 0
        self._hold_seconds = settings.hold_seconds
        self._max_waiting = settings.parked_per_room
        self._sampled: dict[Sync, None] = {}
        self._newcomers: dict[Sync, None] = {}
        self._loading: dict[Sync, None] = {}
        self._waiting: deque[tuple[float, Deferred[Sync]]] = deque()
        self._timer: IDelayedCall | None = None
        self._next_check: IDelayedCall | None = None
        self._sampled_at = 0.0
        self._idle_samples = 0
        self._fast_until = 0.0
        self._proofs = 0
        self._proven_at = 0.0
        self._upgrade_seconds = inf
        self._is_closed = False

    def __len__(self) -> int:
        """Clients that wait."""
        return len(self._waiting)

    def when_may_load(self, since_seconds: float) -> Deferred[Sync]:
        """Wait until a client may load. Cancelling removes it from the queue.

        Args:
            since_seconds: When the client began to wait, for its agent or here; it is admitted
                at most ``hold_seconds`` later.

        Returns:
            Fires with a ``Sync``: report the 101 and the end of the client to it. Never fails.
        """
        now = self.seconds()
        until_seconds = since_seconds + self._hold_seconds
        may_pass = not self._max_loading or now >= until_seconds or len(self._waiting) >= self._max_waiting
        if may_pass or self._is_closed or (not self._waiting and self._free(now) > 0):
            return succeed(self._admit(now))
        one: Deferred[Sync] = Deferred(lambda _: self._give_up(one))
        self._waiting.append((until_seconds, one))
        self._arm(TICK_SECONDS)
        return one

    def observe(self, sync: Sync, upgrade_seconds: float, client_seconds: float) -> None:
        """Note that the local server has accepted a client; called by ``Sync`` only."""
        fastest = self._upgrade_seconds = min(self._upgrade_seconds, upgrade_seconds)
        within = min(max(ROUND_TRIPS * fastest, MIN_ROUND_SECONDS), MAX_ROUND_SECONDS)
        own_seconds = min(2 * client_seconds, MAX_CLIENT_SECONDS)
        sync.observed_until = self.seconds() + max(within, 1.5 * fastest) + own_seconds
        if sync in self._sampled:
            self._newcomers[sync] = None

    def note_carrier(self) -> None:
        """Delete the measurements of the old carrier's path: the link has another carrier."""
        self._upgrade_seconds = inf
        self._fast_until = 0.0
        self._proofs = 0

    def forget(self, sync: Sync) -> None:
        """A client is gone; called by ``Sync`` only."""
        for group in (self._sampled, self._newcomers, self._loading):
            group.pop(sync, None)
        # In the next turn: if it has left because the link is lost, ``close`` is called before then.
        if self._next_check is None and not self._is_closed:
            self._next_check = self._reactor.callLater(0, self._check_waiting)

    def close(self) -> None:
        """Admit every client: the link is lost, and clients that wait ask the next link."""
        self._is_closed = True
        for group in (self._sampled, self._newcomers, self._loading):
            group.clear()
        while self._waiting:
            self._admit_first(self.seconds())
        for call in (self._timer, self._next_check):
            if call is not None:
                call.cancel()
        self._timer = self._next_check = None

    # -- inside ----------------------------------------------------------------------------

    def _free(self, now: float) -> int:
        """Return how many more clients may load now."""
        if now < self._fast_until:
            return UNLIMITED
        if self._proofs >= PROOFS and not self._loading and now - self._proven_at < PROOF_SECONDS:
            return UNLIMITED
        self._classify(now)
        if self._loading:
            return self._max_loading - len(self._loading) - len(self._newcomers)
        limit = max(NEWCOMERS, self._max_loading) + NEWCOMERS_PER_PROOF * self._proofs
        return limit - len(self._newcomers)

    def _classify(self, now: float) -> None:
        """Update which newcomers load, which do not, and which clients have finished."""
        if now - self._proven_at >= PROOF_SECONDS:
            self._proofs = 0
        self._loading = {sync: None for sync in self._loading if sync.is_loading(now)}
        is_idle = self._idle_samples >= IDLE_SAMPLES
        in_message = 0
        for sync in list(self._newcomers):
            seconds = sync.message_seconds(now)
            if seconds is None:
                continue
            in_message += 1
            if seconds >= LOAD_SECONDS:
                del self._newcomers[sync]
                if sync.is_loading(now) and not is_idle:
                    self._loading[sync] = None
        if self._loading:
            self._proofs = 0
        if in_message:
            return  # while one document is on its way, the others may wait behind it
        for sync in list(self._newcomers):
            if not sync.is_new(now):
                del self._newcomers[sync]
                self._proofs += not self._loading
                self._proven_at = now

    def _admit(self, now: float) -> Sync:
        sync = Sync(self, now)
        if self._max_loading and not self._is_closed:
            if self._timer is None:
                self._sampled_at = now
            self._sampled[sync] = self._newcomers[sync] = None
            self._arm(SAMPLE_SECONDS)
        return sync

    def _admit_first(self, now: float) -> None:
        _, one = self._waiting.popleft()
        one.callback(self._admit(now))

    def _arm(self, seconds: float) -> None:
        """Make the timer fire within ``seconds``."""
        if self._timer is None:
            self._timer = self._reactor.callLater(seconds, self._on_timer)
        elif self._timer.getTime() > self.seconds() + seconds:
            self._timer.reset(seconds)

    def _on_timer(self) -> None:
        self._timer = None
        now = self.seconds()
        if now - self._sampled_at >= SAMPLE_SECONDS:
            self._sample(now)
        self._admit_waiting()
        if self._waiting:
            self._arm(TICK_SECONDS)
        elif self._sampled:
            self._arm(SAMPLE_SECONDS)

    def _sample(self, now: float) -> None:
        seconds, self._sampled_at = now - self._sampled_at, now
        had_bytes = 0
        for sync in list(self._sampled):
            count = sync.take_sample(now)
            if count is None:
                del self._sampled[sync]
                self._newcomers.pop(sync, None)
                self._loading.pop(sync, None)
            else:
                had_bytes += count
        # The timer may be late, so compare rates and not counts.
        if had_bytes * SAMPLE_SECONDS >= FAST_BYTES * seconds:
            self._fast_until = now + FAST_SECONDS
        self._idle_samples = self._idle_samples + 1 if had_bytes < MIN_SAMPLE_BYTES else 0
        if self._idle_samples >= IDLE_SAMPLES:
            self._loading = {}
        else:
            self._loading = {sync: None for sync in self._sampled if sync.is_loading(now)}
            for sync in self._loading:
                self._newcomers.pop(sync, None)
        self._classify(now)

    def _check_waiting(self) -> None:
        self._next_check = None
        self._admit_waiting()
        if not self._waiting and not self._sampled and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _admit_waiting(self) -> None:
        now = self.seconds()
        free = self._free(now) if self._waiting else 0
        while self._waiting and (free > 0 or self._waiting[0][0] <= now):
            self._admit_first(now)
            free -= 1

    def _give_up(self, one: Deferred[Sync]) -> None:
        self._waiting = deque(place for place in self._waiting if place[1] is not one)
