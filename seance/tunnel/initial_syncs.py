"""Which clients load their document now, and who waits until they have it.

A Yjs document is one message, and a client that got no whole message for 30 s dials anew. When eight tabs
that load 5 MB each share 8 Mbit/s, the last of them come too late, in whatever order the scheduler serves
them: their patience has begun with the 101. Before the 101 it has not: browsers wait for an upgrade (yjs.md,
fact 2). So while two clients of a room load over a slow link, the upgrades of further ones wait here, in
order of arrival and for at most fifteen seconds (yjs.md 0, fact 4). Decision 19 has the figures.

What a client loads is not known; a sync is what looks like one. It *runs* as long as a client that has come
in the last half minute has had 16 KiB and goes on having more, and takes all it is sent: one whose own line
is slow loads the agent's no more. Nobody waits where it would help nobody: on a link that has just shown to
be fast, or where nobody loads. About those who have just come nothing is known yet, so the third of a crowd
waits half a second, unless nobody has loaded lately: then the next ten seconds are everybody's.

One for each link. Bookkeeping around one timer, which runs while somebody is watched; no byte passes here.
``Front`` asks, ``ClientLeg`` tells.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from seance.tunnel.settings import RelaySettings

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["InitialSyncs", "Loading", "Sync"]

LOOK_SECONDS: Final = 0.25

SYNC_BYTES: Final = 16 * 1024
"""Who has had less does not load a document that anybody waits for; it is light for the scheduler, too."""

MOVING_BYTES: Final = 2048
"""Less than this in one look is talk: thirty cursors are 6 kB a second (yjs.md, fact 9)."""

QUIET_LOOKS: Final = 4
"""A sync is over after so many looks without more, while others have it: the second in line has a turn
every half second at 1 Mbit/s."""

IDLE_LOOKS: Final = 2
"""Where nobody has more for so many looks, all are over; one is a hiccup of a wireless line."""

UNKNOWN_SECONDS: Final = 0.5
"""A client that came in within so long may be about to load: that shows after a round trip of its own."""

UNANSWERED_SECONDS: Final = 1.0
"""One whose local server has not answered for so long keeps nobody waiting."""

CALM_SECONDS: Final = 10.0
"""So long nobody is suspected after those who were have loaded nothing."""

WATCHED_SECONDS: Final = 30.0
"""After so long it is no initial sync any more, whatever comes: its client has lost patience, or has none."""

FAST_BYTES: Final = 1024 * 1024
"""A link that brings so much in one look, 32 Mbit/s, keeps nobody waiting: eight documents of 5 MB take it
10 s."""

FAST_SECONDS: Final = 60.0
"""For so long after."""


class Loading(Protocol):
    """A client, as seen from here."""

    @property
    def sent_bytes(self) -> int:
        """What was written to it since the 101."""

    @property
    def is_behind(self) -> bool:
        """Whether it takes less than there is for it."""


class Sync:
    """One client that was let in. Tell it ``joined`` with the 101 and ``left`` at the end."""

    __slots__ = (
        "_client",
        "_had_bytes",
        "_quiet_looks",
        "_since_seconds",
        "_syncs",
        "has_loaded",
        "is_running",
    )

    def __init__(self, syncs: InitialSyncs, now: float) -> None:
        self._syncs: InitialSyncs | None = syncs
        self._client: Loading | None = None
        self._since_seconds = now
        self._had_bytes = 0
        self._quiet_looks = 0
        self.is_running = False
        self.has_loaded = False

    def joined(self, client: Loading) -> None:
        """The local server has taken it."""
        if self._syncs is not None:
            self._client = client
            self._since_seconds = self._syncs.seconds()

    def left(self) -> None:
        """It is gone. Idempotent."""
        if self._syncs is not None:
            syncs, self._syncs, self._client = self._syncs, None, None
            syncs.forget(self)

    def is_unknown(self, now: float) -> bool:
        """Whether it may load, and nobody can tell yet."""
        seconds = UNANSWERED_SECONDS if self._client is None else UNKNOWN_SECONDS
        return not self.has_loaded and now - self._since_seconds < seconds

    def look(self, now: float) -> int | None:
        """Return what it has had since the last look; None when it is nobody to watch any more."""
        client = self._client
        if now - self._since_seconds >= (UNANSWERED_SECONDS if client is None else WATCHED_SECONDS):
            return None
        if client is None:
            return 0
        count = client.sent_bytes - self._had_bytes
        self._had_bytes += count
        self._quiet_looks = 0 if count >= MOVING_BYTES else self._quiet_looks + 1
        if self._quiet_looks >= QUIET_LOOKS:
            return None
        self.has_loaded = self._had_bytes >= SYNC_BYTES
        self.is_running = self.has_loaded and not client.is_behind
        return count


class InitialSyncs:
    """The clients of one link that load, and those that wait for it.

    Args:
        reactor: Where time comes from.
        settings: The relay's: ``initial_syncs`` at a time, ``hold_seconds`` at most, ``parked_per_room``
            wait.
    """

    def __init__(self, reactor: IReactorTime, settings: RelaySettings) -> None:
        self.seconds = reactor.seconds
        self._reactor = reactor
        self._at_once = settings.initial_syncs if settings.hold_seconds else 0
        self._hold_seconds = settings.hold_seconds
        self._most_waiting = settings.parked_per_room
        self._watched: dict[Sync, None] = {}
        self._waiting: deque[tuple[float, Deferred[Sync]]] = deque()
        self._looking: IDelayedCall | None = None
        self._going_on: IDelayedCall | None = None
        self._open_until = 0.0
        self._idle_looks = 0
        self._is_closed = False

    def __len__(self) -> int:
        """Clients that wait."""
        return len(self._waiting)

    def when_let_in(self, since_seconds: float) -> Deferred[Sync]:
        """Wait until a client may come in. Cancelling gives the place back.

        Args:
            since_seconds: Since when it waits, for whatever; it is let in ``hold_seconds`` later at the
                latest.

        Returns:
            Fires with what has to be told about it. Never fails.
        """
        now = self.seconds()
        until_seconds = since_seconds + self._hold_seconds
        may_pass = not self._at_once or now >= until_seconds or len(self._waiting) >= self._most_waiting
        if may_pass or self._is_closed or (not self._waiting and self._free(now)):
            return succeed(self._let_in(now))
        one: Deferred[Sync] = Deferred(lambda _: self._give_up(one))
        self._waiting.append((until_seconds, one))
        return one

    def forget(self, sync: Sync) -> None:
        """A client is gone; for ``Sync`` alone."""
        self._watched.pop(sync, None)
        # In the next turn: it may have gone because the link is going, and that is known only then.
        if self._going_on is None and not self._is_closed:
            self._going_on = self._reactor.callLater(0, self._go_on)

    def close(self) -> None:
        """Let everybody go: the link is over, and whoever waits has to ask for the next."""
        self._is_closed = True
        self._watched.clear()
        while self._waiting:
            self._let_first_in(self.seconds())
        for call in (self._looking, self._going_on):
            if call is not None:
                call.cancel()
        self._looking = self._going_on = None

    # -- inside ----------------------------------------------------------------------------

    def _free(self, now: float) -> int:
        """Return how many more may come in; with nobody loading and nobody new, all that there are."""
        if now < self._open_until:
            return self._most_waiting + 1
        running = sum(sync.is_running or sync.is_unknown(now) for sync in self._watched)
        return max(0, self._at_once - running)

    def _let_in(self, now: float) -> Sync:
        sync = Sync(self, now)
        if self._at_once and not self._is_closed:
            self._watched[sync] = None
            if self._looking is None:
                self._looking = self._reactor.callLater(LOOK_SECONDS, self._look)
        return sync

    def _let_first_in(self, now: float) -> None:
        _, one = self._waiting.popleft()
        one.callback(self._let_in(now))

    def _look(self) -> None:
        self._looking = None
        now = self.seconds()
        had_bytes = 0
        for sync in list(self._watched):
            count = sync.look(now)
            if count is None:
                del self._watched[sync]
            else:
                had_bytes += count
        if had_bytes >= FAST_BYTES:
            self._open_until = max(self._open_until, now + FAST_SECONDS)
        has_loaded = any(sync.has_loaded for sync in self._watched)
        self._idle_looks = self._idle_looks + 1 if had_bytes < MOVING_BYTES else 0
        if self._idle_looks >= IDLE_LOOKS:
            self._watched = {sync: None for sync in self._watched if not sync.has_loaded}
        if self._waiting and not has_loaded and not any(sync.is_unknown(now) for sync in self._watched):
            self._open_until = max(self._open_until, now + CALM_SECONDS)
        self._let_in_who_may()
        if (self._watched or self._waiting) and self._looking is None:
            self._looking = self._reactor.callLater(LOOK_SECONDS, self._look)

    def _go_on(self) -> None:
        self._going_on = None
        self._let_in_who_may()
        if not self._waiting and not self._watched and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _let_in_who_may(self) -> None:
        now = self.seconds()
        waiting = self._waiting
        free = self._free(now) if waiting else 0
        while waiting and (free > 0 or waiting[0][0] <= now):
            self._let_first_in(now)
            free -= 1

    def _give_up(self, one: Deferred[Sync]) -> None:
        self._waiting = deque(place for place in self._waiting if place[1] is not one)
