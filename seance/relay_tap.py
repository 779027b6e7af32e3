"""Makes a relay from its options, for ``twistd seance-relay`` and ``seance relay``.

``twisted/plugins/seance_plugins.py`` gives twistd the name of this module. A program that embeds a relay uses
``seance.Relay``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

from twisted.application.service import IService

from seance.admin.port import NOWHERE, RelayAdmin
from seance.admin.routes import page_routes
from seance.auth.identity import IdentityChecker
from seance.auth.service import AuthService
from seance.cli.foreground import run_in_foreground
from seance.cli.health_socket import HealthSocket, health_of_relay
from seance.cli.malloc_thresholds import keep_freed_memory
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
from seance.options.flags import ProgramOptions
from seance.relay.service import Relay

__all__ = ["Options", "main", "makeService"]


class Options(ProgramOptions[RelaySettings], program=Program.RELAY):
    """The command line of a relay."""

    longdesc = "Accepts agents at /agent?room=ROOM and connects clients at /client?room=ROOM to them."

    def make_settings(
        self, flags: Mapping[str, Sequence[str]], environment: Mapping[str, str]
    ) -> RelaySettings:
        """See ``relay_settings``."""
        return relay_settings(flags, environment)


def makeService(options: Options) -> IService:
    """Return the service, not started; twistd calls this."""
    redact_logs()  # twistd adds its observer after this
    # Imported on use: twistd installs the reactor, and importing this module must not.
    from twisted.internet import reactor  # noqa: PLC0415

    use_monotonic_clock(reactor)
    keep_freed_memory(os.environ)
    use_daemon_lookups(reactor)
    raise_descriptor_limit(reactor)
    settings = options.settings
    settings = replace(
        settings,
        listen=tuple(map(resolve_interface, settings.listen)),
        admin=settings.admin and resolve_interface(settings.admin),
    )
    wanted, limit = _connections(settings), descriptor_limit()
    # The relay lowers both limits itself; for the defaults that is not worth a warning.
    if limit is not None and limit < wanted != _connections(RelaySettings()):
        log_lowered("--connections and --reserved-connections", wanted, limit)
    service = options.make_services()
    # First, because a program that waits for a log line may then send a signal.
    StopOnSignal(reactor).setServiceParent(service)
    ReopenLogsOnSignal(reactor).setServiceParent(service)
    reload = ReloadOnSighup(reactor)
    reload.setServiceParent(service)
    auth = None
    if settings.auth_key or settings.auth_jwks:
        auth = AuthService(reactor, keys=settings.auth_key, jwks=settings.auth_jwks, deny=settings.deny)
        auth.setServiceParent(service)  # before the relay, which uses it
        reload.add(auth.reread)
    admin = None
    if settings.admin != NOWHERE:
        admin = RelayAdmin(reactor, settings, verifier=auth, routes=page_routes(dashboard_pages()))
    observer = None if admin is None else admin.observer
    relay = Relay(reactor, settings, verifier=auth, identities=IdentityChecker(), observer=observer)
    HealthSocket(reactor, lambda: health_of_relay(relay), relay.stopService).setServiceParent(service)
    relay.setServiceParent(service)
    reload.add(relay.reread)
    if admin is not None:
        admin.watch(relay)
        admin.setServiceParent(service)
        reload.add(admin.reread)
    return service


def _connections(settings: RelaySettings) -> int:
    return settings.connections + settings.reserved_connections


def main(arguments: Sequence[str]) -> int:
    """Run ``seance relay`` until a signal; return the exit status."""
    return run_in_foreground("seance relay", Options(), makeService, arguments)
