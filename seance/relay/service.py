"""The relay: a Twisted service that listens and joins clients to agents.

``Relay(reactor, settings)`` listens in ``startService``; ``when_listening`` returns the ports.
``stopService`` drains agents and clients. Every connection enters through ``seance.relay.edge.frontend``;
``seance.relay.rooms`` decides which agent serves a room. The programs (``twistd seance-relay``, ``seance
relay``) make the settings and start this service, as any other program can (docs/programmatic.md).
"""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredList
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from seance.core.interfaces import IdentityVerifier, Observer, Verifier
from seance.core.observers import NullObserver
from seance.core.settings import RelaySettings
from seance.net import FileWatcher, OneShotEvent, ServerTls, descriptor_limit
from seance.relay.context import RelayContext
from seance.relay.drain import Departures, Drain
from seance.relay.edge.admission import Admission
from seance.relay.edge.frontend import FrontendFactory
from seance.relay.listeners import Listeners
from seance.relay.rooms.active_grants import ActiveGrants
from seance.relay.rooms.local_directory import LocalRoomDirectory

__all__ = ["Relay"]

LAST_WRITE_SECONDS = 0.05
"""Time for the kernel to send the refusals of clients that waited for an agent."""

LOST_SECONDS = 1.0
"""Bound of the wait for connections that were cut, which takes one turn of the reactor."""


class Relay(Service):
    """The relay service: accepts public connections and joins clients to agents.

    Args:
        reactor: Twisted's reactor.
        settings: The settings; None for the defaults.
        verifier: Verifies tokens; None: clients and agents need none.
        identities: Verifies the identity of agents; None: only tokens name agents.
        observer: Receives each event; None: no observer.

    Attributes:
        settings: The settings.
        context: What all parts of the relay use.
        rooms: Which agent serves which room.
        front: The public connections.

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
        self.settings = settings = settings or RelaySettings()
        may_expire = verifier is not None or settings.agent_ca is not None
        grants = ActiveGrants(reactor, verifier) if may_expire else None
        self.context = RelayContext(
            reactor, settings, observer or NullObserver(), verifier, identities, grants
        )
        self._tls = _tls_of(settings)
        self._file_watcher = FileWatcher(
            reactor, [self._tls] if self._tls else [], self._note_new_certificate
        )
        self._departures = Departures(reactor)
        self._listeners = Listeners(self.context, self._tls)
        admission = Admission(settings, descriptor_limit())
        self.rooms = LocalRoomDirectory(self.context, max_waiting=admission.max_waiting)
        self.front = FrontendFactory(self.context, self.rooms, admission, self._departures, self._listeners)
        self._listening: OneShotEvent[list[IListeningPort]] = OneShotEvent()
        self._starting: Deferred[list[IListeningPort]] | None = None
        self._drain: Drain | None = None

    @property
    def is_ready(self) -> bool:
        """Whether the relay listens and accepts new agents and clients."""
        return self._listeners.is_listening and self._listening.has_fired and not self.is_draining

    @property
    def is_draining(self) -> bool:
        """Whether the relay is stopping."""
        return self.front.is_draining

    @property
    def room_count(self) -> int:
        """Rooms that are served now."""
        return self.rooms.room_count

    @property
    def client_count(self) -> int:
        """Clients that are connected to an agent now."""
        return self.rooms.client_count

    def when_listening(self) -> Deferred[list[IListeningPort]]:
        """Wait for the listening ports. Fails with ``ConfigError`` if one cannot be had."""
        return self._listening.when()

    # -- IService --------------------------------------------------------------------------

    def startService(self) -> None:
        """Listen.

        Raises:
            ConfigError: An address cannot be listened on, or a certificate cannot be used, and that is known
                immediately.
        """
        super().startService()
        self.rooms.start()
        self.front.open()
        self._listening.reset()
        self._starting = Deferred.fromCoroutine(self._listen())
        self._starting.addCallbacks(self._listening.fire, self._listening.fail)
        if self._listening.failure is not None:
            self.running = False
            self.rooms.stop_claims()
            self._listening.failure.raiseException()
        self._listening.when().addErrback(self._note_no_port)
        self._file_watcher.startService()
        if self.context.grants is not None:
            self.context.grants.start()

    def stopService(self) -> Deferred[None]:
        """Stop listening, drain agents and clients, and wait for that, ``drain_seconds`` at most.

        ``seance.relay.drain`` has the order. A second call waits for the same drain.
        """
        super().stopService()
        self.front.is_draining = True
        self.rooms.stop_claims()
        return Deferred.fromCoroutine(self._leave())

    def reread(self) -> None:
        """Read the certificate again, for SIGHUP; a changed file is also read without this call."""
        self._file_watcher.reread()

    async def _listen(self) -> list[IListeningPort]:
        if self._tls is not None:
            self._tls.load()
        return await self._listeners.listen(self.front)

    async def _leave(self) -> None:
        if self._drain is not None:
            await self._drain.when_over()
            return
        drain = self._drain = Drain(self._reactor, self.settings, self._departures)
        self._file_watcher.stopService()
        if self._starting is not None:
            self._starting.cancel()
        await self._listeners.stop()
        had_waiting_clients = len(self.rooms.wait_queue) > 0
        self.rooms.wait_queue.close()
        self.front.presence.close()
        links = self.rooms.links
        drain.begin(links)
        await drain.when_over()
        if had_waiting_clients:
            await deferLater(self._reactor, LAST_WRITE_SECONDS)
        self.front.cut_pending()
        if self.context.grants is not None:
            self.context.grants.stop()
        gone: Deferred[Any] = DeferredList([link.when_lost() for link in links], consumeErrors=True)
        await gone.addTimeout(LOST_SECONDS, self._reactor).addErrback(lambda _: None)
        self._drain = None

    def _note_no_port(self, failure: Failure) -> None:
        if failure.check(CancelledError) is None:
            why = failure.getErrorMessage()
            self._log.critical("The relay listens nowhere: {why}", why=why, event="relay.listen_failed")

    def _note_new_certificate(self) -> None:
        self._log.info("The certificate was read again and holds from now on", event="tls.reloaded")


def _tls_of(settings: RelaySettings) -> ServerTls | None:
    if settings.tls_cert is None:
        return None
    return ServerTls(settings.tls_cert, settings.tls_key, settings.agent_ca)
