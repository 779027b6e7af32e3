"""What operators ask, put together: an admin port with its witnesses, for a relay or for an agent.

The doors make one of these and start it beside the relay; a program that embeds a relay does the same::

    port = RelayAdmin(reactor, settings, verifier=auth)
    relay = Relay(reactor, settings, verifier=auth, witness=port.witness)
    port.watch(relay)
    # Then start the relay, and the port after it; stop the port first or together with the relay: it
    # stays until the relay has taken leave.

Here, on the top floor, because ``seance.admin``, ``seance.metrics`` and the pages do not know each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort

from seance.admin.event_stream import Feed
from seance.admin.room_registry import RoomRegistry
from seance.admin.routes import common_places, relay_places
from seance.admin.service import AdminService
from seance.admin.site import Place
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
"""As ``--admin``: no admin port."""


class RelayAdmin(MultiService):
    """The admin port of a relay.

    Args:
        reactor: Twisted's reactor.
        settings: The relay's; ``admin``, ``admin_token``, ``admin_ca``, ``metrics_rooms`` and the certificate
            count here. The door looks for ``NOWHERE`` itself.
        verifier: Who judges tokens, the same as the relay's.
        places: What else is there, and asked first: ``page_places(...)`` with a dashboard at ``/`` and below
            ``/static/``, for example.

    Attributes:
        observer: For the relay.
    """

    def __init__(
        self,
        reactor: Any,  # noqa: ANN401  # no common type
        settings: RelaySettings,
        *,
        verifier: Verifier | None = None,
        places: Iterable[Place] = (),
    ) -> None:
        super().__init__()
        metrics = RelayMetrics(reactor, by_room=settings.metrics_rooms)
        registry = RoomRegistry(reactor)
        self._feed = Feed(reactor, registry, metrics.figures, self._is_still_good)
        self._metrics, self._census = metrics, registry
        self._relay: Relay | None = None
        self.observer: Observer = MultiObserver(metrics, registry, self._feed)
        tls = None
        if settings.tls_cert is not None:
            tls = ServerTls(settings.tls_cert, settings.tls_key, settings.admin_ca)
        self._service = AdminService(
            reactor,
            settings.admin,
            [
                *places,
                *common_places(self._why_not_ready, metrics.exposition.page, CONTENT_TYPE),
                *relay_places(registry, self._feed),
            ],
            verifier=verifier,
            asks_for_token=settings.admin_token or settings.admin_ca is not None,
            tls=tls,
            asks_for_certificate=settings.admin_ca is not None,
            remedy="give --auth-key FILE or --admin-ca FILE, or keep it on 127.0.0.1 without --admin-token",
            before_end=self._when_over,
            on_end=self._feed.close,
        )
        metrics.lag.setServiceParent(self)
        self._service.setServiceParent(self)

    def watch(self, relay: Relay) -> None:
        """Tell of this relay, which has ``observer``, from now on."""
        self._relay = relay
        self._metrics.watch(relay)
        self._census.watch(relay)

    def when_listening(self) -> Deferred[IListeningPort | None]:
        """Wait for the port; None if the default one was taken. Fails with ``ConfigError``."""
        return self._service.when_listening()

    def reread(self) -> None:
        """Read the certificate again, for SIGHUP."""
        self._service.reread()

    def _is_still_good(self, grant: Grant) -> bool:
        return self._service.is_still_good(grant)

    def _why_not_ready(self) -> str:
        relay = self._relay
        if relay is not None and relay.is_draining:
            return "draining"
        return "" if relay is not None and relay.is_ready else "not listening"

    def _when_over(self) -> Deferred[None]:
        return succeed(None) if self._relay is None else self._relay.stopService()


class AgentAdmin(MultiService):
    """The admin port of an agent: health and metrics.

    Args:
        reactor: Twisted's reactor.
        settings: The agent's.

    Attributes:
        observer: For the agent.
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
            common_places(self._why_not_ready, metrics.exposition.page, CONTENT_TYPE),
            risk="read this agent's figures",
            remedy="an agent asks for no tokens, so keep it on 127.0.0.1",
        )
        metrics.lag.setServiceParent(self)
        self._service.setServiceParent(self)

    def watch(self, agent: Agent) -> None:
        """Tell of this agent, which has ``observer``, from now on."""
        self._agent = agent
        self._metrics.watch(agent)

    def when_listening(self) -> Deferred[IListeningPort | None]:
        """Wait for the port. Fails with ``ConfigError``."""
        return self._service.when_listening()

    def _why_not_ready(self) -> str:
        agent = self._agent
        if agent is None:
            return "not running"
        is_up = agent.relay_link is not None and agent.relay_link.is_attached
        return "" if is_up else agent.status.state.value
