"""``twistd seance-relay`` and ``seance relay``: from options to a relay.

twistd finds this module by its name, through ``twisted/plugins/seance_plugins.py``. To run a
relay inside a program of your own, use ``seance.relay.service.Relay`` directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from twisted.application.service import IService

from seance.admin.port import NOWHERE, RelayAdmin
from seance.admin.routes import page_routes
from seance.auth.identity import IdentityChecker
from seance.auth.service import AuthService
from seance.cli.foreground import run_in_foreground
from seance.cli.health_socket import HealthSocket, health_of_relay
from seance.cli.monotonic_clock import use_monotonic_clock
from seance.cli.reload_on_sighup import ReloadOnSighup
from seance.cli.stop_on_signal import StopOnSignal
from seance.core.settings import RelaySettings
from seance.dashboard.pages import dashboard_pages
from seance.logs.files import ReopenLogsOnSignal
from seance.logs.redacting import redact_logs
from seance.net import (
    descriptor_limit,
    log_lowered,
    raise_descriptor_limit,
    resolve_interface,
    use_daemon_lookups,
)
from seance.options import Program
from seance.options.config import relay_settings
from seance.options.flags import TableOptions
from seance.relay.service import Relay

__all__ = ["Options", "main", "makeService"]


class Options(TableOptions[RelaySettings], program=Program.RELAY):
    """What a relay can be told on the command line."""

    longdesc = "Takes in agents at /agent?room=ROOM and brings clients at /client?room=ROOM to them."

    def make_settings(
        self, flags: Mapping[str, Sequence[str]], environment: Mapping[str, str]
    ) -> RelaySettings:
        """Returns the settings."""
        return relay_settings(flags, environment)


def makeService(options: Options) -> IService:
    """Returns the relay, not started; twistd calls this."""
    redact_logs()  # twistd begins to write its log only after this
    # Imported on use: twistd has chosen the reactor by now, and an import of ours must not.
    from twisted.internet import reactor  # noqa: PLC0415

    use_monotonic_clock(reactor)
    use_daemon_lookups(reactor)
    raise_descriptor_limit(reactor)
    settings = options.settings
    settings = replace(
        settings,
        listen=tuple(map(resolve_interface, settings.listen)),
        admin=settings.admin and resolve_interface(settings.admin),
    )
    wanted, limit = _connections(settings), descriptor_limit()
    if limit is not None and limit < wanted != _connections(RelaySettings()):  # the default just follows
        log_lowered("--connections and --reserved-connections", wanted, limit)  # by the relay itself
    service = options.make_services()
    StopOnSignal(reactor).setServiceParent(service)  # first: whoever reads our log may send one
    ReopenLogsOnSignal(reactor).setServiceParent(service)
    hangup = ReloadOnSighup(reactor)
    hangup.setServiceParent(service)
    auth = None
    if settings.auth_key or settings.auth_jwks:
        auth = AuthService(reactor, keys=settings.auth_key, jwks=settings.auth_jwks, deny=settings.deny)
        auth.setServiceParent(service)  # before the relay, which asks it
        hangup.add(auth.reread)
    admin = None
    if settings.admin != NOWHERE:
        admin = RelayAdmin(reactor, settings, verifier=auth, routes=page_routes(dashboard_pages()))
    observer = None if admin is None else admin.observer
    relay = Relay(reactor, settings, verifier=auth, identities=IdentityChecker(), observer=observer)
    HealthSocket(reactor, lambda: health_of_relay(relay), relay.stopService).setServiceParent(service)
    relay.setServiceParent(service)
    hangup.add(relay.reread)
    if admin is not None:
        admin.watch(relay)
        admin.setServiceParent(service)
        hangup.add(admin.reread)
    return service


def _connections(settings: RelaySettings) -> int:
    return settings.connections + settings.reserved_connections


def main(arguments: Sequence[str]) -> int:
    """Runs ``seance relay`` until it is told to stop; returns the exit status."""
    return run_in_foreground("seance relay", Options(), makeService, arguments)
