"""The room directory of a single relay: every room is in the memory of this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.logger import Logger

from seance.core.events import ClientWaiting, LimitHit, LinkChange, LinkChanged, ResumptionEnded
from seance.core.observers import room_hash
from seance.errors import Refusal
from seance.heads.refusals import Retry
from seance.relay.refusals import refusal
from seance.relay.rooms.agent_link import AgentLink
from seance.relay.rooms.agent_wait_queue import AgentWaitQueue
from seance.relay.rooms.directory import Resumption, RoomState, RoomStatus
from seance.relay.rooms.rejection_log import RejectionLog
from seance.relay.rooms.resume_memory import ResumeMemoryLimit
from seance.relay.rooms.room_table import RoomTable
from seance.yamux import WindowBudget

if TYPE_CHECKING:
    from seance.core.interfaces import Grant
    from seance.relay.context import RelayContext
    from seance.relay.rooms.upstream import Upstream
    from seance.resume import ResumeRequest

__all__ = ["LocalRoomDirectory"]

SHOWN_IDENTITY_CHARACTERS = 8
"""Characters of an identity in the log: enough to tell two agents apart."""


class LocalRoomDirectory:
    """Implements ``RoomDirectory`` for one process.

    Args:
        context: The context of the relay.
        max_waiting: Clients that may wait for absent agents, if that is less than the setting ``parked``.

    Attributes:
        wait_queue: The clients that wait for an agent.
        resume_memory: Bounds the memory of all sessions together.
        windows: The budget by which the receive windows of all links may grow.
    """

    _log = Logger()

    def __init__(self, context: RelayContext, *, max_waiting: int) -> None:
        settings = context.settings
        self._context = context
        self._reactor = context.reactor
        self._table: RoomTable[AgentLink] = RoomTable(
            settings.room_grace_seconds, settings.known_room_seconds
        )
        self._table.on_change(self._note_room)
        self._rejections = RejectionLog(context.reactor)
        self._is_open = False
        self.wait_queue = AgentWaitQueue(context.reactor, settings, self._is_served, max_waiting=max_waiting)
        self.resume_memory = ResumeMemoryLimit(
            context.reactor, settings.resume_bytes_in_all, lambda: self._table
        )
        self.resume_memory.on_tight = lambda: context.observer.notify(LimitHit("resume_bytes"))
        self.windows = WindowBudget()
        self.windows.on_exhausted = lambda: context.observer.notify(LimitHit("window_budget"))

    def start(self) -> None:
        """Accept agents and clients."""
        self._is_open = True
        self.wait_queue.open()
        self.resume_memory.start()

    def stop_claims(self) -> None:
        """Assign no further room and resume no session: the relay is stopping."""
        if self._is_open:
            self._is_open = False
            self.resume_memory.stop()

    # -- for operators ---------------------------------------------------------------------

    @property
    def links(self) -> list[AgentLink]:
        """The links of all rooms that are served now, those of agents that may resume included."""
        return list(self._table)

    @property
    def room_count(self) -> int:
        """Rooms that are served now."""
        return len(self._table)

    @property
    def client_count(self) -> int:
        """Clients that are connected to an agent now."""
        return sum(link.stream_count for link in self._table)

    def link_of(self, room: str) -> AgentLink | None:
        """Return the link that serves a room, or None."""
        return self._table.get(room)

    def is_known(self, room: str) -> bool:
        """Whether an agent serves a room, or did a short while ago."""
        return self._table.since(room, self._reactor.seconds()) is not None

    def close_room(self, room: str, message: str) -> bool:
        """Disconnect the agent of a room and its clients; return False if the room has no agent."""
        link = self._table.get(room)
        if link is None:
            return False
        if link.is_resuming:
            link.give_up_waiting(message, "sent_away")
        else:
            link.disconnect(message)
        return True

    # -- RoomDirectory ---------------------------------------------------------------------

    async def claim(
        self,
        room: str,
        *,
        identity: str | None = None,
        address: str = "",
        may_replace: bool = True,
    ) -> AgentLink:
        """Assign a room to a new link; see ``RoomDirectory``."""
        if not self._is_open:
            raise refusal("relay_stopping", retry=Retry.SOON)
        if self.resume_memory.is_used_up:
            raise refusal("relay_memory")
        link = AgentLink(self._reactor, self._context.settings, room, self._note_lost, self.windows)
        link.on_change, link.address = self._note_changed, address
        shown = "without a key" if identity is None else identity[:SHOWN_IDENTITY_CHARACTERS]
        now = self._reactor.seconds()
        try:
            stale = self._table.claim(room, link, identity=identity, now=now, may_replace=may_replace)
        except Refusal as refused:
            self._rejections.room_refused(room, shown, address, refused.code)
            holder = self._table.get(room)
            raise (holder and holder.refusal_while_away()) or refused from None
        if stale is not None:
            self._log.info(
                "Room {room} was taken over from its old link by the same agent {identity} from {address}",
                room=room,
                identity=shown,
                address=address,
                event="room.taken_over",
            )
            link.succeed(stale)
            stale.make_way()
        return link

    async def resume(
        self, room: str, resume_request: ResumeRequest, grant: Grant | None, *, address: str = ""
    ) -> Resumption:
        """Continue a session; see ``RoomDirectory``."""
        observer = self._context.observer
        link = self._table.get(room)
        if link is not None:
            link.check_not_replaced(resume_request)
        if link is None or not self._is_open or not link.is_asked_for(resume_request, grant):
            observer.notify(ResumptionEnded("unknown"))
            self._rejections.session_unknown(room, address)
            return Resumption(reason="unknown")
        try:
            headers = link.resume(resume_request, grant, self._context.grants)
        except Refusal:
            observer.notify(ResumptionEnded("flaps"))
            raise
        if headers is None:
            observer.notify(ResumptionEnded("gap"))
            link.make_way()
            return Resumption(reason="gap")
        return Resumption(link, headers)

    def is_resumption(self, room: str, resume_request: ResumeRequest | None) -> bool:
        """Whether a request holds the secret of a session that is kept here."""
        link = self._table.get(room)
        return link is not None and resume_request is not None and link.fits(resume_request)

    def release(self, link: AgentLink) -> None:
        """Free the room of a link that is gone or never came up."""
        now = self._reactor.seconds()
        self._table.release(link.room, link, now, was_served=link.was_attached)
        if link.handle is not None:
            link.handle.release()

    async def find(self, room: str, since_seconds: float | None = None) -> AgentLink:
        """Return the link of a room, once its agent is there; see ``RoomDirectory``."""
        if self._is_away(room):
            waiting = self.wait_queue.when_back(room, since_seconds)
            if not waiting.called:
                self._context.observer.notify(ClientWaiting(room))
            await waiting
        return self._table.find(room)

    def refusal_now(self, room: str) -> Refusal | None:
        """Return the refusal that a client of this room gets without waiting; None if it may be served."""
        if self._is_away(room):
            return None if self.wait_queue.has_space_for(room) else refusal("parking_full")
        try:
            self._table.find(room)
        except Refusal as refused:
            return refused
        return None

    def has_lost(self, upstream: Upstream) -> bool:
        """Whether an upstream has lost its agent, so that ``find`` has to be called again."""
        room = upstream.room
        return not upstream.is_attached and (self._is_away(room) or self._table.get(room) is not upstream)

    def status(self, room: str) -> RoomStatus:
        """Return the public status of a room."""
        now = self._reactor.seconds()
        since = self._table.since(room, now)
        if since is None:
            return RoomStatus(room, RoomState.UNKNOWN)
        link = self._table.get(room)
        state = RoomState.AWAY
        if link is not None and link.is_attached:
            state = RoomState.ONLINE
        elif link is not None and link.is_resuming:
            state = RoomState.RESUMING
        return RoomStatus(room, state, now - since)

    def on_change(self, listener: Callable[[str], None]) -> Callable[[], None]:
        """Call ``listener`` with each room that changes; return a function that removes it."""
        return self._table.on_change(listener)

    # -- inside ----------------------------------------------------------------------------

    def _is_away(self, room: str) -> bool:
        """Whether a room is known, and no agent serves its clients at the moment."""
        link = self._table.get(room)
        return self.is_known(room) if link is None else link.is_resuming

    def _is_served(self, room: str) -> bool:
        link = self._table.get(room)
        return link is not None and link.is_attached

    def _note_changed(self, link: AgentLink) -> None:
        change = link.change or LinkChange.ATTACHED
        self._table.note_change(link.room, link, self._reactor.seconds())
        self._context.observer.notify(LinkChanged(link.room, change))
        if change is LinkChange.RESUMED:
            outcome = "resumed_early" if link.came_back_early else "resumed"
            self._context.observer.notify(ResumptionEnded(outcome))

    def _note_room(self, room: str) -> None:
        if self._is_served(room):
            self.wait_queue.note_back(room)

    def _note_lost(self, link: AgentLink, message: str) -> None:
        self.release(link)
        reason = link.lost_reason
        self._context.observer.notify(LinkChanged(link.room, LinkChange.LOST, reason))
        if reason in ("expired", "no_memory"):
            self._context.observer.notify(ResumptionEnded(reason))
        self._log.info(
            "The agent of room {room} ({room_hash}) has left: {reason}",
            room=link.room,
            room_hash=room_hash(link.room),
            reason=message,
            why=reason,
            event="link.lost",
        )
