"""Makes an agent from its options, for ``twistd seance-agent`` and ``seance agent``.

``twisted/plugins/seance_plugins.py`` gives twistd the name of this module. A program that embeds an agent
uses ``seance.Agent``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from twisted.application.service import IService
from twisted.internet.error import ReactorNotRunning

from seance.admin.port import NOWHERE, AgentAdmin
from seance.agent.service import Agent
from seance.auth.agent_key import agent_identity
from seance.cli.foreground import run_in_foreground
from seance.cli.health_socket import HealthSocket, health_of_agent
from seance.cli.malloc_thresholds import keep_freed_memory
from seance.cli.monotonic_clock import use_monotonic_clock
from seance.cli.reload_on_sighup import ReloadOnSighup
from seance.cli.status_lines import StatusLines
from seance.cli.stop_on_signal import StopOnSignal
from seance.core.settings import AgentSettings
from seance.errors import ConfigError
from seance.logs.files import ReopenLogsOnSignal
from seance.logs.redacting import redact_logs
from seance.net import agent_stream_limit, log_lowered, raise_descriptor_limit, use_daemon_lookups
from seance.options import Program
from seance.options.config import agent_settings
from seance.options.flags import ProgramOptions

__all__ = ["Options", "main", "makeService"]


class Options(ProgramOptions[AgentSettings], program=Program.AGENT):
    """The command line of an agent."""

    longdesc = "Connects to a relay and forwards the clients of one room to a server on this machine."

    def make_settings(
        self, flags: Mapping[str, Sequence[str]], environment: Mapping[str, str]
    ) -> AgentSettings:
        """See ``agent_settings``; ``--status-json`` needs the foreground."""
        settings = agent_settings(flags, environment)
        if settings.status_json and self.parent is not None and not self.parent.get("nodaemon"):
            message = "--status-json writes to a parent process, which a daemon does not have; run twistd -n."
            raise ConfigError(message, code="status_json")
        return settings


def makeService(options: Options) -> IService:
    """Return the service, not started; twistd calls this."""
    redact_logs()  # twistd adds its observer after this
    # Imported on use: twistd installs the reactor, and importing this module must not.
    from twisted.internet import reactor  # noqa: PLC0415

    use_monotonic_clock(reactor)
    keep_freed_memory(os.environ)
    use_daemon_lookups(reactor)
    raise_descriptor_limit(reactor)
    service = options.make_services()
    # First, because a program that waits for a log line may then send a signal.
    StopOnSignal(reactor).setServiceParent(service)
    ReopenLogsOnSignal(reactor).setServiceParent(service)
    # No functions to call: the agent reads its files before each connection attempt.
    ReloadOnSighup(reactor).setServiceParent(service)
    settings = options.settings
    limit = agent_stream_limit()
    if limit is not None and limit < settings.streams:
        if settings.streams != AgentSettings("any").streams:  # the default is lowered silently
            log_lowered("--streams", settings.streams, limit)
        settings = replace(settings, streams=limit)
    admin = None if settings.admin == NOWHERE else AgentAdmin(reactor, settings)
    observer = None if admin is None else admin.observer
    agent = Agent(reactor, settings, identity=agent_identity(settings.identity), observer=observer)
    if settings.status_json and sys.__stdout__ is not None:
        # Before the agent starts, to get each status. sys.stdout is the log under twistd.
        out = sys.__stdout__.fileno()
        StatusLines(reactor, agent, out, lambda: _stop(reactor)).setServiceParent(service)
    HealthSocket(reactor, lambda: health_of_agent(agent)).setServiceParent(service)
    agent.setServiceParent(service)
    if admin is not None:
        admin.watch(agent)
        admin.setServiceParent(service)
    return service


def _stop(reactor: Any) -> None:  # noqa: ANN401  # no common type
    def stop() -> None:
        with suppress(ReactorNotRunning):  # it is stopping already
            reactor.stop()

    reactor.callWhenRunning(stop)  # immediately if it runs


def main(arguments: Sequence[str]) -> int:
    """Run ``seance agent`` until a signal; return the exit status."""
    return run_in_foreground("seance agent", Options(), makeService, arguments)
