"""Assembles the admin port of a relay or an agent, with metrics and observers.

``seance relay`` starts one beside the relay; a program that embeds a relay does the same::

    port = RelayAdmin(reactor, settings, verifier=auth)
    relay = Relay(reactor, settings, verifier=auth, observer=port.observer)
    port.watch(relay)
    # Start the relay, then the port. Stop the port before the relay or together with it: it stays open
    # until the relay has stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort

from seance.admin.event_stream import EventStream
from seance.admin.room_registry import RoomRegistry
from seance.admin.routes import common_routes, relay_routes
from seance.admin.service import AdminService
from seance.admin.site import AdminRoute
from seance.agent.service import Agent
from seance.core.interfaces import Grant, Observer, Verifier
from seance.core.observers import MultiObserver
from seance.core.settings import AgentSettings, RelaySettings
from seance.metrics.agent import AgentMetrics
from seance.metrics.exposition import CONTENT_TYPE
from seance.metrics.relay import RelayMetrics
from seance.net import ServerTls
from seance.relay.service import Relay

__all__ = ["NOWHERE", "AgentAdmin", "RelayAdmin"]

NOWHERE = "none"
"""The value of ``--admin`` for no admin port."""


class RelayAdmin(MultiService):
    """The admin port of a relay.

    Args:
        reactor: Twisted's reactor.
        settings: The settings of the relay. The admin port uses ``admin`` (not ``NOWHERE``: the caller checks
            that), ``admin_token``, ``admin_ca``, ``metrics_rooms``, ``tls_cert`` and ``tls_key``.
        verifier: Verifies tokens; the relay's own.
        routes: Further routes, which take precedence; ``page_routes(...)`` for the dashboard.

    Attributes:
        observer: Pass this to the relay.
    """

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        settings: RelaySettings,
        *,
        verifier: Verifier | None = None,
        routes: Iterable[AdminRoute] = (),
    ) -> None:
        super().__init__()
        metrics = RelayMetrics(reactor, by_room=settings.metrics_rooms)
        registry = RoomRegistry(reactor)
        self._events = EventStream(reactor, registry, metrics.figures, self._is_still_good)
        self._metrics, self._registry = metrics, registry
        self._relay: Relay | None = None
        self.observer: Observer = MultiObserver(metrics, registry, self._events)
        tls = None
        if settings.tls_cert is not None:
            tls = ServerTls(settings.tls_cert, settings.tls_key, settings.admin_ca)
        self._service = AdminService(
            reactor,
            settings.admin,
            [
                *routes,
                *common_routes(self._not_ready_reason, metrics.exposition.page, CONTENT_TYPE),
                *relay_routes(registry, self._events),
            ],
            verifier=verifier,
            requires_token=settings.admin_token or settings.admin_ca is not None,
            tls=tls,
            requests_certificate=settings.admin_ca is not None,
            remedy="give --auth-key FILE or --admin-ca FILE, or keep it on 127.0.0.1 without --admin-token",
            before_close=self._when_stopped,
            on_close=self._events.close,
        )
        metrics.lag.setServiceParent(self)
        self._service.setServiceParent(self)

    def watch(self, relay: Relay) -> None:
        """Set the relay to report on; it must have ``observer``."""
        self._relay = relay
        self._metrics.watch(relay)
        self._registry.watch(relay)

    def when_listening(self) -> Deferred[IListeningPort | None]:
        """Wait for the port; None if the default port is in use. Fails with ``ConfigError``."""
        return self._service.when_listening()

    def reread(self) -> None:
        """Reload the certificate, for SIGHUP."""
        self._service.reread()

    def _is_still_good(self, grant: Grant) -> bool:
        return self._service.is_still_good(grant)

    def _not_ready_reason(self) -> str:
        relay = self._relay
        if relay is not None and relay.is_draining:
            return "draining"
        return "" if relay is not None and relay.is_ready else "not listening"

    def _when_stopped(self) -> Deferred[None]:
        return succeed(None) if self._relay is None else self._relay.stopService()


class AgentAdmin(MultiService):
    """The admin port of an agent: health and metrics.

    Args:
        reactor: Twisted's reactor.
        settings: The agent's settings.

    Attributes:
        observer: Pass this to the agent.
    """

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        settings: AgentSettings,
    ) -> None:
        super().__init__()
        metrics = AgentMetrics(reactor)
        self._metrics = metrics
        self._agent: Agent | None = None
        self.observer: Observer = metrics
        self._service = AdminService(
            reactor,
            settings.admin,
            common_routes(self._not_ready_reason, metrics.exposition.page, CONTENT_TYPE),
            risk="read this agent's metrics",
            remedy="an agent cannot require tokens, so keep it on 127.0.0.1",
        )
        metrics.lag.setServiceParent(self)
        self._service.setServiceParent(self)

    def watch(self, agent: Agent) -> None:
        """Set the agent to report on; it must have ``observer``."""
        self._agent = agent
        self._metrics.watch(agent)

    def when_listening(self) -> Deferred[IListeningPort | None]:
        """Wait for the port. Fails with ``ConfigError``."""
        return self._service.when_listening()

    def _not_ready_reason(self) -> str:
        agent = self._agent
        if agent is None:
            return "not running"
        is_up = agent.relay_link is not None and agent.relay_link.is_attached
        return "" if is_up else agent.status.state.value
