"""The relay: listens, keeps the table of rooms, and brings clients to agents.

``Relay(reactor, settings)`` is a Twisted service. ``startService`` listens; ``when_listening``
tells where; ``stopService`` takes leave of the agents. Everything that arrives comes in through
``seance.relay.edge.frontend``. The doors (``twistd seance-relay``, ``seance relay``) only make settings
and start this; a program of yours can do the same (docs/programmatic.md).
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.carrier import CarrierAnswerer
from seance.core.interfaces import Grant, IdentityVerifier, LinkChange, Observer, Verifier
from seance.core.observers import NullObserver, room_hash
from seance.core.per_turn_limiter import PerTurnLimiter
from seance.core.settings import RelaySettings
from seance.errors import ConfigError, Refusal
from seance.net import FileWatcher, HandshakeLog, LogLimiter, OneShotEvent, ServerTls, descriptor_limit
from seance.relay.drain import Departures, Drain
from seance.relay.edge.admission import Admission
from seance.relay.edge.frontend import FrontendFactory
from seance.relay.edge.rejection_log import RejectionLog
from seance.relay.edge.room_status import Presence
from seance.relay.edge.trusted_proxies import TrustedProxies
from seance.relay.listeners import claim_ports, log_addresses
from seance.relay.rooms.active_grants import ActiveGrants, GrantHandle
from seance.relay.rooms.agent_link import RETRY_AFTER, AgentLink
from seance.relay.rooms.agent_wait_queue import AgentWaitQueue
from seance.relay.rooms.resume_memory import ResumeMemoryLimit
from seance.relay.rooms.room_table import RoomTable
from seance.resume import ResumeRequest
from seance.yamux import WindowBudget

__all__ = ["Relay"]

IDENTITY_SHOWN = 8
"""Characters of an identity that stand in the log: enough to tell two apart."""

LAST_WORD_SECONDS = 0.05
"""For what was just said to clients that waited for an agent to leave for the kernel."""

LAST_CALL_SECONDS = 1.0
"""For sockets that were cut to be gone, which takes one turn of the reactor."""


class Relay(Service):
    """The public process.

    Args:
        reactor: Twisted's reactor.
        settings: What it was told.
        verifier: Who judges tokens; None lets everybody in.
        identities: Who tells agents apart; None takes them all for plain ones, unless a token says
            who they are.
        observer: Who is told what happens; None for nobody.

    Raises:
        ConfigError: A trusted proxy in ``settings`` cannot be read.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        settings: RelaySettings | None = None,
        *,
        verifier: Verifier | None = None,
        identities: IdentityVerifier | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._reactor = reactor
        self.settings = settings or RelaySettings()
        self.verifier = verifier
        self.identities = identities
        self.observer = observer or NullObserver()
        may_expire = verifier is not None or self.settings.agent_ca is not None
        self.grants = ActiveGrants(reactor, verifier) if may_expire else None
        self.proxies = TrustedProxies(self.settings.trusted_proxy, self._note_unreadable)
        self._unreadable_limit = LogLimiter(reactor)
        self.admission = Admission(self.settings, descriptor_limit())
        self.answerer = CarrierAnswerer(reactor)
        self.front = FrontendFactory(reactor, self)
        self.handshakes = HandshakeLog(reactor)
        self._strangers = RejectionLog(reactor)
        self._tls = _tls_of(self.settings)
        self._file_watcher = FileWatcher(
            reactor, [self._tls] if self._tls else [], self._note_new_certificate
        )
        grace_seconds, known_seconds = self.settings.room_grace_seconds, self.settings.known_room_seconds
        self._rooms: RoomTable[AgentLink] = RoomTable(grace_seconds, known_seconds)
        self._rooms.on_change(self._note_room)
        self.resume_memory = ResumeMemoryLimit(
            reactor, self.settings.resume_bytes_in_all, lambda: self._rooms
        )
        self.resume_memory.on_tight = lambda: self.observer.limit_hit("resume_bytes")
        self._windows = WindowBudget()
        self._windows.on_exhausted = lambda: self.observer.limit_hit("window_budget")
        most = self.admission.most_waiting
        self.wait_queue = AgentWaitQueue(reactor, self.settings, self._is_served, most=most)
        self.turns = PerTurnLimiter(reactor)
        self.presence = Presence(reactor, self.settings, self._rooms, most=most)
        self._listening: OneShotEvent[list[IListeningPort]] = OneShotEvent()
        self._ports: list[IListeningPort] = []
        self._claiming: Deferred[list[IListeningPort]] | None = None
        self.departures = Departures(reactor)
        self._drain: Drain | None = None
        self.is_draining = False

    # -- figures ---------------------------------------------------------------------------

    @property
    def room_count(self) -> int:
        """Rooms that are served now."""
        return len(self._rooms)

    @property
    def links(self) -> list[AgentLink]:
        """The links of all rooms that are served now, those of agents that may come back included."""
        return list(self._rooms)

    def link_of(self, room: str) -> AgentLink | None:
        """Return the link that serves a room, or None."""
        return self._rooms.get(room)

    @property
    def is_ready(self) -> bool:
        """Whether it listens and takes whoever comes."""
        return bool(self._ports) and self._listening.has_fired and not self.is_draining

    @property
    def client_count(self) -> int:
        """Clients that are connected to an agent now."""
        return sum(link.stream_count for link in self._rooms)

    def when_listening(self) -> Deferred[list[IListeningPort]]:
        """Wait for the listening ports. Fails with ``ConfigError`` if one cannot be had."""
        return self._listening.when()

    # -- IService --------------------------------------------------------------------------

    def startService(self) -> None:
        """Listen.

        Raises:
            ConfigError: An address cannot be listened on, or a certificate not be used, and that is
                known at once.
        """
        super().startService()
        self.is_draining = False
        self.wait_queue.open()
        self.presence.open()
        self._listening.reset()
        self._claiming = Deferred.fromCoroutine(self._listen())
        self._claiming.addCallbacks(self._listening.fire, self._listening.fail)
        if self._listening.failure is not None:
            self.running = False
            self._listening.failure.raiseException()
        self._listening.when().addErrback(self._note_no_port)
        self._file_watcher.startService()
        self.resume_memory.start()
        if self.grants is not None:
            self.grants.start()

    def stopService(self) -> Deferred[None]:
        """Stop listening, send agents and clients away, and wait for that, ``drain_seconds`` at most.

        ``seance.relay.drain`` says who goes when. A second call waits for the same.
        """
        super().stopService()
        self.is_draining = True
        return Deferred.fromCoroutine(self._leave())

    def reread(self) -> None:
        """Read the certificate again, for SIGHUP; a changed one is read without being told."""
        self._file_watcher.reread()

    async def _listen(self) -> list[IListeningPort]:
        try:
            if self._tls is not None:
                self._tls.load()
            await claim_ports(self._reactor, self, self._tls, self._ports)
        except ConfigError:
            for port in self._ports:
                maybeDeferred(port.stopListening).addErrback(self._note_stop_failure)
            self._ports.clear()
            raise
        log_addresses(self._ports, self.settings)
        return list(self._ports)

    def _note_no_port(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            why = failure.getErrorMessage()
            self._log.critical("The relay listens nowhere: {why}", why=why, event="relay.listen_failed")

    def _note_stop_failure(self, failure: Failure) -> None:
        self._log.failure("A port could not be closed", failure, event="relay.stop_failed")

    def _note_unreadable(self, peer: str, what: str) -> None:
        suppressed = self._unreadable_limit.admit(peer)
        if suppressed is not None:
            self._log.warn(
                "The trusted proxy {peer} {what}: its clients are counted as one address "
                "until it sets X-Forwarded-For to theirs ({suppressed} more since the last such line)",
                peer=peer,
                what=what,
                suppressed=suppressed,
                event="proxy.unreadable",
            )

    def _note_new_certificate(self) -> None:
        self._log.info("The certificate was read again and holds from now on", event="tls.reloaded")

    async def _leave(self) -> None:
        if self._drain is not None:
            await self._drain.when_over()
            return
        drain = self._drain = Drain(self._reactor, self.settings, self.departures)
        self._file_watcher.stopService()
        self.resume_memory.stop()
        if self._claiming is not None:
            self._claiming.cancel()
        ports, self._ports = self._ports, []
        for port in ports:
            await maybeDeferred(port.stopListening).addErrback(self._note_stop_failure)
        was_waited_for = len(self.wait_queue) > 0
        self.wait_queue.close()
        self.presence.close()
        links = list(self._rooms)
        drain.begin(links)
        await drain.when_over()
        if was_waited_for:
            await deferLater(self._reactor, LAST_WORD_SECONDS)
        self.front.cut_pending()
        if self.grants is not None:
            self.grants.stop()
        gone: Deferred[Any] = DeferredList([link.when_lost() for link in links], consumeErrors=True)
        await gone.addTimeout(LAST_CALL_SECONDS, self._reactor).addErrback(lambda _: None)
        self._drain = None

    # -- for operators -------------------------------------------------------------------

    def close_room(self, room: str, sentence: str) -> bool:
        """Send the agent of a room away, and its clients with it; False if nobody serves it."""
        link = self._rooms.get(room)
        if link is None:
            return False
        if link.is_resuming:
            link.give_up_waiting(sentence, "sent_away")
        else:
            link.disconnect(sentence)
        return True

    # -- for the front ---------------------------------------------------------------------

    def claim(
        self,
        room: str,
        grant: Grant | None = None,
        *,
        identity: str | None = None,
        address: str = "",
        may_replace: bool = True,
    ) -> AgentLink:
        """Give a room to a new link.

        Args:
            room: The room.
            grant: What the agent's token allows; None if none is asked for.
            identity: Who the agent has proven to be, or None.
            address: Where it dials from, for the log.
            may_replace: Whether it wants the room if the same agent serves it already.

        Raises:
            Refusal: 409, another agent serves the room or has just done so.
        """
        if not self.running:
            sentence = "This relay is stopping; try again."
            raise Refusal(503, sentence, code="relay_stopping", headers=(RETRY_AFTER,))
        if self.resume_memory.is_used_up:
            sentence = "This relay has no memory left for a further agent; try again later."
            raise Refusal(503, sentence, code="relay_memory", headers=(RETRY_AFTER,))
        link = AgentLink(self._reactor, self.settings, room, self._note_lost, self._windows)
        link.on_change, link.address = self._note_changed, address
        who = "nobody in particular" if identity is None else identity[:IDENTITY_SHOWN]
        now = self._reactor.seconds()
        try:
            stale = self._rooms.claim(room, link, identity=identity, now=now, may_replace=may_replace)
        except Refusal as refusal:
            self._strangers.room_refused(room, who, address, refusal.code)
            holder = self._rooms.get(room)
            raise (holder and holder.refusal_while_away()) or refusal from None
        if stale is not None:
            self._log.info(
                "Room {room} was taken over from its old link by the same agent {identity} from {address}",
                room=room,
                identity=who,
                address=address,
                event="room.taken_over",
            )
            link.succeed(stale)
            stale.make_way()
        if grant is not None and self.grants is not None:
            link.stand_on(grant, self.grants)
        return link

    def resume(
        self, room: str, resume_request: ResumeRequest, grant: Grant | None, *, address: str = ""
    ) -> tuple[AgentLink, dict[str, str]] | str:
        """Let an agent that has lost its carrier go on where it was.

        Args:
            room: The room.
            resume_request: What the agent says about its session.
            grant: What its token allows; None if none is asked for.
            address: Where it dials from, for the log.

        Returns:
            Its link, and what the 101 has to say; or why it has to begin anew: ``unknown`` or ``gap``.

        Raises:
            Refusal: 429, it comes back again and again; 409, another process with its key has come meanwhile.
        """
        link = self._rooms.get(room)
        if link is not None:
            link.check_not_replaced(resume_request)
        if link is None or not self.running or not link.is_asked_for(resume_request, grant):
            self.observer.resumption("unknown")
            self._strangers.session_unknown(room, address)
            return "unknown"
        try:
            headers = link.resume(resume_request, grant, self.grants)
        except Refusal:
            self.observer.resumption("flaps")
            raise
        if headers is None:
            self.observer.resumption("gap")
            link.make_way()
            return "gap"
        return link, headers

    def give_back(self, handle: GrantHandle | None) -> None:
        """Forget the permit of whoever has gone, if there was one."""
        if self.grants is not None and handle is not None:
            self.grants.remove(handle)

    def release(self, link: AgentLink) -> None:
        """Free the room of a link that never came up."""
        now = self._reactor.seconds()
        self._rooms.release(link.room, link, now, was_served=link.was_attached)
        self.give_back(link.handle)

    def pause_accepting(self) -> None:
        """Take no further connection until ``resume_accepting``; the kernel holds a few."""
        for port in self._ports:
            port.stopReading()  # type: ignore[attr-defined]  # of every reactor's ports

    def resume_accepting(self) -> None:
        """Take connections again."""
        for port in self._ports:
            port.startReading()  # type: ignore[attr-defined]  # as above

    def find(self, room: str) -> AgentLink:
        """Return the link of a room.

        Raises:
            Refusal: 404, nobody serves it.
        """
        return self._rooms.find(room)

    def is_known(self, room: str) -> bool:
        """Whether a room is served, or has been lately."""
        return self._rooms.since(room, self._reactor.seconds()) is not None

    def is_away(self, room: str) -> bool:
        """Whether a room is known, and nobody is there for its clients at the moment."""
        link = self._rooms.get(room)
        return self.is_known(room) if link is None else link.is_resuming

    def has_lost(self, link: AgentLink) -> bool:
        """Whether the agent of a link has gone, so that its room is to be asked for again."""
        return not link.is_attached and (self.is_away(link.room) or self.link_of(link.room) is not link)

    async def when_served(self, room: str, since_seconds: float | None = None) -> AgentLink:
        """Return the link of a room; if its agent is away, wait until it is back.

        See ``AgentWaitQueue.when_back``.

        Raises:
            Refusal: 404, nobody serves it and nobody has done so lately; 503, the agent did not come
                back in time, as many wait for it as may, or the relay is stopping.
        """
        if self.is_away(room):
            waiting = self.wait_queue.when_back(room, since_seconds)
            if not waiting.called:
                self.observer.parked(room)
            await waiting
        return self._rooms.find(room)

    def _is_served(self, room: str) -> bool:
        link = self._rooms.get(room)
        return link is not None and link.is_attached

    def _note_changed(self, link: AgentLink) -> None:
        change = link.change or LinkChange.ATTACHED
        self._rooms.note_change(link.room, link, self._reactor.seconds())
        self.observer.link_changed(link.room, change)
        if change is LinkChange.RESUMED:
            self.observer.resumption("resumed_early" if link.came_back_early else "resumed")

    def _note_room(self, room: str) -> None:
        if self._is_served(room):
            self.wait_queue.note_back(room)

    def _note_lost(self, link: AgentLink, sentence: str) -> None:
        self.release(link)
        why = link.lost_reason
        self.observer.link_changed(link.room, LinkChange.LOST, why)
        if why in ("expired", "no_memory"):
            self.observer.resumption(why)
        self._log.info(
            "The agent of room {room} ({room_hash}) has left: {reason}",
            room=link.room,
            room_hash=room_hash(link.room),
            reason=sentence,
            why=why,
            event="link.lost",
        )


def _tls_of(settings: RelaySettings) -> ServerTls | None:
    if settings.tls_cert is None:
        return None
    return ServerTls(settings.tls_cert, settings.tls_key, settings.agent_ca)
